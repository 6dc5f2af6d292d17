"""Running one Slurm command: an environment of its own, never a shell, a deadline, and three kinds of failure."""

from __future__ import annotations

import os
import pwd
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lockstep_slurm.client.protocol import (
    SlurmError,
    SlurmRateLimitedError,
    SlurmRefusedError,
    SlurmUnavailableError,
    SlurmUnknownJobError,
)

ALLOWED = ("PATH", "HOME", "USER", "LANG")
"""What a Slurm command gets of this process's environment; with SLURM_CONF it is all that it gets."""
_USUAL_PATH = "/usr/local/bin:/usr/bin:/bin"

# Slurm's own words (libslurm 22.05, and strerror's) where no answer was had. "Unexpected message received"
# is what `scontrol hold|release|requeue` of 22.05 say when the controller is down.
_NO_ANSWER = re.compile(
    r"unable to contact slurm|socket timed out|zero bytes were transmitted|communication (connection|shutdown) failure"
    r"|connection (refused|timed out|reset)|no route to host|network is unreachable|broken pipe"
    r"|in standby mode|authentication error|munge encode failed|unexpected message received"
    r"|temporarily unable to accept|resource temporarily unavailable"
    r"|problem talking to the database|failed to open persistent connection"
    r"|message (send|receive) failure|incompatible versions of client|i/o stream version number error"
    r"|protocol authentication error|insane message length|can't find an address|unexpected missing socket"
    r"|received zero length message|received message length|failed to send entire message|header lengths are longer"
    r"|authentication credential|authentication public key|authentication agent|authentication does not apply"
    r"|cannot unpack credential|bad argument to plugin function|memory management error"
    r"|invalid job credential|job credential (expired|revoked|replayed)|error generating job credential"
    r"|cannot stat file|configuration source|unable to resolve|unable to establish",
    re.IGNORECASE,
)
_UNKNOWN_JOB = re.compile(r"invalid job id", re.IGNORECASE)
# slurm_strerror of SLURMCTLD_COMMUNICATIONS_BACKOFF (23.02 on) and _HARD_DROP (24.05 on): slurmctld did nothing of it.
# After the first, Slurm's commands wait and ask again by themselves; after the second they end.
_RATE_LIMITED = re.compile(r"rate limit exceeded", re.IGNORECASE)
_SHELL_ADDS = 128
"""What a shell adds to a signal's number in the exit code of a command that it ended."""


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str
    seconds: float = 0.0
    """From before its start until it was gone: at least as long as it lived."""
    stopped: bool = False
    """It was ended for what it said, and its code is that of the signal."""


def clean_environment(slurm_conf: Path | None = None) -> dict[str, str]:
    """The allow-list of this process's environment, with HOME and USER of the account where they are missing."""
    environment = {name: os.environ[name] for name in ALLOWED if os.environ.get(name)}
    environment.setdefault("PATH", _USUAL_PATH)
    if "HOME" not in environment or "USER" not in environment:
        with suppress(KeyError):  # a container may have none; where they come by network, they may come later
            environment.setdefault("HOME", _account().pw_dir)
            environment.setdefault("USER", _account().pw_name)
    conf = slurm_conf if slurm_conf is not None else os.environ.get("SLURM_CONF")
    if conf:
        # Absolute, because commands run elsewhere; Slurm's own daemons do not find a relative one after a chdir.
        environment["SLURM_CONF"] = str(Path(conf).absolute())
    return environment


@cache
def _account() -> pwd.struct_passwd:
    """This user's account, looked up until it is found, which reads files; ``KeyError`` where there is none."""
    return pwd.getpwuid(os.geteuid())


class Runner:
    """Runs Slurm's commands for one cluster."""

    def __init__(self, slurm_conf: Path | None, timeout: float) -> None:
        self._slurm_conf = slurm_conf
        self._timeout = timeout

    def run(
        self,
        argv: Sequence[str],
        *,
        extra: dict[str, str] | None = None,
        folder: Path | None = None,
        told: bytes | None = None,
        stop_at: re.Pattern[bytes] | None = None,
        umask: int | None = None,
    ) -> Answer:
        """Runs ``argv`` to its end and returns what it said, whatever its exit code.

        ``told``: its standard input. ``stop_at``: where that is not given, it is ended as soon as it says this on
        standard error. ``umask``: the command's; None: this process's.

        ``SlurmUnavailableError`` after ``timeout`` seconds (all its processes are ended then), when there is no such
        command or no configuration, and when what it says means that nobody answered, or that Slurm is asked too often.
        """
        environment = clean_environment(self._slurm_conf) | (extra or {})
        conf = environment.get("SLURM_CONF")
        if conf is not None and not Path(conf).is_file():
            # Slurm's commands would wait a minute for it to appear (22.05).
            raise SlurmUnavailableError(f"there is no slurm.conf at {conf}; check SLURM_CONF or start the cluster")
        began = time.monotonic()
        try:
            # A group of its own, so that a site's wrapper script and its children end together at the deadline.
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL if told is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd=folder or "/",
                process_group=0,
                umask=-1 if umask is None else umask,
            )
        except FileNotFoundError as error:
            raise SlurmUnavailableError(
                f"no command {argv[0]!r} on PATH ({environment['PATH']}); install Slurm's client commands"
            ) from error
        except OSError as error:
            raise SlurmUnavailableError(f"{argv[0]} could not be started: {error}") from error
        answer = _finish(process, argv[0], self._timeout, began=began, told=told, stop_at=stop_at)
        if answer.code != 0 and not answer.stopped:
            if is_no_answer(answer.err + answer.out):
                raise SlurmUnavailableError(f"{argv[0]}: {words(answer)}")
            if is_rate_limited(answer.err + answer.out):
                # What ended otherwise than by that answer may have asked again.
                sure = not answer.out.strip() and _signal(answer.code) is None
                raise (SlurmRateLimitedError if sure else SlurmUnavailableError)(f"{argv[0]}: {words(answer)}")
        return answer

    def ask(self, argv: Sequence[str], *, extra: dict[str, str] | None = None, folder: Path | None = None) -> str:
        """Like ``run``, and returns standard output; an exit code other than 0 is an error with Slurm's words."""
        answer = self.run(argv, extra=extra, folder=folder)
        if answer.code != 0:
            raise failure(argv[0], answer)
        return answer.out


