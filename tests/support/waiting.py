"""A training of the standard library alone: it ends well as soon as the file that it is given is there."""

from __future__ import annotations

import sys
import time
from pathlib import Path

SPEC = """\
name = "waits"
[training]
script = "{script}"
arguments = ["{file}"]
[resources]
nodes = 1
"""


def spec_file(folder: Path, until: Path) -> Path:
    """A spec in ``folder`` of a job of one node that waits for ``until``."""
    file = folder / f"waits-{until.name}.toml"
    file.write_text(SPEC.format(script=Path(__file__), file=until))
    return file


def main() -> None:
    """Waits."""
    while not Path(sys.argv[1]).exists():
        time.sleep(0.05)


if __name__ == "__main__":
    main()
