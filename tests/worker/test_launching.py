"""Ranks as Slurm or a person starts them: whose files, which attempt, what reaches a script, what it reports."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from lockstep_slurm.job.file import read
from lockstep_slurm.job.rundir import read_claims, spool_files
from support.ranks import ROOT, processes_of, task
from support.trainings import MLP, Launch, MakeRun, digests, is_contiguous, wait_for


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
    assert launched.wait(60) == 0, launched.text
    by_the_script = {"start", "step", "gap"}
    told = [(record["rank"], record["kind"]) for record in launched.records() if record["kind"] in by_the_script]
    assert told == [(1, "start"), (1, "step")]
    assert processes_of(run) == []


def test_a_killed_writer_is_started_again_and_no_step_is_missing(
    make_run: MakeRun, launch: Launch, tmp_path: Path
) -> None:
    script, gate = tmp_path / "train.py", tmp_path / "gate"
    script.write_text(
        "import os, sys, time\nimport lockstep\nstep = 0\nwhile not os.path.exists(sys.argv[1]):\n"
        "    step += 1\n    lockstep.report(step=step, loss=1.0)\n    time.sleep(0.01)\n"
    )
    launched = launch(make_run(script=str(script), arguments=[str(gate)]), slurm=task(0, nodes=1))
    try:
        wait_for(lambda: len(launched.records("step")) > 20, 60, "no steps came")
        (writer,) = (line for line in processes_of(launched.run) if "lockstep_worker.writer" in line)
        os.kill(int(writer.partition(":")[0]), signal.SIGKILL)
        before = len(launched.records("step"))
        wait_for(lambda: len(launched.records("step")) > before + 20, 60, f"no steps came after it: {launched.text}")
    finally:
        gate.touch()
    assert launched.wait() == 0, launched.text
    steps = [record["step"] for record in launched.records("step")]
    assert steps == list(range(1, len(steps) + 1))
    assert is_contiguous(launched)
    assert [record["kind"] for record in launched.records("usage")] != [], "the new writer knows where the training is"
    assert "ended with -9; it is started again" in launched.text
    assert processes_of(launched.run) == []


def test_a_writer_that_is_started_again_samples_every_rank_of_its_node(
    make_run: MakeRun, launch: Launch, tmp_path: Path
) -> None:
    script, gate = tmp_path / "waits.py", tmp_path / "gate"
    script.write_text(
        "import os, sys, time\nimport lockstep\nlockstep.report(step=1)\n"
        "while not os.path.exists(sys.argv[1]):\n    time.sleep(0.05)\n"
    )
    run = make_run({"placement": {"ranks_per_node": 2}}, script=str(script), arguments=[str(gate)])
    ranks = [launch(run, slurm=task(rank, nodes=1, per_node=2)) for rank in range(2)]
    try:
        wait_for(lambda: len(ranks[0].records("step")) == 2, 60, "the ranks have not begun")
        (writer,) = (line for line in processes_of(run) if "lockstep_worker.writer" in line)
        os.kill(int(writer.partition(":")[0]), signal.SIGKILL)
        killed = len(ranks[0].records("usage"))

        def sampled() -> bool:
            return {record["rank"] for record in ranks[0].records("usage")[killed:]} == {0, 1}

        wait_for(sampled, 60, "one rank of the two is not sampled any more")
    finally:
        gate.touch()
    assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].text + ranks[1].text
    assert processes_of(run) == []
