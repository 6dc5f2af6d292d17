"""A job's timeline: what happened to it, one plain sentence each, derived from what changes in its row."""
