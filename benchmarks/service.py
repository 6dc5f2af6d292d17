"""The service's speed, beside what people use in its place.

    python -m benchmarks.service [--quick] [--json] [--part NAME ...]     (root and Slurm's packages: it brings up a cluster)
    python -m benchmarks.report FILE                                      the table of such a JSON, as Markdown

Each part (benchmarks/serving/*.py) measures arms by turns, round by round, with one service process, the database's
usual durability, and the limit of the submit rate lifted. Finished parts are kept: a call that was interrupted goes on
from them. docs/benchmarks/service.md says what is equal between the arms of a part and what is not.
"""  # noqa: E501 - two commands, as they are typed

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from rich.console import Console

from benchmarks.kept import Kept
from benchmarks.report import Row, publish
from benchmarks.serving.frame import Form, Found
from lockstep_slurm.errors import LockstepError

progress = Console(stderr=True)


@dataclass(frozen=True)
class Part:
    """A part and what it is about; its module is imported when it is measured."""

    name: str
    about: str

    def measure(self, form: Form) -> Found:
        """Measures it."""
        measure: Callable[[Form], Found] = import_module(f"benchmarks.serving.{self.name}").measure
        return measure(form)


PARTS = (
    Part("submitting", "submissions per second until Slurm has them"),
    Part("ingesting", "values per second, acknowledged durable, and charts of long trainings"),
    Part("listing", "the list of jobs, with many jobs and with few"),
    Part("listening", "how long many listeners wait for an event"),
)


def measured(part: Part, kept: Kept, *, quick: bool, cache: Path) -> Found:
    """What the part finds, now or before."""
    if (before := kept.find(part.name)) is not None:
        progress.print(f"{part.name}: measured before")
        return Found.parse(before)
    progress.print(f"{part.name}: {part.about}")
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as folder:
        found = part.measure(
            Form(quick=quick, folder=Path(folder), cache=cache, say=lambda text: progress.print(f"  {text}"))
        )
    kept.add(part.name, found.document())
    return found


def main() -> None:
    """Measures what is not kept yet, and prints the table."""
    # As Ctrl-C does it: services and clusters are ended on the way out.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    options = parsed()
    cache = Path(os.environ.get("LOCKSTEP_CACHE") or "~/.cache/lockstep").expanduser()
    rows: list[Row] = []
    notes: list[str] = []
    try:
        kept = Kept(options.kept or cache / "benchmarks" / "service.jsonl", fingerprint(quick=options.quick))
        for part in PARTS:
            if options.part is None or part.name in options.part:
                found = measured(part, kept, quick=options.quick, cache=cache)
                rows += found.rows
                notes += found.notes
    except LockstepError as error:
        sys.exit(f"benchmarks.service: {error}")
    publish("service", rows, as_json=options.json, notes=notes)
    kept.done()


def fingerprint(*, quick: bool) -> str:
    """A changed Lockstep, another machine or another form is another measurement."""
    code = hashlib.sha256()
    for package in ("lockstep_service", "lockstep_slurm", "benchmarks"):
        root = Path(str(import_module(package).__file__)).parent
        for file in sorted(root.rglob("*.py")):
            code.update(str(file.relative_to(root)).encode() + file.read_bytes())
    cpus = sorted(os.sched_getaffinity(0))
    return f"{code.hexdigest()[:16]} {os.uname().nodename} {cpus} {'quick' if quick else 'full'}"


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 minutes at most, in place of 45")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--part", action="append", choices=[part.name for part in PARTS], help="only this part; may be repeated"
    )
    parser.add_argument("--kept", type=Path, help="where finished parts are kept, so that an interrupted call goes on")
    return parser.parse_args()


if __name__ == "__main__":
    main()
