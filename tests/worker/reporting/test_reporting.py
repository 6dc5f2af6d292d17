"""From ``lockstep.report`` through the node's writer to the spool: nothing waits, nothing is lost unseen."""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lockstep
from lockstep.reporter import CAPACITY, PACKET_LIMIT, Reporter, plain
from lockstep_slurm.job.rundir import spool_file
from lockstep_worker import writer
from lockstep_worker.node import node_folder
from lockstep_worker.processes import Helper
from lockstep_worker.spool import Spool
from lockstep_worker.writer import CLOSING
from support.ranks import base_environment
from support.trainings import wait_for

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


@pytest.fixture
def run(make_run: Callable[..., Path]) -> Path:
    return make_run(model="digits-mlp", data="digits")


@pytest.fixture
def node(run: Path, tmp_path: Path) -> Iterator[Node]:
    folder = tmp_path / "n"
    folder.mkdir(mode=0o700)
    node = Node(run, folder)
    yield node
    if node.helper.process.poll() is None:
        node.helper.process.kill()
    node.helper.process.wait()
    assert node.helper.process.stdout is not None
    node.helper.process.stdout.close()


def contiguous(records: list[dict[str, Any]], rank: int) -> bool:
    """Whether a rank's ``seq`` counts from 1 without holes, in the order of the file."""
    seqs = [record["seq"] for record in records if record["rank"] == rank]
    return seqs == list(range(1, len(seqs) + 1)) and len(seqs) > 0


def test_records_arrive_in_order_and_stamped(node: Node) -> None:
    reporters = [node.reporter(rank) for rank in range(3)]
    for step in range(1, 301):
        for reporter in reporters:
            reporter.report(step, "step", {"loss": 1 / step, "samples": 8})
    for reporter in reporters:
        reporter.close()
    records = node.end()
    assert len(records) == 3 * 301
    for rank in range(3):
        assert contiguous(records, rank)
        own = [record for record in records if record["rank"] == rank]
        assert own[0]["kind"] == "start"
        assert own[0]["values"] == START
        assert [record["step"] for record in own[1:]] == list(range(1, 301))
    assert {(record["v"], record["attempt"]) for record in records} == {(1, 1)}
    assert abs(records[-1]["time"] - time.time()) < 60


def test_a_record_is_in_the_spool_soon_while_training_goes_on(node: Node) -> None:
    reporter = node.reporter()
    reporter.report(1, "step", {"loss": 0.5})
    reported = time.monotonic()
    while len(node.records()) < 2:
        assert time.monotonic() - reported < 5, "not written"
        time.sleep(0.02)
    reporter.close()
    node.end()


def test_a_stopped_writer_never_makes_a_rank_wait_and_what_is_dropped_is_counted(node: Node) -> None:
    reporter, reports = node.reporter(), 3 * CAPACITY
    reporter.report(0, "step", {})
    os.kill(node.helper.pid, signal.SIGSTOP)
    slowest = 0.0
    for step in range(1, reports + 1):
        before = time.perf_counter()
        reporter.report(step, "step", {"loss": 0.25, "samples": 32, "seconds": 0.01})
        slowest = max(slowest, time.perf_counter() - before)
    os.kill(node.helper.pid, signal.SIGCONT)
    # Far above what any report takes on a machine that is too busy, and far below a wait for a stopped process.
    assert slowest < 10
    reporter.close(deadline=20)
    records = node.end()
    assert contiguous(records, 0)
    kept = [record["step"] for record in records if record["kind"] == "step"]
    dropped = sum(record["values"]["dropped"] for record in records if record["kind"] == "gap")
    assert dropped > 0
    assert len(kept) + dropped == reports + 1
    assert kept == sorted(kept)


def test_a_gap_stands_where_the_records_are_missing(node: Node) -> None:
    reporter = node.reporter(capacity=10)
    reporter.report(1, "step", {})
    os.kill(node.helper.pid, signal.SIGSTOP)
    for step in range(2, 5000):
        reporter.report(step, "step", {"filler": "x" * 100})
    os.kill(node.helper.pid, signal.SIGCONT)
    ends = time.monotonic() + 20
    step = 4999
    while not any(record["kind"] == "gap" for record in node.records()):
        assert time.monotonic() < ends, "no gap was written"
        step += 1
        reporter.report(step, "step", {"last": 1})
        time.sleep(0.01)
    reporter.close()
    records = node.end()
    before = next(index for index, record in enumerate(records) if record["kind"] == "gap")
    last_kept, first_after = records[before - 1]["step"], records[before + 1]["step"]
    assert records[before]["values"]["dropped"] == first_after - last_kept - 1


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


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1.5, 1.5),
        (3, 3),
        (True, 1),
        ("text", "text"),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        ([1, math.nan, 2.5], [1, "NaN", 2.5]),
        (np.float32(0.5), 0.5),
        (np.arange(3), [0, 1, 2]),
        (torch.tensor(0.25, requires_grad=True), 0.25),
        (torch.tensor([1.0, math.inf]), [1.0, "Infinity"]),
        (torch.ones(2, 2), [1.0, 1.0, 1.0, 1.0]),  # the service refuses lists of lists, and all that is sent with them
        ([[1], "a", (2, [3])], [1, "a", 2, 3]),
        (2**63, str(2**63)),
        (None, "None"),
        ({"a": 1}, "{'a': 1}"),
    ],
)
def test_values_are_numbers_texts_or_lists(value: object, written: object) -> None:
    assert plain(value) == written
    json.dumps(plain(value), allow_nan=False)


