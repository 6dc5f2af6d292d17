"""Real Horovod ranks: equal parameters, the mathematics of one rank, an accuracy worth the name, an honest end."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lockstep_slurm.job.file import read
from lockstep_slurm.job.rundir import read_claims, read_exit, spool_files
from lockstep_slurm.job.script import ScriptSite, render
from lockstep_slurm.job.spec import JobSpec
from lockstep_worker import models
from lockstep_worker.data.digits import Digits
from support.ranks import ROOT, Launched, base_environment, processes_of, task

MLP = {
    "model": "digits-mlp",
    "data": "digits",
    "learning_rate": 0.05,
    "weight_decay": 0.001,
    "warmup_steps": 5,
    "seed": 3,
}
REPORTS_FOR_EVER = """
import sys, time
import lockstep
step = 0
while True:
    step += 1
    lockstep.report(step=step, loss=1.0)
    time.sleep(0.02)
"""

MakeRun = Callable[..., Path]
Launch = Callable[..., Launched]


def is_contiguous(launched: Launched) -> bool:
    """Whether every rank's ``seq`` counts from 1 without holes in its spool."""
    by_rank: dict[int, list[int]] = {}
    for record in launched.records():
        by_rank.setdefault(record["rank"], []).append(record["seq"])
    return all(seqs == list(range(1, len(seqs) + 1)) for seqs in by_rank.values())


def digests(launched: Launched) -> set[str]:
    """The parameters' digests of all ranks."""
    return {record["values"]["parameters_sha256"] for record in launched.records("end")}


def mean_losses(launched: Launched) -> list[float]:
    """The loss of each global batch: the mean over ranks, whose shares are equal."""
    by_step: dict[int, list[float]] = {}
    for record in launched.records("step"):
        by_step.setdefault(record["step"], []).append(record["values"]["loss"])
    return [sum(by_step[step]) / len(by_step[step]) for step in sorted(by_step)]


