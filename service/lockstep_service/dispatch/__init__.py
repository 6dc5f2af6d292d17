"""The two loops that touch Slurm (submit, reconcile), and the reading of spools."""
