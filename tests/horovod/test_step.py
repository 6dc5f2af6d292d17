"""One step of a build: what is shown while it runs, and what is left when it fails or is interrupted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lockstep_slurm.horovod.errors import WheelError
from lockstep_slurm.horovod.step import Progress, Workshop
from support.lockstep import wait_for


def test_makes_percentage_is_the_share(tmp_path: Path) -> None:
    seen: list[Progress] = []

    def report(progress: Progress) -> None:
        seen.append(progress)
        if progress.share == 0.42:
            (tmp_path / "go").touch()

    # pip indents what it passes on of make.
    script = "echo '[ 99%] before'; echo '  [ 42%] Building CXX object x.o'; until [ -e go ]; do sleep 0.1; done"
    Workshop(tmp_path, report).run("compiling", ["sh", "-c", script])
    assert {progress.what for progress in seen} == {"compiling"}
    assert seen[-1].share == 0.42
    assert seen[-1].seconds >= seen[0].seconds


def test_the_share_of_an_earlier_step_is_not_shown_for_the_next(tmp_path: Path) -> None:
    seen: list[Progress] = []
    shop = Workshop(tmp_path, seen.append)
    shop.run("one", ["echo", "[ 99%] done"])
    seen.clear()
    shop.run("two", ["true"])
    assert [progress.share for progress in seen] == [None] * len(seen)


def test_a_failure_shows_the_last_lines_and_the_log(tmp_path: Path) -> None:
    with pytest.raises(WheelError) as failed:
        Workshop(tmp_path, lambda _: None).run("compiling", ["sh", "-c", "echo why; exit 7"])
    said = str(failed.value)
    assert "compiling failed" in said
    assert "exit code 7" in said
    assert "    why" in said
    assert str(tmp_path / "build.log") in said


def test_a_compiler_that_was_killed_is_told_as_want_of_memory(tmp_path: Path) -> None:
    script = "echo 'g++: fatal error: Killed signal terminated program cc1plus'; exit 1"
    with pytest.raises(WheelError, match="want of memory: give --jobs 1"):
        Workshop(tmp_path, lambda _: None).run("compiling", ["sh", "-c", script])


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(WheelError, match="no-such-program could not be started"):
        Workshop(tmp_path, lambda _: None).run("x", ["no-such-program"])


def test_an_interrupted_step_leaves_no_process(tmp_path: Path) -> None:
    script = "import subprocess as s; c = s.Popen(['sleep', '600']); open('pid', 'w').write(str(c.pid)); c.wait()"

    def interrupt(_: Progress) -> None:
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Workshop(tmp_path, interrupt).run("compiling", [sys.executable, "-c", script])
    stat = Path("/proc", (tmp_path / "pid").read_text(), "stat")

    def ended() -> bool:
        try:
            return stat.read_text().rpartition(")")[2].split()[0] == "Z"  # nobody has waited for it yet
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_for("the command's own process to end", ended)
