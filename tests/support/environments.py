"""Environments that Lockstep did not build: a virtual environment, a conda prefix, and a program that opens images.

Each has torch and Horovod from the tests' own packages, and no Lockstep: ``imports`` tells.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

OURS = ("lockstep", "_editable_impl_lockstep", "__editable__")


def packages(folder: Path) -> Path:
    """The tests' own packages without Lockstep, as links in a folder of their own."""
    made = folder / "packages"
    made.mkdir()
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not entry.name.startswith(OURS) and entry.suffix != ".pth":
            (made / entry.name).symlink_to(entry)
    return made


def virtual_environment(folder: Path, found: Path) -> Path:
    """A virtual environment that finds those packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
    (site,) = folder.glob("lib/python3.*/site-packages")
    (site / "tests.pth").write_text(f"{found}\n")
    return folder


def conda_prefix(folder: Path, found: Path) -> Path:
    """A prefix as conda lays one out: an interpreter with a standard library of its own, and no pyvenv.cfg."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = folder / "lib" / version
    library.mkdir(parents=True)
    (folder / "bin").mkdir()
    base = Path(sys.base_prefix)
    shutil.copy2((base / "bin" / version).resolve(), folder / "bin" / "python")
    for entry in Path(sysconfig.get_paths()["stdlib"]).iterdir():
        if entry.name not in {"site-packages", "dist-packages"}:
            (library / entry.name).symlink_to(entry)
    for shared in (base / "lib").glob("libpython3*"):  # found by the interpreter as ../lib
        (folder / "lib" / shared.name).symlink_to(shared)
    for name in ("site-packages", "dist-packages"):  # Debian's Python looks into the second
        (library / name).mkdir()
        (library / name / "tests.pth").write_text(f"{found}\n")
    (folder / "conda-meta").mkdir()
    (folder / "conda-meta" / "history").touch()
    (folder / "conda-meta" / "state").write_text('{"env_vars": {"FROM_STATE": "1"}}')
    scripts = folder / "etc" / "conda" / "activate.d"
    scripts.mkdir(parents=True)
    (scripts / "own.sh").write_text('export FROM_ACTIVATE="$CONDA_PREFIX"\n')
    return folder


def opener(file: Path, record: Path) -> Path:
    """Stands for Apptainer, which the distribution does not have: notes its arguments and runs the rest.

    An image is a folder with an interpreter; as the real program does, it gives PATH a value of the image's.
    """
    file.write_text(
        "#!/bin/bash\n"
        f'printf "%s\\n" "$*" >> "{record}"\n'
        "[[ $1 == exec ]] || exit 64\nshift\n"
        "while [[ $1 == --bind ]]; do\n"
        '  [[ -e ${2%%:*} ]] || { echo "FATAL: no ${2%%:*}" >&2; exit 255; }\n  shift 2\ndone\n'
        'export PATH="$1/bin:/usr/bin:/bin" APPTAINER_CONTAINER="$1" PYTHONPATH=/of/the/image\nshift\nexec "$@"\n'
    )
    file.chmod(0o755)
    return file


def imports(python: Path, module: str) -> bool:
    """Whether this interpreter finds a module by itself."""
    done = subprocess.run(
        [python, "-c", f"import {module}"], env={"PATH": "/usr/bin:/bin"}, cwd="/", capture_output=True, timeout=120
    )
    return done.returncode == 0
