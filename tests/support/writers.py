"""A node's writer, as a wrapper starts it, and what it has written."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from lockstep.reporter import Reporter
from lockstep_slurm.job.rundir import spool_file
from lockstep_worker.processes import Helper
from support.ranks import base_environment

START: dict[str, float | int | str | list[float]] = {"node": "node1", "local_rank": 0, "pid": 1, "size": 1}


class Node:
    """One node's writer, as local rank 0 starts it."""

    def __init__(self, run: Path, folder: Path) -> None:
        self.socket = folder / "socket"
        self.spool = spool_file(run, 1, "node1")
        self.arguments = ["--run", str(run), "--attempt", "1", "--node", "node1", "--socket", str(self.socket)]
        self.helper = self.start()

    def start(self, *more: str) -> Helper:
        """A writer that listens."""
        helper = Helper("lockstep_worker.writer", [*self.arguments, *more], base_environment(), stdout=subprocess.PIPE)
        assert helper.process.stdout is not None
        assert helper.process.stdout.readline() == b"ready\n"
        return helper

    def kill(self) -> None:
        """The writer dies."""
        self.helper.process.kill()
        self.helper.end(finish=False)
        assert self.helper.process.stdout is not None
        self.helper.process.stdout.close()

    def reporter(self, rank: int = 0, **options: Any) -> Reporter:
        return Reporter(str(self.socket), rank=rank, start=START, **options)

    def end(self) -> list[dict[str, Any]]:
        """Ends the writer as a wrapper does after a good end; returns what is in the spool."""
        self.helper.end(finish=True, patience=20)
        return self.records()

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.spool.read_text().splitlines()]


def contiguous(records: list[dict[str, Any]], rank: int) -> bool:
    """Whether a rank's ``seq`` counts from 1 without holes, in the order of the file."""
    seqs = [record["seq"] for record in records if record["rank"] == rank]
    return seqs == list(range(1, len(seqs) + 1)) and len(seqs) > 0
