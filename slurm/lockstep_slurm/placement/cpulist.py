"""CPU lists as Linux and Slurm write them (``0-3,8``), their masks and bindings: to text and back."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 1 << 16
"""A CPU's number is below this: more than any Linux is built for (x86: 8192). A range beyond it is a slip, and would
fill the memory."""


def compress(numbers: Iterable[int]) -> str:
    """``0-3,8`` for 8, 0, 1, 2, 3; ``none`` for nothing, so that a sentence never ends in a hole."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs) or "none"


def parse(text: str) -> tuple[int, ...]:
    """The numbers of ``0-3,8``, sorted, each once; of nothing: nothing. Raises ``ValueError`` that quotes the text."""
    found: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, _, last = part.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()) or part.endswith("-"):
            raise ValueError(f"{text!r} is no list of CPUs: {part!r} is neither a number nor a range such as 0-3")
        if int(last or first) < int(first):
            raise ValueError(f"{text!r} is no list of CPUs: {part!r} runs backwards")
        if int(last or first) >= MOST:
            raise ValueError(
                f"{text!r} is no list of CPUs: {part!r} goes beyond {MOST - 1}, the last that any Linux has"
            )
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))


def from_mask(mask: int) -> tuple[int, ...]:
    """The CPUs of a bit mask. Raises ``ValueError`` for one that goes beyond any machine."""
    if mask.bit_length() > MOST:
        raise ValueError(
            f"a mask of {mask.bit_length()} CPUs is no machine's: the last that any Linux has is {MOST - 1}"
        )
    return tuple(bit for bit in range(mask.bit_length()) if mask >> bit & 1)
