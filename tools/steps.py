"""The set-up's steps: each is done once for what it was made from, shows its time, and ends with words when it fails.

Standard library only, and no newer syntax than Python 3.8 reads: this runs before there is an environment, on whatever
``python3`` the machine has, and must be able to say that it is too old.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMPS = ROOT / ".setup"


def stop(message: str) -> NoReturn:
    """Ends the set-up with sentences a person can act on."""
    print(f"set-up: {message}", file=sys.stderr)
    raise SystemExit(1)


def say(message: str) -> None:
    """One line for a person."""
    print(f"set-up: {message}", flush=True)


def digest(*parts: object) -> str:
    """One digest of values; a ``Path`` counts with its content, a missing file as such."""
    total = hashlib.sha256()
    for part in parts:
        total.update(repr(part).encode())
        if isinstance(part, Path):
            total.update(hashlib.sha256(part.read_bytes()).digest() if part.is_file() else b"missing")
    return total.hexdigest()


def once(name: str, made_from: str, there: Callable[[], bool], do: Callable[[], None]) -> bool:
    """Runs ``do`` unless it was done for ``made_from`` before *and* its result is still ``there``; True if it ran."""
    stamp = STAMPS / name
    if stamp.is_file() and stamp.read_text() == made_from and there():
        return False
    STAMPS.mkdir(exist_ok=True)
    if stamp.exists():
        stamp.unlink()  # interrupted from here on, it is not done
    do()
    if not there():
        stop("{} was done, and yet its result is not there; please report this with {}".format(name, STAMPS / "log"))
    stamp.write_text(made_from)
    return True


def run(
    what: str,
    argv: list[str],
    *,
    hint: str = "",
    cwd: Path = ROOT,
    more: dict[str, str] | None = None,
    plain: bool = False,
) -> None:
    """Runs one command, its output in ``.setup/log``, showing the time; on failure its last lines and ``hint``.

    ``plain``: the command shows its own progress on standard error, which goes to the person.
    """
    (STAMPS / "log").mkdir(parents=True, exist_ok=True)
    log = STAMPS / "log" / (what.replace(" ", "-").replace("/", "-") + ".log")
    started = time.monotonic()
    live = sys.stdout.isatty() and not plain
    with log.open("wb") as out:
        process = subprocess.Popen(
            argv,
            cwd=str(cwd),
            env={**os.environ, **(more or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=None if plain else subprocess.STDOUT,
        )
        if not live:
            say(f"{what} ...")
        code = _wait(process, what, started, live=live)
    seconds = time.monotonic() - started
    if code != 0:
        tail = "\n".join("    " + line for line in log.read_text(errors="replace").splitlines()[-25:])
        stop("{} failed (`{}`, exit code {}).\n{}\n{}".format(what, " ".join(argv[:6]), code, tail, hint).rstrip())
    print("{}set-up: {}: {:.0f} s".format("\r\x1b[K" if live else "", what, seconds), flush=True)


def _wait(process: subprocess.Popen[bytes], what: str, started: float, *, live: bool) -> int:
    """Waits for the process; a terminal sees the seconds pass, a log a line now and then. Ctrl-C ends it too."""
    try:
        while True:
            try:
                return process.wait(timeout=1 if live else 20)
            except subprocess.TimeoutExpired:
                message = f"set-up: {what}: {time.monotonic() - started:.0f} s so far"
                print(("\r" if live else "") + message, end="" if live else "\n", flush=True)
    except BaseException:
        process.terminate()
        process.wait()
        raise


def tree(folder: Path, skip: Iterable[str]) -> list[Path]:
    """All files under a folder, in order, leaving out these names or paths relative to it."""
    left_out = {folder / name for name in skip}
    found = []
    for parent, folders, files in os.walk(str(folder)):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if here / name not in left_out)
        found += [here / name for name in sorted(files) if here / name not in left_out]
    return found
