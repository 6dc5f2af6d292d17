"""``examine``: every check of this machine and its cluster, in the order in which a person reads them."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lockstep_slurm.doctor import (
    finding,
    look_here,
    look_ranks,
    look_slurm,
    machine_checks,
    rank_checks,
    site_checks,
    slurm_checks,
)
from lockstep_slurm.doctor.cluster import Cluster, Silence
from lockstep_slurm.doctor.finding import Finding, Level
from lockstep_slurm.doctor.here import SLURM_COMMANDS, Here
from lockstep_slurm.doctor.ranks import NoPython, Ranks

MACHINE, RANKS, SLURM = "this machine", "ranks", "Slurm"


def examine(home: Path, runs: Path, python: Path, slurm_conf: Path | None, *, known: bool, load: bool) -> list[Finding]:
    """What every check finds. Without ``load`` it takes at most five seconds where slurmctld is down.

    ``python``: the ranks' interpreter; ``home``, ``runs``: the folders of Lockstep and of its runs;
    ``slurm_conf``: the cluster's, where it is not Slurm's own place; ``known``: whether there is one at all;
    ``load``: also import torch and Horovod, as a rank would.
    """
    with ThreadPoolExecutor() as threads:
        looking = threads.submit(look_slurm.look, slurm_conf, runs) if known else None
        ranks = look_ranks.look(python, load=load)
        return judge(look_here.look(home, runs), ranks, looking.result() if looking is not None else None)


def judge(here: Here, ranks: Ranks | NoPython, slurm: Cluster | Silence | None) -> list[Finding]:
    """What the checks say of the facts. ``slurm`` None: no cluster is known here."""
    findings = finding.examine(MACHINE, machine_checks.CHECKS, here)
    if isinstance(ranks, NoPython):
        findings += finding.examine(RANKS, rank_checks.NONE, ranks)
    else:
        findings += finding.examine(RANKS, rank_checks.CHECKS, ranks)
    if isinstance(slurm, Silence):
        findings += finding.examine(SLURM, site_checks.SILENT, slurm)
    elif slurm is not None:
        findings += finding.examine(SLURM, site_checks.CHECKS, slurm)
        findings += finding.examine(SLURM, slurm_checks.CHECKS, slurm)
    elif set(SLURM_COMMANDS) & here.programs:
        findings += finding.examine(SLURM, site_checks.UNKNOWN, here)
    return findings


def worst(findings: Iterable[Finding]) -> Level:
    """The highest level among them."""
    return max((found.level for found in findings), default=Level.OK)
