"""What the doctor says of the environment that ranks run in."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.doctor import finding, look_ranks, probe, rank_checks
from lockstep_slurm.doctor.finding import Answer, Level
from lockstep_slurm.doctor.ranks import NEEDED, RECIPES, Horovod, Loaded, NoPython, Ranks
from lockstep_slurm.horovod.release import EDITS, HOROVOD

BUILD = "lockstep worker build"
RANKS = Ranks(
    python=Path("/envs/train/bin/python"),
    own=False,
    version=(3, 9),
    missing=(),
    torch="2.13.0+cpu",
    cuda_packages=0,
    horovod=Horovod(HOROVOD, "2.13.0+cpu", tuple(edit.name for edit in EDITS)),
    loaded=Loaded(gloo=True),
    tools=frozenset({"g++", "make", "strip", "Python.h"}),
)


def judged(facts: Ranks, name: str) -> Answer | None:
    (check,) = [check for check in rank_checks.CHECKS if check.name == name]
    return check.judge(facts)


def horovod(
    version: str = HOROVOD, torch: str = "2.13.0+cpu", edits: tuple[str, ...] | None = None
) -> dict[str, object]:
    return {"horovod": Horovod(version, torch, edits)}


def test_an_environment_with_everything_has_nothing_to_mend() -> None:
    answers = {check.name: check.judge(RANKS) for check in rank_checks.CHECKS}
    assert {name: answer for name, answer in answers.items() if answer is None or answer.level != Level.OK} == {}


@pytest.mark.parametrize(
    ("check", "changes", "level", "found", "cure"),
    [
        ("ranks-python", {"version": (3, 8)}, Level.PROBLEM, "3.8", "3.9"),
        ("ranks-packages", {"missing": ("cffi",)}, Level.PROBLEM, "cffi", ".[worker]"),
        ("ranks-packages", {"missing": ("cffi",), "loaded": None}, Level.NOTE, "cffi", ".[worker]"),
        ("ranks-packages", {"missing": ("sklearn",)}, Level.NOTE, "sklearn", "recipes"),
        ("torch", {"cuda_packages": 14}, Level.NOTE, "14 packages", "set-up.md"),
        ("horovod", {"horovod": None}, Level.PROBLEM, "not installed", BUILD),
        ("horovod", {"horovod": None, "loaded": None}, Level.WARNING, "not installed", BUILD),
        ("horovod", {"torch": "2.14.0+cpu"}, Level.PROBLEM, "2.14.0", BUILD),
        ("horovod", horovod(version="0.27.0"), Level.WARNING, "0.27.0", "0.28.1"),
        ("horovod-interface", horovod(), Level.WARNING, "not known", BUILD),
        ("horovod-interface", horovod(edits=("c++20",)), Level.PROBLEM, "c++20", BUILD),
        ("horovod-loads", {"loaded": Loaded(error="OSError: libmpi.so.40")}, Level.PROBLEM, "libmpi", BUILD),
        ("horovod-loads", {"loaded": Loaded(mpi=True)}, Level.PROBLEM, "without Gloo", BUILD),
        ("compilers", {"tools": RANKS.tools - {"Python.h"}}, Level.NOTE, "Python.h", "python3-dev"),
    ],
)
def test_one_thing_that_is_not_well_is_found_with_its_value_and_the_cure(
    check: str, changes: dict[str, Any], level: Level, found: str, cure: str
) -> None:
    facts = replace(RANKS, **changes)
    answer = judged(facts, check)
    assert answer is not None
    assert answer.level == level
    assert found in answer.found
    assert cure in answer.cure
    others = {one.name: one.judge(facts) for one in rank_checks.CHECKS if one.name != check}
    assert {name for name, other in others.items() if other and other.level == Level.PROBLEM} == set()


def test_the_cure_names_the_environment_unless_it_is_the_commands_own() -> None:
    assert rank_checks.build(RANKS) == "lockstep worker build --python /envs/train/bin/python --install"
    assert rank_checks.build(replace(RANKS, own=True)) == "lockstep worker build --install"


def test_a_login_node_without_torch_is_no_problem_unless_a_rank_is_to_run_there() -> None:
    bare = replace(RANKS, missing=(*NEEDED, *RECIPES), torch=None, horovod=None, loaded=None)
    assert max(answer.level for check in rank_checks.CHECKS if (answer := check.judge(bare))) == Level.NOTE
    asked = judged(replace(bare, loaded=Loaded(error="No module named 'horovod'")), "ranks-packages")
    assert asked is not None
    assert asked.level == Level.PROBLEM


def test_an_empty_environment_is_seen_as_it_is(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path)], check=True)
    found = look_ranks.look(tmp_path / "bin" / "python", load=True)
    assert isinstance(found, Ranks)
    assert found.version == sys.version_info[:2]
    assert not found.own
    assert set(found.missing) == {*NEEDED, *RECIPES}
    assert (found.torch, found.horovod, found.cuda_packages) == (None, None, 0)
    assert found.loaded is not None
    assert "No module named 'horovod'" in (found.loaded.error or "")


def test_this_environment_is_seen_as_it_is() -> None:
    found = look_ranks.look(Path(sys.executable), load=False)
    assert isinstance(found, Ranks)
    assert found.own
    assert found.missing == ()
    assert found.horovod is not None
    assert found.horovod.torch == found.torch


def test_what_runs_in_a_persons_environment_can_be_read_by_an_old_python() -> None:
    ast.parse(Path(probe.__file__).read_text(encoding="utf-8"), feature_version=(3, 7))


def test_what_is_no_python_is_a_problem_of_its_own_and_ends_nothing(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\necho 'SyntaxError: future feature annotations is not defined' >&2\nexit 1\n")
    old.chmod(0o755)
    for python, why in (
        (tmp_path / "none", "No such file or directory"),
        (Path("/bin/true"), "exit code 0, and nothing said"),
        (old, "future feature annotations"),
    ):
        facts = look_ranks.look(python, load=True)
        assert isinstance(facts, NoPython)
        (found,) = finding.examine("ranks", rank_checks.NONE, facts)
        assert found.level == Level.PROBLEM
        assert str(python) in found.found
        assert why in found.found
        assert "--python" in found.cure