def losses_of_a_plain_loop(threads: int) -> list[float]:
    """What the recipe of ``MLP`` is, without Horovod and without anything of the recipe but its model and its data."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)  # as the rank has: a sum divided otherwise is rounded otherwise
    torch.manual_seed(3)
    model, digits = models.build("digits-mlp"), Digits()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.001)
    losses: list[float] = []
    for epoch in range(2):
        order = torch.randperm(1437, generator=torch.Generator().manual_seed(3 * 1_000_003 + epoch))
        for indices in order[: 22 * 64].view(22, 64):
            images, classes = digits.train_batch(indices)
            optimizer.param_groups[0]["lr"] = 0.05 * min(1.0, (len(losses) + 1) / 5)
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(images), classes)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
    torch.set_num_threads(before)
    return losses


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, what
        time.sleep(0.05)
    return found


def spool_text(launched: Launched) -> str:
    return "".join(file.read_text() for file in spool_files(launched.run, 1))


def test_the_digits_example_trains_two_ranks_to_one_good_model(make_run: MakeRun, launch: Launch) -> None:
    training = read(ROOT / "examples" / "digits.toml").training.model_dump(exclude_none=True)
    launched = launch(make_run(**training), 2)
    assert launched.wait(240) == 0, launched.text
    evaluations = launched.records("evaluation")
    assert evaluations[-1]["values"]["accuracy"] >= 0.97
    assert evaluations[-1]["values"]["samples"] == 360
    assert {record["rank"] for record in evaluations} == {0}
    assert [record["rank"] for record in launched.records("end")].__len__() == 2
    assert len(digests(launched)) == 1
    # Every rank says what it planned, then reports every step, without a hole.
    planned = {record["rank"]: record["values"]["steps"] for record in launched.records("start")}
    assert planned == {0: 660, 1: 660}
    steps = launched.records("step")
    for rank in range(2):
        assert [record["step"] for record in steps if record["rank"] == rank] == list(range(1, 661))
    for values in (record["values"] for record in steps):
        assert values["samples"] == 32
        assert 0 <= values["communication_s"] <= values["seconds"]
        assert values["samples_per_s"] == pytest.approx(values["samples"] / values["seconds"])
    assert is_contiguous(launched)
    ended = read_exit(launched.run, 1)
    assert ended is not None
    assert (ended.code, ended.rank, ended.message) == (0, 0, None)
    assert "0: epoch 30: held-out accuracy" in launched.text
    assert processes_of(launched.run) == []


def test_two_ranks_compute_what_one_rank_with_twice_the_batch_computes(make_run: MakeRun, launch: Launch) -> None:
    one = launch(make_run(**MLP, epochs=2, batch_size=64), 1)
    # The same rate, said otherwise: for a global batch of 16, which is a quarter of this job's.
    scaled = MLP | {"learning_rate": 0.0125, "base_batch": 16}
    two = launch(make_run(**scaled, epochs=2, batch_size=32), 2)
    assert one.wait() == 0, one.text
    assert two.wait() == 0, two.text
    alone, shared = mean_losses(one), mean_losses(two)
    assert len(alone) == len(shared) == 44
    assert shared == pytest.approx(alone, rel=1e-4)
    assert alone[-1] < alone[0] / 2, "it learns, so that equal losses say something"
    (start,) = one.records("start")
    assert alone == losses_of_a_plain_loop(len(start["values"]["compute_cpus"])), "not what it was, bit for bit"
    last_alone, last_shared = (found.records("evaluation")[-1]["values"] for found in (one, two))
    assert last_shared["loss"] == pytest.approx(last_alone["loss"], rel=1e-4)
    assert last_shared["accuracy"] == pytest.approx(last_alone["accuracy"], abs=1 / 360)


def test_a_gpt_learns_texts_by_lamb_on_two_ranks(make_run: MakeRun, launch: Launch) -> None:
    sizes = {"vocabulary": 16, "context": 12, "layers": 1, "heads": 2, "width": 16, "tied": True}
    launched = launch(
        make_run(model="gpt", data="synthetic-tokens", gpt=sizes, optimizer="lamb", learning_rate=0.02, base_batch=8,
                 weight_decay=0.01, warmup_steps=5, steps_per_epoch=60, batch_size=8),
        2,
    )  # fmt: skip
    assert launched.wait() == 0, launched.text
    losses = mean_losses(launched)
    assert losses[0] == pytest.approx(math.log(16), rel=0.1)
    assert losses[-1] < losses[0] / 2
    (evaluation,) = launched.records("evaluation")
    assert evaluation["values"]["accuracy"] > 0.8
    assert evaluation["values"]["samples"] == 16
    assert len(digests(launched)) == 1


def test_two_nodes_that_are_one_machine_meet(make_run: MakeRun, launch: Launch) -> None:
    run = make_run({"resources": {"nodes": 2}}, **MLP, batch_size=64)
    ranks = [launch(run, slurm=task(rank)) for rank in range(2)]
    assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].text + ranks[1].text
    assert [file.name for file in spool_files(run, 1)] == ["node1.jsonl", "node2.jsonl"]
    assert len(digests(ranks[0])) == 1
    assert is_contiguous(ranks[0])
    starts = {record["rank"]: record["values"]["node"] for record in ranks[0].records("start")}
    assert starts == {0: "node1", 1: "node2"}
    (claim,) = read_claims(run)
    assert (claim.slurm_job_id, claim.nodes, claim.ranks) == (7, ("node1", "node2"), 2)
    assert json.loads((run / "rendezvous" / "1.json").read_text())["address"] == "127.0.0.1"
    placed = json.loads((run / "placement" / "1" / "node2.json").read_text())
    assert placed["ranks"][0]["granted"] == sorted(os.sched_getaffinity(0))
    assert processes_of(run) == []


def test_two_ranks_of_one_slurm_node_share_its_files(make_run: MakeRun, launch: Launch) -> None:
    run = make_run({"placement": {"ranks_per_node": 2}}, **MLP, batch_size=128)
    ranks = [launch(run, slurm=task(rank, nodes=1, per_node=2)) for rank in range(2)]
    assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].text + ranks[1].text
    assert [file.name for file in spool_files(run, 1)] == ["node1.jsonl"]
    placed = json.loads((run / "placement" / "1" / "node1.json").read_text())
    assert [entry["rank"] for entry in placed["ranks"]] == [0, 1]
    assert len(digests(ranks[0])) == 1
    assert is_contiguous(ranks[0])


def test_a_requeue_trains_again_as_the_next_attempt(make_run: MakeRun, launch: Launch) -> None:
    run = make_run(**MLP, batch_size=256)
    for restart in range(2):
        launched = launch(run, slurm=task(0, nodes=1, restart=restart))
        assert launched.wait() == 0, launched.text
    assert [claim.attempt for claim in read_claims(run)] == [1, 2]
    first, second = launched.records("end", attempt=1), launched.records("end", attempt=2)
    assert first[0]["values"]["parameters_sha256"] == second[0]["values"]["parameters_sha256"]
    assert second[0]["attempt"] == 2
    stale = launch(run, slurm=task(0, nodes=1, restart=0))
    assert stale.wait() == 75


def test_a_script_of_the_users_own_reports(make_run: MakeRun, launch: Launch) -> None:
    spec = read(ROOT / "examples" / "custom" / "custom.toml")
    assert spec.training.script == str(ROOT / "examples" / "custom" / "train.py")
    launched = launch(make_run(script=spec.training.script, arguments=["--epochs", "4"]), 2)
    assert launched.wait() == 0, launched.text
    for rank in range(2):
        own = [record for record in launched.records("step") if record["rank"] == rank]
        assert [record["step"] for record in own] == list(range(1, 129))
        assert own[-1]["values"]["loss"] < own[0]["values"]["loss"]
    assert launched.records("evaluation")[0]["values"]["accuracy"] > 0.8
    starts = {record["rank"]: record["values"] for record in launched.records("start")}
    assert starts.keys() == {0, 1}
    assert starts[1]["size"] == 2
    assert is_contiguous(launched)


def test_what_reaches_a_script_is_the_ranks_own_and_nothing_of_slurms(
    make_run: MakeRun, launch: Launch, tmp_path: Path
) -> None:
    script = tmp_path / "show.py"
    script.write_text(
        "import json, os, sys\nprint(json.dumps([dict(os.environ), sys.argv[1:], sorted(os.sched_getaffinity(0))]))\n"
    )
    sections = {"environment": {"variables": {"MINE": "it's $HOME `mine`"}}, "communication": {"cycle_time_ms": 2.5}}
    run = make_run(sections, script=str(script), arguments=["--name", "a b; $(c)"])
    secrets = {"SLURM_CPU_BIND": "quiet,mask_cpu:0x1", "SBATCH_ACCOUNT": "x", "PMI_RANK": "0", "PMIX_RANK": "0",
               "LOCKSTEP_TOKEN": "secret", "OMP_NUM_THREADS": "64", "HOROVOD_TIMELINE": "/x"}  # fmt: skip
    launched = launch(run, slurm={**task(0, nodes=1), **secrets})
    assert launched.wait() == 0, launched.text
    environment, arguments, affinity = json.loads(launched.text)
    assert arguments == ["--name", "a b; $(c)"]
    assert environment["MINE"] == "it's $HOME `mine`"
    assert not [name for name in environment if name.startswith(("SLURM", "SBATCH", "PMI", "LOCKSTEP_TOKEN"))]
    assert "HOROVOD_TIMELINE" not in environment
    assert affinity == [int(cpu) for cpu in environment["LOCKSTEP_COMPUTE_CPUS"].split(",")]
    assert environment["OMP_NUM_THREADS"] == str(len(affinity))
    expected = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "HOROVOD_RANK": "0",
                "HOROVOD_SIZE": "1", "HOROVOD_HOSTNAME": "node1", "HOROVOD_CYCLE_TIME": "2.5", "LOCKSTEP_ATTEMPT": "1",
                "LOCKSTEP_FENCE": "1", "LOCKSTEP_RUN": str(run), "HOROVOD_FUSION_THRESHOLD": str(64 << 20)}  # fmt: skip
    assert environment.items() >= expected.items()
    assert not Path(environment["LOCKSTEP_SOCKET"]).parent.exists()


def test_a_rank_that_first_reports_when_the_others_are_done_is_heard(
    make_run: MakeRun, launch: Launch, tmp_path: Path
) -> None:
    script = tmp_path / "late.py"
    # Rank 0's wrapper has asked the writer to end when the other rank speaks for the first time.
    script.write_text(
        "import os, time\nimport lockstep\nfrom pathlib import Path\n"
        "if os.environ['RANK'] == '1':\n"
        "    ended = Path(os.environ['LOCKSTEP_RUN'], 'exit', '1.json')\n"
        "    while not ended.exists():\n        time.sleep(0.02)\n"
        "    time.sleep(1)  # the writer would have gone by now\n"
        "    lockstep.report(step=1, loss=0.5)\n"
    )
    run = make_run(script=str(script))
    launched = launch(run, 2)
    # Without Horovod nobody has come to the rendezvous, so nobody's leave is waited for.
    assert launched.wait(20) == 0, launched.text
    by_the_script = {"start", "step", "gap"}
    told = [(record["rank"], record["kind"]) for record in launched.records() if record["kind"] in by_the_script]
    assert told == [(1, "start"), (1, "step")]
    assert processes_of(run) == []


def test_a_killed_script_leaves_no_training_behind(make_run: MakeRun, launch: Launch, tmp_path: Path) -> None:
    script = tmp_path / "endless.py"
    script.write_text(REPORTS_FOR_EVER)
    spec = JobSpec.model_validate({"training": {"script": str(script)}, "placement": {"ranks_per_node": 2}})
    batch = tmp_path / "job.sbatch"
    batch.write_text(render(spec, ScriptSite(sys.executable, str(tmp_path / "runs"))))
    with subprocess.Popen(["bash", str(batch)], env=base_environment(), stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: list(tmp_path.glob("runs/*/spool/1/*.jsonl")), 60, "it did not start")
        process.terminate()
    (run,) = (file for file in (tmp_path / "runs").iterdir() if (file / "spec.json").exists())
    wait_for(lambda: processes_of(run) == [], 20, "it trains on")


class TestBadEnds:
    """However a training ends, its exit record says so, its records are kept, and no process is left."""

    @pytest.fixture
    def endless(self, make_run: MakeRun, tmp_path: Path) -> Path:
        script = tmp_path / "endless.py"
        script.write_text(REPORTS_FOR_EVER)
        return make_run(script=str(script))

    def trainings(self, launched: Launched, ranks: int) -> dict[int, int]:
        """The process ids of the trainings by rank, once all have reported."""

        def found() -> dict[int, int] | None:
            pids = {record["rank"]: record["values"]["pid"] for record in launched.records("start")}
            return pids if len(pids) == ranks else None

        pids: dict[int, int] = wait_for(found, 60, "not all ranks reported")
        return pids

    def test_a_killed_training_is_recorded_with_its_signal(self, endless: Path, launch: Launch) -> None:
        launched = launch(endless, 2)
        os.kill(self.trainings(launched, 2)[1], signal.SIGKILL)
        assert launched.wait(60) == 128 + signal.SIGKILL
        ended = read_exit(endless, 1)
        assert ended is not None
        assert (ended.code, ended.signal, ended.rank) == (None, 9, 1)
        assert ended.message is not None
        assert "rank 1" in ended.message
        assert "SIGKILL" in ended.message
        assert is_contiguous(launched)
        assert spool_text(launched).endswith("\n")
        assert processes_of(endless) == []

    def test_a_killed_wrapper_takes_its_training_along(self, endless: Path, launch: Launch) -> None:
        launched = launch(endless, slurm=task(0, nodes=1))
        (pid,) = self.trainings(launched, 1).values()
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        socket = Path(
            next(line for line in environment if line.startswith(b"LOCKSTEP_SOCKET=")).decode().partition("=")[2]
        )
        assert socket.exists()
        launched.process.kill()
        launched.wait()
        wait_for(
            lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text(), 5, "it trains on"
        )
        wait_for(lambda: processes_of(endless) == [], 20, "something is left")
        assert not socket.parent.exists()
        assert is_contiguous(launched)
        assert read_exit(endless, 1) is None, "whoever was killed said nothing: absence is not an end"

    def test_a_killed_launcher_takes_all_ranks_along(self, endless: Path, launch: Launch) -> None:
        launched = launch(endless, 2)
        self.trainings(launched, 2)
        launched.process.kill()
        launched.wait()
        wait_for(lambda: processes_of(endless) == [], 20, "something is left")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_cancelled_job_ends_all_ranks(self, endless: Path, launch: Launch, number: signal.Signals) -> None:
        launched = launch(endless, 2)
        self.trainings(launched, 2)
        launched.process.send_signal(number)
        code = launched.wait(60)
        ended = read_exit(endless, 1)
        assert ended is not None
        # Python turns SIGINT into an exception, and then ends by the signal all the same.
        assert (ended.code, ended.signal) == (None, number)
        assert code == 128 + number
        assert processes_of(endless) == []

    def test_an_exit_code_passes_through_and_ends_the_other_ranks(
        self, make_run: MakeRun, launch: Launch, tmp_path: Path
    ) -> None:
        script = tmp_path / "one_fails.py"
        script.write_text("import os, sys, time\nif os.environ['RANK'] == '1':\n    sys.exit(42)\ntime.sleep(600)\n")
        run = make_run(script=str(script))
        launched = launch(run, 2)
        assert launched.wait(60) == 42
        ended = read_exit(run, 1)
        assert ended is not None
        assert (ended.code, ended.signal, ended.rank) == (42, None, 1)
        assert processes_of(run) == []

    @pytest.mark.parametrize(("end", "code"), [("sys.exit(42)", 42), ("os.kill(os.getpid(), 9)", 137)])
    def test_the_rank_that_was_the_cause_is_recorded_and_not_those_that_lost_it(
        self, make_run: MakeRun, launch: Launch, tmp_path: Path, end: str, code: int
    ) -> None:
        script = tmp_path / "one_ends.py"
        # Horovod makes the other ranks raise, and they end before the one that waits for them in its shutdown.
        script.write_text(
            "import os, sys, torch\nimport horovod.torch as hvd\nhvd.init()\nhvd.allreduce(torch.ones(1), name='a')\n"
            f"if hvd.rank() == 0:\n    {end}\nhvd.allreduce(torch.ones(1), name='b')\n"
        )
        run = make_run(script=str(script))
        launched = launch(run, 2)
        assert launched.wait(60) == code, launched.text
        ended = read_exit(run, 1)
        assert ended is not None
        assert (ended.rank, ended.code, ended.signal) == (0, *((None, 9) if code == 137 else (code, None)))
        assert processes_of(run) == []

    def test_an_error_of_one_rank_does_not_pass_for_the_cause(
        self, make_run: MakeRun, launch: Launch, tmp_path: Path
    ) -> None:
        script = tmp_path / "raises.py"
        script.write_text("raise RuntimeError('it was me')\n")
        run = make_run(script=str(script))
        assert launch(run, 2).wait(60) == 1
        ended = read_exit(run, 1)
        assert ended is not None
        assert ended.message is not None
        assert "what is first in the log is the cause" in ended.message

    def test_what_a_training_leaves_running_is_ended(self, make_run: MakeRun, launch: Launch, tmp_path: Path) -> None:
        script = tmp_path / "leaves.py"
        # A daemon in the classic way: a new session, its parent gone.
        script.write_text(
            "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(600)\n"
        )
        run = make_run(script=str(script))
        launched = launch(run, slurm=task(0, nodes=1))
        assert launched.wait(60) == 0, launched.text
        assert processes_of(run) == []

    def test_a_rank_that_cannot_start_says_why_in_the_exit_record(self, make_run: MakeRun, launch: Launch) -> None:
        run = make_run({"communication": {"interface": "none0"}}, **MLP)
        launched = launch(run, 2)
        assert launched.wait(60) == 69
        ended = read_exit(run, 1)
        assert ended is not None
        assert ended.code == 69
        assert ended.message is not None
        assert "has no interface 'none0'" in ended.message
        assert processes_of(run) == []
