"""The node's writer: what becomes of records where it, a rank, its wrapper or its disk fails."""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lockstep.reporter import Reporter
from lockstep_slurm.job.rundir import spool_file
from lockstep_worker import writer
from lockstep_worker.beside import Beside
from lockstep_worker.sampling import Beginning, ended, started
from lockstep_worker.spool import Spool
from lockstep_worker.world import local
from lockstep_worker.writer import CLOSING
from support.ranks import base_environment
from support.trainings import wait_for
from support.writers import Node, contiguous


def test_a_writer_that_dies_costs_a_line_and_no_time(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = node.reporter()
    reporter.report(1, "step", {})
    node.helper.process.kill()
    node.helper.process.wait()
    before = time.monotonic()
    for step in range(2, 1000):
        reporter.report(step, "step", {})
    reporter.close(deadline=0.3)
    assert time.monotonic() - before < 3
    assert "records were not taken" in capsys.readouterr().err


def test_one_that_takes_its_place_gets_what_it_had_not_written_once_and_in_order(node: Node) -> None:
    reporter = node.reporter()
    for step in range(1, 301):
        reporter.report(step, "step", {"loss": 1 / step})
        if step == 100:
            os.kill(node.helper.pid, signal.SIGSTOP)  # what follows is sent, and never read
        elif step == 200:
            node.kill()
            with node.spool.open("ab") as torn:
                torn.write(b'{"v":1,"attempt":1,"ra')  # it died while it wrote
    node.helper = node.start("--again")
    reporter.close(deadline=20)
    records = node.end()
    assert [record["step"] for record in records] == [None, *range(1, 301)]
    assert contiguous(records, 0)


def test_what_was_written_but_not_yet_acknowledged_is_not_written_twice(node: Node, run: Path) -> None:
    reporter = node.reporter()
    reporter.report(1, "step", {"loss": 0.5})
    wait_for(lambda: len(node.records()) == 2, 20, "the records are not written")
    kept = [
        json.dumps({name: one[name] for name in ("rank", "time", "kind", "step", "values")}) for one in node.records()
    ]
    node.kill()
    again = Spool(spool_file(run, 1, "node1"), 1, again=True)
    assert again.append([*(one.encode() for one in kept), b'{"rank":0,"time":1.5,"kind":"step","step":2,"values":{}}'])
    again.close()
    assert [(record["seq"], record["step"]) for record in node.records()] == [(1, None), (2, 1), (3, 2)]
    node.helper = node.start("--again")
    reporter.close(deadline=20)
    assert [record["step"] for record in node.end()] == [None, 1, 2]


def test_one_that_takes_its_place_counts_the_use_of_cpus_on(node: Node, run: Path) -> None:
    beside = Beside(run, local(1, 2, "x", 0))
    beside.hold_writer(node.socket)
    began = Beginning(time.monotonic() - 1000, None, None)
    beside.tell_started(lambda: started(rank=1, pid=os.getpid(), spared=[], beginning=began))

    def usage() -> list[dict[str, Any]]:
        return [record for record in node.records() if record["kind"] == "usage"]

    beside.tell(ended(1900.0), "its use")
    wait_for(usage, 20, "the first writer wrote nothing")
    beside.hold_on()
    assert beside._held is not None
    before = beside._held
    node.kill()
    beside.hold_on()
    assert beside._held is None, "nobody listens"
    node.helper = node.start("--again")
    beside.hold_on()
    assert beside._held not in (None, before), "not only when there is something to tell"
    beside._held.send(ended(2000.0))
    wait_for(lambda: len(usage()) == 2, 20, "the second writer knew of no training")
    beside._held.close()
    assert [(record["rank"], record["step"]) for record in usage()] == [(1, 1), (1, 2)]
    assert [record["values"]["cpu_s"] for record in usage()] == [1900.0, 2000.0]
    assert [1000 <= record["values"]["elapsed_s"] < 1100 for record in usage()] == [True, True]
    assert usage()[1]["values"]["cpus"] < 2.1
    node.end()


def test_a_rank_keeps_no_record_that_is_written(node: Node) -> None:
    reporter = node.reporter()
    reporter.report(1, "step", {"loss": 0.5})
    wait_for(lambda: len(node.records()) == 2, 20, "the records are not written")

    def heard() -> bool:
        reporter.report(2, "step", {})
        return len(reporter._sent) < 2

    wait_for(heard, 20, "no acknowledgement came")
    reporter.close()
    node.end()


def test_what_a_rank_sent_last_is_kept_though_it_ends_before_it_has_heard_of_the_rest(node: Node) -> None:
    # A socket that is closed with something unread resets its peer, which has not read all yet.
    reporter = node.reporter()
    reporter._hear_at = math.inf
    reporter.report(1, "step", {})
    assert reporter._socket is not None
    assert select.select([reporter._socket], [], [], 20)[0], "no acknowledgement came"
    os.kill(node.helper.pid, signal.SIGSTOP)
    for step in range(2, 101):
        reporter.report(step, "step", {})
    reporter.close()
    os.kill(node.helper.pid, signal.SIGCONT)
    records = node.end()
    assert contiguous(records, 0)
    assert records[-1]["step"] == 100


def test_reports_of_a_killed_rank_are_kept(node: Node) -> None:
    code = f"""
import os, signal
from lockstep.reporter import Reporter
reporter = Reporter({str(node.socket)!r}, rank=4, start={{}})
for step in range(1, 101):
    reporter.report(step, "step", {{}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == -signal.SIGKILL
    records = node.end()
    assert contiguous(records, 4)
    assert records[-1]["step"] == 100


def test_a_writer_whose_wrapper_dies_ends_by_itself(node: Node) -> None:
    reporter = node.reporter()
    reporter.report(1, "step", {})
    assert node.helper.process.stdin is not None
    node.helper.process.stdin.close()  # what the kernel does when the wrapper is killed
    reporter.report(2, "step", {})
    assert node.helper.process.wait(20) == 0
    assert [record["step"] for record in node.records()] == [None, 1, 2]
    assert not node.socket.exists()


def test_a_writer_outlives_the_signals_that_end_a_step(node: Node) -> None:
    reporter = node.reporter()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        os.kill(node.helper.pid, number)
    reporter.report(1, "step", {})
    reporter.close()
    assert [record["kind"] for record in node.end()] == ["start", "step"]


def writer_on_a_full_disk(run: Path, socket: Path, buffer: int) -> subprocess.Popen[bytes]:
    """A writer with room for so many reports, whose files may have 6000 bytes; it listens when this returns."""
    limited = socket.with_name("limited.py")
    # A limit on the size of files stands for the full disk: write() is refused by the kernel in the same way.
    limited.write_text(
        "import resource, signal, sys\n"
        "from lockstep_worker import writer\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, resource.RLIM_INFINITY))\n"
        f"writer.BUFFER = {buffer}\n"
        "sys.exit(writer.main())\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(limited), "--run", str(run), "--attempt", "1", "--node", "n", "--socket", str(socket)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=base_environment(),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_a_disk_that_stays_full_does_not_keep_the_node_from_ending(run: Path, tmp_path: Path) -> None:
    process = writer_on_a_full_disk(run, tmp_path / "s", buffer=50)
    assert process.stdin is not None
    reporter = Reporter(str(tmp_path / "s"), rank=0, start={})
    for step in range(1, 201):
        reporter.report(step, "step", {"filler": "x" * 50})
    process.stdin.write(CLOSING)
    process.stdin.flush()
    reporter.close()
    _, complaint = process.communicate(timeout=60)
    assert b"records could not be written" in complaint
    assert process.returncode == 0


def test_a_disk_that_is_full_for_a_while_loses_nothing(run: Path, tmp_path: Path) -> None:
    socket = tmp_path / "s"
    process = writer_on_a_full_disk(run, socket, writer.BUFFER)
    assert process.stdin is not None
    reporter = Reporter(str(socket), rank=0, start={})
    spool = spool_file(run, 1, "n")
    for step in range(1, 101):
        reporter.report(step, "step", {"filler": "x" * 50})
    time.sleep(1)  # several flushes are refused meanwhile
    held = spool.read_bytes()
    assert len(held) <= 6000
    assert held.endswith(b"\n") or held == b"", "a torn line"
    subprocess.run(["prlimit", "--pid", str(process.pid), "--fsize=unlimited:unlimited"], check=True)
    reporter.close()
    process.stdin.write(CLOSING)
    _, complaint = process.communicate(timeout=30)
    assert b"records wait in memory" in complaint
    records = [json.loads(line) for line in spool.read_text().splitlines()]
    assert contiguous(records, 0)
    assert [record["step"] for record in records] == [None, *range(1, 101)]
