"""The library: whole, the same for the same sources, never changed once it is there."""

from __future__ import annotations

import concurrent.futures
import zipfile
from pathlib import Path

import pytest

from lockstep_slurm.job import library


def test_it_holds_the_three_packages_and_nothing_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(library.provide(tmp_path)) as found:
        names = found.namelist()
    assert {name.partition("/")[0] for name in names} == {"lockstep", "lockstep_slurm", "lockstep_worker"}
    assert "lockstep_worker/launch.py" in names
    assert not [name for name in names if "__pycache__" in name]


def test_one_that_is_there_is_left_alone(tmp_path: Path) -> None:
    first = library.provide(tmp_path)
    before = first.stat()
    assert library.provide(tmp_path) == first
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [file.name for file in first.parent.iterdir()] == [first.name]


def test_one_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    first = library.provide(tmp_path)
    whole = first.read_bytes()
    first.write_bytes(whole[:1000])
    assert library.provide(tmp_path).read_bytes() == whole


def test_many_at_once_make_the_same_one(tmp_path: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: library.provide(tmp_path), range(32)))
    (one,) = found
    assert [file.name for file in one.parent.iterdir()] == [one.name]
    with zipfile.ZipFile(one) as opened:
        assert opened.testzip() is None


def test_other_sources_get_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = library.provide(tmp_path)
    monkeypatch.setattr(library, "_content", lambda: b"other")
    assert library.provide(tmp_path) != first
    assert first.exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(library.LibraryError, match=f"{tmp_path}/file/library: Not a directory"):
        library.provide(tmp_path / "file")
