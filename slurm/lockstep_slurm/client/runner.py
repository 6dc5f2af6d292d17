"""Running one Slurm command: an environment of its own, never a shell, a deadline, and three kinds of failure."""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lockstep_slurm.client.protocol import SlurmRefusedError, SlurmUnavailableError, SlurmUnknownJobError

ALLOWED = ("PATH", "HOME", "USER", "LANG")
"""What a Slurm command gets of this process's environment; with SLURM_CONF it is all that it gets."""
_USUAL_PATH = "/usr/local/bin:/usr/bin:/bin"

# Slurm's own words (libslurm 22.05, and strerror's) where no answer was had. "Unexpected message received"
# is what `scontrol hold|release|requeue` of 22.05 say when the controller is down.
_NO_ANSWER = re.compile(
    r"unable to contact slurm|socket timed out|zero bytes were transmitted|communication (connection|shutdown) failure"
    r"|connection (refused|timed out|reset)|no route to host|network is unreachable|broken pipe"
    r"|in standby mode|authentication error|munge encode failed|unexpected message received"
    r"|temporarily unable to accept|resource temporarily unavailable|rate limit"
    r"|problem talking to the database|failed to open persistent connection"
    r"|cannot stat file|configuration source|unable to resolve|unable to establish",
    re.IGNORECASE,
)
_UNKNOWN_JOB = re.compile(r"invalid job id", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str


def clean_environment(slurm_conf: Path | None = None) -> dict[str, str]:
    """The allow-list of this process's environment, with HOME and USER of the account where they are missing."""
    environment = {name: os.environ[name] for name in ALLOWED if os.environ.get(name)}
    environment.setdefault("PATH", _USUAL_PATH)
    if "HOME" not in environment or "USER" not in environment:
        account = _account()
        if account is not None:
            environment.setdefault("HOME", account.pw_dir)
            environment.setdefault("USER", account.pw_name)
    conf = slurm_conf if slurm_conf is not None else os.environ.get("SLURM_CONF")
    if conf:
        # Absolute, because commands run elsewhere; Slurm's own daemons do not find a relative one after a chdir.
        environment["SLURM_CONF"] = str(Path(conf).absolute())
    return environment


def _account() -> pwd.struct_passwd | None:
    """This user's account; a container may have none."""
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        return None


class Runner:
    """Runs Slurm's commands for one cluster."""

    def __init__(self, slurm_conf: Path | None, timeout: float) -> None:
        self._slurm_conf = slurm_conf
        self._timeout = timeout

    def run(self, argv: Sequence[str], *, extra: dict[str, str] | None = None, folder: Path | None = None) -> Answer:
        """Runs ``argv`` to its end and returns what it said, whatever its exit code.

        ``SlurmUnavailableError`` after ``timeout`` seconds (all its processes are ended then), when there is no such
        command or no configuration, and when what it says on standard error means that nobody answered.
        """
        environment = clean_environment(self._slurm_conf) | (extra or {})
        conf = environment.get("SLURM_CONF")
        if conf is not None and not Path(conf).is_file():
            # Slurm's commands would wait a minute for it to appear (22.05).
            raise SlurmUnavailableError(f"there is no slurm.conf at {conf}; check SLURM_CONF or start the cluster")
        try:
            # A group of its own, so that a site's wrapper script and its children end together at the deadline.
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd=folder or "/",
                process_group=0,
            )
        except FileNotFoundError as error:
            raise SlurmUnavailableError(
                f"no command {argv[0]!r} on PATH ({environment['PATH']}); install Slurm's client commands"
            ) from error
        except OSError as error:
            raise SlurmUnavailableError(f"{argv[0]} could not be started: {error}") from error
        answer = _finish(process, argv[0], self._timeout)
        if answer.code != 0 and _NO_ANSWER.search(answer.err + answer.out):
            raise SlurmUnavailableError(f"{argv[0]}: {words(answer)}")
        return answer

    def ask(self, argv: Sequence[str], *, extra: dict[str, str] | None = None, folder: Path | None = None) -> str:
        """Like ``run``, and returns standard output; an exit code other than 0 is an error with Slurm's words."""
        answer = self.run(argv, extra=extra, folder=folder)
        if answer.code != 0:
            raise refusal(argv[0], answer)
        return answer.out


def _finish(process: subprocess.Popen[bytes], name: str, timeout: float) -> Answer:
    with process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException as error:
            # The leader is not reaped yet, so its group id cannot be another's.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise SlurmUnavailableError(f"{name} gave no answer within {timeout:g} s") from error
            raise
    return Answer(process.returncode, out.decode(errors="surrogateescape"), err.decode(errors="surrogateescape"))


def refusal(name: str, answer: Answer) -> SlurmRefusedError | SlurmUnknownJobError:
    """The error for an answer that was no."""
    said = words(answer)
    if _UNKNOWN_JOB.search(said):
        return SlurmUnknownJobError(f"{name}: {said}")
    return SlurmRefusedError(f"{name}: {said}")


def words(answer: Answer) -> str:
    """What the command said of its failure, on one line."""
    lines = [line.strip() for line in (answer.err.strip() or answer.out.strip()).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()] or lines
    return "; ".join(dict.fromkeys(errors)) or f"exit code {answer.code}, without a word"
