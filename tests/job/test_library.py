"""The library: whole, the same for the same sources, never changed once it is there."""

from __future__ import annotations

import concurrent.futures
import os
import stat
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


class TestWhereOthersMayWrite:
    """Its name can be guessed and its code runs in every rank, so nothing there is believed by its name or its size."""

    def test_other_bytes_of_the_same_length_are_made_anew(self, tmp_path: Path) -> None:
        first = library.provide(tmp_path)
        whole = first.read_bytes()
        first.write_bytes(bytes(len(whole)))
        assert library.provide(tmp_path).read_bytes() == whole

    def test_a_link_is_replaced_and_not_followed(self, tmp_path: Path) -> None:
        first = library.provide(tmp_path)
        elsewhere = first.rename(tmp_path / "elsewhere.zip")
        first.symlink_to(elsewhere)
        assert not library.provide(tmp_path).is_symlink()
        assert elsewhere.is_file()

    def test_a_file_that_others_may_write_to_is_made_anew(self, tmp_path: Path) -> None:
        first = library.provide(tmp_path)
        first.chmod(0o666)
        assert stat.S_IMODE(library.provide(tmp_path).stat().st_mode) == 0o600

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
    def test_a_file_of_another_user_is_made_anew(self, tmp_path: Path) -> None:
        first = library.provide(tmp_path)
        os.chown(first, 12345, -1)
        assert library.provide(tmp_path).stat().st_uid == 0

    @pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
    def test_a_folder_that_others_may_write_to_is_an_error_with_its_cure(self, tmp_path: Path, mode: int) -> None:
        folder = library.provide(tmp_path).parent
        folder.chmod(mode)
        said = rf"{folder} may be written to by others \(mode {mode:04o}\), .*: remove it, or name a folder for runs"
        with pytest.raises(library.LibraryError, match=said):
            library.provide(tmp_path)

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
    def test_a_folder_of_another_user_is_an_error_that_names_him(self, tmp_path: Path) -> None:
        (tmp_path / library.FOLDER).mkdir(mode=0o755)
        os.chown(tmp_path / library.FOLDER, 12345, -1)
        with pytest.raises(library.LibraryError, match="library belongs to the user with number 12345, so another"):
            library.provide(tmp_path)
        assert list((tmp_path / library.FOLDER).iterdir()) == []

    def test_a_folder_that_is_a_link_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / library.FOLDER).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(library.LibraryError, match="library is a link"):
            library.provide(tmp_path)
        assert list((tmp_path / "elsewhere").iterdir()) == []

    def test_a_folder_that_others_may_replace_is_an_error_and_the_sticky_bit_its_cure(self, tmp_path: Path) -> None:
        runs = tmp_path / "runs"
        runs.mkdir()
        runs.chmod(0o777)
        with pytest.raises(library.LibraryError, match=rf"mode 0777; chmod \+t {runs} ends that"):
            library.provide(runs)
        runs.chmod(0o1777)
        assert library.provide(runs).is_file()
