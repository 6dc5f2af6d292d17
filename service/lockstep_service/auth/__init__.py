"""Who may call: the service's token, the browser's session, the write-only token of one job."""
