"""Gathers the facts of the ranks' environment with a process of its own Python."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from lockstep_slurm.doctor import probe
from lockstep_slurm.doctor.ranks import NEEDED, RECIPES, Horovod, Loaded, NoPython, Ranks
from lockstep_slurm.horovod.release import NOTE

LOOK_SECONDS, LOAD_SECONDS = 30, 120
_LOAD = """
import json, horovod.torch as hvd
print(json.dumps({"gloo": bool(hvd.gloo_built()), "mpi": bool(hvd.mpi_built())}))
"""


def look(python: Path, *, load: bool) -> Ranks | NoPython:
    """The facts. ``load``: also import torch and Horovod there, which takes some seconds."""
    script = Path(probe.__file__).read_text(encoding="utf-8")
    argv = [str(python), "-c", script, json.dumps([*NEEDED, *RECIPES]), NOTE]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=LOOK_SECONDS, check=False, cwd="/", stdin=subprocess.DEVNULL
        )
    except OSError as error:
        return NoPython(python, str(error.strerror))
    except subprocess.TimeoutExpired:
        return NoPython(python, f"no answer within {LOOK_SECONDS} s")
    try:
        found = json.loads(done.stdout)
    except ValueError:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}, and nothing said"]
        return NoPython(python, said[-1])
    tools = {name for name in ("g++", "make", "strip") if shutil.which(name) is not None}
    return Ranks(
        python=python,
        own=python == Path(sys.executable),
        version=(found["version"][0], found["version"][1]),
        missing=tuple(found["missing"]),
        torch=found["torch"],
        cuda_packages=found["cuda"],
        horovod=_horovod(found["horovod"]),
        loaded=_load(python) if load else None,
        tools=frozenset(tools | ({"Python.h"} if found["headers"] else set())),
    )


def _horovod(found: dict[str, Any] | None) -> Horovod | None:
    if found is None:
        return None
    if found["note"] is None:
        return Horovod(found["version"], found["torch"])
    note = json.loads(found["note"])
    mpi = note["mpi"]["version"] if note["mpi"] else None
    return Horovod(found["version"], found["torch"], tuple(note["edits"]), mpi)


def _load(python: Path) -> Loaded:
    try:
        done = subprocess.run(
            [str(python), "-c", _LOAD],
            capture_output=True, text=True, timeout=LOAD_SECONDS, check=False, cwd="/", stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Loaded(error=f"torch and Horovod did not load within {LOAD_SECONDS} s")
    if done.returncode != 0:
        said = (done.stderr.strip() or f"the process ended with {done.returncode}").splitlines()
        return Loaded(error=said[-1])
    answer = json.loads(done.stdout.splitlines()[-1])
    return Loaded(gloo=answer["gloo"], mpi=answer["mpi"])
