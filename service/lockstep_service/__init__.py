"""The service: stores submissions, hands them to Slurm, follows them, and keeps what their ranks report."""
