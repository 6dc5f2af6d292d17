"""``Measures``: what is counted and timed while the service runs, as Prometheus has it; durations are seconds."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_MINUTE = 60.0
_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0)
"""Up to what a client's deadline lets a question to Slurm take, and beyond."""


class Measures:
    """Of one application: a registry of its own, so that two applications of one process do not mix their figures."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.queries = Counter(
            "lockstep_controller_queries",
            "Questions to the scheduler, by kind and by what came of them: yes, no, or none (nobody answered; a submit "
            "of that kind is one whose answer was lost)",
            ["kind", "answer"],
            registry=self.registry,
        )
        self.query_seconds = Histogram(
            "lockstep_controller_query_seconds",
            "How long a question to the scheduler took, by kind",
            ["kind"],
            buckets=_SLOW,
            registry=self.registry,
        )
        self.turn_seconds = Histogram(
            "lockstep_turn_seconds",
            "How long a turn of a dispatch loop took: submit, reconcile, ingest, nodes",
            ["loop"],
            buckets=_SLOW,
            registry=self.registry,
        )
        self.turn_failures = Counter(
            "lockstep_turn_failures",
            "Turns of a dispatch loop that ended in an error; the log has it",
            ["loop"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "lockstep_request_seconds",
            "From a request to the head of its answer, by the operation's name in the OpenAPI document",
            ["method", "operation", "status"],
            buckets=_FAST,
            registry=self.registry,
        )
        self.window = Window()
        self.registry.register(self.window)

    def query(self, kind: str, answer: str, seconds: float) -> None:
        """Notes one question to the scheduler."""
        self.queries.labels(kind, answer).inc()
        self.query_seconds.labels(kind).observe(seconds)
        self.window.add(kind)

    def turning(self, loop: str, work: Callable[[], float]) -> Callable[[], float]:
        """``work``, a loop's turn, timed."""

        def turn() -> float:
            with self._turn(loop):
                return work()

        return turn

    @contextmanager
    def _turn(self, loop: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        except Exception:
            self.turn_failures.labels(loop).inc()
            raise
        finally:
            self.turn_seconds.labels(loop).observe(time.perf_counter() - began)


class Window(Collector):
    """How many questions of each kind there were within the last minute: what a site asks a polite service for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._asked: dict[str, deque[float]] = defaultdict(deque)

    def add(self, kind: str) -> None:
        """Counts one that is asked now."""
        with self._lock:
            moments = self._asked[kind]
            moments.append(self._clock())
            self._forget(moments)

    def collect(self) -> Iterator[Metric]:
        """As Prometheus has it."""
        family = GaugeMetricFamily(
            "lockstep_controller_queries_per_minute",
            "Questions to the scheduler within the last 60 s, by kind",
            labels=["kind"],
        )
        with self._lock:
            for kind, moments in sorted(self._asked.items()):
                self._forget(moments)
                family.add_metric([kind], len(moments))
        yield family

    def _forget(self, moments: deque[float]) -> None:
        since = self._clock() - _MINUTE
        while moments and moments[0] <= since:
            moments.popleft()
