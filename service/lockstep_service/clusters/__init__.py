"""What Slurm has: the last answer of each cluster."""
