"""docs/manual-scripts.md: the commands that are shown make the scripts that are shown, and these are sound bash."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import manual_scripts
import pytest

COMMANDS = re.compile(r"^    (lstopo --input .*)\n    (lockstep script .* > (\S+))$", re.MULTILINE)


@pytest.fixture(scope="module")
def made() -> dict[Path, str]:
    return manual_scripts.made()


def test_the_files_are_what_the_tool_makes(made: dict[Path, str]) -> None:
    stale = [path.name for path, text in made.items() if not path.exists() or path.read_text() != text]
    assert stale == [], "run: .venv/bin/python tools/manual_scripts.py"
    kept = {path for path in manual_scripts.FOLDER.iterdir() if path.suffix == ".sbatch"}
    assert kept == {path for path in made if path.suffix == ".sbatch"}


def test_the_commands_that_are_shown_make_the_scripts_that_are_shown(tmp_path: Path) -> None:
    shown = COMMANDS.findall(manual_scripts.PAGE.read_text())
    assert len(shown) == len(manual_scripts.MACHINES)
    for spec in manual_scripts.FOLDER.glob("*.toml"):
        shutil.copy(spec, tmp_path)
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "LOCKSTEP_HOME": str(tmp_path)}
    lines = "\n".join(line for one in shown for line in one[:2])
    subprocess.run(["bash", "-e", "-c", lines], env=environment, cwd=tmp_path, check=True, timeout=120)
    for *_, name in shown:
        assert (tmp_path / name).read_text() == (manual_scripts.FOLDER / name).read_text(), name


def test_every_script_is_sound_bash(made: dict[Path, str]) -> None:
    for path, text in made.items():
        if path.suffix == ".sbatch":
            done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, ""), path.name
