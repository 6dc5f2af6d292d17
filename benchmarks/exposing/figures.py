"""From what the contenders' turns took to rows: ratios, what is recovered of exposed communication, and notes. Pure.

Exposed is what a step takes more than the same step of ranks that do not communicate, in the same rounds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.exposing.bound import Layer, least_exposed
from benchmarks.exposing.cases import CARRIED, DDP, PLAIN, STOCK, Case
from benchmarks.report import Row, interval, paired

SLOWER_THAN_STOCK = 1.01
SLOWER_THAN_DDP = 1.02
SLOWER_THAN_DDP_CLEAR = 1.05
RATIO = 2.2
RECOVERED = 0.8
SCALING = 0.97
WORTH = 0.05
"""Of a step: where less than this lies between stock and the floor, nothing worth it is left to recover."""
NEAR = 0.1
"""How far the link may be from what the case says, beside what computing took in the turns."""
QUIET = 0.05
"""Of a CPU: where programs of others had more than this, no time says anything of exposed communication."""
LEAST_EXPOSED = 0.01
"""Of a step: less than this is not told from nothing, and nothing is divided by less."""


@dataclass(frozen=True)
class Piece:
    """A case on one link, as it was measured."""

    case: Case
    link: float | None
    rate: str | None
    alone: Mapping[str, Any]
    """All gradients averaged with nothing else: ``seconds``, ``cpu`` by thread, ``bytes``."""
    layers: tuple[Layer, ...]
    turns: Mapping[str, Sequence[Mapping[str, Any]]]
    """By contender and round: ``seconds`` and ``cpu`` of a step."""
    states: Mapping[str, Sequence[Mapping[str, Any]]]
    """By contender and rank, after as many steps of each: ``losses`` of all steps, ``digest`` of the parameters."""
    ends: Mapping[str, Sequence[Mapping[str, Any]]]
    """The same at the very end, when ours has made more steps than the others."""

    @classmethod
    def parse(cls, case: Case, found: Mapping[str, Any]) -> Piece:
        """From what was kept as JSON: the fields but for the case."""
        return cls(case=case, **{**found, "layers": tuple(Layer(**one) for one in found["layers"])})

    @property
    def name(self) -> str:
        """As the table has it."""
        return f"{self.case.name}, {link_name(self.link)}"

    def seconds(self, kind: str) -> list[float]:
        """Of a step, by round."""
        return [one["seconds"] for one in self.turns[kind]]

    def median(self, kind: str) -> float:
        """Seconds of a step."""
        return statistics.median(self.seconds(kind))

    def cpu(self, kind: str) -> dict[str, float]:
        """CPU seconds of a step, by thread."""
        return {
            name: statistics.median(one["cpu"][name] for one in self.turns[kind]) for name in self.turns[kind][0]["cpu"]
        }

    @property
    def foreign(self) -> float:
        """The share of a CPU that programs of others had, in the median turn."""
        return statistics.median(float(one["foreign"]) for turns in self.turns.values() for one in turns)

    @property
    def factor(self) -> float:
        """How many times as long communication alone takes as a step without any, in its turns."""
        return float(self.alone["seconds"]) / self.median(PLAIN)

    @property
    def bound(self) -> float:
        """Seconds of communication that no order can hide."""
        return least_exposed(self.layers, self.alone["seconds"] / self.alone["bytes"])

    @property
    def cost(self) -> float:
        """CPU seconds of the exchange alone, without the thread that trains: they are taken from computing."""
        return float(sum(seconds for name, seconds in self.alone["cpu"].items() if name != "training"))


def link_name(link: float | None) -> str:
    """In words."""
    return "link without limit" if link is None else f"communication = {link:g} x computing"


def rows_of(piece: Piece) -> list[Row]:
    """Every comparison of the piece."""
    return [*_rows(piece)]


def _rows(piece: Piece) -> Iterator[Row]:
    for ours in (kind for kind in CARRIED if kind in piece.turns):
        if STOCK in piece.turns:
            yield replace(_step(piece, ours, STOCK), target=1 / SLOWER_THAN_STOCK)
            yield _exposed(piece, ours)
            if piece.link is not None:
                yield from _recovered(piece, ours)
        if DDP in piece.turns:
            most = SLOWER_THAN_DDP_CLEAR if piece.link is None else SLOWER_THAN_DDP
            yield replace(_step(piece, ours, DDP), target=1 / most)
        if STOCK not in piece.turns:
            yield replace(_step(piece, ours, PLAIN, metric="1 -> 2 ranks, step"), target=SCALING)
            yield _costs(piece, ours)


def equal(piece: Piece, kinds: Sequence[str]) -> bool:
    """Whether these trained the same, alone on the machine and over the link that the case says.

    The same: equal losses at every step of each rank and equal parameters, after as many steps of each. Ours go on for
    longer: over every transport alike, and with equal parameters on all ranks.
    """
    states = [piece.states[kind] for kind in kinds]
    longer = [piece.ends[kind] for kind in CARRIED if kind in piece.ends]
    return (
        piece.foreign <= QUIET
        and (piece.link is None or abs(piece.factor / piece.link - 1) <= NEAR)
        and _same_losses(states)
        and _same_losses(longer)
        and len({rank["digest"] for state in states for rank in state}) == 1
        and all(len({rank["digest"] for rank in piece.ends[kind]}) == 1 for kind in kinds)
    )


def _same_losses(states: Sequence[Sequence[Mapping[str, Any]]]) -> bool:
    """Whether all states have the same finite losses on each rank, in those steps that all have made."""
    steps = min(len(rank["losses"]) for state in states for rank in state)
    of_ranks = [{tuple(state[rank]["losses"][:steps]) for state in states} for rank in range(len(states[0]))]
    return all(len(losses) == 1 and all(map(math.isfinite, *losses)) for losses in of_ranks)


def _step(piece: Piece, ours: str, peer: str, metric: str = "step") -> Row:
    kinds = [kind for kind in (ours, peer) if kind != PLAIN]
    return paired(
        case=f"{piece.name}; {ours}",
        metric=metric,
        unit="ms",
        ours=[1e3 * one for one in piece.seconds(ours)],
        peer=[1e3 * one for one in piece.seconds(peer)],
        peer_name=peer,
        valid=equal(piece, kinds),
    )


def _costs(piece: Piece, ours: str) -> Row:
    return paired(
        case=f"{piece.name}; {ours}",
        metric="CPU time of a step",
        unit="ms",
        ours=[1e3 * sum(one["cpu"].values()) for one in piece.turns[ours]],
        peer=[1e3 * sum(one["cpu"].values()) for one in piece.turns[PLAIN]],
        peer_name=PLAIN,
        valid=equal(piece, [ours]),
    )


def _exposed(piece: Piece, ours: str) -> Row:
    wanted = piece.case.ratio_wanted and piece.link == 1.0
    stock, own, plain = piece.seconds(STOCK), piece.seconds(ours), piece.seconds(PLAIN)
    ratio, low, high = interval(len(own), lambda rounds: exposed_ratio(*picked(rounds, stock, own, plain)))
    return Row(
        case=f"{piece.name}; {ours}",
        metric="exposed communication",
        unit="ms",
        ours=1e3 * exposed(own, plain),
        peer=1e3 * exposed(stock, plain),
        peer_name=STOCK,
        ratio=ratio, ratio_low=low, ratio_high=high,
        target=RATIO if wanted else None,
        simulated=False,
        valid=equal(piece, [ours, STOCK]),
    )  # fmt: skip


def _recovered(piece: Piece, ours: str) -> Iterator[Row]:
    stock, own, plain = piece.seconds(STOCK), piece.seconds(ours), piece.seconds(PLAIN)
    least = piece.bound + piece.cost
    floor = statistics.median(plain) + least
    if statistics.median(stock) - floor < WORTH * statistics.median(stock):
        return

    def share(rounds: Sequence[int]) -> float:
        of = picked(rounds, stock, own, plain)
        return recovered(of[0], of[1], of[2], least)

    ratio, low, high = interval(len(own), share)
    yield Row(
        case=f"{piece.name}; {ours}",
        metric="recovered, of Horovod - floor; step",
        unit="ms",
        ours=1e3 * statistics.median(own),
        peer=1e3 * floor,
        peer_name="floor",
        ratio=ratio, ratio_low=low, ratio_high=high,
        target=RECOVERED,
        simulated=False,
        valid=equal(piece, [ours, STOCK]),
    )  # fmt: skip


def exposed(steps: Sequence[float], plain: Sequence[float]) -> float:
    """Seconds of a step that are communication's: the median of the differences by round."""
    return statistics.median(one - without for one, without in zip(steps, plain, strict=True))


