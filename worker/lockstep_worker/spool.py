"""``Spool``: the file of a node's records, each stamped with its place in the attempt (standard library only)."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

VERSION = 1
MAX_RECORD = 512 * 1024
"""Bytes of one record, well below the line that the service takes; a verdict on many threads is the largest."""
KNOWN = 20_000
"""Newest records of a spool that is gone on with: more than a writer and its sockets hold, so that none comes twice."""

_LOST = (errno.ESTALE, errno.EIO, errno.ENOTCONN)
"""What a network file system answers where it has lost what is open (of FUSE, ENOTCONN: its server has ended)."""

Identity = tuple[int, float, str, Optional[int]]  # noqa: UP045 - read by Python 3.9 on compute nodes
"""Rank, time (to a millionth of a second), kind and step: no two records of a training have the same."""


class Spool:
    """Appends records, whole lines only; the one writer of its file.

    ``again``: goes on with the file of a writer that has died. What ranks then send once more is written once.
    """

    def __init__(self, path: Path, attempt: int, *, again: bool = False) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # O_EXCL: a spool that exists has another writer, or had one; its numbers must not be given twice.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (0 if again else os.O_EXCL)
        self.path = path
        self.size = 0
        """Bytes of whole lines in the file."""
        self._descriptor = os.open(path, flags, 0o600)
        self._attempt = attempt
        self._last: defaultdict[int, int] = defaultdict(int)
        self.usage: dict[int, int] = {}
        """By rank the number of the newest ``usage`` record, of a file that is gone on with."""
        self._complained = False
        self._known: frozenset[Identity] = frozenset()
        if again:
            self._go_on()

    def _go_on(self) -> None:
        """Takes over the numbers of the records that are there, and cuts off a last line that is not whole."""
        newest: deque[Identity] = deque(maxlen=KNOWN)
        with open(self._descriptor, "rb", closefd=False) as file:
            for line in file:
                if not line.endswith(b"\n"):
                    os.ftruncate(self._descriptor, self.size)
                    break
                record = json.loads(line)
                self._last[record["rank"]] = record["seq"]
                if record["kind"] == "usage":
                    self.usage[record["rank"]] = record["step"] or 0
                self.size += len(line)
                newest.append(_identity(record))
        self._known = frozenset(newest)

    def append(self, packets: Sequence[bytes]) -> bool:
        """Stamps and appends all packets, or none when the file system refuses: then False, to be tried again.

        What is open of a file that its server has lost stays stale for ever (open(2), ESTALE): it is opened anew.
        """
        last = self._last.copy()
        lines = []
        for packet in packets:
            record = parse(packet)
            if record is None or (self._known and _identity(record) in self._known):
                continue
            rank = record["rank"]
            last[rank] += 1
            stamped = {"v": VERSION, "attempt": self._attempt, "rank": rank, "seq": last[rank]}
            stamped.update((key, record[key]) for key in ("time", "kind", "step", "values"))
            lines.append(json.dumps(stamped, separators=(",", ":")))
        data = "".join(f"{line}\n" for line in lines).encode()
        try:
            if (written := os.write(self._descriptor, data)) != len(data):
                os.ftruncate(self._descriptor, self.size)
                raise OSError(0, f"{written} of {len(data)} bytes were taken")
        except OSError as error:
            if not self._complained:
                print(f"lockstep: {self.path}: {error.strerror}; records wait in memory", file=sys.stderr, flush=True)
            self._complained = True
            if error.errno in _LOST:
                self._open_anew()
            return False
        if self._complained:
            print(f"lockstep: {self.path}: records are written again", file=sys.stderr, flush=True)
        self._complained = False
        self._last = last
        self.size += len(data)
        return True

    def _open_anew(self) -> None:
        """Takes the file that is there now in place of the one that was lost, if it is the same as far as it goes."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except OSError:
            return  # not there yet: the next write is refused as well, and it is tried again
        size = os.fstat(descriptor).st_size
        if size < self.size:
            os.close(descriptor)  # what is mounted there now is another file system, or an older state of it
            return
        os.ftruncate(descriptor, self.size)
        with contextlib.suppress(OSError):  # its close may be refused like its writes
            os.close(self._descriptor)
        self._descriptor = descriptor

    def close(self) -> None:
        """Makes everything durable and closes the file; a file system that refuses that leaves a line in the log."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            print(f"lockstep: {self.path}: {error.strerror}; it is not known to be on the disk", file=sys.stderr)
        finally:
            os.close(self._descriptor)


def _identity(record: Mapping[str, Any]) -> Identity:
    return (record["rank"], record["time"], record["kind"], record["step"])


def parse(packet: bytes) -> dict[str, Any] | None:
    """A rank's report, or None (and a line on standard error) where it is none."""
    try:
        record = json.loads(packet)
        if not (
            isinstance(record["rank"], int)
            and isinstance(record["time"], (int, float))
            and isinstance(record["kind"], str)
            and isinstance(record["step"], (int, type(None)))
            and isinstance(record["values"], dict)
        ):
            raise TypeError("a field has the wrong type")
    except (ValueError, KeyError, TypeError) as error:
        print(f"lockstep: a report of {len(packet)} bytes is not a record: {error}", file=sys.stderr, flush=True)
        return None
    else:
        return dict(record)
