"""Where a step's time goes, in words and bars: a line per part, as ``lockstep show`` prints them."""

from __future__ import annotations

from collections.abc import Iterator

from lockstep_slurm.cli.api import Json
from lockstep_slurm.cli.output import number

_WIDTH = 40
"""Characters of the bar of a whole step."""
_NAMES = {
    "exposed": "exposed communication",
    "transfer": "exposed: transfer",
    "waiting": "exposed: slower rank",
    "untold": "not told apart",
}
_SENTENCES = ("sentence", "untold", "exchange")


def lines(spent: Json) -> Iterator[str]:
    """The median rank's step, a line for each of its parts, then what is to be said of all ranks."""
    middle = spent["median"]
    whole = max(middle["seconds"], sum(part["seconds"] for part in middle["parts"]))
    of = f"rank {middle['rank']}, the median of {spent['told']}" if spent["told"] > 1 else f"rank {middle['rank']}"
    yield f"a step takes {_milliseconds(middle['seconds'])} ({of}):"
    for part in middle["parts"]:
        share = part["seconds"] / whole
        name = _NAMES.get(part["name"], part["name"])
        bar = "█" * round(share * _WIDTH)
        yield f"  {name:<21} {_milliseconds(part['seconds']):>10} {share:>6.1%}  {bar}".rstrip()
    for key in _SENTENCES:
        if spent[key]:
            # A node's name and a plan's reason are whatever a rank told.
            yield "".join(character for character in spent[key] if character.isprintable())


def _milliseconds(seconds: float) -> str:
    return f"{number(seconds * 1e3, 3)} ms"
