"""Where ranks, compute threads and communication threads sit: pure, standard library only (Python >= 3.9).

Values are in ``topology``, ``request``, ``placement``, ``observation`` and ``verdict``; what makes them, as data flows:

machine     ``hwloc`` (``hwloc_document``), ``sysfs``, ``slurm_node`` -> ``assemble`` -> a ``topology``
question    ``from_spec`` -> a ``request``
plan        ``granted``, ``distribute``, ``policies``, ``memory``, ``remarks`` -> ``plan`` -> a ``placement``
to the job  ``environment``: its variables; ``picture``: the core map
proof       an ``observation``; ``slots``, ``causes`` -> ``verify`` -> a ``verdict``; ``grant``: what Slurm gave
for all     ``cpulist``, ``errors``
"""

from lockstep_slurm.placement.environment import common_environment, environment
from lockstep_slurm.placement.errors import PlacementError, TopologyError
from lockstep_slurm.placement.from_spec import request_of
from lockstep_slurm.placement.grant import counts_cores, judge
from lockstep_slurm.placement.hwloc import from_xml
from lockstep_slurm.placement.observation import Observation, Thread
from lockstep_slurm.placement.placement import Communication, Memory, Placement, RankPlacement
from lockstep_slurm.placement.plan import plan
from lockstep_slurm.placement.request import Request, Threads
from lockstep_slurm.placement.slurm_node import abstract_ids, from_slurm, linux_ids
from lockstep_slurm.placement.sysfs import from_sysfs
from lockstep_slurm.placement.topology import Card, Core, NumaDomain, Topology
from lockstep_slurm.placement.verdict import ThreadVerdict, Verdict
from lockstep_slurm.placement.verify import summary, verify

__all__ = [
    "Card",
    "Communication",
    "Core",
    "Memory",
    "NumaDomain",
    "Observation",
    "Placement",
    "PlacementError",
    "RankPlacement",
    "Request",
    "Thread",
    "ThreadVerdict",
    "Threads",
    "Topology",
    "TopologyError",
    "Verdict",
    "abstract_ids",
    "common_environment",
    "counts_cores",
    "environment",
    "from_slurm",
    "from_sysfs",
    "from_xml",
    "judge",
    "linux_ids",
    "plan",
    "request_of",
    "summary",
    "verify",
]
