"""Virtual environments for what Lockstep is measured against: of the benchmark alone, never part of an installation."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from lockstep_slurm.errors import LockstepError

INSTALL_SECONDS = 900


class PeerError(LockstepError):
    """A peer cannot be installed here; its rows are left out, and the table says so."""


def provide(cache: Path, name: str, requirements: Sequence[str]) -> Path:
    """The Python of an environment that has ``requirements``, made once under ``cache``; ``PeerError`` if it cannot be.

    Another list of requirements, or another Python, makes it anew.
    """
    folder = cache / "benchmarks" / name
    stamp = folder / "requirements.txt"
    wanted = "\n".join([f"# Python {sys.version.split()[0]}", *requirements]) + "\n"
    python = folder / "bin" / "python"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    venv.create(folder, clear=True, with_pip=True)
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements],
        capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != 0:
        raise PeerError(
            f"{name}: pip could not install {', '.join(requirements)}: {done.stderr.strip().splitlines()[-1:]}"
        )
    stamp.write_text(wanted, encoding="utf-8")  # last: an interrupted installation is made anew
    return python
