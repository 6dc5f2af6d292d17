"""``step_time``: where a step's time goes, as bars of ranks and in plain sentences. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import cast

from lockstep_service.metrics import exchange
from lockstep_service.metrics.rank import Attempt
from lockstep_service.metrics.schemas import PartName, Spread, StepBar, StepPart, StepTime
from lockstep_service.metrics.spent import Spent
from lockstep_service.metrics.told import COMPUTED
from lockstep_service.metrics.words import bytes_in_words, figure, seconds_in_words

MOST_BARS = 12
"""More ranks than that do not each have a bar."""
_SLOWEST = 8
_EQUAL = 0.03
"""Equal ranks on equal nodes differ by so much from one look to the next."""
_MOST_BYTES = 1e15
"""Of a step; what tells more has made it up."""
_UNTOLD = (*COMPUTED, "exposed_s", "waiting_s")
_NAMES = {
    "forward_s": "forward pass",
    "backward_s": "backward pass",
    "optimizer_s": "optimizer",
    "data_s": "data",
    "exposed_s": "exposed communication",
    "waiting_s": "waiting for a slower rank",
}


def step_time(attempt: Attempt, told: Sequence[Spent], ranks: int) -> StepTime:
    """Of ``told``, one or more ranks of the attempt; ``ranks``: how many were heard of in it."""
    computing = {found.rank: time for found in told if (time := found.computing) is not None}
    ordered = sorted(
        (found for found in told if found.rank in computing or not computing),
        key=lambda found: (computing.get(found.rank, found.seconds), found.rank),
    )
    middle = ordered[(len(ordered) - 1) // 2]
    shown = list(told) if len(told) <= MOST_BARS else [ordered[0], *ordered[: -_SLOWEST - 1 : -1]]
    isolation, tuning = attempt.isolation, attempt.tuning
    words = (_hidden(middle), exchange.in_words(isolation and isolation[1], tuning and tuning[1]))
    return StepTime(
        attempt=attempt.number,
        steps=max(found.steps for found in told),
        told=len(told),
        ranks=ranks,
        median=_bar(middle),
        bars=[_bar(found) for found in shown],
        left_out=len(told) - len({found.rank for found in shown}),
        slowest=ordered[-1].rank if computing and len(ordered) > 1 else None,
        spread=_spread(told, middle),
        sentence=_sentence(ordered, middle) if computing else None,
        untold=_untold(middle, len(told), ranks),
        exchange=" ".join(found for found in words if found) or None,
    )


def _bar(found: Spent) -> StepBar:
    parts = [StepPart(name=cast("PartName", name), seconds=seconds) for name, seconds in found.split().items()]
    return StepBar(rank=found.rank, node=found.node, seconds=found.seconds, parts=parts)


def _spread(told: Sequence[Spent], middle: Spent) -> list[Spread]:
    splits = [found.split() for found in told]
    spreads = []
    for name in middle.split():
        values = [split[name] for split in splits if name in split]
        spreads.append(Spread(name=cast("PartName", name), low=min(values), median=median(values), high=max(values)))
    return spreads


def _sentence(ordered: Sequence[Spent], middle: Spent) -> str | None:
    """Who computes longest, and what it costs; ``ordered``: the longest last, each telling it."""
    slowest, typical = ordered[-1], middle.computing or 0.0
    if len(ordered) < 2 or typical <= 0:
        return None
    longer = (slowest.computing or 0.0) / typical
    waits = [found.parts.get("waiting_s") for found in ordered if found is not slowest]
    known = [waited for waited in waits if waited is not None]
    waited = median(known) if known and len(known) == len(waits) else None
    if longer - 1 < _EQUAL:
        return _equal(ordered, longer)
    much = f"{(longer - 1) * 100:.0f} % longer than" if longer < 2 else f"{figure(longer)} times as long as"
    said = f"{_who(slowest)} is slowest: it computes {much}"
    cost = waited is not None and waited > max(_EQUAL * slowest.seconds / 10, slowest.parts.get("waiting_s", 0.0))
    waits_for = f"{seconds_in_words(waited)} a step for it" if waited is not None else ""
    if len(ordered) == 2:
        return f"{said} rank {middle.rank}{f', which waits {waits_for}' if cost else ''}."
    return f"{said} the median rank{f'; the others wait {waits_for}' if cost else ''}."


def _equal(ordered: Sequence[Spent], longer: float) -> str:
    """Of ranks that compute equally long: whether they wait for one another all the same."""
    waits = {found.rank: found.parts["waiting_s"] for found in ordered if "waiting_s" in found.parts}
    typical = median(waits.values()) if len(waits) == len(ordered) else 0.0
    within = f"All ranks compute equally long, within {max(1.0, (longer - 1) * 100):.0f} %"
    if typical <= _EQUAL * ordered[0].seconds:
        return f"{within}."
    least = min(ordered, key=lambda found: waits[found.rank])
    if waits[least.rank] < typical / 2:
        return (
            f"{within}, but {_who(least, begin=False)} waits least: what it does besides holds the others up for "
            f"{seconds_in_words(typical)} a step."
        )
    return f"{within}, yet they wait {seconds_in_words(typical)} a step for one another: which of them is late changes."


def _who(found: Spent, *, begin: bool = True) -> str:
    return f"{'Rank' if begin else 'rank'} {found.rank}{f' on {found.node}' if found.node else ''}"


def _hidden(middle: Spent) -> str | None:
    """How much of its communication lies behind computing, of one rank that tells it."""
    exposed, under_way = middle.parts.get("exposed_s"), middle.parts.get("communication_s")
    if exposed is None or under_way is None or under_way <= 0:  # alone, the name was used for something else before
        return None
    sent = middle.parts.get("gradient_bytes", 0.0)
    many = f" ({bytes_in_words(sent)})" if 0 < sent < _MOST_BYTES else ""
    return (
        f"Gradients{many} are under way for {seconds_in_words(under_way)} of a step; the training waits "
        f"{seconds_in_words(exposed)} for them."
    )


def _untold(middle: Spent, told: int, ranks: int) -> str | None:
    missing = [_NAMES[name] for name in _UNTOLD if name not in middle.parts]
    if len(missing) == len(_UNTOLD):
        said = "It is only told how long a step takes, and not what it is made of."
    elif missing:
        said = f"Not told: {', '.join(missing)}."
    else:
        said = ""
    of = f"Told by {told} of {ranks} ranks." if told < ranks else ""
    return " ".join(part for part in (said, of) if part) or None
