"""The contract of the Slurm clients, and what each keeps besides."""
