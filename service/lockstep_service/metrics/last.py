"""``last``: a job's newest figures as a whole, from the newest of its ranks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from lockstep_service.metrics.pace import RECENT, exposed_share, throughput
from lockstep_service.metrics.rank import Attempt, Rank
from lockstep_service.metrics.record import number
from lockstep_service.metrics.told import Told
from lockstep_service.wire import moment, rfc3339


def last(attempt: Attempt, ranks: Sequence[Rank]) -> dict[str, Any]:
    """The job's ``last``, as JSON, without what is not known yet; what is too old for it is forgotten by the ranks."""
    steps = attempt.start[2] if attempt.start else None
    figures: dict[str, Any] = {
        "steps": None if steps is None else int(steps),
        "accuracy": attempt.evaluation[2] if attempt.evaluation else None,
    }
    times = [attempt.evaluation[1]] if attempt.evaluation else []
    step = _newest_whole_step([rank for rank in ranks if rank.highest is not None])
    if step is not None:
        recent = [found for rank in ranks if (found := _recent(rank.window, step))]
        newest = [told for of_rank in recent for told in of_rank if told.step == step]
        rates = [throughput([told.pace for told in of_rank]) for of_rank in recent]
        # A script may print its loss in fewer steps than its speed, or on one rank only.
        losses = [next((told for told in reversed(of_rank) if "loss" in told.values), None) for of_rank in recent]
        known_rates = [rate for rate in rates if rate is not None]
        figures |= {
            "step": step,
            "epoch": max((epoch for told in newest if (epoch := told.figure("epoch")) is not None), default=None),
            "samples_per_s": number(sum(known_rates)) if known_rates else None,
            "samples_per_s_ranks": len(known_rates) or None,
            "loss": mean([told.figure("loss") for told in losses if told is not None]),
            "exposed_share": mean([exposed_share([told.pace for told in of_rank]) for of_rank in recent]),
        }
        times.extend(told.time for told in newest)
        for rank in ranks:
            rank.forget(step)
    used = _used(ranks)
    figures |= {
        "cpus": _rate("cpu_s", used),
        "received_bytes_per_s": _rate("received_bytes", used),
        "sent_bytes_per_s": _rate("sent_bytes", used),
    }
    told_at: datetime | None = moment(max(times, default=None))
    figures["time"] = None if told_at is None else rfc3339(told_at)
    return {name: value for name, value in figures.items() if value is not None}


def mean(values: Sequence[float | None]) -> float | None:
    """The mean; None when there are none, or when one of them is not known."""
    known = [value for value in values if value is not None]
    return number(sum(known) / len(known)) if known and len(known) == len(values) else None


def _newest_whole_step(ranks: Sequence[Rank]) -> int | None:
    """The newest step that all of these have reported, as far as it is still known of each."""
    slowest = min((rank.highest for rank in ranks if rank.highest is not None), default=None)
    if slowest is None:
        return None
    # Ranks report the same steps, so as a rule it is the slowest rank's newest; where it is not, it is below.
    if all(any(told.step == slowest for told in reversed(rank.window)) for rank in ranks):
        return slowest
    common = set.intersection(*({told.step for told in rank.window} for rank in ranks))
    return max((step for step in common if step is not None and step <= slowest), default=None)


def _recent(window: Sequence[Told], step: int) -> list[Told]:
    return [told for told in window if told.step is not None and step - RECENT < told.step <= step]


def _used(ranks: Sequence[Rank]) -> list[dict[str, float | None]]:
    """Of each rank that was sampled lately, what it used since its start."""
    newest = max((rank.usage_step for rank in ranks if rank.usage_step is not None), default=None)
    if newest is None:
        return []
    # Ranks are sampled one after another, so some may not have got to the newest number yet.
    return [rank.used for rank in ranks if rank.usage_step is not None and rank.usage_step >= newest - 1]


def _rate(name: str, used: Sequence[dict[str, float | None]]) -> float | None:
    """How much of this there was each second since the training's start: mean over those who count it."""
    both = [(values[name], values.get("elapsed_s")) for values in used if name in values]
    return mean([number(count / seconds) for count, seconds in both if count is not None and seconds and seconds > 0])
