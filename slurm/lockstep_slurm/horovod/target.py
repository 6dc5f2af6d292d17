"""The environment that a wheel is for: its Python, its torch, whether it can build and install."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lockstep_slurm.horovod.errors import WheelError, WheelInputError
from lockstep_slurm.horovod.release import OLDEST_PYTHON, OLDEST_TORCH, TRIED_TORCH

# Runs in the user's environment, on whatever Python that is; importing torch would take seconds.
_PROBE = """
import json, os, sys, sysconfig
try:
    from importlib.metadata import PackageNotFoundError, version
except ImportError:
    print(json.dumps({"version": list(sys.version_info[:2])}))
    raise SystemExit
def installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
try:
    import pip
except ImportError:
    pip = None
include = sysconfig.get_paths()["include"]
print(json.dumps({
    "version": list(sys.version_info[:2]), "prefix": sys.prefix, "cache_tag": sys.implementation.cache_tag,
    "platform": sysconfig.get_platform(), "torch": installed("torch"), "pip": pip is not None,
    "include": include, "headers": os.path.exists(os.path.join(include, "Python.h")),
}))
"""


@dataclass(frozen=True)
class Target:
    """One Python environment."""

    python: Path
    """Its interpreter, absolute; not resolved, since a virtual environment's is a link."""
    version: tuple[int, int]
    cache_tag: str
    platform: str
    """As wheels name it, such as ``linux-x86_64``."""
    torch: str
    """Torch's version there, with the build's suffix: ``2.13.0+cpu``."""
    has_pip: bool
    headers: Path
    """Where Python.h is, or should be."""
    has_headers: bool

    @property
    def tag(self) -> str:
        """The Python part of the wheel's name, such as ``cp311``."""
        return f"cp{self.version[0]}{self.version[1]}"

    @property
    def pip(self) -> list[str]:
        """The command that runs pip for this environment, its own or, where it has none, this one's."""
        own = (
            [str(self.python), "-m", "pip"]
            if self.has_pip
            else [sys.executable, "-m", "pip", "--python", str(self.python)]
        )
        return [*own, "--disable-pip-version-check", "--no-input"]

    def warning(self) -> str | None:
        """What to tell a person whose torch is another than those tried; None for one that was."""
        if _numbers(self.torch)[:2] == TRIED_TORCH:
            return None
        tried = ".".join(map(str, TRIED_TORCH))
        return f"torch {self.torch} is not one that this build was tried with ({tried}); the built library is checked"


def python_of(venv: Path) -> Path:
    """The interpreter of a virtual or conda environment; ``WheelInputError`` where it has none."""
    python = venv.expanduser().absolute() / "bin" / "python"
    if not python.is_file():
        raise WheelInputError(f"{venv} has no bin/python; give the folder of a virtual environment, or --python PATH")
    return python


def look(python: Path) -> Target:
    """The environment of this interpreter.

    ``WheelError`` where Horovod cannot be built for it, with the cure, and ``WheelInputError`` where it is no Python.
    """
    python = python.expanduser().absolute()
    try:
        done = subprocess.run(
            [str(python), "-c", _PROBE], capture_output=True, text=True, timeout=60, check=False, cwd="/"
        )
    except OSError as error:
        raise WheelInputError(
            f"{python} could not be run: {error.strerror}; give the path of a Python interpreter"
        ) from None
    except subprocess.TimeoutExpired:
        raise WheelError(f"{python} did not answer within 60 s; is it a Python interpreter?") from None
    try:
        found = json.loads(done.stdout)
    except ValueError:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise WheelInputError(
            f"{python} does not run as a Python interpreter: {' '.join(said) or 'no answer'}"
        ) from None
    version = (found["version"][0], found["version"][1])
    if version < OLDEST_PYTHON:
        needed = ".".join(map(str, OLDEST_PYTHON))
        raise WheelError(f"{python} is Python {version[0]}.{version[1]}; ranks need {needed} or newer")
    torch = found["torch"]
    if torch is None:
        raise WheelError(
            f"there is no torch in the environment of {python}; Horovod is built against it. Install it first, such as "
            f"`{python} -m pip install torch=={'.'.join(map(str, TRIED_TORCH))}.0`"
        )
    if _numbers(torch)[:2] < OLDEST_TORCH:
        raise WheelError(
            f"torch {torch} in the environment of {python} is too old for this build: it needs "
            f"{'.'.join(map(str, OLDEST_TORCH))} or newer. For an older one `pip install horovod` builds without edits"
        )
    target = Target(
        python, version, found["cache_tag"], found["platform"], torch, found["pip"], Path(found["include"]),
        found["headers"],
    )  # fmt: skip
    if not target.has_pip and not _pip_here():
        raise WheelError(
            f"the environment of {python} has no pip, and neither has Lockstep's own; run `{python} -m ensurepip`"
        )
    return target


def _pip_here() -> bool:
    import importlib.util

    return importlib.util.find_spec("pip") is not None


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: (2, 13, 0) of ``2.13.0+cpu``."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