@pytest.mark.parametrize(
    ("step", "written"),
    [
        (np.int64(3), 3),
        (torch.tensor(3), 3),
        (3.0, 3),
        (2**63, None),
        ("soon", None),
    ],
)
def test_a_step_is_a_whole_number_whatever_counted_it(node: Node, step: object, written: int | None) -> None:
    reporter = node.reporter()
    reporter.report(step, "step", {})
    reporter.close()
    assert node.end()[-1]["step"] == written


def test_a_report_that_cannot_be_read_is_dropped_and_counted(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    reporter = node.reporter()
    reporter.report(0, "step", {})
    for value in (torch.ones(3, device="meta"), Broken(), 10**5000):
        reporter.report(1, "step", {"odd": value})
    reporter.report(2, "step", {"loss": 1.0})
    reporter.close()
    records = node.end()
    found = [(record["kind"], record["step"]) for record in records]
    assert found == [("start", None), ("step", 0), ("gap", None), ("step", 2)]
    assert records[2]["values"] == {"dropped": 3}
    assert "a report was dropped" in capsys.readouterr().err


def test_a_forked_child_that_ends_sends_nothing_of_its_parents(node: Node) -> None:
    code = """
import os, sys, lockstep
lockstep.report(step=1)
lockstep._reporter._socket.close()  # so that what follows stays in the queue
lockstep._reporter._socket = None
lockstep._reporter._retry_at = float("inf")
lockstep.report(step=2)
if os.fork() == 0:
    sys.exit()
os.wait()
"""
    environment = base_environment() | {"LOCKSTEP_SOCKET": str(node.socket)}
    subprocess.run([sys.executable, "-c", code], env=environment, timeout=30, check=True)
    assert [record["step"] for record in node.end()] == [None, 1, 2]


def test_a_report_that_is_too_large_is_dropped_and_counted(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = node.reporter()
    reporter.report(1, "step", {"weights": "x" * PACKET_LIMIT})
    reporter.report(2, "step", {"loss": 1.0})
    reporter.close()
    assert [(record["kind"], record["step"]) for record in node.end()] == [("start", None), ("gap", None), ("step", 2)]
    assert "was dropped" in capsys.readouterr().err


def test_pace_is_filled_in_where_a_script_does_not_tell_it(node: Node) -> None:
    reporter = node.reporter()
    reporter.report(1, "step", {"samples": 32})
    reporter.report(2, "step", {"samples": 32})
    reporter.report(3, "step", {"samples": 32, "seconds": 2.0})
    reporter.report(4, "step", {"samples_per_s": 7.0})
    reporter.close()
    first, second, third, fourth = (record["values"] for record in node.end() if record["kind"] == "step")
    assert first == {"samples": 32}, "nobody knows when the first step began"
    assert second["samples_per_s"] == pytest.approx(32 / second["seconds"])
    assert (third["seconds"], third["samples_per_s"]) == (2.0, 16.0)
    assert fourth["samples_per_s"] == 7.0


def test_outside_lockstep_a_report_says_so_once_and_does_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lockstep, "_reporter", None)  # another test of this process may have reported before
    lockstep.report(step=1, loss=1.0)
    lockstep.report(step=2, loss=1.0)
    assert capsys.readouterr().err.count("not started by Lockstep") == 1


def test_a_node_folder_of_somebody_else_is_refused(run: Path) -> None:
    from lockstep_worker.claim import claim
    from lockstep_worker.errors import WorkerError
    from lockstep_worker.world import local

    world = local(0, 1, "x", 0)
    own = claim(run, world)
    folder = node_folder(run, own, world)
    assert folder.stat().st_mode & 0o077 == 0
    assert node_folder(run, own, world) == folder
    folder.chmod(0o777)
    try:
        with pytest.raises(WorkerError, match="not a folder of ours alone"):
            node_folder(run, own, world)
    finally:
        folder.rmdir()
