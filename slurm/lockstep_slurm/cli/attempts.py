"""A job's attempts in words: a line each, as ``lockstep show`` prints them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lockstep_slurm.cli.api import Json


def lines(attempts: Sequence[Json]) -> Iterator[str]:
    """Which Slurm job each was, where it ran, and how it ended; only the newest of them can be running."""
    for attempt in attempts:
        yield (
            f"attempt {attempt['number']}: Slurm job {attempt['slurm_job_id'] or '-'}, "
            f"restart {attempt['restart_count']}, on {', '.join(attempt['nodes'])}: "
            f"{_end(attempt, newest=attempt is attempts[-1])} {attempt['message'] or ''}"
        ).rstrip()


def _end(attempt: Json, *, newest: bool) -> str:
    code, signal = attempt["exit_code"], attempt["exit_signal"]
    if signal:
        return f"signal {signal}"
    if code is not None:
        return f"exit {code}"
    # A node that died, or a wrapper that was killed, leaves none.
    return "running" if newest and attempt["ended_at"] is None else "no exit record"
