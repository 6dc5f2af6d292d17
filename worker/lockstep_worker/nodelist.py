"""Slurm's two short forms, spelled out: host lists and tasks per node (standard library only, so of our own)."""

from __future__ import annotations

import re

_BRACKET = re.compile(r"\[([^\]]*)\]")
_TASKS = re.compile(r"([0-9]+)(?:\(x([0-9]+)\))?")


def expand_nodes(text: str) -> tuple[str, ...]:
    """``n[1-2,05],login`` -> ``("n1", "n2", "n05", "login")``, as ``scontrol show hostnames`` does."""
    names: list[str] = []
    for part in _split(text):
        names.extend(_expand(part))
    return tuple(names)


def expand_tasks(text: str) -> tuple[int, ...]:
    """``2(x3),1`` -> ``(2, 2, 2, 1)``: ``SLURM_STEP_TASKS_PER_NODE``. Raises ``ValueError`` for anything else."""
    counts: list[int] = []
    for part in text.split(","):
        match = _TASKS.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{text!r} is not a count of tasks per node such as 2(x3),1")
        counts.extend([int(match.group(1))] * int(match.group(2) or 1))
    return tuple(counts)


def _split(text: str) -> list[str]:
    """Splits at the commas that are not within brackets."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()]


def _expand(part: str) -> list[str]:
    match = _BRACKET.search(part)
    if match is None:
        return [part]
    before, after = part[: match.start()], part[match.end() :]
    return [f"{before}{index}{rest}" for index in _indexes(match.group(1)) for rest in _expand(after)]


def _indexes(text: str) -> list[str]:
    """``1-3,007`` -> the indexes, with the width of a range's first one."""
    found: list[str] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"[{text}] is not a list of indexes such as [1-3,7]")
        numbers = range(int(first), int(last) + 1) if dash else [int(first)]
        found.extend(f"{number:0{len(first)}d}" for number in numbers)
    return found
