"""A node's real writer for a benchmark: what is reported to it ends in a spool, which is read when all is written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lockstep.reporter import Reporter
from lockstep_slurm.job.identity import new_job_id
from lockstep_slurm.job.rundir import make_run_directory, spool_files


@contextmanager
def spooled(folder: Path) -> Iterator[tuple[Reporter, list[dict[str, Any]]]]:
    """Rank 0's reporter, and the records of its spool: empty within, complete behind. ``folder`` gets the run."""
    run = make_run_directory(folder, new_job_id(), "{}", "", by_hand=True)
    address = folder / "writer"
    writer = subprocess.Popen(
        [sys.executable, "-m", "lockstep_worker.writer", "--run", str(run), "--attempt", "1", "--node", "n",
         "--socket", str(address)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert writer.stdin is not None
    assert writer.stdout is not None
    records: list[dict[str, Any]] = []
    try:
        writer.stdout.readline()  # "ready"
        reporter = Reporter(str(address), rank=0, start={})
        yield reporter, records
        reporter.close(5)
    finally:
        writer.stdin.write(b"end\n")
        writer.stdin.close()
        writer.wait(60)
    records += [json.loads(line) for file in spool_files(run, 1) for line in file.read_text().splitlines()]
