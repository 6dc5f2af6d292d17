"""``verify``: one rank's threads, memory and variables as the kernel has them, against the plan: a ``Verdict``.

What each role must have:

- main, compute: exactly the compute CPUs; where threads are bound one by one (the planned ``OMP_PROC_BIND``), one
  compute CPU each, all different. Together they are as many as there are compute CPUs.
- communication: exactly the CPU of the role; of several, all or one each. A role without CPUs of its own: within the
  compute CPUs.
- loader: within the loader CPUs (without any: the compute CPUs).
- imported, unclassified: within the CPUs of the rank.

Memory: the planned policy; and of the resident pages no more than ``REMOTE`` outside the planned domains, beyond what
``LIBRARIES`` allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Optional

from lockstep_slurm.placement.causes import cause
from lockstep_slurm.placement.cpulist import compress, parse
from lockstep_slurm.placement.observation import COMPUTE, IMPORTED, LOADER, MAIN, Observation
from lockstep_slurm.placement.placement import RankPlacement
from lockstep_slurm.placement.request import ROLES
from lockstep_slurm.placement.slots import ONE, ONE_OR_ALL, Slot, slots
from lockstep_slurm.placement.verdict import AS_PLANNED, DEGRADED, DEVIATES, ThreadVerdict, Verdict

LIBRARIES = 131_072
"""Pages that may lie anywhere: 512 MiB in pages of 4 KiB. Pages of files, torch's libraries foremost, stay where
whichever process of the node first read them put them, and no policy moves them."""
REMOTE = 0.10
"""Share of the resident pages that may lie outside the planned domains beyond ``LIBRARIES``: a kernel spills a few
pages when a domain runs short; a tenth is where it stops being a few."""
LATER = ("ccl", "exchange")
"""oneCCL starts its workers in the first collective, a training the exchange thread with its optimizer."""
_NOUNS = {
    MAIN: ("the main thread", "main threads"),
    COMPUTE: ("a compute thread", "compute threads"),
    "horovod": ("Horovod's background thread", "threads of Horovod's"),
    "gloo": ("Gloo's socket thread", "threads of Gloo's"),
    "exchange": ("the exchange thread", "exchange threads"),
    "checkpoint": ("the thread that saves", "threads that save"),
    "ccl": ("a worker of oneCCL's", "workers of oneCCL's"),
    LOADER: ("a loader", "loaders"),
    IMPORTED: ("a thread that an import made", "threads that imports made"),
}
_UNKNOWN = ("a thread of unknown birth", "threads of unknown birth")


def verify(
    plan: RankPlacement,
    seen: Observation,
    *,
    node: str,
    grant: Sequence[str] = (),
    variables: Mapping[str, str] = {},
    size: Optional[int] = None,  # noqa: UP045 - read by Python 3.9 on compute nodes
) -> Verdict:
    """The verdict on ``seen``. ``grant`` is what ``judge`` said of the node, ``variables`` are those that were planned.

    ``size`` is the number of ranks of the job, by default as the observed variables have it (WORLD_SIZE,
    HOROVOD_SIZE): a rank alone has nobody to talk to, and Gloo makes no thread for it. Threads that deviate alike are
    one sentence, which each of them carries.
    """
    who = f"rank {seen.rank} on {node}"
    may = slots(plan, seen.threads, one_by_one=variables.get("OMP_PROC_BIND", "false").lower() != "false")
    sentences = _threads(who, plan, seen, may, variables)
    rank_level = [
        *_cpuset(plan, seen),
        *_compute_threads(plan, seen, variables),
        *_missing(plan, seen, _size(seen, variables) if size is None else size),
        *_memory(plan, seen),
    ]
    deviations = tuple(dict.fromkeys([*grant, *(f"{who}: {what}" for what in rank_level), *filter(None, sentences)]))
    return Verdict(
        rank=seen.rank,
        local_rank=seen.local_rank,
        node=node,
        when=seen.when,
        result=DEVIATES if deviations else DEGRADED if plan.degraded else AS_PLANNED,
        threads=tuple(
            ThreadVerdict(thread.tid, thread.role, thread.name, slot.planned, thread.cpus, thread.last, sentence)
            for thread, slot, sentence in zip(seen.threads, may, sentences)  # noqa: B905 - Python 3.9 has no strict
        ),
        deviations=deviations,
        degradations=plan.degraded,
    )


def summary(verdict: Verdict) -> str:
    """One line for a log: ``rank 3 on n2: as planned: 14 threads``."""
    who, count = f"rank {verdict.rank} on {verdict.node}", len(verdict.threads)
    threads = f"{count} thread{'' if count == 1 else 's'}"
    if verdict.result == AS_PLANNED:
        return f"{who}: as planned: {threads}"
    sentences = verdict.deviations or verdict.degradations
    first = sentences[0]
    first = first[len(who) + 2 :] if first.startswith(f"{who}: ") else first
    more = f" (and {len(sentences) - 1} more)" if len(sentences) > 1 else ""
    if verdict.result == DEGRADED:
        return f"{who}: degraded: {threads} as planned, by a plan that says: {first}{more}"
    wrong = sum(1 for thread in verdict.threads if thread.deviation)
    return f"{who}: deviates: {wrong} of {threads}: {first}{more}"


def _threads(
    who: str, plan: RankPlacement, seen: Observation, may: Sequence[Slot], variables: Mapping[str, str]
) -> list[str]:
    """For each thread its sentence, or nothing."""
    threads = seen.threads
    wrong = [index for index, slot in enumerate(may) if not slot.takes(threads[index].cpus)]
    sentences = [""] * len(threads)
    for one, other in _swapped(wrong, seen, may):
        first, second = threads[one], threads[other]
        sentences[one] = sentences[other] = (
            f"{who}: the masks of {_NOUNS.get(first.role, _UNKNOWN)[0]} ({first.tid}) and "
            f"{_NOUNS.get(second.role, _UNKNOWN)[0]} ({second.tid}) are swapped: they may run on "
            f"{compress(first.cpus)} and {compress(second.cpus)}, planned on {_planned(may[one])} and "
            f"{_planned(may[other])}"
        )
    alike: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for index in wrong:
        if not sentences[index]:
            alike.setdefault((threads[index].role, tuple(sorted(threads[index].cpus))), []).append(index)
    for (role, cpus), members in alike.items():
        nouns = _NOUNS.get(role, _UNKNOWN)
        what = nouns[0] if len(members) == 1 else f"{len(members)} {nouns[1]}"
        numbers = compress(threads[index].tid for index in members)
        reason = cause(role, cpus, plan, seen, variables)
        harm = set(cpus) & set(plan.communication.cpus) if role == LOADER else None
        sentence = f"{who}: {what} ({numbers}) may run on {compress(cpus)}, planned on {_planned(may[members[0]])}"
        if harm:
            sentence += f"; on {compress(harm)} it is in the way of communication threads"
        for index in members:
            sentences[index] = f"{sentence}: {reason}" if reason else sentence
    return sentences


def _planned(slot: Slot) -> str:
    alone = slot.mode in (ONE, ONE_OR_ALL) and len(slot.planned) > 1
    return f"one of {compress(slot.planned)} for itself" if alone else compress(slot.planned)


def _swapped(wrong: Sequence[int], seen: Observation, may: Sequence[Slot]) -> list[tuple[int, int]]:
    """Pairs of deviating threads of which each has what the other should have, where that is said of no third."""
    masks = {index: frozenset(seen.threads[index].cpus) for index in wrong}
    partners = {
        one: [
            other
            for other in wrong
            if masks[other] != masks[one]
            and may[one].takes(tuple(masks[other]))
            and may[other].takes(tuple(masks[one]))
        ]
        for one in wrong
    }
    return [
        (one, others[0])
        for one, others in partners.items()
        if len(others) == 1 and len(partners[others[0]]) == 1 and one < others[0]
    ]


def _cpuset(plan: RankPlacement, seen: Observation) -> list[str]:
    outside = set(plan.cpus) - set(seen.allowed)
    if not seen.allowed or not outside:
        return []
    return [f"its cpuset allows {compress(seen.allowed)}, which leaves out {compress(outside)} of the plan"]


def _compute_threads(plan: RankPlacement, seen: Observation, variables: Mapping[str, str]) -> list[str]:
    """What is wrong with the number of compute threads. A program without OpenMP has none, and needs none."""
    if not any(thread.role == MAIN for thread in seen.threads):
        return ["nothing was seen of its threads, so nothing is proved"]
    count, wanted = 1 + sum(1 for thread in seen.threads if thread.role == COMPUTE), len(plan.compute)
    value, planned = seen.variables.get("OMP_NUM_THREADS"), variables.get("OMP_NUM_THREADS", str(wanted))
    changed = value is not None and value != planned
    if count == wanted or (count == 1 and not changed):
        return []
    computes = f"{count} threads compute" if count > 1 else "1 thread computes"
    if changed:
        reason = f"OMP_NUM_THREADS is {value}, planned {planned}"
    else:
        reason = f"OMP_NUM_THREADS is {planned} as planned, so the script sets a number of its own" if value else ""
    few = ", so they wait for one another" if count > wanted else ", so CPUs stay idle"
    return [f"{computes} on {wanted} compute CPUs ({compress(plan.compute)}){few}{': ' if reason else ''}{reason}"]


def _size(seen: Observation, variables: Mapping[str, str]) -> Optional[int]:  # noqa: UP045
    for name in ("WORLD_SIZE", "HOROVOD_SIZE"):
        value = seen.variables.get(name, variables.get(name, ""))
        if value.isdecimal():
            return int(value)
    return None


def _missing(plan: RankPlacement, seen: Observation, size: Optional[int]) -> list[str]:  # noqa: UP045
    """Communication threads that were planned and not seen.

    torch.distributed's Gloo needs no Horovod: known by what was started, not by its threads' names, which older torch
    does not give and torch 2.13 gives a moment after their birth. A rank alone makes no Gloo thread. ``LATER`` start
    after ``init``. Without any communication thread later than ``init``, no
    communication library has been started, or not yet.
    """
    counts = {role: sum(1 for thread in seen.threads if thread.role == role) for role in ROLES}
    if not seen.threads or (seen.when != "init" and not any(counts.values())):
        return []
    of_torch = bool(seen.libraries) and "horovod" not in seen.libraries
    found = []
    for role in ROLES:
        cpus = getattr(plan.communication, role)
        needless = (of_torch and role != "gloo") or (size == 1 and role != "horovod")
        needless = needless or (role in LATER and seen.when == "init")
        if not cpus or needless or counts[role] >= (len(set(cpus)) if role == "ccl" else 1):
            continue
        what = f"{len(set(cpus))} workers of oneCCL's were" if role == "ccl" else f"{_NOUNS[role][0]} was"
        found.append(f"{what} planned on {compress(cpus)}, and {counts[role] or 'none'} seen")
    return found


def _memory(plan: RankPlacement, seen: Observation) -> list[str]:
    found = []
    policy, _, domains = seen.memory_policy.partition(":")
    if policy and not _as_planned(plan, policy, domains):
        wanted = plan.memory.policy + (f" on domain {compress(plan.memory.domains)}" if plan.memory.domains else "")
        found.append(f"its memory policy is {seen.memory_policy}, planned {wanted}")
    own = set(plan.memory.domains or plan.numa)
    total = sum(seen.pages.values())
    outside = {domain: pages for domain, pages in seen.pages.items() if domain not in own and pages}
    remote = sum(outside.values())
    if own and remote - LIBRARIES > REMOTE * total:
        found.append(
            f"{remote / total:.0%} of its memory ({remote:,} of {total:,} pages) lies on NUMA domain "
            f"{compress(outside)}, planned on {compress(own)}: that was full, or what the rank uses was "
            "made by a process elsewhere"
        )
    return found


def _as_planned(plan: RankPlacement, policy: str, domains: str) -> bool:
    """Whether get_mempolicy's word is the plan's. ``preferred`` can name but one domain on an older kernel (5.14)."""
    wanted, own = plan.memory.policy, set(plan.memory.domains)
    if wanted == "local":
        return policy in ("default", "local")
    try:
        there = set(parse(domains))
    except ValueError:
        return False  # whatever it is, it is quoted
    if wanted == "bind":
        return policy == "bind" and there == own
    # Of several domains numa_maps says "prefer (many):0-1", of which a reader may keep the first word alone.
    return policy.startswith("prefer") and (there <= own if there else len(own) > 1)
