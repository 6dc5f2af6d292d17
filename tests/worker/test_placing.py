"""What a node's ranks tell each other before they plan, and every rank's verdict on what became of the plan."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.job.rundir import read_exit
from lockstep_slurm.placement import (
    Placement,
    Topology,
    Verdict,
    from_sysfs,
)
from lockstep_slurm.placement.verdict import ThreadVerdict
from lockstep_worker import node, proof, waiting
from lockstep_worker.errors import MeetingError
from lockstep_worker.placing import planned
from lockstep_worker.proof import DOCUMENT_LIMIT, document_of
from lockstep_worker.world import local
from support.ranks import Launched, processes_of, slurms, task, told

MakeRun = Callable[..., Path]
Launch = Callable[..., Launched]
ALLOWED = sorted(os.sched_getaffinity(0))
INITS = """
import horovod.torch as hvd
hvd.init()
"""
TRAINS = (
    INITS
    + """
import torch
model = torch.nn.Linear(100, 100)
optimizer = hvd.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.01), model.named_parameters())
for _ in range(5):
    optimizer.zero_grad(); model(torch.randn(8, 100)).sum().backward(); optimizer.step()
"""
)

OF_TORCH = """
import torch
import torch.distributed as dist
dist.init_process_group("gloo")
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(100, 100))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range(5):
    optimizer.zero_grad(); model(torch.randn(8, 100)).sum().backward(); optimizer.step()
dist.destroy_process_group()
"""


def test_a_rank_that_leaves_at_once_is_still_read_by_the_one_that_removes_the_folder(tmp_path: Path) -> None:
    first, second = slurms(0), slurms(1)
    node.told(tmp_path, first, [0])
    node.told(tmp_path, second, [1])
    node.told(tmp_path, second, None)
    node.leave_folder(tmp_path, second)
    assert [rank["granted"] for rank in node.wait_for_all(tmp_path, first)] == [[0], [1]]
    node.told(tmp_path, first, None)
    node.wait_until_heard(tmp_path, first)
    node.leave_folder(tmp_path, first)
    assert not tmp_path.exists()
    # One that comes when that is over takes along what it made.
    tmp_path.mkdir()
    node.told(tmp_path, second, [1])
    node.leave_folder(tmp_path, second)
    assert not tmp_path.exists()


def test_who_did_not_come_is_named_with_where_it_was_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PATIENCE", 0.0)
    first = slurms(0)
    node.told(tmp_path, first, [0])
    with pytest.raises(MeetingError, match=rf"local rank 1 left no word in {re.escape(str(tmp_path))} .*TMPDIR"):
        node.wait_for_all(tmp_path, first)


def verdicts(launched: Launched) -> dict[tuple[int, str], dict[str, Any]]:
    """The verdicts' values by rank and moment, each with its document read."""
    found = {}
    for record in launched.records("verdict"):
        values = record["values"]
        found[record["rank"], values["when"]] = {**values, "document": json.loads(values["document"])}
    return found


