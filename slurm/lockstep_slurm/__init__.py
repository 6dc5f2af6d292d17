"""From a job spec to a running Slurm job, and the ``lockstep`` command."""
