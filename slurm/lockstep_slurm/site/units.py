"""sbatch's forms of a time and of a memory size, as numbers. Pure."""

from __future__ import annotations

NO_LIMIT = 10**12
"""What zero means to sbatch (man sbatch, --time), in seconds: longer than any limit."""
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def seconds(limit: str) -> int:
    """A time limit in seconds: ``30`` (minutes), ``30:00``, ``1:00:00``, ``1-12``, ``1-12:30``, ``1-12:30:00``."""
    return _seconds(limit) or NO_LIMIT


def _seconds(limit: str) -> int:
    days, dash, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if dash:
        hours, minutes, rest = [*parts, 0, 0][:3]
        return int(days) * 86_400 + hours * 3600 + minutes * 60 + rest
    if len(parts) == 1:
        return parts[0] * 60
    hours, minutes, rest = [0, *parts][-3:]
    return hours * 3600 + minutes * 60 + rest


def size(memory: str) -> int:
    """A memory size in bytes; without a unit it is MiB (man sbatch, --mem)."""
    return int(memory[:-1]) * _UNITS[memory[-1]] if memory[-1] in _UNITS else int(memory) << 20