def exposed_ratio(stock: Sequence[float], own: Sequence[float], plain: Sequence[float]) -> float:
    """How many times as much stock exposes; ours counts as ``LEAST_EXPOSED`` of its step at least."""
    return exposed(stock, plain) / max(exposed(own, plain), LEAST_EXPOSED * statistics.median(own))


def recovered(stock: Sequence[float], own: Sequence[float], plain: Sequence[float], least: float) -> float:
    """The share of what lies between stock and the floor; the floor is ``least`` seconds above the plain step."""
    between = max(exposed(stock, plain) - least, LEAST_EXPOSED * statistics.median(stock))
    return statistics.median(theirs - ours for theirs, ours in zip(stock, own, strict=True)) / between


def picked(rounds: Sequence[int], *of: Sequence[float]) -> list[list[float]]:
    """Of each of these the values of these rounds."""
    return [[one[number] for number in rounds] for one in of]


def notes_of(piece: Piece) -> list[str]:
    """What the link was, what the floor is made of, and where CPU time went."""
    plain, alone = piece.median(PLAIN), float(piece.alone["seconds"])
    pairs = len(piece.seconds(PLAIN))
    told = (
        f"{piece.name}: {pairs} rounds; computing alone {1e3 * plain:.0f} ms a step, "
        f"communication alone {1e3 * alone:.0f} ms for {piece.alone['bytes'] / 2**20:.1f} MiB "
        f"({piece.factor:.2f} x{', ' + piece.rate if piece.rate else ''}), {1e3 * piece.cost:.0f} ms of CPU; "
        f"bound {1e3 * piece.bound:.0f} ms; programs of others had {piece.foreign:.1%} of a CPU"
    )
    steps = ", ".join(f"{kind} {1e3 * piece.median(kind):.0f} ms ({_by_thread(piece, kind)})" for kind in piece.turns)
    chosen = "; ".join(
        f"{kind}: {found}" for kind in CARRIED if kind in piece.turns and (found := _tuning(piece, kind))
    )
    return [f"{told}. A step, and its CPU time by thread: {steps}. Tuning of {chosen or 'none'}."]


def _tuning(piece: Piece, kind: str) -> str | None:
    found = piece.ends[kind][0]["tuning"]
    return found and f"{found['piece_bytes'] / 2**20:.3g} MiB x {found['credit']}"


def _by_thread(piece: Piece, kind: str) -> str:
    return " + ".join(f"{1e3 * seconds:.0f} {name}" for name, seconds in piece.cpu(kind).items())
