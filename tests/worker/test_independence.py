"""Wrapper, placement and reporter run in anybody's environment: standard library only, no torch, Python 3.9."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from support.ranks import ROOT

EVERYWHERE = (
    "lockstep",
    "lockstep_slurm.job.rundir",
    "lockstep_slurm.placement",
    "lockstep_worker.launch",
    "lockstep_worker.rundir",
    "lockstep_worker.writer",
    "lockstep_worker.recipe",
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
