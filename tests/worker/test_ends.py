"""However a training ends: an honest exit record, its records kept, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lockstep_slurm.job.rundir import read_exit
from lockstep_slurm.job.script import ScriptSite, render
from lockstep_slurm.job.spec import JobSpec
from support.ranks import Launched, base_environment, processes_of, task
from support.trainings import MLP, REPORTS_FOR_EVER, Launch, MakeRun, is_contiguous, spool_text, wait_for


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

    @pytest.mark.parametrize("slurm", [False, True])
    def test_a_scripts_own_exit_code_85_is_no_stop_to_go_on(
        self, make_run: MakeRun, launch: Launch, tmp_path: Path, slurm: bool
    ) -> None:
        script = tmp_path / "own.py"
        script.write_text("import os, sys\nsys.exit(85 if os.environ['RANK'] == os.environ['FAILS'] else 0)\n")
        variables = {"FAILS": "0" if slurm else "1"}
        run = make_run({"checkpoint": {}}, script=str(script))
        launched = launch(run, None if slurm else 2, (task(0, nodes=1) if slurm else {}) | variables)
        assert launched.wait(60) == 85, launched.text
        ended = read_exit(run, 1)
        assert ended is not None
        assert (ended.code, ended.rank) == (85, int(variables["FAILS"]))
        assert "ended with exit code 85" in (ended.message or "")
        assert list((run / "exit").glob("stopped-*")) == []

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
