"""CPU time and bytes from outside: the kernel's own account of real processes and a real interface."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockstep_worker import sampling
from lockstep_worker.sampling import Beginning, Sampler, ended, started
from lockstep_worker.usage import cpu_seconds, interface_bytes, processes
from support.lockstep import wait_for
from support.ranks import Launched

BUSY = "import os, sys, time\nwhile sum(os.times()[:2]) < float(sys.argv[1]): pass\n"


class Clock:
    """A clock that the test winds."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def beginning(clock: Clock, interface: str | None = None, *, ago: float = 0.0, less: int = 0) -> Beginning:
    """Of a training that began ``ago`` seconds before now, when the interface had carried so much ``less``."""
    carried = interface_bytes(interface) if interface is not None else None
    return Beginning(clock.now - ago, interface, (carried[0] - less, carried[1] - less) if carried else None)


def values(packets: list[bytes]) -> list[dict[str, Any]]:
    return [json.loads(packet)["values"] for packet in packets]


def test_a_process_counts_with_its_children_running_ended_and_orphaned() -> None:
    # Burns 0.3 s itself, 0.4 s in a child that it waits for, and 0.5 s in one that it does not wait for.
    tree = (
        f"import subprocess, sys, time\nbusy = {BUSY!r}\n"
        "subprocess.run([sys.executable, '-c', busy, '0.4'])\n"
        "left = subprocess.Popen([sys.executable, '-c', busy + 'print(1, flush=True); time.sleep(600)', '0.5'])\n"
        "sys.argv[1:] = ['0.3']\n"
        "exec(busy)\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", tree], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        spared = frozenset(pid for pid, found in processes().items() if found.parent == os.getpid()) - {process.pid}

        def used() -> float | None:
            (total,) = cpu_seconds(processes(), [(os.getpid(), spared)])
            return total if total >= 1.2 else None

        assert wait_for("the CPU time to be seen", used, 60) < 3
        (nothing,) = cpu_seconds(processes(), [(os.getpid(), spared | {process.pid})])
        assert nothing == 0.0
    finally:
        for pid, found in processes().items():
            if found.parent == process.pid:
                os.kill(pid, 9)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_bytes_of_an_interface_are_counted() -> None:
    before = interface_bytes("lo")
    assert before is not None
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sender:
        receiver, _ = server.accept()
        with receiver:
            sender.sendall(b"x" * 100_000)
            while len(receiver.recv(1 << 20, socket.MSG_PEEK)) < 100_000:
                pass
    after = interface_bytes("lo")
    assert after is not None
    assert all(new - old >= 100_000 for new, old in zip(after, before, strict=True))
    assert interface_bytes("nosuch0") is None


