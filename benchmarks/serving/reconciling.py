"""What it costs to watch thousands of live jobs: CPU seconds of the service and its children per cycle.

    python -m benchmarks.serving.reconciling [--jobs 9000] [--cycles 10] [--json]

A one-machine Slurm with MaxJobCount raised is given so many jobs, of which as many run as it has CPUs; rows and run
directories are those that the service would have made. Each cycle is the reconcile loop's own; a turn of the other two
loops is measured beside it. Then a real `lockstep serve` watches them for a minute. Questions to Slurm are counted by
the processes that are started. CPU time is this process's and its ended children's (getrusage); slurmctld is none.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import insert, inspect

from lockstep_service.app import create_app
from lockstep_service.boundary import Application
from lockstep_service.dispatch import ingest, reconcile, submit, worklists
from lockstep_service.jobs import repository, service
from lockstep_service.settings import Settings
from lockstep_service.tables import JobRow
from lockstep_service.wire import now
from lockstep_slurm.client import CommandClient
from lockstep_slurm.client.protocol import Submission
from lockstep_slurm.cluster import down, up
from lockstep_slurm.job.identity import new_job_id, slurm_name
from lockstep_slurm.job.rundir import FOLDERS, LOGS
from lockstep_slurm.job.spec import JobSpec

WATCHED_SECONDS = 60.0
SPEC = {"name": "digits", "training": {"model": "digits-mlp", "data": "digits", "epochs": 2}}


@dataclass(frozen=True)
class Row:
    """One thing that is done again and again: its cost each time, in seconds of CPU and of the clock."""

    case: str
    times: int
    cpu: float
    """Median, of this process and its children."""
    cpu_most: float
    wall: float
    questions: float
    """To Slurm, each time."""


class Questions:
    """Counts the programs of Slurm that this process starts."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            self.asked[Path(os.fsdecode(arguments[0])).name] += 1


def cpu() -> float:
    """CPU seconds so far, of this process and of its children that have ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def measure(case: str, work: Callable[[], object], times: int, questions: Questions) -> Row:
    """``work``, so many times."""
    cpus, walls, asked = [], [], questions.asked.total()
    for _ in range(times):
        began, used = time.perf_counter(), cpu()
        work()
        cpus.append(cpu() - used)
        walls.append(time.perf_counter() - began)
    return Row(
        case,
        times,
        statistics.median(cpus),
        max(cpus),
        statistics.median(walls),
        (questions.asked.total() - asked) / times,
    )


def submit_all(client: CommandClient, folder: Path, names: Sequence[str], *, quiet: bool) -> list[int]:
    """Submits one small script under these names, eight at a time; the Slurm ids, in the names' order."""
    script = folder / "job.sbatch"
    script.write_text("#!/bin/bash\n#SBATCH --ntasks=1\nexec sleep 86400\n")
    with ThreadPoolExecutor(8) as threads:
        answers = threads.map(
            lambda name: client.submit(Submission(script, name, folder / "job-%j.log", folder)), names
        )
        return list(track(answers, "submitting", total=len(names), disable=quiet, console=Console(stderr=True)))


def store_all(app: Application, ids: Sequence[str], slurm_ids: Sequence[int]) -> None:
    """Rows as the service makes them for submitted jobs, and their folders as dispatch makes them."""
    first = service.store(app, JobSpec.model_validate(SPEC), None)
    with app.database.writing() as session:
        made = repository.lock(session, first.id)
        assert made is not None
        columns = {column.key: getattr(made, column.key) for column in inspect(JobRow).column_attrs}
        session.delete(made)
        session.flush()
        moment = now()
        rows = [
            columns
            | {
                "id": job_id,
                "run_dir": str(app.runs / job_id),
                "slurm_job_id": slurm_id,
                "phase": "waiting",
                "created_at": moment,
                "changed_at": moment,
                "dispatched_at": moment,
            }
            for job_id, slurm_id in zip(ids, slurm_ids, strict=True)
        ]
        session.execute(insert(JobRow), rows)
    for job_id in ids:
        run = app.runs / job_id
        for name in (LOGS, *FOLDERS):
            (run / name).mkdir(parents=True)


