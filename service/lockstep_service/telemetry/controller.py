"""``counted``: a Slurm client whose every question is counted and timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any, cast

from lockstep_service.telemetry.measures import Measures
from lockstep_slurm.client.protocol import SlurmClient, SlurmRefusedError, SlurmUnknownJobError


def counted(client: SlurmClient, measures: Measures) -> SlurmClient:
    """``client``, which notes each of its calls in ``measures`` under the call's name."""
    return cast("SlurmClient", _Counted(client, measures))


class _Counted:
    """Hands on whatever is asked of it, so that no method the protocol ever gets can go uncounted."""

    def __init__(self, client: SlurmClient, measures: Measures) -> None:
        self._client = client
        self._measures = measures

    def __getattr__(self, name: str) -> object:
        found = getattr(self._client, name)
        return self._timed(name, found) if callable(found) else found

    def _timed(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def timed(*arguments: object, **named: object) -> object:
            began, answer = time.perf_counter(), "none"
            try:
                found = call(*arguments, **named)
                answer = "yes"
            except (SlurmRefusedError, SlurmUnknownJobError):
                answer = "no"
                raise
            finally:
                self._measures.query(kind, answer, time.perf_counter() - began)
            return found

        return timed
