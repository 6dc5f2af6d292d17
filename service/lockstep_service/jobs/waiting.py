"""Why a job waits, in plain words: from Slurm's reason codes to a sentence, and when a new estimate is news. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

_ESTIMATE = timedelta(seconds=60)
"""By how much Slurm's estimate of a start has to move at least to be news: it computes it anew every few seconds."""

# Slurm's words (man squeue, JOB REASON CODES; slurm_protocol_defs.c's job_reason_string; 22.05 to 25.11).
REASONS: Final[dict[str, str]] = {
    "Priority": "Jobs of higher priority are before it in the queue",
    "Resources": "It is the next, and waits until enough nodes, CPUs or memory are free",
    "Dependency": "It waits for another Slurm job that it depends on",
    "DependencyNeverSatisfied": "The Slurm job before it did not end as it had to, so it never starts: cancel it",
    "BeginTime": "Its time to start has not come; after a requeue Slurm waits about two minutes",
    "Licenses": "It waits for a licence that is in use",
    "Reservation": "It waits for its reservation to begin, or to have room",
    "ReservationDeleted": "Its reservation was deleted, and Slurm holds it: submit it again without, or with another",
    "ReqNodeNotAvail": "A node that it needs is not available: down, drained, or reserved",
    "NodeDown": "A node that it needs is down",
    "FrontEndDown": "No front-end node is up to start it",
    "JobHeldUser": "It is held by its owner: it starts once it is released",
    "JobHeldAdmin": "It is held by an administrator, or by root: it starts once they release it",
    "JobHoldMaxRequeue": "Slurm put it back into the queue as often as it may, and holds it: see why, then release it",
    "PartitionDown": "Its partition is down: nothing is started there until an administrator brings it up",
    "PartitionInactive": "Its partition is inactive: nothing is started there until an administrator changes that",
    "PartitionNodeLimit": "It asks for more or fewer nodes than its partition allows, or for some that are down",
    "PartitionTimeLimit": "It asks for more time than its partition allows: ask for less by resources.time",
    "BadConstraints": "Nothing that the cluster has fits what it asks for: change its resources",
    "Cleaning": "Slurm is still cleaning up after its last run",
    "Prolog": "The nodes are being prepared for it (prolog)",
    "SchedDefer": "Slurm puts off looking for a place for it, as its administrator set it to",
    "InvalidAccount": "Its account is not, or no longer, valid: submit it with another",
    "InvalidQOS": "Its quality of service (QOS) is not, or no longer, valid: submit it with another",
    "AccountNotAllowed": "Its account may not use this partition: submit it with another, or elsewhere",
    "QOSNotAllowed": "Its quality of service (QOS) may not be used here: submit it with another",
    "QOSUsageThreshold": "What was used under its quality of service (QOS) is above the share that it may have",
    "AssociationJobLimit": "Its account has as many jobs as it may have at once",
    "AssociationResourceLimit": "Its account uses as much as it may at once",
    "AssociationTimeLimit": "Its account has used up its time",
    "QOSJobLimit": "Its quality of service (QOS) has as many jobs as it may have at once",
    "QOSResourceLimit": "Its quality of service (QOS) uses as much as it may at once",
    "QOSTimeLimit": "Its quality of service (QOS) has used up its time",
    "JobArrayTaskLimit": "As many tasks of its array run as it allows at once",
    "BurstBufferResources": "It waits for room in the burst buffer",
    "BurstBufferStageIn": "Its files are being brought into the burst buffer",
    "BurstBufferOperation": "The burst buffer could not do what it was asked; see the administrator",
    "PowerNotAvail": "The cluster has no power left for more nodes at the moment",
    "PowerReserved": "Power is kept for a reservation",
    "MaxPoweredUpNodes": "As many nodes are powered up as the cluster allows",
    "MaxMemPerLimit": "It asks for more memory per CPU or node than the cluster allows: ask for less by resources.mem",
    "MpiPortsBusy": "No ports are free on the nodes for its steps",
    "FedJobLock": "The clusters of the federation are settling which of them runs it",
    "DeadLine": "It can no longer end before its deadline: cancel it",
    "SystemFailure": "Slurm itself failed to start it; an administrator can find out why",
    "JobLaunchFailure": "Slurm could not launch it on its nodes",
    "launch failed requeued held": "Slurm could not launch it, put it back and holds it: release it to try again",
    "job requeued in held state": "It was put back into the queue and is held: release it to run it again",
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions": (
        "The nodes that it needs are down, drained, or reserved for jobs of higher priority"
    ),
}  # fmt: skip