@contextmanager
def cluster(jobs: int) -> Iterator[Path]:
    """A one-machine Slurm with room for so many jobs; its slurm.conf."""
    folder = Path(tempfile.mkdtemp(prefix="lockstep-watching-"))
    try:
        info = up("watching", 2, folder / "c", overrides={"MaxJobCount": str(jobs + 1000)})
        yield info.slurm_conf
    finally:
        down(folder / "c")
        shutil.rmtree(folder)


def served(settings: Settings, conf: Path) -> tuple[float, float]:
    """CPU seconds per second of a real service that watches them, and of its slurmctld-independent children."""
    environment = os.environ | {"LOCKSTEP_HOME": str(settings.home), "SLURM_CONF": str(conf)}
    command = [sys.executable, "-m", "lockstep_slurm.cli.main", "serve", "--client", "command"]
    with (settings.home / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            until = time.monotonic() + WATCHED_SECONDS / 2
            while time.monotonic() < until:  # its start, and its first look at everything
                time.sleep(1)
            began, used = time.monotonic(), _used(process.pid)
            while time.monotonic() < began + WATCHED_SECONDS:
                time.sleep(1)
            return _used(process.pid) - used, time.monotonic() - began
        finally:
            process.terminate()
            process.wait(30)


def _used(pid: int) -> float:
    """CPU seconds of a process and of its ended children (proc(5): utime, stime, cutime, cstime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def run(jobs: int, cycles: int, *, quiet: bool) -> tuple[list[Row], float]:
    """All rows, and CPU seconds per second of a whole service."""
    questions = Questions()
    with cluster(jobs) as conf, tempfile.TemporaryDirectory(prefix="lockstep-home-") as home:
        client = CommandClient(conf)
        settings = Settings(home=Path(home), client="command", slurm_conf=conf, dispatch=False)
        app: Application = create_app(settings, client).state.application
        ids = [new_job_id() for _ in range(jobs)]
        work = Path(home) / "work"
        work.mkdir()
        slurm_ids = submit_all(client, work, [slurm_name("digits", job_id) for job_id in ids], quiet=quiet)
        store_all(app, ids, slurm_ids)

        def cycle() -> None:
            reconcile.pass_on_cancels(app)
            reconcile.reconcile(app)

        rows = [measure("first cycle after a start", cycle, 1, questions)]
        with app.database.reading() as session:
            live = len(worklists.live_marks(session))
        if live != jobs:
            raise SystemExit(f"{live} jobs are live, not {jobs}: the measurement is of something else")
        rows.append(measure("cycle", cycle, cycles, questions))
        some = iter(range(jobs - 1, 0, -1))

        def cancel() -> None:
            for _ in range(20):
                client.cancel(slurm_ids[next(some)])

        for _ in range(3):
            cancel()
            rows.append(measure("cycle in which 20 jobs ended", cycle, 1, questions))
        rows.append(
            measure(
                "turn of the ingest loop",
                lambda: (ingest.unfinished(app, everything=False), ingest.new_exits(app)),
                cycles,
                questions,
            )
        )
        rows.append(measure("turn of the submit loop", lambda: submit.submit_due(app), cycles, questions))
        app.database.close()
        used, seconds = served(settings, conf)
        return rows, used / seconds


def main() -> None:
    """Measures and prints; exits 0 whatever the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=9000)
    parser.add_argument("--cycles", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows, share = run(options.jobs, options.cycles, quiet=options.json)
    if options.json:
        json.dump(
            {"name": "reconciling", "jobs": options.jobs, "service_cpu": share, "rows": [asdict(row) for row in rows]},
            sys.stdout,
            indent=2,
        )
        print()
        return
    table = Table(title=f"{options.jobs} live jobs")
    for heading in ("what", "times", "CPU s", "most", "wall s", "questions"):
        table.add_column(heading)
    for row in rows:
        table.add_row(
            row.case, str(row.times), f"{row.cpu:.3f}", f"{row.cpu_most:.3f}", f"{row.wall:.3f}", f"{row.questions:.1f}"
        )
    console = Console()
    console.print(table)
    console.print(f"A whole service takes {share:.3f} CPU seconds a second, children included.")


if __name__ == "__main__":
    main()
