"""``--topology``: the machine that a command plans for, this one or one that hwloc has described."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lockstep_slurm.placement import Topology

SIZE_LIMIT = 64 << 20
"""Bytes; the largest description known is a hundredth of it."""

TopologyOption = Annotated[
    str | None,
    typer.Option(
        metavar="XML",
        help="Another machine, as `lstopo FILE.xml` wrote it there (hwloc 1 to 3); - reads standard input.",
        show_default="this machine",
    ),
]


def read(source: str | None) -> Topology:
    """The topology that ``--topology`` names; raises ``SpecError`` with its name."""
    from lockstep_slurm.job.file import SpecError
    from lockstep_slurm.placement import TopologyError, from_sysfs, from_xml

    try:
        if source is None:
            return from_sysfs()
        if source == "-":
            raw = sys.stdin.buffer.read(SIZE_LIMIT + 1)
        else:
            with Path(source).open("rb") as stream:
                raw = stream.read(SIZE_LIMIT + 1)
        if len(raw) > SIZE_LIMIT:
            raise TopologyError(f"is larger than {SIZE_LIMIT >> 20} MiB, so it is no topology")
        return from_xml(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        message = (
            f"is not UTF-8: byte 0x{raw[error.start]:02x} at {error.start}; `lstopo FILE.xml` writes what is read here"
        )
    except TopologyError as error:
        message = str(error)
    except OSError as error:
        message = f"cannot be read: {error.strerror}; give the path of a file that `lstopo FILE.xml` wrote"
    where = {None: "this machine", "-": "standard input"}.get(source, source)
    raise SpecError(str(where), [("", message)])
