"""A training that ends for want of something says in its exit record, so on its page, of what, where and what to do."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lockstep import checkpoint
from lockstep_service.jobs.phase import outcome
from lockstep_slurm.job.rundir import read_exit
from lockstep_worker import exit as exits
from lockstep_worker import sentences
from lockstep_worker.errors import DataError, LossError
from lockstep_worker.finite import Finite
from lockstep_worker.sentences import Words
from lockstep_worker.spool import Spool
from lockstep_worker.world import World
from support import disks, remote
from support.ranks import ROOT, processes_of, task
from support.trainings import MLP, Launch, MakeRun, is_contiguous, wait_for


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A memory cgroup of 192 MiB, of version 1 or 2, whichever this machine has."""
    if os.geteuid() != 0:
        pytest.skip("making a cgroup needs root")
    own = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines()}
    root = Path("/sys/fs/cgroup/memory" if "memory" in own else "/sys/fs/cgroup")
    folder = root / own.get("memory", "").lstrip("/") / f"lockstep-test-{os.getpid()}"
    limit = folder / ("memory.limit_in_bytes" if "memory" in own else "memory.max")
    try:
        folder.mkdir()
        limit.write_text(str(192 << 20))
    except OSError as error:
        folder.rmdir() if folder.exists() else None
        pytest.skip(f"this machine gives no memory cgroup: {error}")
    yield folder
    folder.rmdir()


WORLD = World(3, 4, 1, ("h1", "h2"), (2, 2), 1, "site", 7, 0, 0)


def message(run: Path) -> str:
    ended = read_exit(run, 1)
    assert ended is not None
    return ended.message or ""


def script(folder: Path, text: str) -> dict[str, str]:
    path = folder / "script.py"
    path.write_text(textwrap.dedent(text))
    return {"script": str(path)}


class TestOutOfMemory:
    def test_a_training_that_the_kernel_kills_for_memory_is_told_from_one_that_somebody_kills(
        self, make_run: MakeRun, launch: Launch, tmp_path: Path, cgroup: Path
    ) -> None:
        run = make_run(**script(tmp_path, "data = []\nwhile True:\n    data.append(bytearray(1 << 24))\n"))
        inside = ("bash", "-c", f'echo $$ > {cgroup}/cgroup.procs; exec "$@"', "bash")
        launched = launch(run, 1, prefix=inside)
        assert launched.wait(120) == 137, launched.text
        assert message(run) == (
            f"rank 0 on {os.uname().nodename} was killed by the kernel, since the memory of 0.19 GiB that it was given "
            "was used up; ask for more by resources.mem, or take a smaller batch_size or a larger accumulate"
        )
        assert processes_of(run) == []

    def test_memory_that_is_refused_is_the_reason_and_not_that_another_rank_was_lost(
        self, make_run: MakeRun, launch: Launch, tmp_path: Path
    ) -> None:
        text = """
            import os, resource, sys, time
            if os.environ["RANK"] == "0":
                sys.exit(1)  # as one that has lost the other rank, and sooner
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
            bytearray(1 << 31)
        """
        run = make_run(**script(tmp_path, text))
        launched = launch(run, 2)
        assert launched.wait(120) == 1, launched.text
        assert message(run).startswith("rank 1 on ")
        assert " was given no more memory; ask for more by resources.mem" in message(run)

    def test_torchs_own_words_for_it_are_understood(self) -> None:
        with pytest.raises(RuntimeError) as raised:
            torch.empty(1 << 52, dtype=torch.uint8)
        assert Words.of(raised.value).number == errno.ENOMEM


