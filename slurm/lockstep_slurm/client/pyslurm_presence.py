"""Whether pyslurm can be used here: it is installed, loads, and is made for the Slurm that is present."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path

from lockstep_slurm.client.protocol import SlurmError, SlurmUnavailableError
from lockstep_slurm.client.pyslurm_process import PySlurmImportError, PySlurmProcess
from lockstep_slurm.client.runner import Runner
from lockstep_slurm.extras import install

_WITHIN = 30
"""Seconds for each look."""
_VERSION = re.compile(r"\b(\d+)\.(\d+)(\.\S+)?")


def folder() -> Path | None:
    """The folder that pyslurm is in, found without importing it; None where there is none."""
    spec = find_spec("pyslurm")
    # A folder that happens to be called so has no origin.
    return Path(spec.origin).absolute().parent.parent if spec is not None and spec.origin is not None else None


def needed() -> Path:
    """The folder that pyslurm is in; ``SlurmError`` where there is none."""
    found = folder()
    if found is None:
        raise SlurmError(_missing())
    return found


def why_not(slurm_conf: Path | None) -> str | None:
    """Why pyslurm cannot be used with the Slurm of this machine, and what to do; None where it can.

    ``SlurmUnavailableError`` where that cannot be known just now: no sbatch, no slurm.conf.
    """
    found = folder()
    if found is None:
        return _missing()
    slurm = _slurm_version(slurm_conf)
    process = PySlurmProcess(found, slurm_conf, _WITHIN)
    try:
        ours = str(process.ask("version"))
    except PySlurmImportError as error:
        return f"{error} Slurm here is {slurm}; {_cure(slurm)}"
    finally:
        process.close()
    if _release(ours) != _release(slurm):
        fits = ".".join(str(part) for part in _release(ours))
        return f"pyslurm {ours} is for Slurm {fits} only, and Slurm here is {slurm}; {_cure(slurm)}"
    return None


def _missing() -> str:
    return f"pyslurm is not installed for {sys.executable}; {_cure(None)}"


def _slurm_version(slurm_conf: Path | None) -> str:
    """As ``sbatch --version`` says it, such as 22.05.8."""
    said = Runner(slurm_conf, _WITHIN).ask(["sbatch", "--version"]).strip()
    found = _VERSION.search(said)
    if found is None:
        raise SlurmUnavailableError(f"Slurm's version is not known: sbatch --version says {said!r}")
    return found[0]


def _release(version: str) -> tuple[int, int]:
    """Major and minor: Slurm writes 22.05 where pyslurm writes 22.5."""
    found = _VERSION.search(version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _cure(slurm: str | None) -> str:
    if slurm is not None and _release(slurm) == (25, 11):
        return f"run: {install('pyslurm')}, or choose the client 'command'"
    own = "for another Slurm, ask your site for its pyslurm" if slurm is None else "ask your site for its pyslurm"
    ours = f"for Slurm 25.11 run: {install('pyslurm')}; " if slurm is None else ""
    return f"{ours}{own} (the release of the same major.minor), or choose the client 'command'"
