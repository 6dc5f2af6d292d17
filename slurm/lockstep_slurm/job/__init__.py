"""A submission: its spec, its identity, and the script made of both."""