class TestDisks:
    def test_a_script_that_finds_its_disk_full_is_told_which_file(
        self, make_run: MakeRun, launch: Launch, tmp_path: Path
    ) -> None:
        with disks.small(tmp_path / "small") as disk:
            text = f"""
                try:
                    with open({str(disk / "result")!r}, "wb", buffering=0) as file:
                        while True:
                            file.write(bytes(1 << 16))
                except OSError as error:
                    raise ValueError("no result") from error
            """
            run = make_run(**script(tmp_path, text))
            launched = launch(run, slurm=task(0, nodes=1))
            assert launched.wait(120) == 1, launched.text
        assert message(run) == (
            "rank 0 on node1 could not go on ([Errno 28] No space left on device): the disk is full; make room there"
        )
        assert "ValueError: no result" in launched.text

    def test_a_file_that_cannot_be_made_is_named(self, tmp_path: Path) -> None:
        words = Words.of(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/a.pt"))
        assert words.sentence("rank 3 on h2") == (
            "rank 3 on h2 could not write /data/a.pt: the disk is full; make room there"
        )


STALLED = """
import os, time
from pathlib import Path
import lockstep
for step in range(1, 30_001):
    lockstep.report(step=step, loss=1.0)
    if step == 1:
        while not Path(os.environ["LOCKSTEP_RUN"], "logs", "held").exists():
            time.sleep(0.05)
Path(os.environ["LOCKSTEP_RUN"], "logs", "trained").touch()
while not Path(os.environ["LOCKSTEP_RUN"], "logs", "answers").exists():
    time.sleep(0.05)
lockstep.report(step=30_001, loss=1.0)
"""


class TestAMountThatIsAway:
    """A real one: the kernel asks a server of the test's."""

    def test_a_spool_whose_file_was_lost_is_opened_anew_and_none_of_its_records_is_missing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def packet(step: int) -> bytes:
            record = {"rank": 0, "time": float(step), "kind": "step", "step": step, "values": {}}
            return json.dumps(record).encode()

        (tmp_path / "remote").mkdir()
        with remote.mounted(tmp_path / "remote") as server:
            spool = Spool(tmp_path / "remote" / "1" / "node1.jsonl", 1)
            assert spool.append([packet(1)])
            server.lose()
            assert not spool.append([packet(2)]), "it waits"
            assert spool.append([packet(2)])
            assert spool.append([packet(3)])
            spool.close()
            lines = [json.loads(line) for line in spool.path.read_text().splitlines()]
        assert [(line["seq"], line["step"]) for line in lines] == [(1, 1), (2, 2), (3, 3)]
        said = capsys.readouterr().err.replace(str(spool.path), "FILE")
        assert said == (
            "lockstep: FILE: Stale file handle; records wait in memory\nlockstep: FILE: records are written again\n"
        )

    def test_a_spool_that_hangs_holds_no_training_up_and_what_was_dropped_is_told(
        self, make_run: MakeRun, launch: Launch, tmp_path: Path
    ) -> None:
        run = make_run(**script(tmp_path, STALLED))
        with remote.mounted(run / "spool") as server:
            launched = launch(run, slurm=task(0, nodes=1))
            wait_for(lambda: launched.records("step"), 120, "its first step was not recorded")
            with server.holding():
                (run / "logs" / "held").touch()
                wait_for(server.asked.is_set, 120, "the writer wrote nothing")
                wait_for((run / "logs" / "trained").exists, 120, "the training was held up")
            (run / "logs" / "answers").touch()
            assert launched.wait(120) == 0, launched.text
            steps = len(launched.records("step"))
            dropped = sum(record["values"]["dropped"] for record in launched.records("gap"))
            contiguous = is_contiguous(launched)
        assert dropped > 0, (steps, launched.text[-500:], launched.records()[-2:])
        assert steps + dropped == 30_001
        assert contiguous


class TestLoss:
    """By a rate and a weight decay under which the parameters soon leave what a float32 can hold."""

    LEAVES = MLP | {"learning_rate": 1000.0, "weight_decay": 1.0, "warmup_steps": 0, "steps_per_epoch": 40}

    def test_a_loss_that_is_no_number_ends_a_recipe_and_the_last_good_checkpoint_is_named(
        self, make_run: MakeRun, launch: Launch
    ) -> None:
        run = make_run({"checkpoint": {"every_steps": 1, "keep": 100}}, **self.LEAVES)
        launched = launch(run, 1)
        assert launched.wait(240) == LossError.code, launched.text
        found = re.search(
            r"rank 0 on \S+: the loss of step (\d+) is (?:nan|inf|-inf); the last good checkpoint is of step (\d+) "
            r"\(checkpoints/(\S+)\)",
            message(run),
        )
        assert found, message(run)
        bad, good = int(found[1]), int(found[2])
        losses = [record["values"]["loss"] for record in launched.records("step")]
        assert len(losses) == bad
        assert [one for one in losses if isinstance(one, str)] == losses[-1:], "the last alone is no number"
        assert good < bad
        _, state = checkpoint.read(run / "checkpoints" / found[3])
        assert all(bool(value.isfinite().all()) for value in state["objects"]["model"].values())

    def test_it_goes_on_where_the_spec_says_warn_and_says_so_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        finite = Finite(torch.nn.Linear(1, 1), fails=False)
        losses = (1.0, math.inf, -math.inf)
        assert tuple(finite.checked(loss, step) for step, loss in enumerate(losses, 1)) == losses
        assert capsys.readouterr().err == "lockstep: rank 0: the loss of step 2 is inf; it goes on\n"


class TestOtherEnds:
    def test_what_a_recipe_finds_wrong_is_the_reason_and_not_only_in_the_log(
        self, make_run: MakeRun, launch: Launch
    ) -> None:
        run = make_run(**(MLP | {"batch_size": 100_000}))
        launched = launch(run, 2)
        assert launched.wait(120) == DataError.code, launched.text
        assert "2 ranks x batch_size 100000 is more than 1437 samples" in message(run)

    def test_any_other_exception_is_named(self, make_run: MakeRun, launch: Launch, tmp_path: Path) -> None:
        run = make_run(**script(tmp_path, "{}['depth']\n"))
        launched = launch(run, slurm=task(0, nodes=1))
        assert launched.wait(120) == 1
        assert message(run) == (
            "rank 0 on node1 ended with exit code 1 (KeyError: 'depth'); its last words are in the log"
        )

    def test_an_exception_that_was_dealt_with_is_no_cause(self) -> None:
        try:
            try:
                raise OSError(errno.ENOSPC, "full")
            except OSError:
                raise ValueError("else") from None
        except ValueError as error:
            assert not Words.of(error).knows_why


class TestTheListOfThem:
    """docs/what-went-wrong.md has the very words."""

    WHO = "rank 3 on h2"
    FILE = "/data/a.pt"

    def test_its_sentences_are_the_codes(self) -> None:
        text = (ROOT / "docs" / "what-went-wrong.md").read_text()
        who = self.WHO
        said = [
            sentences.killed_for_memory(who, 4 << 30),
            sentences.maybe_killed_for_memory(who, "h2"),
            sentences.no_memory(who, ""),
            str(outcome("OUT_OF_MEMORY", (), None, None, grace_over=True).reason),
            *(sentences.no_disk(who, one, self.FILE) for one in (errno.ENOSPC, errno.EDQUOT, errno.ESTALE)),
            exits.raised(WORLD, 1, Words("KeyError", "'depth'")),
            Words("DataError", "4 ranks x batch_size 512 is more than 1437 samples", ours=True).sentence(who),
            Words(
                "LossError",
                f"{sentences.bad_loss(math.nan, 12)}; the last good checkpoint is of step 10 "
                "(checkpoints/step-000000010-attempt-1.lockstep)",
                ours=True,
            ).sentence(who),
            *(f"{who} was ended by {exits.signal_name(number)}" for number in (6, 9, 15)),
        ]
        assert [one for one in said if f"`{one}`" not in text] == []
