"""``PySlurmProcess``: pyslurm in a process of its own, which may hang, die or say nonsense without harm to this one.

pyslurm holds the interpreter's lock in every call (up to 20 s where nobody answers), changes how later modules are
loaded, and can end its process from C. So this process never imports it: it asks ``pyslurm_child`` in JSON, one line
each way over a socket pair, and ends it with SIGKILL when an answer is not there in time.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path
from typing import IO, Any

from lockstep_slurm.client import pyslurm_child
from lockstep_slurm.client.protocol import (
    SlurmError,
    SlurmRateLimitedError,
    SlurmRefusedError,
    SlurmUnavailableError,
)
from lockstep_slurm.client.runner import clean_environment, is_no_answer, is_rate_limited, refusal_in_words

_LAST_WORDS = 4000
"""Bytes of its standard error that an error quotes from."""
_NUMBERS_OF_A_NO = (range(2000, 5000), range(8000, 9000))
"""slurmctld's and slurmd's errors, and a site's missing limit (slurm_errno.h, 22.05 and 25.11).

Others are the system's, or the way's to them.
"""


class PySlurmImportError(SlurmUnavailableError):
    """pyslurm is there and cannot be loaded; the message has Python's words."""


class PySlurmProcess:
    """A process with pyslurm in it, started at the first question, and again after each one that it did not survive.

    ``folder``: the one that pyslurm is in; ``slurm_conf``: as for ``clean_environment``, which is its environment;
    ``timeout``: seconds that a question may wait for other threads' questions, and as many again that it may take then,
    the start included.
    """

    def __init__(self, folder: Path, slurm_conf: Path | None, timeout: float) -> None:
        self._folder = folder
        self._slurm_conf = slurm_conf
        self._timeout = timeout
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._asked = 0

    @property
    def pid(self) -> int | None:
        """The process's id, or None where none was started or the last one was ended."""
        return self._child.process.pid if self._child is not None else None

    def ask(self, what: str, **of: object) -> Any:  # noqa: ANN401 - JSON
        """Its answer to one question.

        ``SlurmUnavailableError`` when there is none in time, when the process ended or could not start, and when
        Slurm's words mean that nobody answered; the other ``SlurmError`` for a no.
        """
        if not self._lock.acquire(timeout=self._timeout):
            raise SlurmUnavailableError(f"pyslurm was busy with another question for {self._timeout:g} s")
        try:
            self._asked += 1
            # From here on: one that waited long must not be sent with no time left, and a healthy process be ended.
            end = time.monotonic() + self._timeout
            reply = self._reply({"id": self._asked, "ask": what, "of": of}, end)
        except BaseException:
            # Whatever it was about to say must not be taken for the next answer.
            self._end()
            raise
        else:
            if "error" not in reply:
                return reply["answer"]
            error = _error(what, reply)
            if isinstance(error, SlurmUnavailableError) and not isinstance(error, SlurmRateLimitedError):
                # The next one reads slurm.conf again, and the modules where they were not there.
                self._end()
            raise error
        finally:
            self._lock.release()

    def close(self) -> None:
        """Ends the process, if there is one; the next question starts another."""
        with self._lock:
            self._end()

    def _reply(self, question: dict[str, object], end: float) -> dict[str, Any]:
        child = self._living()
        try:
            child.send(json.dumps(question).encode() + b"\n", end)
            line = child.line(end)
        except TimeoutError as error:
            raise SlurmUnavailableError(
                f"pyslurm gave no answer within {self._timeout:g} s to {question['ask']}; its process was ended"
            ) from error
        except OSError as error:
            raise SlurmUnavailableError(f"pyslurm's process {child.how_it_ended()}") from error
        if line is None:
            raise SlurmUnavailableError(f"pyslurm's process {child.how_it_ended()}")
        try:
            reply: dict[str, Any] = json.loads(line)
            if reply["id"] != question["id"] or ("answer" in reply) == ("error" in reply):
                raise ValueError("it answers another question")
        except (ValueError, KeyError, TypeError) as error:
            raise SlurmUnavailableError(f"pyslurm's answer could not be read ({error}): {line[:200]!r}") from error
        return reply

    def _living(self) -> _Child:
        """The process that is there, or a new one."""
        environment = clean_environment(self._slurm_conf)
        conf = environment.get("SLURM_CONF")
        if conf is not None and not Path(conf).is_file():
            raise SlurmUnavailableError(f"there is no slurm.conf at {conf}; check SLURM_CONF or start the cluster")
        if self._child is not None and self._child.process.poll() is not None:
            self._end()
        if self._child is None:
            self._child = _Child(self._folder, environment)
            self._finalizer = weakref.finalize(self, self._child.end)
        return self._child

    def _end(self) -> None:
        if self._child is not None:
            self._child = None
            self._finalizer()


