"""What a save costs a training of ResNet-50 that is saved every 50 steps, of its throughput.

    python -m benchmarks.saving [--quick] [--json]

A real run by Lockstep's launcher: 2 ranks with one CPU each and no communication CPU, so that the thread that writes
has no other CPU than the one that computes. Some steps right behind a save, and as many without one, take turns within
one start of the ranks. What the turn with the save takes longer is what the save costs: the copy, the writing, hashing
and syncing beside the steps behind it, the removal of an older one, and the small sums and gathers of the ranks. 50
steps without that are the peer; 50 steps and one such cost are ours.

Images of 64 x 64 make a step of a CPU as short as one of 224 x 224 is on 12 of them, and a save the dearer beside it.
Valid: each save was on the disk before its turn was over, and the last one can be read; and programs of others had
next to nothing of the CPU. It is measured on the disk of LOCKSTEP_CACHE.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.exposing.figures import QUIET
from benchmarks.kept import Kept
from benchmarks.report import Row, paired, publish
from lockstep_slurm.job.identity import new_job_id
from lockstep_slurm.job.rundir import make_run_directory, spool_files
from lockstep_slurm.job.spec import JobSpec
from lockstep_worker.checkpoint.errors import CheckpointError
from lockstep_worker.checkpoint.file import read
from lockstep_worker.checkpoint.folder import names

ROOT = Path(__file__).parents[1]
EVERY = 50
"""Steps between two saves, in the training that is spoken of."""
RANKS, BATCH, IMAGE = 2, 16, 64
LAUNCHES = {False: 4, True: 1}
"""Starts of the ranks, of the full form and of ``--quick``."""
PAIRS = 20
STEPS = 8
"""Of a turn; a save has to be on the disk within them."""


def measured(folder: Path, pairs: int, steps: int, image: int) -> dict[str, Any]:
    """One start of the ranks: its turns, and what the saves said. Raises ``SystemExit`` where it fails."""
    turns = folder / "turns.jsonl"
    arguments = [str(turns), "--pairs", str(pairs), "--steps", str(steps), "--batch-size", str(BATCH),
                 "--image-size", str(image)]  # fmt: skip
    spec = JobSpec.model_validate(
        {
            "training": {"script": str(ROOT / "benchmarks" / "saved" / "training.py"), "arguments": arguments},
            "communication": {"exchange": "lockstep"},
            "checkpoint": {},
            "environment": {"variables": {"PYTHONPATH": str(ROOT)}},
        }
    )
    run = make_run_directory(folder / "runs", new_job_id(), spec.model_dump_json(), "", by_hand=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "LOCKSTEP_"))}
    with (folder / "log").open("wb") as log:
        ended = subprocess.run(
            [sys.executable, "-m", "lockstep_worker.launch", "--run", str(run), "--local-ranks", str(RANKS)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False,
            env=environment | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    if ended.returncode:
        sys.exit(f"benchmarks.saving: the training ended with {ended.returncode}:\n{(folder / 'log').read_text()}")
    records = [json.loads(line) for file in spool_files(run, 1) for line in file.read_text().splitlines()]
    newest = names(run / "checkpoints")[0]
    try:
        is_whole = read(run / "checkpoints" / newest.file)[0].step == newest.step
    except CheckpointError as error:
        print(f"benchmarks.saving: {error}", file=sys.stderr)
        is_whole = False
    return {
        "turns": [json.loads(line) for line in turns.read_text().splitlines()],
        "saves": [{"step": one["step"], **one["values"]} for one in records if one["kind"] == "checkpoint"],
        "is_whole": is_whole,
        "steps": steps,
    }


def row(launches: list[dict[str, Any]], image: int) -> Row:
    """The one row: seconds that ``EVERY`` steps take, with one save and without."""
    ours, peer, groups, foreign, is_valid = [], [], [], [], True
    for group, launch in enumerate(launches):
        counted = [turn for turn in launch["turns"] if turn["counts"]]
        with_save, without = ([turn for turn in counted if turn["saves"] is saves] for saves in (True, False))
        for saved, plain in zip(with_save, without, strict=True):
            plain_steps = EVERY * plain["seconds"] / launch["steps"]
            peer.append(plain_steps)
            ours.append(plain_steps + saved["seconds"] - plain["seconds"])
            groups.append(group)
        foreign += [turn["foreign"] for turn in counted]
        is_valid = is_valid and launch["is_whole"] and is_in_time(launch)
    return paired(
        case=f"ResNet-50, {RANKS} ranks x 1 CPU, {BATCH} images of {image} x {image} a rank",
        metric=f"{EVERY} steps and a save",
        unit="s",
        ours=ours,
        peer=peer,
        peer_name="without the save",
        valid=is_valid and statistics.median(foreign) <= QUIET,
        groups=groups,
    )


def is_in_time(launch: dict[str, Any]) -> bool:
    """Whether each turn with a save, but the very first, has one, that was on the disk before the turn's end."""
    saves = {one["step"]: one for one in launch["saves"]}
    turns = [turn for turn in launch["turns"] if turn["saves"]][1:]
    wanted = [launch["steps"] * (number + 1) for number in range(len(turns))]
    return sorted(saves) == wanted and all(
        saves[step].get("seconds", turn["seconds"]) < turn["seconds"] for step, turn in zip(wanted, turns, strict=True)
    )


