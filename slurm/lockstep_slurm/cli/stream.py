"""A job's events, each once, from a service that may be away for a while."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from typing import ParamSpec, TypeVar

import httpx
from httpx_sse import ServerSentEvent
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_exponential, wait_random

from lockstep_slurm.cli.api import Api, Json, NotLockstepError, ProblemError
from lockstep_slurm.cli.home import NoServiceError
from lockstep_slurm.cli.output import errors

# How long a service may be away before a person who watches is told so and let go; the job is not touched by it.
PATIENCE_SECONDS = 300.0
LONGEST_PAUSE_SECONDS = 30.0
"""Between two tries, also where the service asks for a longer one."""
_SETTLED_SECONDS = 15.0
"""A stream that was open for so long had the service at its other end, whether it told of something or not."""
_BACKOFF = wait_exponential(multiplier=0.5, max=10) + wait_random(0, 1)
P = ParamSpec("P")
T = TypeVar("T")


def events(api: Api, job_id: str) -> Iterator[tuple[str, Json]]:
    """The names and data of the job's events up to ``end``: a lost stream goes on behind the last event that came.

    Raises ``NoServiceError`` when the service has been away for too long.
    """
    last_id: str | None = None
    while True:
        with ExitStack() as stack:
            stream = patiently(api, _open, api, f"/jobs/{job_id}/events", last_id, stack)
            try:
                for event in stream:
                    last_id = event.id or last_id
                    if not event.data:
                        continue  # a keep-alive that carries an id alone
                    yield event.event, json.loads(event.data)
                    if event.event == "end":
                        return
            except httpx.RequestError as error:
                _say_lost(error)


def patiently(api: Api, ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``ask`` returns, asked again while the service is away; ``NoServiceError`` when patience ends."""

    def is_away(error: BaseException) -> bool:
        if isinstance(error, NotLockstepError):
            return api.answered  # else the address is wrong, and stays so
        return isinstance(error, NoServiceError) or (isinstance(error, ProblemError) and error.passing)

    retrying = Retrying(
        retry=retry_if_exception(is_away),
        wait=_pause,
        stop=stop_after_delay(PATIENCE_SECONDS),
        before_sleep=_say_away,
        reraise=True,
    )
    try:
        return retrying(ask, *args, **kwargs)
    except (NoServiceError, ProblemError) as error:
        if not is_away(error):
            raise
        raise NoServiceError(
            f"{error}\nIt has been so for {PATIENCE_SECONDS:.0f} s. The job is not touched by that: "
            "look again with `lockstep watch`"
        ) from None


def _open(api: Api, path: str, last_id: str | None, stack: ExitStack) -> Iterator[ServerSentEvent]:
    """Opens a stream on ``stack`` and waits for its first event; none where it was lost after it had been open long.

    One that is lost sooner is a ``NoServiceError``: opening it again and again at once would keep both sides busy.
    """
    opened = time.monotonic()
    try:
        with ExitStack() as opening:
            stream = opening.enter_context(api.events(path, last_id))
            first = next(stream, None)
            if first is not None:
                stack.enter_context(opening.pop_all())
                return chain((first,), stream)
    except NoServiceError as error:
        if time.monotonic() - opened < _SETTLED_SECONDS:
            raise
        _say_lost(error)
    if time.monotonic() - opened < _SETTLED_SECONDS:
        raise NoServiceError(f"the service at {api.address.url} has closed the stream before it told of anything")
    return iter(())


def _pause(state: RetryCallState) -> float:
    """Seconds to the next try: longer from try to try, and at least as long as the service asks for."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.retry_after if isinstance(error, ProblemError) else 0.0
    return max(_BACKOFF(state), min(asked, LONGEST_PAUSE_SECONDS))


def _say_away(state: RetryCallState) -> None:
    if state.attempt_number == 1 and state.outcome is not None:  # once, not at each try
        errors.print(f"{state.outcome.exception()} (waiting for it)", markup=False, soft_wrap=True)


def _say_lost(error: Exception) -> None:
    errors.print(f"the service's stream was lost ({error}); opening it again", markup=False, soft_wrap=True)