class TestRanks:
    def test_two_ranks_of_horovod_are_as_planned_after_init_and_after_the_first_steps(
        self, make_run: MakeRun, launch: Launch, tmp_path: Path
    ) -> None:
        (tmp_path / "trains.py").write_text(TRAINS)
        run = make_run(script=str(tmp_path / "trains.py"))
        launched = launch(run, 2)
        assert launched.wait() == 0, launched.text
        found = verdicts(launched)
        assert found.keys() == {(rank, when) for rank in range(2) for when in ("init", "steps")}
        for (rank, when), values in found.items():
            assert (values["result"], values["deviations"]) == ("as planned", 0), values
            verdict = Verdict.parse(values["document"])
            assert (verdict.rank, verdict.when) == (rank, when)
            assert [thread.role for thread in verdict.threads].count("horovod") == 1
            assert {thread.role for thread in verdict.threads} <= {"main", "horovod", "gloo", "imported"}
        (placement,) = launched.records("placement")
        document = json.loads(placement["values"]["document"])
        file = json.loads((run / "placement" / "1" / f"{document['node']}.json").read_text())
        assert file.pop("host")
        assert file == document
        assert (document["version"], document["attempt"]) == (2, 1)
        assert [rank["granted"] for rank in document["ranks"]] == [ALLOWED] * 2
        planned = Placement.parse(document["placement"])
        assert not set(planned.ranks[0].compute) & set(planned.ranks[1].compute)
        assert set(Topology.parse(document["topology"]).cpus) >= set(ALLOWED)

    @pytest.mark.skipif(len(ALLOWED) < 2, reason="needs a CPU to keep for communication")
    def test_a_training_with_torchs_own_communication_is_as_planned_from_init_on(
        self, make_run: MakeRun, launch: Launch, tmp_path: Path
    ) -> None:
        (tmp_path / "ddp.py").write_text(OF_TORCH)
        asked = {"communication_cpus": 1, "on_mismatch": "fail"}
        launched = launch(make_run({"placement": asked}, script=str(tmp_path / "ddp.py")), 1)
        assert launched.wait() == 0, launched.text
        found = verdicts(launched)
        assert {when: values["result"] for (_, when), values in found.items()} == dict.fromkeys(
            ("init", "steps"), "as planned"
        ), launched.text

    def test_a_script_without_communication_is_seen_at_its_end(
        self, make_run: MakeRun, launch: Launch, tmp_path: Path
    ) -> None:
        (tmp_path / "plain.py").write_text("print('plain')\n")
        launched = launch(make_run(script=str(tmp_path / "plain.py")), 1)
        assert launched.wait() == 0
        assert launched.text.splitlines() == ["0: plain"]
        ((_, values),) = verdicts(launched).items()
        assert (values["when"], values["result"]) == ("steps", "as planned")

    def test_a_rank_that_could_not_be_seen_says_so(self, make_run: MakeRun, launch: Launch, tmp_path: Path) -> None:
        (tmp_path / "gone.py").write_text("import os\nos._exit(0)\n")
        launched = launch(make_run(script=str(tmp_path / "gone.py")), 1)
        assert launched.wait() == 0
        ((_, values),) = verdicts(launched).items()
        assert (values["result"], values["document"]["threads"]) == ("deviates", [])
        assert "nothing was seen of its threads" in launched.text

    def test_a_thread_that_is_elsewhere_is_a_line_in_the_log_and_the_training_goes_on(
        self, make_run: MakeRun, launch: Launch, tmp_path: Path
    ) -> None:
        (tmp_path / "moves.py").write_text(MOVES)
        launched = launch(make_run(script=str(tmp_path / "moves.py")), 2)
        assert launched.wait() == 0, launched.text
        assert "0: went on" in launched.text
        values = verdicts(launched)[0, "init"]
        assert values["result"] == "deviates"
        sentence = next(one for one in values["document"]["deviations"] if "the main thread" in one)
        assert f"0: lockstep: {sentence}" in launched.text

    def test_with_on_mismatch_fail_it_ends_the_attempt_with_that_sentence(
        self, make_run: MakeRun, launch: Launch, tmp_path: Path
    ) -> None:
        (tmp_path / "moves.py").write_text(MOVES + "while True:\n    hvd.allreduce(torch.ones(1), name='b')\n")
        run = make_run({"placement": {"on_mismatch": "fail"}}, script=str(tmp_path / "moves.py"))
        launched = launch(run, 2)
        assert launched.wait() == 71, launched.text
        ended = read_exit(run, 1)
        assert ended is not None
        assert (ended.code, ended.signal) == (71, None)
        assert ended.message is not None
        assert "placement.on_mismatch is fail" in ended.message
        assert "rank 0 on" in ended.message
        assert processes_of(run) == []

    def test_under_slurm_a_rank_without_a_cpu_of_its_own_ends_before_it_trains(
        self, make_run: MakeRun, launch: Launch, tmp_path: Path
    ) -> None:
        (tmp_path / "plain.py").write_text("print('trains')\n")
        run = make_run({"placement": {"ranks_per_node": 2}}, script=str(tmp_path / "plain.py"))
        bound = ("taskset", "-c", str(ALLOWED[0]))
        ranks = [launch(run, slurm=task(rank, nodes=1, per_node=2), prefix=bound) for rank in range(2)]
        assert {rank.wait() for rank in ranks} == {78}
        ended = read_exit(run, 1)
        assert ended is not None
        assert ended.message is not None
        assert "could not start" in ended.message
        assert "trains" not in ranks[0].text + ranks[1].text

    def test_with_on_shortage_degrade_it_trains_and_the_record_says_so(
        self, make_run: MakeRun, launch: Launch, tmp_path: Path
    ) -> None:
        (tmp_path / "inits.py").write_text(INITS)
        sections = {"placement": {"ranks_per_node": 2, "on_shortage": "degrade"}}
        run = make_run(sections, script=str(tmp_path / "inits.py"))
        bound = ("taskset", "-c", str(ALLOWED[0]))
        ranks = [launch(run, slurm=task(rank, nodes=1, per_node=2), prefix=bound) for rank in range(2)]
        assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].text
        assert {values["result"] for values in verdicts(ranks[0]).values()} == {"degraded"}


