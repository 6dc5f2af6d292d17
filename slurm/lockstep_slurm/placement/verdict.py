"""``Verdict``: the plan against what the kernel says, thread by thread, a plain sentence for each deviation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

AS_PLANNED, DEGRADED, DEVIATES = "as planned", "degraded", "deviates"


@dataclass(frozen=True)
class ThreadVerdict:
    """One thread: where it was planned and where the kernel lets it run."""

    tid: int
    role: str
    name: str
    planned: tuple[int, ...]
    """CPUs that the plan gives its role."""
    observed: tuple[int, ...]
    last: int
    deviation: str = ""
    """A plain sentence; empty: as planned."""


@dataclass(frozen=True)
class Verdict:
    """One rank's verdict at one moment."""

    rank: int
    local_rank: int
    node: str
    when: str
    """``init`` or ``steps``, as ``Observation.when``."""
    result: str
    """``as planned``; ``degraded``: as planned by a plan that names what it could not do; ``deviates``."""
    threads: tuple[ThreadVerdict, ...]
    deviations: tuple[str, ...]
    """All sentences, those about the rank as a whole (its grant, its memory, its variables) first."""
    degradations: tuple[str, ...]
    """The plan's own."""

    def document(self) -> dict[str, Any]:
        """As JSON takes it; ``Verdict.parse`` is the inverse."""
        return asdict(self)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Verdict:
        """From ``document()``'s form."""
        threads = tuple(
            ThreadVerdict(
                one["tid"],
                one["role"],
                one["name"],
                tuple(one["planned"]),
                tuple(one["observed"]),
                one["last"],
                one["deviation"],
            )
            for one in document["threads"]
        )
        return cls(
            rank=document["rank"],
            local_rank=document["local_rank"],
            node=document["node"],
            when=document["when"],
            result=document["result"],
            threads=threads,
            deviations=tuple(document["deviations"]),
            degradations=tuple(document["degradations"]),
        )
