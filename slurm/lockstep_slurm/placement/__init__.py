"""Where ranks, compute threads and communication threads sit: pure, standard library only (Python >= 3.9)."""

from lockstep_slurm.placement.environment import environment
from lockstep_slurm.placement.plan import PlacementError, RankPlacement, plan

__all__ = ["PlacementError", "RankPlacement", "environment", "plan"]
