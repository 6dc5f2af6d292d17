"""What is trained on: the records ``data`` and ``staging``, summed up, and their words. Values in, values out."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from lockstep_service.metrics.record import Record, Value, number, text
from lockstep_service.metrics.schemas import TrainingData
from lockstep_service.metrics.words import bytes_in_words, figure, seconds_in_words

MOST_NODES = 4096
"""Of those that stage; what more would tell is left out."""
_TEXTS = frozenset({"tokens", "synthetic-tokens"})


class Source(Struct, array_like=True, frozen=True):
    """The data of an attempt, as rank 0 opened them."""

    time: float
    data: str | None = None
    path: str | None = None
    staged: str | None = None
    """The copy that rank 0 reads."""
    train: float | None = None
    """Samples."""
    held_out: float | None = None
    classes: float | None = None

    @classmethod
    def of(cls, record: Record) -> Source:
        """From a record of the kind ``data``; what is not of its type is not known."""
        data, path, staged = (text(record.values.get(name)) for name in ("data", "path", "staged"))
        train, held_out, classes = (_count(record.values, name) for name in ("train", "held_out", "classes"))
        return cls(record.time, data, path, staged, train, held_out, classes)

    def in_words(self) -> str | None:
        """Such as "Trains on 1,437 samples of digits and is evaluated on 360, of 10 classes."."""
        if self.train is None:
            return None
        said = f"Trains on {self.train:,.0f} samples" + (f" of {self.data}" if self.data else "")
        if self.path:
            said += f" in {self.path}"
        if self.held_out:
            said += f" and is evaluated on {self.held_out:,.0f}"
        if self.classes:
            kind = (
                f"with a vocabulary of {self.classes:,.0f}"
                if self.data in _TEXTS
                else f"of {self.classes:,.0f} classes"
            )
            said += f", {kind}"
        return f"{said}." + (f" Rank 0 reads the copy in {self.staged}." if self.staged else "")


class Staging(Struct, array_like=True, frozen=True):
    """How far one node's copy is."""

    time: float
    folder: str | None = None
    copied: float = 0.0
    """Bytes."""
    total: float = 0.0
    files: float = 0.0
    """In all."""
    seconds: float = 0.0
    """Since it began."""

    @classmethod
    def of(cls, record: Record) -> Staging:
        """From a record of the kind ``staging``."""
        names = ("copied_bytes", "total_bytes", "files", "seconds")
        return cls(
            record.time, text(record.values.get("folder")), *(_count(record.values, one) or 0.0 for one in names)
        )

    @property
    def whole(self) -> bool:
        """Whether everything is copied."""
        return self.copied >= self.total


def in_words(attempt: int, source: Source | None, nodes: Mapping[str, Staging]) -> TrainingData:
    """What the API says of both."""
    return TrainingData(
        attempt=attempt,
        sentence=None if source is None else source.in_words(),
        staging=staging_in_words(nodes),
        nodes_staging=sum(not one.whole for one in nodes.values()),
        copied_bytes=sum(one.copied for one in nodes.values()) if nodes else None,
        total_bytes=sum(one.total for one in nodes.values()) if nodes else None,
    )


def staging_in_words(nodes: Mapping[str, Staging]) -> str | None:
    """Such as "2 of 3 nodes have copied the data to /tmp: 12 GiB of 15 GiB after 40 s."; None where no node copies."""
    if not nodes:
        return None
    every = list(nodes.values())
    folders = {one.folder for one in every if one.folder}
    own = "its own disk" if len(every) == 1 else "their own disks"
    where = f"to {folders.pop()}" if len(folders) == 1 else f"to {own}"
    whole, slowest = sum(one.whole for one in every), max(every, key=lambda one: one.seconds)
    if whole == len(every):
        many = f"All {len(every)} nodes that had to have" if len(every) > 1 else f"{next(iter(nodes))} has"
        each = " on each" if len(every) > 1 else ""
        size = max(every, key=lambda one: one.total)
        files = f"{figure(size.files)} files, " if size.files != 1 else ""
        took = f"in {seconds_in_words(slowest.seconds)}" + (" at most" if len(every) > 1 else "")
        return f"{many} copied the data {where}: {files}{bytes_in_words(size.total)}{each}, {took}."
    copied, total = sum(one.copied for one in every), sum(one.total for one in every)
    have = "has" if whole == 1 else "have"
    who = f"{whole} of {len(every)} nodes {have} copied" if len(every) > 1 else f"{next(iter(nodes))} copies"
    share = f"{bytes_in_words(copied)} of {bytes_in_words(total)}"
    return f"{who} the data {where}: {share} after {seconds_in_words(slowest.seconds)}."


def _count(values: Mapping[str, Value], name: str) -> float | None:
    found = number(values.get(name))
    return found if found is not None and found >= 0 else None
