"""The set-up: what it does once and what again, and that its lock files are whole and say nothing of any machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import setup as set_up
import steps
import system

ROOT = Path(__file__).parents[2]
PROFILES = ("demo", "test")


@pytest.fixture(autouse=True)
def own_stamps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "STAMPS", tmp_path / "stamps")


class Work:
    """A step whose result is a file."""

    def __init__(self, result: Path) -> None:
        self.result = result
        self.times = 0

    def do(self) -> None:
        self.times += 1
        self.result.write_text("made")

    def once(self, made_from: str) -> bool:
        return steps.once("work", made_from, self.result.exists, self.do)


class TestOnce:
    def test_what_was_done_is_not_done_again(self, tmp_path: Path) -> None:
        work = Work(tmp_path / "result")
        assert [work.once("a"), work.once("a")] == [True, False]
        assert work.times == 1

    def test_it_is_done_again_when_what_it_is_made_from_changed(self, tmp_path: Path) -> None:
        work = Work(tmp_path / "result")
        assert [work.once("a"), work.once("b"), work.once("a")] == [True, True, True]

    def test_it_is_done_again_when_its_result_is_gone(self, tmp_path: Path) -> None:
        work = Work(tmp_path / "result")
        work.once("a")
        work.result.unlink()
        assert work.once("a")

    def test_it_is_done_again_after_it_failed(self, tmp_path: Path) -> None:
        work = Work(tmp_path / "result")
        work.once("a")

        def fail() -> None:
            raise SystemExit(1)

        with pytest.raises(SystemExit):
            steps.once("work", "b", work.result.exists, fail)
        assert work.once("a")

    def test_a_step_without_its_result_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(SystemExit):
            steps.once("work", "a", (tmp_path / "never").exists, lambda: None)


class TestRun:
    def test_a_failure_shows_the_last_lines_and_the_hint(self, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            steps.run("breaking", [sys.executable, "-c", "print('why'); raise SystemExit(3)"], hint="do this")
        said = capfd.readouterr().err
        assert "breaking failed" in said
        assert "exit code 3" in said
        assert "    why" in said
        assert said.endswith("do this\n")


class TestSystemPackages:
    missing = system.Need(lambda: False, "no-such-package", "a test")

    def test_what_is_there_is_not_installed(self) -> None:
        assert system.install([system.program("sh", "dash", "a test")])

    def test_without_root_the_command_to_run_is_told(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(system, "become_root", lambda: None)
        with pytest.raises(SystemExit):
            system.install([self.missing])
        assert "apt-get install -y --no-install-recommends no-such-package" in capsys.readouterr().err

    def test_what_the_demo_can_do_without_does_not_stop_it(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(system, "become_root", lambda: None)
        assert not system.install([self.missing], required=False)
        assert "needs root" in capsys.readouterr().out


class TestLocks:
    @pytest.mark.parametrize("profile", PROFILES)
    def test_every_package_has_its_digests(self, profile: str) -> None:
        entries = set_up.read_lock(profile)
        assert len(entries) > 50
        assert [pin for pin, text in entries.items() if "==" not in pin or "--hash=sha256:" not in text] == []

    @pytest.mark.parametrize("profile", PROFILES)
    def test_no_place_to_get_them_from_is_named(self, profile: str) -> None:
        text = (ROOT / "requirements" / f"{profile}.lock").read_text()
        assert re.findall(r"https?:|file:|--index|--extra-index|--find-links|--trusted", text) == []

    def test_the_demo_and_the_tests_have_the_same_versions(self) -> None:
        assert set(set_up.read_lock("demo")) <= set(set_up.read_lock("test"))

    @pytest.mark.parametrize("profile", PROFILES)
    def test_torch_is_left_to_its_own_step(self, profile: str) -> None:
        assert not any(pin.startswith("torch==") for pin in set_up.read_lock(profile))
        assert set_up.torch_version().startswith("torch==")


def test_the_builder_of_horovod_needs_nothing_installed() -> None:
    # -I -S: no site-packages; it runs before Lockstep and its dependencies are there.
    command = [sys.executable, "-I", "-S", str(ROOT / "tools" / "horovod_wheel.py"), "--where"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).name.startswith("horovod-")
