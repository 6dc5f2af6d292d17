"""Writes requirements/*.lock anew from pyproject.toml: every package that the set-up installs, with its digests.

    .venv/bin/python tools/lock.py [--upgrade]

torch is left out (the digest of its CPU build differs from index to index; ``pyproject.toml`` pins its version) but
what it depends on is in. Horovod is built here. ``test.lock`` is made first and constrains ``demo.lock``, so that a
machine may go from one to the other and back without a version changing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"
EXTRAS = {
    "test": ("service", "worker", "postgres", "build", "dev"),
    "demo": ("service", "worker", "build"),
}
LEFT_OUT = ("torch", "pip")


def compile_lock(name: str, options: list[str]) -> None:
    """Writes ``requirements/<name>.lock``; says nothing of where the packages came from."""
    command = [
        *(
            sys.executable,
            "-m",
            "piptools",
            "compile",
            "--quiet",
            "--generate-hashes",
            "--strip-extras",
            "--allow-unsafe",
        ),
        *("--no-header", "--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host", "--no-emit-options"),
        *("--no-build-isolation", "--annotation-style=line", f"--output-file=requirements/{name}.lock", *options),
        *(f"--extra={extra}" for extra in EXTRAS[name]),
        "pyproject.toml",
    ]
    print(f"requirements/{name}.lock", flush=True)
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PIP_REQUIRE_HASHES": "0"}, check=True)


def leave_out(name: str) -> None:
    """Takes out the packages that are installed by other means."""
    lock = FOLDER / f"{name}.lock"
    kept: list[str] = []
    keep = True
    for line in lock.read_text(encoding="utf-8").splitlines(keepends=True):
        if line[0].isalnum():
            keep = line.split("==")[0] not in LEFT_OUT
        if keep and not line.startswith("# The following"):
            kept.append(line.replace("-c requirements/test.lock, ", ""))
    lock.write_text(f"# Written by `make lock`.\n{''.join(kept)}", encoding="utf-8")


def main() -> None:
    """Writes both locks, ``test`` first; what is given is handed on to pip-compile (``--upgrade``)."""
    options = sys.argv[1:]
    compile_lock("test", options)
    leave_out("test")
    compile_lock("demo", [*options, "--constraint=requirements/test.lock"])
    leave_out("demo")


if __name__ == "__main__":
    main()
