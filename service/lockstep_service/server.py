"""``run``: the service as a process, from its lock and its socket to its end."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from lockstep_service.app import create_app
from lockstep_service.settings import Settings
from lockstep_service.wire import now, rfc3339
from lockstep_slurm.errors import LockstepError
from lockstep_slurm.job.rundir import write_whole

_SHUTDOWN_SECONDS = 3
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class ServerError(LockstepError):
    """The service cannot be started as it is set."""


def run(settings: Settings) -> int:
    """Serves until a signal ends it; returns the exit code. ``LockstepError`` when it cannot be started."""
    _log_to_stderr()
    os.umask(0o077)  # everything that the service writes is its user's own
    on_signal = _OnSignal()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if settings.home.stat().st_uid == os.geteuid():
        settings.home.chmod(0o700)
    with _alone(settings.home), _listening(settings) as listener:
        url = f"http://{_reachable(settings.host)}:{listener.getsockname()[1]}"
        api = create_app(settings)
        application = api.state.application
        application.url = lambda: url
        server = _Server(
            uvicorn.Config(
                api,
                log_config=None,
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=64 * 1024,
            ),
            note=settings.home / "service.json",
            url=url,
            token=application.keys.token,
            on_signal=on_signal,
        )
        server.run(sockets=[listener])
    return 0 if server.started else 1


class _Server(uvicorn.Server):
    """Says where it listens once it does, and takes that back when it does not any more."""

    def __init__(self, config: uvicorn.Config, note: Path, url: str, token: str, on_signal: _OnSignal) -> None:
        super().__init__(config)
        self._note = note
        self._url = url
        self._token = token
        self._on_signal = on_signal

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            found = {"url": self._url, "pid": os.getpid(), "started": rfc3339(now())}
            write_whole(self._note, json.dumps(found))
            sys.stdout.write(f"Lockstep listens at {self._url}\nDashboard: {self._url}/#token={self._token}\n")
            sys.stdout.flush()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._note.unlink(missing_ok=True)
        await super().shutdown(sockets)
        self._on_signal.ended = True


class _OnSignal:
    """What SIGTERM and SIGINT do while uvicorn does not handle them.

    Before it listens they end the process. At its end uvicorn raises the signal that ended it once more; by then all
    is in good order, and the exit code is to be 0.
    """

    def __init__(self) -> None:
        self.ended = False

    def __call__(self, number: int, _frame: object) -> None:
        if not self.ended:
            raise SystemExit(128 + number)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Holds the home for this process: two dispatchers over one database would submit everything twice."""
    descriptor = os.open(home / "service.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerError(
                f"Another `lockstep serve` runs for {home}{_whose(home)}. Use that one, or end it first, "
                "or set LOCKSTEP_HOME."
            ) from None
        (home / "service.json").unlink(missing_ok=True)  # left over from one that was killed
        yield
    finally:
        os.close(descriptor)


def _whose(home: Path) -> str:
    try:
        found = json.loads((home / "service.json").read_text("utf-8"))
        return f" (process {found['pid']}, {found['url']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """A socket bound to the settings' address; bound here so that port 0 is known before anything is told of it."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            raise ServerError(
                f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. "
                "Give another --port, or 0 for a free one."
            ) from error
        listener.listen(512)
        yield listener


def _reachable(host: str) -> str:
    """The host name by which others reach an address that is bound."""
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _log_to_stderr() -> None:
    formatter = logging.Formatter(_LOG_FORMAT)
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("alembic").setLevel(logging.WARNING)