class _Child:
    """One life of the process, and this side of its channel."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._channel, theirs = socket.socketpair()
        self._rest = b""
        self._words: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it lives as long as the process
        # Two writers: without it, what the process says after a truncation would stand behind a hole.
        fcntl.fcntl(self._words, fcntl.F_SETFL, fcntl.fcntl(self._words, fcntl.F_GETFL) | os.O_APPEND)
        # Isolated: no PYTHON* and no folder of the caller's; without site: pyslurm comes from the folder found here.
        argv = [sys.executable, "-I", "-S", "-X", "utf8", pyslurm_child.__file__, str(theirs.fileno()), str(folder)]
        with theirs:
            try:
                self.process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=self._words,
                    stderr=self._words,
                    env=environment | {"PYSLURM_DISABLE_AUTO_INIT": "1"},
                    cwd="/",
                    pass_fds=[theirs.fileno()],
                    # Not to be interrupted by the terminal's Ctrl-C before its parent: it ends with its channel.
                    process_group=0,
                )
            except OSError as error:
                self._channel.close()
                self._words.close()
                raise SlurmUnavailableError(f"a process for pyslurm could not be started: {error}") from error

    def send(self, line: bytes, end: float) -> None:
        """``TimeoutError`` where it is not taken by ``end``, another ``OSError`` where nobody is there to take it."""
        # What was said while earlier questions were answered says nothing about this one.
        self._words.truncate(0)
        self._channel.settimeout(_left(end))
        self._channel.sendall(line)

    def line(self, end: float) -> bytes | None:
        """The next line, or None where the process closed the channel; ``TimeoutError`` as for ``send``."""
        parts = [self._rest]
        while b"\n" not in parts[-1]:
            self._channel.settimeout(_left(end))
            part = self._channel.recv(1 << 16)
            if not part:
                return None
            parts.append(part)
        line, _, self._rest = b"".join(parts).partition(b"\n")
        return line

    def how_it_ended(self) -> str:
        """How, for the end of a sentence that begins with the process; ends it where it only closed the channel."""
        try:
            # A process closes its channel some moments before it can be waited for.
            code = self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "closed its channel and stayed; it was ended"
        how = f"ended with {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
        self._words.seek(0)
        said = self._words.read()[-_LAST_WORDS:].decode(errors="replace")
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        return f"{how}: {'; '.join(lines[-3:])}" if lines else how

    def end(self) -> None:
        """Ends it, whatever it is doing."""
        self._channel.close()
        self.process.kill()
        self.process.wait()
        self._words.close()


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _error(what: str, reply: dict[str, Any]) -> SlurmError:
    words = f"pyslurm: {what}: {reply['error']}"
    if reply["by"] == "import":
        return PySlurmImportError(f"{words}; is it built for the Slurm that is installed here?")
    if reply["by"] == "slurm":
        if is_rate_limited(reply["error"]):
            # It has done nothing: a submit may be made again, and all else waits as if nobody had answered.
            return SlurmRefusedError(words) if what == "submit" else SlurmRateLimitedError(words)
        number = reply.get("number")
        # Where Slurm's library only says that it failed, pyslurm takes errno for the reason, which may be anybody's.
        answered = any(number in span for span in _NUMBERS_OF_A_NO) and not is_no_answer(reply["error"])
    else:
        # What it cannot put into a description, Slurm has not heard of; elsewhere it is an answer that it cannot read.
        answered = what == "submit"
    return refusal_in_words(words) if answered else SlurmUnavailableError(words)
