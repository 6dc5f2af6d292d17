"""Data on the node's own disk: whole or not at all, used by several, and removed by the last of them."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from lockstep_worker.data import FOLDERS
from lockstep_worker.data.images import Images
from lockstep_worker.data.staging import Progress, Stage
from lockstep_worker.errors import DataError
from support.pictures import folder_of_pictures


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return folder_of_pictures(tmp_path / "source")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def ignore(progress: Progress) -> None:
    assert 0 <= progress.copied_bytes <= progress.total_bytes


def stage(source: Path, disk: Path) -> Stage:
    return Stage(source, FOLDERS["images"], disk)


def test_a_copy_is_the_data_set_and_goes_with_its_only_user(source: Path, disk: Path) -> None:
    (source / "elsewhere").mkdir()
    (source / "elsewhere" / "large.tar").write_text("not of the data set")
    told: list[Progress] = []
    staged = stage(source, disk)
    assert staged.fill(told.append)
    assert Images(staged.folder, size=32, seed=0).fingerprint() == Images(source, size=32, seed=0).fingerprint()
    assert sorted(path.name for path in staged.folder.iterdir()) == ["train", "validation"]
    assert staged.folder.stat().st_mode & 0o777 == 0o700
    size = sum(path.stat().st_size for path in source.rglob("*.jpg"))
    assert (told[-1].copied_bytes, told[-1].total_bytes, told[-1].files) == (size, size, 18)
    staged.leave()
    assert list(disk.iterdir()) == []


def test_a_second_user_finds_it_and_the_last_one_removes_it(source: Path, disk: Path) -> None:
    first, second = stage(source, disk), stage(source, disk)
    assert first.fill(ignore)
    assert not second.fill(ignore)
    assert first.folder == second.folder
    first.leave()
    assert len(list(second.folder.rglob("*.jpg"))) == 18
    second.leave()
    assert list(disk.iterdir()) == []


def test_what_has_changed_is_copied_anew(source: Path, disk: Path) -> None:
    before = stage(source, disk)
    before.fill(ignore)
    (source / "train" / "cat" / "000.jpg").write_bytes((source / "train" / "dog" / "000.jpg").read_bytes())
    after = stage(source, disk)
    assert after.fill(ignore)
    assert after.folder != before.folder


def _is_killed(source: Path, disk: Path, when: str) -> None:
    one, count = stage(source, disk), iter(range(100))
    copy = one._copy_one

    def copied(file: Any, into: Path) -> int:
        if when == "copying" and next(count) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return copy(file, into)

    one._copy_one = copied  # type: ignore[method-assign]
    one.fill(ignore)
    os.kill(os.getpid(), signal.SIGKILL)


def killed(source: Path, disk: Path, when: str) -> None:
    """A process that stages these data is killed while it copies, or when its copy is whole."""
    process = multiprocessing.get_context("fork").Process(target=_is_killed, args=(source, disk, when))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("when", ["copying", "whole"])
def test_a_job_that_was_killed_leaves_what_the_next_one_uses_or_sweeps_up(source: Path, disk: Path, when: str) -> None:
    killed(source, disk, when)
    (left,) = (path.name for path in disk.iterdir() if path.is_dir())
    assert left.endswith(".partial") == (when == "copying")
    staged = stage(source, disk)
    assert staged.fill(ignore) == (when == "copying"), "a whole copy is used as it is"
    assert len(list(staged.folder.rglob("*.jpg"))) == 18
    staged.leave()
    assert list(disk.iterdir()) == []


def test_a_copy_that_lost_what_was_written_is_made_again(source: Path, disk: Path) -> None:
    killed(source, disk, "whole")
    staged = stage(source, disk)
    os.truncate(staged.folder / "train" / "cat" / "000.jpg", 0)
    assert staged.fill(ignore)
    assert Images(staged.folder, size=32, seed=0).train == 12


def _use(source: Path, disk: Path, made: multiprocessing.SimpleQueue[bool]) -> None:
    one = stage(source, disk)
    made.put(one.fill(ignore))
    assert len(list(one.folder.rglob("*.jpg"))) == 18
    one.leave()


def test_many_at_once_make_one_copy_at_a_time_and_leave_nothing(source: Path, disk: Path) -> None:
    context = multiprocessing.get_context("fork")
    made = context.SimpleQueue()
    processes = [context.Process(target=_use, args=(source, disk, made)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 6
    assert any(made.get() for _ in processes)
    assert list(disk.iterdir()) == []


def test_room_is_asked_for_before_anything_is_written(
    source: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")  # noqa: PYI024
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6, 18 * 4096 - 1))
    with pytest.raises(DataError, match=r"disk: has 0\.0 GB free, and .*source needs 0\.0 GB; name another folder as"):
        stage(source, disk).fill(ignore)
    assert list(disk.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6, 18 * 4096))
    assert stage(source, disk).fill(ignore)


def test_a_disk_that_becomes_full_leaves_nothing(source: Path, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copyfile, count = shutil.copyfile, iter(range(100))

    def full(origin: Path, target: Path) -> None:
        copyfile(origin, target)
        if next(count) == 7:
            raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(DataError, match=r"\.jpg: cannot be staged to .*disk: No space left on device"):
        stage(source, disk).fill(ignore)
    assert list(disk.iterdir()) == []


def test_a_file_that_changes_while_it_is_copied_and_a_disk_that_is_not_there_are_told(source: Path, disk: Path) -> None:
    changing = stage(source, disk)
    (source / "train" / "dog" / "003.jpg").write_text("short")
    with pytest.raises(DataError, match=r"003\.jpg: had \d+ bytes when staging began, and 5 when it was copied"):
        changing.fill(ignore)
    assert list(disk.iterdir()) == []
    with pytest.raises(DataError, match=r"cannot be staged to .*nowhere: No such file or directory"):
        stage(source, disk / "nowhere").fill(ignore)
    with pytest.raises(DataError, match="nowhere/train: cannot be read: No such file"):
        stage(disk / "nowhere", disk)


def test_what_somebody_else_put_there_is_not_used(source: Path, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = stage(source, disk)
    staged.folder.mkdir()
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(DataError, match=rf"belongs to user {owner}; name another folder as training\.stage"):
        staged.fill(ignore)
