"""How much of the gradients' communication a step waits for, beside Horovod's optimizer and torch's DDP.

    python -m benchmarks.exposed_communication --model resnet50 [--quick] [--json]     measures one case (root)
    python -m benchmarks.exposed_communication [--json]                                all rows that are finished
    python -m benchmarks.report FILE                                                   such a JSON as a Markdown table

Two hosts of one machine, network namespaces with one CPU and one rank each: whatever exchanges gradients shares the CPU
that computes. The link between them is limited so that communication alone takes 0.75, 1 and 1.25 times what computing
alone does. The contenders train the same model on the same samples and take turns within one start of the ranks. Valid:
ours and its peer had, bit for bit, equal losses at every step of each rank and equal parameters, after as many steps;
ours, which go on until they are tuned and are timed then, still have the same losses over each transport.
docs/benchmarks/exposed-communication.md says what a row is.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.exposing.cases import CARRIED, CASES, FULL, PLAIN, QUICK, SETTLED, TUNED, Case, Form, case_of
from benchmarks.exposing.figures import Piece, link_name, notes_of, rows_of
from benchmarks.exposing.hosts import MeasureError, Ranks, calibrate, started
from benchmarks.kept import Kept
from benchmarks.report import publish
from benchmarks.side_by_side.turns import order
from lockstep_slurm.errors import LockstepError

SOURCES = (
    "worker/lockstep_worker/slices.py", "worker/lockstep_worker/gradients/*.py", "worker/lockstep_worker/models/*.py",
    "benchmarks/exposing/*.py", "slurm/lockstep_slurm/job/malloc.py",
)  # fmt: skip
FEWEST = 3
"""Rounds that are made even where the time is over."""
A_CALL = 1800.0
"""Seconds after which a call begins no further link, so that it ends within 45 minutes."""
A_LOOK = 8
"""Steps of ours between two looks at whether it has kept a plan."""
progress = Console(stderr=True)


def main() -> None:
    """Measures what is not kept yet, and prints the table."""
    # As Ctrl-C does it: the ranks and their hosts are ended on the way out.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        show(parsed())
    except LockstepError as error:
        sys.exit(f"benchmarks.exposed_communication: {error}")


def show(options: argparse.Namespace) -> None:
    """The rows of the cases that were asked for, measured where they are not kept; of all others only what is kept."""
    form = QUICK if options.quick else FULL
    form = replace(form, rounds=options.rounds or form.rounds, links=options.link or form.links)
    kept = Kept(options.kept, fingerprint(form))
    pieces: list[Piece] = []
    began = time.monotonic()
    for case in [case_of(name) for name in options.model or [case.name for case in CASES]]:
        for link in form.links or case.links:
            if link not in case.links:
                continue
            key = f"{case.name}, {link_name(link)}"
            found = kept.find(key) if not options.again else None
            if found is None and options.model and time.monotonic() - began > A_CALL:
                progress.print(f"{key}: not in this call, which has taken half an hour; call again")
            elif found is None and options.model:
                progress.print(key)
                found = measured(case, link, form, two_cpus())
                kept.add(key, found)
            if found is not None:
                pieces.append(Piece.parse(case, found))
    rows = [row for piece in pieces for row in rows_of(piece)]
    notes = [note for piece in pieces for note in notes_of(piece)]
    publish("exposed_communication", rows, as_json=options.json, notes=notes)


def measured(case: Case, link: float | None, form: Form, cpus: tuple[int, int]) -> dict[str, Any]:
    """One case on one link: one start of the ranks, in which all contenders take turns. ``figures.Piece`` as JSON."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as folder, started(case, Path(folder), cpus) as ranks:
        computing = settled(ranks)
        rate, alone = None, ranks.alone()
        if link is not None:
            rate, alone = calibrate(ranks, link * computing)
        layers = ranks.ask("layers")[0]["layers"]
        steps, compared = form.steps(case), form.compared(case)
        trained = [kind for kind in case.contenders if kind != PLAIN]
        for kind in trained:
            ranks.turn(kind, 0, compared - (0 if kind in CARRIED else form.rounds * (1 + steps)))
        states = {kind: ranks.ask("state", kind=kind) for kind in CARRIED}
        for kind, found in states.items():
            tuned(ranks, kind, found)
        turns: dict[str, list[dict[str, Any]]] = {kind: [] for kind in case.contenders}
        for number in range(form.rounds):
            if number >= FEWEST and time.monotonic() - began > form.seconds:
                progress.print(f"{number} rounds, the time is over")
                break
            for kind in order(case.contenders, number):
                turns[kind].append(ranks.turn(kind, 1, steps))
        ends = {kind: ranks.ask("state", kind=kind) for kind in trained}
        for kind in (kind for kind in trained if kind not in CARRIED):
            if missing := compared - ends[kind][0]["steps"]:
                ranks.turn(kind, 0, missing)
            states[kind] = ranks.ask("state", kind=kind)
        ranks.ask("end")
    return {
        "link": link, "rate": rate, "alone": alone, "layers": layers, "turns": turns, "states": states, "ends": ends,
    }  # fmt: skip


