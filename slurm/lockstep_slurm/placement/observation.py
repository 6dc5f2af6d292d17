"""``Observation``: what the kernel says of the threads of one rank, and how each thread came to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

MAIN, COMPUTE, LOADER, IMPORTED, UNCLASSIFIED = "main", "compute", "loader", "imported", "unclassified"
"""Roles beside the communication roles (``request.ROLES``): the first thread; OpenMP's pool, born in the first parallel
region; a worker that loads data, a process of its own; a thread that a library made while it was imported; a thread
whose birth nobody saw."""


@dataclass(frozen=True)
class Thread:
    """One thread (or loader process) of a rank. A role comes from its birth and never from its affinity."""

    tid: int
    role: str
    name: str
    """The kernel's short name (comm)."""
    cpus: tuple[int, ...]
    """The CPUs that the kernel allows it (Cpus_allowed_list), sorted."""
    last: int
    """The CPU on which it last ran."""


@dataclass(frozen=True)
class Observation:
    """All threads of one rank at one moment."""

    rank: int
    local_rank: int
    pid: int
    when: str
    """``init``: right after the communication library started; ``steps``: after the first training steps."""
    threads: tuple[Thread, ...]
    allowed: tuple[int, ...]
    """The CPUs that the cgroup's cpuset lets any of them have; empty: not known."""
    memory_policy: str = ""
    """What get_mempolicy says: ``default``, ``bind:0``, ``prefer:0``...; empty where the kernel has no NUMA."""
    pages: Mapping[int, int] = field(default_factory=dict)
    """Resident pages by NUMA domain; empty where the kernel does not say."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """The variables that placement works by, as the process has them now (OMP_*, KMP_*, ...)."""
    libraries: tuple[str, ...] = ()
    """The communication libraries that it has started, ``horovod`` and ``torch`` (torch.distributed); empty: not known,
    or none."""

    def document(self) -> dict[str, Any]:
        """As JSON takes it; ``Observation.parse`` is the inverse."""
        document = asdict(self)
        document["pages"] = {str(domain): pages for domain, pages in self.pages.items()}
        return document

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Observation:
        """From ``document()``'s form."""
        threads = tuple(
            Thread(one["tid"], one["role"], one["name"], tuple(one["cpus"]), one["last"]) for one in document["threads"]
        )
        return cls(
            rank=document["rank"],
            local_rank=document["local_rank"],
            pid=document["pid"],
            when=document["when"],
            threads=threads,
            allowed=tuple(document["allowed"]),
            memory_policy=document["memory_policy"],
            pages={int(domain): pages for domain, pages in document["pages"].items()},
            variables=dict(document["variables"]),
            libraries=tuple(document.get("libraries", ())),
        )