class TestSampler:
    def test_samples_are_taken_at_their_time_and_numbered(self) -> None:
        clock = Clock()
        sampler = Sampler("node1", clock)
        sampler.note("a", started(rank=3, pid=os.getpid(), spared=[], beginning=beginning(clock)))
        assert sampler.sample() == []
        for number in (1, 2):
            clock.now += sampling.EVERY + 0.1
            (packet,) = sampler.sample()
            record = json.loads(packet)
            assert (record["rank"], record["kind"], record["step"]) == (3, "usage", number)
            assert record["values"]["node"] == "node1"
            assert record["values"]["elapsed_s"] == pytest.approx(number * (sampling.EVERY + 0.1))
            assert "interface" not in record["values"]
            assert sampler.sample() == []

    def test_the_last_one_is_the_kernels_own_account(self) -> None:
        clock = Clock()
        sampler = Sampler("node1", clock)
        sampler.note("a", started(rank=0, pid=os.getpid(), spared=[], beginning=beginning(clock, "lo")))
        clock.now += 4.0
        (last,) = values(sampler.note("a", ended(6.0)))
        assert (last["cpu_s"], last["elapsed_s"], last["cpus"], last["interface"]) == (6.0, 4.0, 1.5, "lo")
        assert last["received_bytes"] >= 0
        clock.now += 100
        assert sampler.sample() == [], "the training has ended"

    def test_a_last_one_soon_after_a_sample_is_measured_from_the_one_before(self, monkeypatch: Any) -> None:
        clock = Clock()
        monkeypatch.setattr(sampling, "cpu_seconds", lambda _known, roots: [(clock.now - 100) * 2.0 for _ in roots])
        sampler = Sampler("node1", clock)
        sampler.note("a", started(rank=0, pid=os.getpid(), spared=[], beginning=beginning(clock)))
        for _ in range(2):
            clock.now += 6.0
            (sample,) = values(sampler.sample())
            assert sample["cpus"] == 2.0
        clock.now += 0.01
        (last,) = values(sampler.note("a", ended(24.5)))
        assert last["cpus"] == pytest.approx((24.5 - 12.0) / 6.01, abs=0.01)

    def test_one_that_began_long_ago_is_counted_from_there_by_a_later_writer(self, monkeypatch: Any) -> None:
        clock = Clock()
        monkeypatch.setattr(sampling, "cpu_seconds", lambda _known, roots: [2000.0 for _ in roots])
        sampler = Sampler("node1", clock, numbers={3: 200})
        long_ago = beginning(clock, "lo", ago=1000.0, less=10_000)
        sampler.note("a", started(rank=3, pid=os.getpid(), spared=[], beginning=long_ago))
        clock.now += 5.0
        (packet,) = sampler.sample()
        assert json.loads(packet)["step"] == 201
        (found,) = values([packet])
        assert (found["elapsed_s"], found["cpu_s"], found["cpus"]) == (1005.0, 2000.0, pytest.approx(2000 / 1005, 0.01))
        assert found["received_bytes"] >= 10_000
        assert found["sent_bytes"] >= 10_000

    def test_a_wrapper_that_connects_once_more_is_counted_on(self) -> None:
        clock = Clock()
        sampler = Sampler("node1", clock)
        since = beginning(clock)
        for number, connection in enumerate("ab", start=1):
            sampler.note(connection, started(rank=0, pid=os.getpid(), spared=[], beginning=since))
            clock.now += 6.0
            (packet,) = sampler.sample()
            assert (json.loads(packet)["step"], values([packet])[0]["elapsed_s"]) == (number, 6.0 * number)
            sampler.forget(connection)

    def test_of_an_interface_that_is_gone_nothing_is_taken_back(self, monkeypatch: Any) -> None:
        clock = Clock()
        sampler = Sampler("node1", clock)
        since = beginning(clock, "lo", less=10_000)
        sampler.note("a", started(rank=0, pid=os.getpid(), spared=[], beginning=since))
        monkeypatch.setattr(sampling, "interface_bytes", lambda _name: None)
        clock.now += 6.0
        (found,) = values(sampler.sample())
        assert (found["received_bytes"], found["sent_bytes"]) == (0, 0)

    def test_a_node_with_very_many_processes_is_sampled_more_seldom(self, monkeypatch: Any) -> None:
        clock = Clock()

        def slow() -> dict[int, Any]:
            clock.now += 1.0
            return {}

        monkeypatch.setattr(sampling, "processes", slow)
        sampler = Sampler("node1", clock)
        sampler.note("a", started(rank=0, pid=1, spared=[], beginning=beginning(clock)))
        clock.now += 6.0
        assert len(sampler.sample()) == 1
        clock.now += 50.0
        assert sampler.sample() == []
        clock.now += 60.0
        assert len(sampler.sample()) == 1

    def test_a_wrapper_that_is_gone_and_a_note_that_is_none_cost_nothing(self, capsys: Any) -> None:
        clock = Clock()
        sampler = Sampler("node1", clock)
        sampler.note("a", started(rank=0, pid=os.getpid(), spared=[], beginning=beginning(clock, "nosuch0")))
        assert "has no interface nosuch0" in capsys.readouterr().err
        assert sampler.note("b", b"\0[]") == sampler.note("b", b"\0{") == sampler.note("b", ended(1.0)) == []
        assert capsys.readouterr().err.count("cannot be read") == 1
        sampler.forget("a")
        clock.now += 10
        assert sampler.sample() == []


def test_every_rank_of_a_real_run_has_its_use_recorded(
    make_run: Callable[..., Path], launch: Callable[..., Launched], tmp_path: Path
) -> None:
    script = tmp_path / "busy.py"
    # Half of it in a child, as a loader's worker would.
    script.write_text(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BUSY!r}, '1'])\n{BUSY}")
    began = time.monotonic()
    launched = launch(make_run(script=str(script), arguments=["1"]), 2)
    assert launched.wait() == 0, launched.text
    passed = time.monotonic() - began
    for rank in (0, 1):
        records = [record for record in launched.records("usage") if record["rank"] == rank]
        last = records[-1]["values"]
        assert 2.0 <= last["cpu_s"] < 3.5
        assert 2.0 / passed < last["cpu_s"] / last["elapsed_s"] < 2.0
        assert last["node"]
        assert ("received_bytes" in last) == (rank == 0)
