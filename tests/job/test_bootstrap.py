"""A module of ours is run as ``python -m`` runs it, but what lies in the current folder is not imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lockstep_slurm.job.bootstrap import python_module
from support import hostile


def test_a_module_runs_with_its_arguments_in_a_folder_of_traps(tmp_path: Path) -> None:
    hostile.lay_traps(tmp_path)
    (tmp_path / "sitecustomize.py").unlink()  # imported before any statement of ours, where PYTHONPATH names the folder
    (tmp_path / "data").write_text('{"b": 1}')
    for command, fell in (
        (python_module("json.tool", "data"), False),
        ([sys.executable, "-m", "json.tool", "data"], True),
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert ("imported from the current folder" in done.stderr) is fell
        assert ('"b": 1' in done.stdout) is not fell


def test_a_module_is_main_and_knows_its_file() -> None:
    statement = "import sys; print(sys.argv[0], sys.modules['__main__'].__name__)"
    command = python_module("timeit", "-n", "1", "-r", "1", statement)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    file, name = done.stdout.split("\n")[0].split()
    assert (Path(file).name, name) == ("timeit.py", "__main__")
