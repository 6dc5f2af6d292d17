"""Wrapper, placement and reporter run in anybody's environment: standard library only, no torch, Python 3.9."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lockstep_slurm.job import library
from lockstep_slurm.job.rundir import read_exit, spool_files
from lockstep_slurm.job.script import ScriptSite, render
from lockstep_slurm.job.spec import JobSpec
from support.ranks import ROOT

EVERYWHERE = (
    "lockstep",
    "lockstep_slurm.job.rundir",
    "lockstep_slurm.placement",
    "lockstep_worker.births",
    "lockstep_worker.inside",
    "lockstep_worker.launch",
    "lockstep_worker.linkwatch",
    "lockstep_worker.rendezvous",
    "lockstep_worker.rundir",
    "lockstep_worker.writer",
    "lockstep_worker.recipe",
    "lockstep_worker.patterns",
)
LIST_FILES = """
import sys
sys.path[:0] = sys.argv[1:3]
__import__(sys.argv[3])
own = ("lockstep", "lockstep_slurm", "lockstep_worker")
foreign = [name for name in sys.modules if name.partition(".")[0] not in {*sys.stdlib_module_names, "__main__", *own}]
assert not foreign, foreign
print(*(module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] in own), sep="\\n")
"""


@pytest.mark.parametrize("module", EVERYWHERE)
def test_it_needs_the_standard_library_alone_in_the_syntax_of_3_9(module: str) -> None:
    # -I -S: no site-packages, so that anything outside the standard library fails to be imported.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LIST_FILES, str(ROOT / "slurm"), str(ROOT / "worker"), module],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = done.stdout.split()
    assert files
    for file in files:
        ast.parse(Path(file).read_text(), filename=file, feature_version=(3, 9))


def pythons() -> list[str]:
    """This interpreter, and one of the oldest version that ranks may have, where the machine has it."""
    found = [*map(str, Path.home().glob(".pyenv/versions/3.9.*/bin/python3.9")), shutil.which("python3.9") or ""]
    return [sys.executable, *[python for python in found if python and "/shims/" not in python][:1]]


@pytest.mark.parametrize("python", pythons())
def test_it_runs_from_the_library_alone(python: str, tmp_path: Path) -> None:
    zipped = library.provide(tmp_path)
    code = (
        "import importlib, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "for name in sys.argv[2:]:\n"
        "    assert importlib.import_module(name).__file__.startswith(sys.argv[1]), name\n"
    )
    # -I -S: no site-packages, so that neither a Lockstep that is installed nor pydantic can help.
    done = subprocess.run(
        [python, "-I", "-S", "-c", code, str(zipped), *EVERYWHERE], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for module in ("lockstep_worker.launch", "lockstep_worker.rundir", "lockstep_worker.writer"):
        done = subprocess.run(
            [python, "-S", "-m", module, "--help"], capture_output=True, text=True, timeout=60,
            env={"PYTHONPATH": str(zipped)}, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "usage:" in done.stdout


@pytest.mark.parametrize("python", pythons())
def test_ranks_train_and_report_in_a_bare_environment(python: str, tmp_path: Path) -> None:
    subprocess.run([python, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True, timeout=120)
    (tmp_path / "train.py").write_text(
        "import sys, lockstep\nlockstep.report(kind='start', steps=1)\nlockstep.report(step=1, loss=0.5, samples=8)\n"
        "print('python', *sys.version_info[:2])\n"
    )
    spec = JobSpec.model_validate(
        {
            "training": {"script": str(tmp_path / "train.py")},
            "environment": {"venv": str(tmp_path / "venv")},
            "placement": {"ranks_per_node": 2},
        }
    )
    runs = tmp_path / "runs"
    script = tmp_path / "job.sbatch"
    site = ScriptSite(python="/nowhere", runs=str(runs), library=str(library.provide(runs)))
    script.write_text(render(spec, site))
    done = subprocess.run(
        ["bash", script], env={"PATH": "/usr/bin:/bin"}, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    version = subprocess.run([python, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True)
    assert done.stdout.count(f"python {version.stdout.strip()}") == 2
    (run,) = (folder for folder in runs.iterdir() if (folder / "spec.json").exists())
    ended = read_exit(run, 1)
    assert ended is not None
    assert ended.ok
    (spool,) = spool_files(run, 1)
    records = [json.loads(line) for line in spool.read_text().splitlines()]
    assert sorted(record["rank"] for record in records if record["kind"] == "step") == [0, 1]
