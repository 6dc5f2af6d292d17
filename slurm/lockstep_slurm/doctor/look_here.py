"""Gathers the facts of this machine; no process is started."""

from __future__ import annotations

import importlib.util
import locale
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from lockstep_slurm.doctor.here import EXTRAS, PROGRAMS, SLURM_COMMANDS, Here
from lockstep_slurm.filesystem import filesystem

_CHANGES_SLURM = (
    "SBATCH_",
    "SRUN_",
    "SLURM_CPU_BIND",
    "SLURM_EXPORT_ENV",
    "SLURM_MEM_BIND",
    "SLURM_DISTRIBUTION",
    "SLURM_HINT",
)


def look(home: Path, runs: Path) -> Here:
    """The facts; ``home`` and ``runs`` are the folders of Lockstep and of its runs, which may not be there yet."""
    folder = _nearest(runs)
    space = os.statvfs(folder)
    return Here(
        python=(sys.version_info.major, sys.version_info.minor),
        executable=sys.executable,
        missing={extra: tuple(name for name in names if not _there(name)) for extra, names in EXTRAS.items()},
        programs=frozenset(name for name in PROGRAMS if shutil.which(name, path=search_path()) is not None),
        home=home,
        home_filesystem=filesystem(home),
        own_database=bool(os.environ.get("LOCKSTEP_DATABASE_URL")),
        runs=runs,
        runs_error=_why_not_writable(runs, folder),
        runs_free=space.f_bavail * space.f_frsize,
        runs_free_files=space.f_favail if space.f_files else None,
        encoding=locale.getpreferredencoding(do_setlocale=False),
        locale_error=_locale_error(),
        variables=changing(os.environ),
    )


def changing(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Names of variables that change what Slurm's commands do with a script; inside a job most are Slurm's own."""
    if "SLURM_JOB_ID" in environment:
        return ()
    return tuple(sorted(name for name in environment if name.startswith(_CHANGES_SLURM)))


def commands_there() -> bool:
    """Whether any of Slurm's client commands is on PATH."""
    return any(shutil.which(name) is not None for name in SLURM_COMMANDS)


def search_path() -> str:
    """PATH and the system folders, which not every shell has in it."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def _there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(one for one in (folder, *folder.parents) if one.is_dir())


def _why_not_writable(runs: Path, nearest: Path) -> str | None:
    if runs.exists() and not runs.is_dir():
        return "it is not a folder"
    if not os.access(nearest, os.W_OK | os.X_OK):
        return f"{nearest} cannot be written by this user"
    if os.statvfs(nearest).f_flag & os.ST_RDONLY:
        return f"{nearest} is mounted read-only"
    return None


def _locale_error() -> str | None:
    """Why the shell's locale cannot be had; this process's own stays as it was."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, "")
    except locale.Error:
        named = next((os.environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)), "")
        return f"the locale {named!r} that the shell names is not installed"
    finally:
        locale.setlocale(locale.LC_ALL, before)
    return None
