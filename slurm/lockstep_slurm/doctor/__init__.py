"""``lockstep doctor``: what is missing on this machine or set dangerously on the cluster, and the cure.

``look_here`` and ``look_slurm`` gather facts at the edge; every check is a function of those facts alone.
"""