_LIMIT = re.compile(
    r"(?P<whose>QOS|Assoc)?(?P<kind>Grp|Max|Min)"
    r"(?P<what>SubmitJobs?|Jobs?|CPU|Cpu|Node|Memory|Mem|GRES|License|Billing|Energy|BB|WallDuration|Wall|Unknown)"
    r"(?P<time>Run)?(?P<minutes>Minutes)?(?:Per(?P<per>User|Account|Acct|Job|Node))?(?:Limit|NotSatisfied)?"
)
_WHAT = {
    "Job": "jobs", "Jobs": "jobs", "SubmitJob": "jobs in the queue", "SubmitJobs": "jobs in the queue",
    "CPU": "CPUs", "Cpu": "CPUs", "Node": "nodes", "Memory": "memory", "Mem": "memory", "GRES": "generic resources",
    "License": "licences", "Billing": "billing units", "Energy": "energy", "BB": "burst buffer",
    "Wall": "time", "WallDuration": "time", "Unknown": "of a resource",
}  # fmt: skip
_UNAVAILABLE = re.compile(r"UnavailableNodes:(?P<nodes>\S*)")


def in_words(told: str | None) -> str | None:
    """What Slurm's reason ``told`` means for whoever waits; None where Slurm says none.

    A word that is in no table is given as Slurm said it: nothing is guessed.
    """
    if told is None or not (said := told.replace("_", " ").strip("() ")) or said == "None":
        return None
    if (plain := REASONS.get(said)) is not None:
        return plain
    if said.startswith("ReqNodeNotAvail"):
        return _not_available(told, said.removeprefix("ReqNodeNotAvail").lstrip(", "))
    if (limit := _LIMIT.fullmatch(said)) is not None:
        return _limited(limit)
    return f"Slurm says: {told}"


def estimate(kept: datetime | None, told: datetime | None) -> datetime | None:
    """The estimate of the start to keep, of the one ``kept`` and the one just ``told``: small moves are no news."""
    return kept if kept is not None and told is not None and abs(told - kept) < _ESTIMATE else told


def _not_available(told: str, more: str) -> str:
    """``more``: what Slurm adds, such as ``UnavailableNodes:node[1-2]`` or ``Reserved for maintenance``."""
    if "maintenance" in more:
        return "The nodes that it needs are reserved for maintenance before it could end; it starts afterwards"
    if "reserved for other job" in more:
        return "A node that it needs is, or may be, reserved for another job"
    nodes = _UNAVAILABLE.search(told)
    if nodes is not None:
        named = f": Slurm names {nodes['nodes']}" if nodes["nodes"] else ""
        return f"Nodes that it needs are not available (down, drained, or reserved){named}"
    return f"{REASONS['ReqNodeNotAvail']} (Slurm says: {more})"


def _limited(limit: re.Match[str]) -> str:
    """A limit of the cluster's accounting, by the parts of its name, such as ``QOSMaxCpuPerUserLimit``."""
    what = _WHAT[limit["what"]]
    if limit["minutes"]:
        what = f"{what.removesuffix('s')} minutes"
    owner = {"QOS": "its quality of service (QOS)", "Assoc": "its account", None: "the cluster"}[limit["whose"]]
    if limit["kind"] == "Min":
        return f"It asks for fewer {what} than {owner} demands: ask for more, or submit it elsewhere"
    if limit["per"] in {"Job", "Node"} or limit["what"] == "WallDuration":
        one = (limit["per"] or "Job").lower()
        return f"It asks for more {what} than {owner} allows one {one}: ask for less, or submit it elsewhere"
    whom = {"User": "one user ", "Account": "one account ", "Acct": "one account "}.get(limit["per"] or "", "")
    until = (
        "they are used up" if limit["minutes"] and not limit["time"] else "it starts once enough of what runs has ended"
    )
    return f"{owner[:1].upper()}{owner[1:]} allows {whom}no more {what}: {until}"
