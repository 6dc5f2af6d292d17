"""``lockstep.checkpoint`` in a script of one rank that no Lockstep has started, and what it refuses."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

import lockstep
from lockstep_slurm.job.identity import new_job_id
from lockstep_slurm.job.rundir import make_run_directory
from lockstep_slurm.job.saving import Checkpoint
from lockstep_worker.checkpoint.folder import Name, names
from lockstep_worker.checkpoint.ranks import TorchRanks
from lockstep_worker.checkpoint.saver import Saver
from lockstep_worker.checkpoint.settings import Settings
from lockstep_worker.checkpoint.told import FILE, Told, note, noted, saved
from lockstep_worker.errors import FencedError
from lockstep_worker.gradients.transport import PATIENCE
from support import disks


def threads() -> set[str]:
    """The ids of this process's threads."""
    return {entry.name for entry in Path("/proc/self/task").iterdir()}


def train(folder: Path, total: int, *, every: int = 3, keep: int = 2, fails_at: int | None = None) -> list[float]:
    """The losses of the steps that this start makes."""
    torch.manual_seed(1)
    random.seed(1)
    model, noise = nn.Linear(4, 2), torch.Generator().manual_seed(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    with lockstep.checkpoint.of(model=model, optimizer=optimizer, noise=noise, folder=folder, keep=keep) as state:
        for step in state.steps(total):
            if step == fails_at:
                raise ArithmeticError
            inputs = torch.randn(8, 4) + torch.randn(8, 4, generator=noise) + random.random()
            optimizer.zero_grad()
            loss = model(inputs).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if (step + 1) % every == 0:
                state.save()
    return losses


class TestResuming:
    def test_it_goes_on_bit_by_bit_where_it_failed(self, tmp_path: Path) -> None:
        whole = train(tmp_path / "whole", 10)
        with pytest.raises(ArithmeticError):
            train(tmp_path / "parts", 10, fails_at=8)
        assert train(tmp_path / "parts", 10) == whole[6:]
        assert train(tmp_path / "parts", 10) == [], "its end was saved, too"
        assert names(tmp_path / "parts") == [Name(2, 10), Name(2, 9)]

    def test_of_a_torn_one_the_one_before_is_taken_and_the_torn_one_stays(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        whole = train(tmp_path, 10)
        newest = tmp_path / Name(1, 10).file
        os.truncate(newest, newest.stat().st_size - 1)
        assert train(tmp_path, 10) == whole[9:]
        said = capsys.readouterr().err
        assert f"not resumed from: {newest} is torn" in said
        assert "goes on from the checkpoint of step 9" in said
        assert newest.exists()

    def test_where_none_is_good_it_begins_anew_and_says_so(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        whole = train(tmp_path, 5)
        for file in tmp_path.iterdir():
            file.write_bytes(file.read_bytes()[:-9])
        assert train(tmp_path, 5) == whole
        assert "none of 2 checkpoints" in capsys.readouterr().err
        assert len(list(tmp_path.iterdir())) == 4, "nobody removes what could not be read"

    def test_the_best_one_stays_whatever_came_after(self, tmp_path: Path) -> None:
        model = nn.Linear(1, 1)
        with lockstep.checkpoint.of(model=model, folder=tmp_path, every_steps=1, keep=1) as state:
            for step in state.steps(6):
                state.evaluated([0.1, 0.5, 0.9, 0.4, 0.9, float("nan")][step])
        assert names(tmp_path) == [Name(1, 6), Name(1, 3)]
        found, _ = lockstep.checkpoint.read(tmp_path / Name(1, 3).file)
        assert found.score == 0.9
        with lockstep.checkpoint.of(model=model, folder=tmp_path, keep=1) as state:
            state.evaluated(0.8)
        assert names(tmp_path) == [Name(1, 6), Name(1, 3)], "the best of the attempt before is known"

    def test_anothers_checkpoint_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        train(tmp_path / "c", 3)
        run = make_run_directory(tmp_path, new_job_id(), '{"checkpoint": {"every_steps": 1}}', "#!", by_hand=True)
        monkeypatch.setenv("LOCKSTEP_RUN", str(run))
        monkeypatch.setenv("LOCKSTEP_FENCE", "1")
        assert len(train(tmp_path / "c", 3)) == 3
        assert f"is of another training: of job None, and this is {run.name}" in capsys.readouterr().err

    def test_in_a_folder_of_anothers_each_has_its_own_and_removes_nothing_of_the_others(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train(tmp_path / "c", 9)
        theirs = {file.name: file.read_bytes() for file in (tmp_path / "c").iterdir()}
        run = make_run_directory(tmp_path, new_job_id(), "{}", "#!", by_hand=True)
        monkeypatch.setenv("LOCKSTEP_RUN", str(run))
        monkeypatch.setenv("LOCKSTEP_FENCE", "1")
        whole = train(tmp_path / "whole", 9)
        with pytest.raises(ArithmeticError):
            train(tmp_path / "c", 9, fails_at=7)
        assert set(theirs) == {Name(1, 6).file, Name(1, 9).file}
        assert names(tmp_path / "c") == [Name(2, 6), Name(2, 3), Name(1, 9), Name(1, 6)]
        assert {name: (tmp_path / "c" / name).read_bytes() for name in theirs} == theirs
        monkeypatch.setenv("LOCKSTEP_ATTEMPT", "2")
        assert train(tmp_path / "c", 9) == whole[6:]

    def test_where_none_can_be_read_it_ends_in_place_of_beginning_anew(self, tmp_path: Path) -> None:
        (tmp_path / Name(1, 7).file).mkdir()  # stands for a file that the file system does not give
        with pytest.raises(lockstep.checkpoint.CheckpointError, match=r"cannot be read: Is a directory; none of 1 c"):
            train(tmp_path, 3)
        assert names(tmp_path) == [Name(1, 7)]

    @pytest.mark.parametrize("other", [nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 2))])
    def test_what_does_not_fit_is_an_error(self, tmp_path: Path, other: nn.Module) -> None:
        with lockstep.checkpoint.of(model=nn.Linear(4, 2), folder=tmp_path) as state:
            state.save()
        with pytest.raises(lockstep.checkpoint.CheckpointError, match="does not fit model"):
            lockstep.checkpoint.of(model=other, folder=tmp_path)
        with pytest.raises(
            lockstep.checkpoint.CheckpointError, match="saved with model, and is to be resumed with net"
        ):
            lockstep.checkpoint.of(net=nn.Linear(4, 2), folder=tmp_path)


class TestTrouble:
    def test_a_full_disk_is_said_and_costs_nothing_that_was_saved(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with disks.small(tmp_path / "disk") as disk:
            weight = nn.Embedding(300, 1000)  # 1.2 MB: two fit
            with lockstep.checkpoint.of(model=weight, folder=disk, keep=9) as state:
                for _ in state.steps(3):
                    state.save()
            assert names(disk) == [Name(1, 2), Name(1, 1)]
            assert "the checkpoint of step 3 could not be saved" in capsys.readouterr().err
            with lockstep.checkpoint.of(model=weight, folder=disk) as state:
                assert state.resumed_at == 2

    def test_a_best_one_that_could_not_be_saved_is_not_to_be_beaten(self, tmp_path: Path) -> None:
        weight = nn.Embedding(300, 1000)
        with disks.small(tmp_path / "disk") as disk:
            with lockstep.checkpoint.of(model=weight, folder=disk, keep=1) as state:
                steps = state.steps(3)
                assert state._saver is not None
                next(steps)
                state.evaluated(0.5)
                next(steps)
                state._saver.wait()
                filler = disks.fill(disk)
                state.evaluated(0.9)
                next(steps)
                state._saver.wait()
                filler.unlink()
                state.evaluated(0.8)
                next(steps, None)
            scores = [lockstep.checkpoint.read(disk / name.file)[0].score for name in names(disk)]
        assert scores == [0.8]

    def test_over_torch_ranks_wait_for_each_other_as_long_as_it_takes(self, tmp_path: Path) -> None:
        dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
        try:
            group = TorchRanks()._group
            assert group._get_backend(torch.device("cpu")).options._timeout == PATIENCE
        finally:
            dist.destroy_process_group()

    def test_over_torch_no_thread_of_its_own_is_left_to_meet_the_end_of_python(self, tmp_path: Path) -> None:
        dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
        try:
            before = threads()
            ranks = TorchRanks()
            assert ranks.gather(b"told") == [b"told"]
            ranks.begin_sum([1, 2])
            assert ranks.end_sum() == [1, 2]
            assert threads() > before
            ranks.end()
            assert threads() == before
            ranks.end()
        finally:
            dist.destroy_process_group()

    def test_a_rank_that_was_fenced_off_saves_nothing_and_ends(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = make_run_directory(tmp_path, new_job_id(), '{"checkpoint": {"every_steps": 1}}', "#!", by_hand=True)
        monkeypatch.setenv("LOCKSTEP_RUN", str(run))
        monkeypatch.setenv("LOCKSTEP_FENCE", "1")
        (run / "claims" / "000002.json").write_text("{}")
        with pytest.raises(SystemExit) as ended, lockstep.checkpoint.of(model=nn.Linear(1, 1)) as state:
            for _ in state.steps(1000):
                pass
        assert ended.value.code == 75
        assert list((run / "checkpoints").iterdir()) == []

    def test_a_newer_attempt_loses_nothing_that_it_may_be_about_to_read(self, tmp_path: Path) -> None:
        asked: list[int] = []

        def check() -> None:
            asked.append(len(asked))
            if len(asked) == 3:  # a newer attempt is claimed right behind the second rename
                raise FencedError("attempt 2 has been claimed")

        saver = Saver(tmp_path, keep=1, best=False, check=check, scores={})
        for step in (1, 2):
            saver.start(Name(1, step), 0.0, job=None, ranks=1, saved=0.0, score=None, tuning=None, state=None)
            saver.wait()
        assert names(tmp_path) == [Name(1, 2), Name(1, 1)]
        assert saver.fenced is not None

    def test_what_no_checkpoint_holds_is_told_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(lockstep.checkpoint.CheckpointError, match="samples is a list"):
            lockstep.checkpoint.of(samples=[1], folder=tmp_path)
        with pytest.raises(lockstep.checkpoint.CheckpointError, match="keep is 0"):
            lockstep.checkpoint.of(model=nn.Linear(1, 1), keep=0, folder=tmp_path)

    def test_one_of_several_ranks_has_to_be_able_to_talk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(lockstep.checkpoint.CheckpointError, match="one of 2 ranks"):
            lockstep.checkpoint.of(model=nn.Linear(1, 1), folder=tmp_path)

    def test_without_a_folder_and_without_lockstep_it_trains_and_says_so(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with lockstep.checkpoint.of(model=nn.Linear(1, 1)) as state:
            assert list(state.steps(3)) == [0, 1, 2]
            state.evaluated(1.0)
        assert "nothing is saved" in capsys.readouterr().err


class TestTold:
    @pytest.fixture
    def told(self) -> Iterator[Told]:
        told = Told()
        yield told
        told.leave()

    def test_a_signal_is_a_note_and_no_end(self, told: Told) -> None:
        assert not told.go_on_later
        os.kill(os.getpid(), signal.SIGUSR1)
        assert told.go_on_later
        assert not told.stop
        os.kill(os.getpid(), signal.SIGTERM)
        assert told.stop

    def test_what_came_before_is_read_from_the_wrappers_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        note(tmp_path / "told", signal.SIGUSR1)
        monkeypatch.setenv(FILE, str(tmp_path / "told"))
        told = Told()
        told.leave()
        assert told.go_on_later

    def test_a_forked_process_is_ended_by_it(self, told: Told) -> None:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        assert not told.stop

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 85), (signal.SIGTERM, 143)])
    def test_a_script_saves_and_ends_behind_the_step_after_it(self, tmp_path: Path, number: int, code: int) -> None:
        told = tmp_path / "told"
        script = (
            "import atexit, os, signal, torch, lockstep\n"
            # Told again while it ends, as by a launcher of which another rank has ended.
            "atexit.register(os.kill, os.getpid(), signal.SIGTERM)\n"
            f"with lockstep.checkpoint.of(model=torch.nn.Linear(1, 1), folder={str(tmp_path)!r}) as state:\n"
            "    for step in state.steps(100):\n"
            f"        if step == 4: os.kill(os.getpid(), {int(number)})\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], env=os.environ | {FILE: str(told)}, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert saved(told) == 6
        assert noted(str(told)) == set()
        assert names(tmp_path) == [Name(1, 6)]
        assert "told to stop, behind step 6" in done.stderr


def test_the_scripts_defaults_are_the_specs() -> None:
    section = Checkpoint.model_validate({})
    ours = Settings()
    assert {name: getattr(section, name) for name in ("every_steps", "every_minutes", "keep", "best")} == ours.__dict__
    assert ours.seconds == 600
    assert json.loads(section.model_dump_json())["signal_seconds"] == 120
