"""Server-sent events: telling a page what changed, as soon as it is committed."""