SILENT = """
import json, os, socket, sys, time
os.sched_setaffinity(0, json.loads(sys.argv[2]))
said = {"when": "init", "threads": [[os.getpid(), "main", "python", sys.argv[3], 0]], "births": {}, "workers": [],
        "variables": {}}
if sys.argv[4] == "inits":
    wrapper = socket.socket(fileno=int(sys.argv[1]))
    wrapper.send(json.dumps(said).encode())
print("there", flush=True)
time.sleep(600)
"""


class TestWithoutStepsThatCanBeSeen:
    """A training is looked at from outside, but not while it may still be loading."""

    def told_of(self, how: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[dict[str, Any]], list[str]]:
        monkeypatch.setattr(proof, "PATIENCE", 0.1)
        world = local(0, 1, "x", 0)
        placed = planned(told(ALLOWED), world, {"placement": {"memory": "local"}}, {}, from_sysfs())
        own = placed.own.compute
        records: list[dict[str, Any]] = []
        ended: list[str] = []
        looked = threading.Event()

        def tell(packet: bytes, _: str) -> None:
            records.append(json.loads(packet)["values"])
            if records[-1]["when"] == "steps":
                looked.set()

        one = proof.Proof(world, placed, {"placement": {"on_mismatch": "fail"}}, tell, ended.append)
        away, planned_cpus = json.dumps(own[-1:]), ",".join(map(str, own))
        command = [sys.executable, "-c", SILENT, str(one.theirs), away, planned_cpus, how]
        with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[one.theirs]) as training:
            try:
                assert training.stdout is not None
                assert training.stdout.readline() == b"there\n"
                one.start(training.pid)
                assert looked.wait(60 if how == "inits" else 1) == (how == "inits")
            finally:
                training.kill()
        one.finish()
        return records, ended

    def test_a_minute_after_its_communication_has_started(self, monkeypatch: pytest.MonkeyPatch) -> None:
        records, ended = self.told_of("inits", monkeypatch)
        assert [(values["when"], values["result"]) for values in records] == [
            ("init", "as planned"), ("steps", "deviates"),
        ], records  # fmt: skip
        (thread,) = Verdict.parse(json.loads(records[1]["document"])).threads
        assert (thread.role, thread.observed) == ("main", thread.planned[-1:])
        assert len(ended) == 1, "on_mismatch is fail"

    def test_not_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        records, ended = self.told_of("loads", monkeypatch)
        assert [values["result"] for values in records] == ["deviates"], "at its end: nothing was seen"
        assert ended == []


# One CPU for each of two ranks: rank 0's main thread goes where rank 1 computes, as its communication starts.
MOVES = """
import os
import re
import horovod.torch as hvd
import torch
if os.environ["RANK"] == "0":
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(range(os.cpu_count())))
    os.sched_setaffinity(0, os.sched_getaffinity(0) - own)
hvd.init()
hvd.allreduce(torch.ones(1), name="a")
print("went on", flush=True)
"""


def test_a_verdict_on_more_threads_than_a_record_holds_keeps_those_that_deviate() -> None:
    cpus = tuple(range(256))
    threads = tuple(
        ThreadVerdict(1000 + n, "compute" if n else "main", "python", cpus, cpus, n, "it is away" if n == 200 else "")
        for n in range(257)
    )
    verdict = Verdict(0, 0, "n", "init", "deviates", threads, ("it is away",), ())
    document = json.loads(document_of(verdict))
    assert len(json.dumps(document, separators=(",", ":"))) <= DOCUMENT_LIMIT
    kept = Verdict.parse(document)
    assert {thread.role for thread in kept.threads if thread.tid in (1000, 1200)} == {"main", "compute"}
    assert document["left_out"] == 257 - len(kept.threads) > 0
    few = Verdict(0, 0, "n", "init", "as planned", threads[:3], (), ())
    assert Verdict.parse(json.loads(document_of(few))) == few