def _finish(
    process: subprocess.Popen[bytes],
    name: str,
    timeout: float,
    *,
    began: float,
    told: bytes | None,
    stop_at: re.Pattern[bytes] | None,
) -> Answer:
    stopped = False
    with process:
        try:
            if stop_at is None:
                out, err = process.communicate(told, timeout=timeout)
            else:
                out, err, stopped = _listen(process, stop_at, began + timeout)
                if stopped:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(max(0.0, began + timeout - time.monotonic()))
        except BaseException as error:
            # The leader is not reaped yet, so its group id cannot be another's.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise SlurmUnavailableError(f"{name} gave no answer within {timeout:g} s") from error
            raise
    seconds = time.monotonic() - began
    return Answer(process.returncode, _text(out), _text(err), seconds=seconds, stopped=stopped)


def _text(said: bytes) -> str:
    """What a command said, as every answer and every database can hold it.

    What people write into Slurm comes back byte for byte, and their terminals need not speak UTF-8.
    """
    return said.decode(errors="backslashreplace")


def _listen(process: subprocess.Popen[bytes], stop_at: re.Pattern[bytes], end: float) -> tuple[bytes, bytes, bool]:
    """What the process says until it closes both its outputs, or until its errors match; and whether they did."""
    assert process.stdout is not None
    assert process.stderr is not None
    said = {process.stdout.fileno(): b"", process.stderr.fileno(): b""}
    out, err = said
    with selectors.DefaultSelector() as selector:
        for number in said:
            selector.register(number, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, end - time.monotonic()))
            if not ready:
                raise subprocess.TimeoutExpired(process.args, end)
            for key, _ in ready:
                part = os.read(key.fd, 1 << 16)
                said[key.fd] += part
                if not part:
                    selector.unregister(key.fd)
            if stop_at.search(said[err]):
                return said[out], said[err], True
    return said[out], said[err], False


def failure(name: str, answer: Answer) -> SlurmError:
    """The error for an exit code other than 0: a no has words.

    Of a command that a signal ended (it was killed for want of memory, or by an administrator), itself or under a
    site's wrapper script, or that says nothing at all, nobody knows what it had done by then.
    """
    silent = not (answer.out + answer.err).strip()
    ended_by = _signal(answer.code)
    if ended_by is None and not silent:
        return refusal_in_words(f"{name}: {words(answer)}")
    how = f"was ended by {ended_by}" if ended_by is not None else f"ended with exit code {answer.code}"
    return SlurmUnavailableError(f"{name} {how}{', without a word' if silent else f': {words(answer)}'}")


def _signal(code: int) -> str | None:
    """The signal that ended a command of this exit code, where one did, as a shell tells it of its children too."""
    number = -code if code < 0 else code - _SHELL_ADDS
    if code >= 0 and number not in signal.valid_signals():
        return None
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the real-time signals, which have no names
        return f"signal {number}"


def is_no_answer(said: str) -> bool:
    """Whether Slurm's words of a failure mean that nobody answered."""
    return _NO_ANSWER.search(said) is not None


def is_rate_limited(said: str) -> bool:
    """Whether Slurm's words of a failure mean that it was asked too often: it has done nothing of what it was asked."""
    return _RATE_LIMITED.search(said) is not None and not is_no_answer(said)


def refusal_in_words(said: str) -> SlurmRefusedError | SlurmUnknownJobError:
    """The error for a no in these words."""
    return SlurmUnknownJobError(said) if _UNKNOWN_JOB.search(said) else SlurmRefusedError(said)


def words(answer: Answer) -> str:
    """What the command said of its failure, on one line."""
    lines = [line.strip() for line in (answer.err.strip() or answer.out.strip()).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()] or lines
    return "; ".join(dict.fromkeys(errors)) or f"exit code {answer.code}, without a word"
