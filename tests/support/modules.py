"""The distribution's environment modules, and module files for it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

_PLACES = ("/usr/share/modules/init/bash", "/usr/share/lmod/lmod/init/bash")


def modules_needed() -> Path:
    """The file that brings ``module`` to a bash; skips the test where neither environment-modules nor Lmod is there."""
    found = next((Path(place) for place in _PLACES if Path(place).exists()), None)
    if found is None:
        pytest.skip("environment-modules is not installed")
    return found


def own_words(init: Path, name: str) -> str:
    """What the module system itself says of a module that it cannot load, on one line."""
    done = subprocess.run(
        ["bash", "-c", 'source "$0" && module load "$1"', init, name],
        env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert name in done.stderr
    return " ".join(done.stderr.split())


def write_module(file: Path, body: str) -> Path:
    """A module file in Tcl."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#%Module1.0\n{body}\n")
    return file
