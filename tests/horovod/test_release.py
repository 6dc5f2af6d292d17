"""The edits of Horovod's release: each exactly once, or nothing at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockstep_slurm.horovod import release
from lockstep_slurm.horovod.errors import WheelError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The edited places alone, each where the release has it."""
    for edit in release.EDITS:
        file = tmp_path / edit.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"before{edit.old}\nafter\n")
    return tmp_path


def text(source: Path) -> dict[str, str]:
    return {edit.file: (source / edit.file).read_text() for edit in release.EDITS}


def test_every_edit_is_applied_once(source: Path) -> None:
    release.edit(source)
    for edit in release.EDITS:
        assert text(source)[edit.file] == f"before{edit.new}\nafter\n"


@pytest.mark.parametrize("edit", release.EDITS, ids=lambda edit: edit.name)
@pytest.mark.parametrize("times", [0, 2])
def test_a_place_that_is_not_there_exactly_once_stops_the_build_before_anything_is_changed(
    source: Path, edit: release.Edit, times: int
) -> None:
    (source / edit.file).write_text(edit.old * times)
    before = text(source)
    with pytest.raises(WheelError, match=f"exactly one place to edit .*found {times}"):
        release.edit(source)
    assert text(source) == before


def test_an_edited_source_is_not_edited_again(source: Path) -> None:
    release.edit(source)
    with pytest.raises(WheelError, match="found 0"):
        release.edit(source)


def test_two_edits_of_one_file_are_both_kept(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("one two")
    edits = (release.Edit("a", "f", "one", "1", "first"), release.Edit("b", "f", "two", "2", "second"))
    release.edit(tmp_path, edits)
    assert (tmp_path / "f").read_text() == "1 2"
