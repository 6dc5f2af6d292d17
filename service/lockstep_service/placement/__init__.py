"""Where the ranks of a job were to sit, and where the kernel says that they do."""
