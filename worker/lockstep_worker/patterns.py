"""The searching process: reads the copy of a training's output, and turns what the job's patterns find into records.

Started by the rank's wrapper as ``python -m lockstep_worker.patterns ARGUMENTS`` with a socket as standard input; ends
when that does (standard library only). ``training.patterns`` is the user's, and may take for ever on some line: each
search is limited in CPU time, and a pattern that exceeds it again and again is given up.
"""

from __future__ import annotations

import json
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

from lockstep.reporter import Reporter
from lockstep_worker.output import CHUNK, ERR, LOST, OUT

LONGEST_LINE = 8192
"""Bytes of a line that are searched; the rest of it is passed over."""
SEARCH_LIMIT = 0.1
"""Seconds of CPU time for one pattern on one line."""
STRIKES = 3
"""Searches that may exceed it before the pattern is given up."""
HELD = 1.0
"""Seconds that a step waits for figures that are printed on a line of their own."""
SERIES = {"throughput": "samples_per_s"}
"""Metrics whose name in a record is another (docs/records.md)."""
_END = re.compile(rb"[\r\n]")


class Lines:
    """A stream cut into lines: a newline ends one, and a carriage return, by which a progress bar draws itself anew."""

    def __init__(self) -> None:
        self._begun = bytearray()
        self._lost = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that ``chunk`` ends, without their ends and without empty ones, each cut to ``LONGEST_LINE``."""
        *ended, begun = _END.split(chunk)
        for part in ended:
            self._add(part)
            yield from self.rest()
        self._add(begun)

    def lose(self, *, within: bool) -> None:
        """Something is missing here: the line that was begun is none, and ``within`` one, nor is the rest of that."""
        self._begun.clear()
        self._lost = within

    def rest(self) -> Iterator[bytes]:
        """The line that was begun, as if it had ended."""
        if self._begun and not self._lost:
            yield bytes(self._begun)
        self._begun.clear()
        self._lost = False

    def _add(self, part: bytes) -> None:
        self._begun += part[: LONGEST_LINE - len(self._begun)]


class _TooLongError(Exception):
    """A search has used its CPU time."""


class Pattern:
    """One metric's regular expression, limited; usable in the main thread only, since a signal stops a search."""

    def __init__(self, metric: str, expression: str) -> None:
        self.metric = metric
        self._expression: re.Pattern[str] | None = re.compile(expression)
        self._strikes = 0
        self._searching = False
        self._complained = False

    def find(self, line: str) -> float | None:
        """The figure in ``line``; None where there is none, or where looking for it takes too long."""
        if self._expression is None:
            return None
        signal.signal(signal.SIGVTALRM, self._stop)
        self._searching = True
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, SEARCH_LIMIT)
            found = self._expression.search(line)
            self._searching = False
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        except _TooLongError:
            self._strike(line)
            return None
        return None if found is None or found[1] is None else self._figure(found[1])

    def _figure(self, text: str) -> float | None:
        try:
            return float(text)
        except ValueError:
            if not self._complained:
                _say(f"training.patterns.{self.metric} found {text[:60]!r}, which is no number; it should find the "
                     "figure alone, such as ([0-9.]+)")  # fmt: skip
            self._complained = True
            return None

    def _strike(self, line: str) -> None:
        self._strikes += 1
        if self._strikes == STRIKES:
            self._expression = None
            _say(f"training.patterns.{self.metric} took over {SEARCH_LIMIT} s on each of {STRIKES} lines, last on "
                 f"{line[:60]!r}, and is searched for no more; write it without nested repetitions")  # fmt: skip

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        if self._searching:
            self._searching = False
            raise _TooLongError


class Steps:
    """Figures put together into steps: one begins where a metric is found that the one before has already."""

    def __init__(self, metrics: set[str], reporter: Reporter) -> None:
        self._whole = metrics - {"accuracy"}
        self._reporter = reporter
        self._figures: dict[str, float] = {}
        self._since = 0.0
        self.step = 0

    def add(self, found: Mapping[str, float]) -> None:
        """Takes what one line held."""
        if self._figures.keys() & found.keys():
            self.put()
        if not self._figures:
            self._since = time.monotonic()
        self._figures.update((name, value) for name, value in found.items() if name != "accuracy")
        if self._figures.keys() >= self._whole:
            self.put()
        if "accuracy" in found:  # of an evaluation, as docs/records.md has it
            self.put()
            self._reporter.report(self.step, "evaluation", {"accuracy": found["accuracy"]})

    def put(self) -> None:
        """Ends the step that was begun."""
        if self._figures:
            self.step += 1
            values = {SERIES.get(name, name): value for name, value in self._figures.items()}
            self._reporter.report(self.step, "step", values, pace=False)
            self._figures.clear()

    def remaining(self) -> float | None:
        """Seconds until the step that was begun is ended without what is missing; None where none is begun."""
        return max(0.0, self._since + HELD - time.monotonic()) if self._figures else None


class Search:
    """What the messages of ``lockstep_worker.output`` bring, cut into lines, searched, and put together into steps."""

    def __init__(self, patterns: Sequence[Pattern], reporter: Reporter) -> None:
        self._patterns = patterns
        self._reporter = reporter
        self._steps = Steps({pattern.metric for pattern in patterns}, reporter)
        self._streams = {OUT: Lines(), ERR: Lines()}

    def run(self, source: socket.socket) -> None:
        """Returns when ``source`` has ended and all of it is reported."""
        while True:
            if not select.select([source], [], [], self._steps.remaining())[0]:
                self._steps.put()
            elif packet := source.recv(CHUNK + 1):
                self._take(packet[:1], packet[1:])
            else:
                break
        for lines in self._streams.values():
            self._look(lines.rest())
        self._steps.put()

    def _take(self, name: bytes, rest: bytes) -> None:
        if name == LOST:
            stream, lines, within = json.loads(rest)
            self._reporter.report(None, "gap", {"dropped": lines})
            self._streams[stream.encode()].lose(within=within)
        else:
            self._look(self._streams[name].feed(rest))

    def _look(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            text = line.decode("utf-8", "replace")
            found = {one.metric: value for one in self._patterns if (value := one.find(text)) is not None}
            if found:
                self._steps.add(found)


def main() -> int:
    """Runs until the output has ended."""
    told: dict[str, Any] = json.loads(sys.argv[1])
    # Slurm signals every process of a step; this one ends with the training's output.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    reporter = Reporter(told["socket"], rank=told["rank"], start=told["start"])
    patterns = [Pattern(metric, expression) for metric, expression in told["patterns"].items()]
    with socket.socket(fileno=0) as source:
        Search(patterns, reporter).run(source)
    reporter.close()
    return 0


def _say(message: str) -> None:
    print(f"lockstep: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