def tuned(ranks: Ranks, kind: str, found: list[dict[str, Any]]) -> None:
    """Has ours make steps until it has kept a plan, and used it. ``found``: its state by rank."""
    while found[0]["tuning"] is None and (left := TUNED - found[0]["steps"]) > 0:
        ranks.turn(kind, 0, min(A_LOOK, left))
        found = ranks.ask("state", kind=kind)
    ranks.turn(kind, 0, SETTLED)


def settled(ranks: Ranks) -> float:
    """Seconds of CPU that a step takes without communication, once memory and caches are warm.

    So long it takes where nobody else has the CPU: whatever else runs on the machine decides nothing about the link.
    """
    ranks.turn(PLAIN, 2, 1)
    return sorted(float(ranks.turn(PLAIN, 0, 1)["cpu"]["training"]) for _ in range(5))[2]


def two_cpus() -> tuple[int, int]:
    """One for each host. Raises ``MeasureError`` where hosts cannot be made, or there is one CPU."""
    if os.geteuid() != 0:
        raise MeasureError("network namespaces need root")
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise MeasureError("two hosts need two CPUs, and there is one")
    return cpus[0], cpus[1]


def fingerprint(form: Form) -> str:
    """A changed exchange, another machine or another form is another measurement."""
    digest = hashlib.sha256()
    for file in sources():
        digest.update(ast.dump(without_words(ast.parse(file.read_bytes()))).encode())
    return f"{digest.hexdigest()[:16]} {os.uname().nodename} {replace(form, links=None)}"


def without_words(tree: ast.Module) -> ast.Module:
    """The module's code alone: what its docstrings say decides nothing (comments are not in a tree)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [
                one for one in node.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
            ]
    return tree


def sources() -> Iterator[Path]:
    """What decides about what is measured."""
    root = Path(__file__).parents[1]
    for pattern in SOURCES:
        yield from sorted(file for file in root.glob(pattern) if file.name not in ("figures.py", "bound.py"))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=[case.name for case in CASES],
                        help="the case that is measured; without it, what is finished is shown")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="one limited link, and fewer turns")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--again", action="store_true", help="measure anew what is finished")
    parser.add_argument("--link", action="append", type=link, help="only this link: 0.75, 1, 1.25 or none")
    parser.add_argument("--rounds", type=int, help="turns of each contender")
    cache = Path(os.environ.get("LOCKSTEP_CACHE") or "~/.cache/lockstep").expanduser()
    parser.add_argument(
        "--kept", type=Path, default=cache / "benchmarks" / "exposed-communication.jsonl",
        help="where finished pieces are kept, a case on a link each",
    )  # fmt: skip
    return parser.parse_args()


def link(text: str) -> float | None:
    """``none`` for the link without a limit."""
    return None if text == "none" else float(text)


if __name__ == "__main__":
    main()
