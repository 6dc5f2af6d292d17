"""From ``lockstep.report`` through the node's writer to the spool: nothing waits, nothing is lost unseen."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import lockstep
from lockstep.reporter import CAPACITY, PACKET_LIMIT, plain
from lockstep_worker.node import node_folder
from support.clock import Clock
from support.ranks import base_environment
from support.writers import START, Node, contiguous


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


def test_an_evaluation_that_another_rank_reports_is_not_the_next_steps_time(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, reporter = Clock(monkeypatch), node.reporter()
    monkeypatch.setattr(lockstep, "_reporter", reporter)
    lockstep.evaluated(0)  # before there was a step: nobody knows when the first one begins
    lockstep.report(step=1, samples=32)
    clock.move(1000.0)
    lockstep.evaluated(1)
    clock.move(8.0)
    lockstep.report(step=2, samples=32)
    reporter.close()
    start, first, second = node.end()
    assert (start["kind"], first["kind"], second["kind"]) == ("start", "step", "step")
    assert first["values"] == {"samples": 32}
    assert second["values"]["seconds"] == pytest.approx(8.0, abs=2)
    assert second["values"]["samples_per_s"] == pytest.approx(4.0, abs=1)


def test_of_a_script_that_reports_every_tenth_step_the_samples_of_all_ten_count(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, reporter = Clock(monkeypatch), node.reporter()

    def step(number: int, after: float, **more: float) -> None:
        clock.move(after)
        reporter.report(number, "step", {"samples": 3200, **more})

    reporter.report(1000, "resume", {})
    step(1010, 100.0)
    step(1020, 100.0)
    step(1030, 100.0)
    clock.move(850.0)  # of which 50 s are those of five steps
    reporter.evaluated(1035)
    step(1040, 50.0)
    reporter.evaluated()
    step(1050, 50.0)
    step(1060, 100.0)
    reporter.report(1, "evaluation", {})  # one that counts epochs
    step(1070, 100.0)
    step(1080, 100.0)
    step(10, 100.0)  # one that counts anew in each epoch
    step(20, 100.0, seconds=10.0)
    reporter.close()
    found = [(one["step"], one["values"].get("samples_per_s")) for one in node.end() if one["kind"] == "step"]
    known = {1020, 1030, 1040, 1060, 1080, 10, 20}
    assert found == [
        (number, pytest.approx(320, rel=0.05) if number in known else None)
        for number in (1010, 1020, 1030, 1040, 1050, 1060, 1070, 1080, 10, 20)
    ]


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
