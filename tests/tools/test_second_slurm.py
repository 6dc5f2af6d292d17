"""The second Slurm: where it can be made, that it is whole or not there, and that its programs are its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import second_slurm

from lockstep_slurm.cluster import daemons
from support import slurms


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, a machine on which it can be made, and no mmdebstrap run yet."""
    monkeypatch.setenv("LOCKSTEP_CACHE", str(tmp_path))
    monkeypatch.setattr(second_slurm, "why_not", lambda: None)
    monkeypatch.setattr(second_slurm, "install", lambda needs: True)
    monkeypatch.setattr(second_slurm, "mirror", lambda: "the machine's own")
    monkeypatch.setattr(second_slurm, "apt_options", list)
    return tmp_path


class Mmdebstrap:
    """Stands for the step that takes 20 seconds: makes the folder it is asked for, or is interrupted in the middle."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        self.interrupted = False
        monkeypatch.setattr(second_slurm, "run", self.run)
        monkeypatch.setattr(second_slurm, "check", lambda folder: None)

    def run(self, what: str, argv: list[str], *, hint: str) -> None:
        self.times += 1
        system = Path(argv[-2])
        (system / "usr").mkdir(parents=True)
        if self.interrupted:
            raise KeyboardInterrupt


class TestMaking:
    def test_it_is_made_once(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        mmdebstrap = Mmdebstrap(monkeypatch)
        second_slurm.make()
        second_slurm.make()
        assert mmdebstrap.times == 1
        assert second_slurm.home().is_relative_to(cache)
        assert os.access(second_slurm.programs() / "sbatch", os.X_OK)

    def test_a_half_made_one_is_not_there_and_is_made_anew(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        mmdebstrap = Mmdebstrap(monkeypatch)
        mmdebstrap.interrupted = True
        with pytest.raises(KeyboardInterrupt):
            second_slurm.make()
        assert not second_slurm.home().exists()
        mmdebstrap.interrupted = False
        second_slurm.make()
        assert second_slurm.home().exists()
        assert [folder.name for folder in second_slurm.home().parent.iterdir() if folder.is_dir()] == [
            second_slurm.home().name
        ]

    def test_what_is_mounted_in_a_half_made_one_is_never_removed(
        self, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        slurms.needed(slurms.SECOND)
        precious, inside = cache / "precious", cache / "half made" / "system" / "proc"
        precious.mkdir()
        (precious / "file").touch()
        inside.mkdir(parents=True)
        subprocess.run(["mount", "--bind", str(precious), str(inside)], check=True)
        try:
            with pytest.raises(SystemExit):
                second_slurm.remove(cache / "half made")
        finally:
            subprocess.run(["umount", str(inside)], check=True)
        assert (precious / "file").exists()
        assert "still mounted" in capsys.readouterr().err
        second_slurm.remove(cache / "half made")
        assert not (cache / "half made").exists()


class TestWhereItCannotBeMade:
    @pytest.mark.parametrize(
        ("release", "user", "said"),
        [
            ("ID=debian\nVERSION_CODENAME=bookworm\n", 1000, "only root"),
            ("ID=ubuntu\nVERSION_CODENAME=noble\n", 0, "12"),
        ],
        ids=["without root", "on another system"],
    )
    def test_it_says_what_it_needs_and_the_set_up_goes_on(
        self,
        release: str,
        user: int,
        said: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(second_slurm, "RELEASE", tmp_path / "os-release")
        second_slurm.RELEASE.write_text(release)
        monkeypatch.setattr(os, "geteuid", lambda: user)
        second_slurm.make()
        assert said in capsys.readouterr().out


class TestItsPrograms:
    def test_they_are_another_slurm_and_leave_this_machine_as_it_was(self) -> None:
        slurms.needed("22.05")
        slurms.needed(slurms.SECOND)
        before = Path("/proc/self/mountinfo").read_text()
        with slurms.chosen(slurms.SECOND):
            assert daemons.version() == (24, 11)
        assert daemons.version() == (22, 5)
        assert Path("/proc/self/mountinfo").read_text() == before

    def test_arguments_folder_and_environment_reach_the_program_as_they_are(self, tmp_path: Path) -> None:
        slurms.needed(slurms.SECOND)
        folder = tmp_path / "a folder"
        folder.mkdir()
        (tmp_path / "system").symlink_to(slurms.PROGRAMS.parent / "system")
        (tmp_path / "programs").mkdir()
        wrapper = tmp_path / "programs" / "sh"
        wrapper.write_text(second_slurm.WRAPPER)
        wrapper.chmod(0o755)
        arguments = ["two words", "", "$(id)", "'\"", "*", "-x"]
        script = 'pwd -P; echo "$SAID"; printf "<%s>\\n" "$@"; grep -o trixie /usr/lib/os-release | head -n 1'
        done = subprocess.run(
            [str(wrapper), "-c", script, "name", *arguments],
            cwd=folder, env={"PATH": f"{wrapper.parent}:/usr/bin:/bin", "SAID": "it is"}, check=True,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.stdout.splitlines() == [
            str(folder.resolve()), "it is", *(f"<{one}>" for one in arguments), "trixie"
        ]  # fmt: skip

    def test_a_program_that_is_not_there_says_so(self, tmp_path: Path) -> None:
        slurms.needed(slurms.SECOND)
        wrapper = slurms.PROGRAMS / "sbatch"
        copy = tmp_path / "programs" / "no-such-program"
        copy.parent.mkdir()
        (tmp_path / "system").symlink_to(slurms.PROGRAMS.parent / "system")
        copy.write_text(wrapper.read_text())
        copy.chmod(0o755)
        done = subprocess.run([str(copy)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (127, "no-such-program: not in this Slurm\n")