def notes(launches: list[dict[str, Any]]) -> list[str]:
    """What a step and a save take, and what else had the CPU."""
    counted = [(launch["steps"], turn) for launch in launches for turn in launch["turns"] if turn["counts"]]
    plain = [turn["seconds"] / steps for steps, turn in counted if not turn["saves"]]
    cpu = {
        saves: statistics.median(turn["cpu"] for _, turn in counted if turn["saves"] is saves)
        for saves in (True, False)
    }
    saves = [one for launch in launches for one in launch["saves"] if "bytes" in one]
    said = (
        f"A step takes {statistics.median(plain):.2f} s. A save of {saves[-1]['bytes'] / 1e6:.0f} MB holds it up for "
        f"{1e3 * statistics.median(one['held_s'] for one in saves):.0f} ms, is on the disk "
        f"{statistics.median(one['seconds'] for one in saves):.2f} s later, and has cost rank 0 "
        f"{cpu[True] - cpu[False]:.2f} s of CPU in all; programs of others had "
        f"{statistics.median(turn['foreign'] for _, turn in counted):.1%} of it."
    )
    return [said]


def fingerprint(*form: int) -> str:
    """Changed code, another machine or another form is another measurement."""
    digest = hashlib.sha256()
    for file in sorted([*(ROOT / "worker/lockstep_worker/checkpoint").glob("*.py"), Path(__file__)]):
        digest.update(file.read_bytes())
    return f"{digest.hexdigest()[:16]} {os.uname().nodename} {form}"


def main() -> None:
    """Measures the launches that are not kept yet, and prints the row."""
    cache = Path(os.environ.get("LOCKSTEP_CACHE") or "~/.cache/lockstep").expanduser() / "benchmarks"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one start of the ranks, 8 minutes at most")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of turns, in a start of the ranks")
    parser.add_argument("--steps", type=int, default=STEPS, help="of a turn")
    parser.add_argument("--image-size", type=int, default=IMAGE)
    parser.add_argument("--kept", type=Path, default=cache / "saving.jsonl", help="where finished starts are kept")
    options = parser.parse_args()
    form = (options.pairs, options.steps, options.image_size)
    kept = Kept(options.kept, fingerprint(*form))
    launches: list[dict[str, Any]] = []
    for number in range(LAUNCHES[options.quick]):
        found = kept.find(f"launch {number}")
        if found is None:
            began = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="saving-", dir=options.kept.parent) as folder:
                found = measured(Path(folder), *form)
            kept.add(f"launch {number}", found)
            print(f"launch {number + 1}: {time.monotonic() - began:.0f} s", file=sys.stderr)
        launches.append(found)
    publish("saving", [row(launches, options.image_size)], as_json=options.json, notes=notes(launches))
    kept.done()


if __name__ == "__main__":
    main()
