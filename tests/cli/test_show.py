"""``lockstep show`` and ``watch``: from a job that failed to its last words."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.lockstep import Lockstep


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Lockstep]:
    """A service that runs its jobs on this machine."""
    found = Lockstep(tmp_path, None)
    found.start("local")
    try:
        yield found
    finally:
        found.kill(signal.SIGTERM)


def rows(shown: str) -> dict[str, str]:
    """The table's rows, by their names."""
    return {name: value.strip() for name, _, value in (line.partition("  ") for line in shown.splitlines())}


def test_of_a_job_that_failed_it_says_why_once_and_names_the_command_that_prints_its_last_words(ours: Lockstep) -> None:
    (ours.home / "fails.py").write_text("raise SystemExit('there is no more of it')\n")
    (ours.home / "job.toml").write_text('[training]\nscript = "fails.py"\n')
    job = ours.json("submit", ours.home / "job.toml")["id"]
    ours.until(job, {"ended badly"})
    told = [entry["text"] for entry in ours.json("show", job)["timeline"]]
    assert len([text for text in told if "its last words are in the log" in text]) == 1, told
    program, *arguments = rows(ours.run("show", job).stdout)["log"].split()
    assert program == "lockstep"
    assert "there is no more of it" in ours.run(*arguments).stdout
    watched = ours.run("watch", job)
    assert watched.returncode == 1
    assert f"its log: lockstep logs {job}\n" in watched.stderr


def test_a_job_that_has_not_started_has_no_log_to_look_at(ours: Lockstep) -> None:
    first = ours.json("submit", _endless(ours.home))["id"]
    job = ours.json("submit", _endless(ours.home), "--after", first)["id"]
    assert "log" not in rows(ours.run("show", job).stdout)
    ours.run("cancel", first)
    ours.until(job, {"ended badly"})
    assert "log" not in rows(ours.run("show", job).stdout)
    assert "its log" not in ours.run("watch", job).stderr


def _endless(folder: Path) -> Path:
    (folder / "waits.py").write_text("import signal\nsignal.pause()\n")
    (folder / "waits.toml").write_text('[training]\nscript = "waits.py"\n')
    return folder / "waits.toml"
