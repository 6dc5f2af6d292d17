"""Why a thread does not sit as planned, as far as the variables and the cpuset of its process tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lockstep_slurm.placement.cpulist import compress
from lockstep_slurm.placement.observation import COMPUTE, MAIN, Observation
from lockstep_slurm.placement.placement import RankPlacement

BINDING = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_HW_SUBSET")
"""The variables by which an OpenMP runtime binds its threads."""


def cause(role: str, cpus: Sequence[int], plan: RankPlacement, seen: Observation, variables: Mapping[str, str]) -> str:
    """A half sentence for threads of ``role`` that have ``cpus`` against the plan; empty where nothing is known.

    ``variables`` are those that were planned.
    """
    found = ""
    if role == "horovod":
        found = _of_horovod(plan, seen, variables)
    elif role == "ccl":
        found = _of_ccl(seen, variables)
    elif role in (MAIN, COMPUTE):
        found = _of_openmp(cpus, seen, variables)
    if not found and set(cpus) > set(plan.cpus):
        found = "something has set its affinity anew since the rank was placed; look in the script and what it imports"
    return found


def said(name: str, value: str) -> str:
    """``NAME=value`` for a sentence; a list for a whole node can be long."""
    return f"{name}={value}" if len(value) <= 60 else f"{name}={value[:57]}..."


def _of_horovod(plan: RankPlacement, seen: Observation, variables: Mapping[str, str]) -> str:
    name = "HOROVOD_THREAD_AFFINITY"
    value = seen.variables.get(name)
    if value is None or not plan.communication.horovod:
        return f"{name} is not set, though it was planned" if seen.variables and name in variables else ""
    entries = value.split(",")
    if seen.local_rank >= len(entries):
        return f"{said(name, value)} has {len(entries)} entries and so none for local rank {seen.local_rank}"
    entry = entries[seen.local_rank].strip()
    if not entry.isdecimal():
        return f"{said(name, value)} has {entry!r} for local rank {seen.local_rank}, which is no CPU"
    sends = f"{said(name, value)} sends the thread of local rank {seen.local_rank} to CPU {entry}"
    if seen.allowed and int(entry) not in seen.allowed:
        return (
            f"{sends}, outside of the cpuset {compress(seen.allowed)}: Horovod could not move it, and only logged that"
        )
    if int(entry) not in plan.communication.horovod:
        return sends
    return f"{said(name, value)} is as planned, so something else moved it, or Horovod's log says why it did not"


def _of_ccl(seen: Observation, variables: Mapping[str, str]) -> str:
    name = "CCL_WORKER_AFFINITY"
    value, planned = seen.variables.get(name), variables.get(name)
    if not seen.variables or value == planned:
        return ""
    if value is None:
        return f"{name} is not set"
    if value == "auto":
        return f"{name}=auto means the last CPUs of the machine, whatever the rank was given"
    return said(name, value) + (f", planned {planned}" if planned else ", which was not planned")


def _of_openmp(cpus: Sequence[int], seen: Observation, variables: Mapping[str, str]) -> str:
    changed = [
        name for name in BINDING if seen.variables.get(name) is not None and seen.variables[name] != variables.get(name)
    ]
    affinity = seen.variables.get("KMP_AFFINITY", "")
    if "KMP_AFFINITY" in changed and "compact" in affinity:
        onto = " (CPU 0 among them)" if 0 in cpus else ""
        return (
            f"{said('KMP_AFFINITY', affinity)} packs the threads onto the machine's first cores{onto}, "
            "those of every rank of the node onto the same ones"
        )
    return " and ".join(
        said(name, seen.variables[name]) + (f" (planned {variables[name]})" if name in variables else " (not planned)")
        for name in changed
    )
