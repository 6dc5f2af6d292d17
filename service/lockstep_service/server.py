"""``run``: the service as a process, from its lock and its socket to its end."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn

from lockstep_service import notify, roles
from lockstep_service.app import create_app
from lockstep_service.auth.links import Links
from lockstep_service.connections import Connection
from lockstep_service.settings import Settings
from lockstep_service.telemetry import logs
from lockstep_service.wire import now, rfc3339
from lockstep_slurm.errors import LockstepError
from lockstep_slurm.job.writing import write_whole

_SHUTDOWN_SECONDS = 3
_FILES = 16_384


class ServerError(LockstepError):
    """The service cannot be started as it is set."""


def run(settings: Settings) -> int:
    """Serves until a signal ends it; returns the exit code. ``LockstepError`` when it cannot be started."""
    logs.configure(settings.log_format)
    _allow_many_connections()
    of_jobs = os.umask(0o077)  # everything that the service writes is its user's own; what trainings write is theirs
    on_signal = _OnSignal()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    try:
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ServerError(
            f"The service's folder {settings.home} cannot be made: {error.strerror}. Set LOCKSTEP_HOME (or --home) to "
            "one that you may write."
        ) from None
    if not os.access(settings.home, os.W_OK | os.X_OK):
        raise ServerError(
            f"The service's folder {settings.home} is one that this user may not write. Set LOCKSTEP_HOME (or --home) "
            "to another one."
        )
    if settings.home.stat().st_uid == os.geteuid():
        settings.home.chmod(0o700)
    with roles.alone(settings.home, settings.role), _listening(settings) as listener:
        url = f"http://{_reachable(settings.host)}:{listener.getsockname()[1]}"
        api = create_app(settings)
        application = api.state.application
        application.umask = of_jobs
        # Where ranks ship to; a dispatch of its own is told by the API's note, which may change.
        application.url = (lambda: url) if settings.role != "dispatch" else partial(roles.api_address, settings.home)
        server = _Server(
            uvicorn.Config(
                api,
                log_config=None,
                access_log=False,  # the requests' own line has their id as well
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
                server_header=False,
                proxy_headers=False,
                http=Connection,
            ),
            settings=settings,
            url=url,
            links=application.links,
            on_signal=on_signal,
        )
        server.run(sockets=[listener])
    return 0 if server.started else 1


def _allow_many_connections() -> None:
    """Raises the soft limit of open files: the usual 1,024 is a thousand slow clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Server(uvicorn.Server):
    """Says where it listens once it does, and takes that back when it does not any more."""

    def __init__(
        self, config: uvicorn.Config, settings: Settings, url: str, links: Links, on_signal: _OnSignal
    ) -> None:
        super().__init__(config)
        self._note = roles.note(settings.home, settings.role)
        self._role = settings.role
        self._url = url
        self._links = links
        self._on_signal = on_signal

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            # What there is by now stays: to go through it for garbage stops every thread for a tenth of a second.
            gc.collect()
            gc.freeze()
            found = {"url": self._url, "pid": os.getpid(), "started": rfc3339(now())}
            write_whole(self._note, json.dumps(found))
            if self._role == "dispatch":
                sys.stdout.write(f"Lockstep dispatches; its health: {self._url}/readyz\n")
            else:
                link = self._links.make()
                until = time.strftime("%H:%M", time.localtime(link.until))
                sys.stdout.write(
                    f"Lockstep listens at {self._url}\nDashboard: {self._url}/#code={link.code}\n"
                    f"(This link opens one browser, until {until}; `lockstep open` prints another.)\n"
                )
            sys.stdout.flush()
            notify.ready()

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
