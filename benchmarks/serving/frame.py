"""What the parts of ``benchmarks.service`` have in common: how much is measured, what is found, and paired rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.report import Row, paired


@dataclass(frozen=True)
class Form:
    """What a part is told."""

    quick: bool
    """``--quick``: all parts together take at most 8 minutes, in place of 45."""
    folder: Path
    """A folder of the part's own, empty, short enough for sockets in it, and removed afterwards."""
    cache: Path
    """Where a peer's environment stays from one call to the next."""
    say: Callable[[str], None]
    """Tells the person who waits what goes on."""


@dataclass(frozen=True)
class Found:
    """What a part found. ``notes`` are sentences that belong to the table: what it could not measure here, and why."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return {"rows": [asdict(row) for row in self.rows], "notes": list(self.notes)}

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Found:
        """From ``document()``."""
        return cls(tuple(Row(**row) for row in document["rows"]), tuple(document["notes"]))


def take_turns(arms: Mapping[str, Callable[[int], float]], rounds: int) -> dict[str, list[float]]:
    """What each arm's cost was in each of ``rounds`` rounds, by name. An arm is told the round's number.

    Each round begins with another arm: whatever changes on the machine, and whatever an arm leaves behind for the next,
    meets all of them.
    """
    names = list(arms)
    costs: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            costs[name].append(arms[name](number))
    return costs


def per_second(row: Row, target: float | None) -> Row:
    """A row of seconds a piece, as pieces a second; its ratio is of costs already, and stays. With its target."""
    return replace(row, ours=1 / row.ours, peer=1 / row.peer, target=target)


def rate(
    *, case: str, metric: str, unit: str, costs: Mapping[str, Sequence[float]], ours: str, peer: str, valid: bool,
    target: float | None = None,
) -> Row:  # fmt: skip
    """The row of two arms of ``take_turns`` whose costs are seconds a piece, as pieces a second."""
    row = paired(
        case=case, metric=metric, unit=unit, ours=costs[ours], peer=costs[peer], peer_name=peer, valid=valid
    )  # fmt: skip
    return per_second(row, target)
