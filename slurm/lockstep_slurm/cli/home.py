"""Where this user's Lockstep keeps its files, and the line that a running service leaves there."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from lockstep_slurm.errors import LockstepError


def home() -> Path:
    """``$LOCKSTEP_HOME``, by default ``~/.lockstep``; absolute, and not necessarily there yet."""
    return Path(os.environ.get("LOCKSTEP_HOME") or Path.home() / ".lockstep").expanduser().absolute()


@dataclass(frozen=True)
class ServiceAddress:
    """How to reach the service and who to be there."""

    url: str
    token: str


class NoServiceError(LockstepError):
    """No service is known or it does not answer; the message says how to start one."""


def service_address() -> ServiceAddress:
    """The service's address: ``LOCKSTEP_URL``, else the file that ``lockstep serve`` leaves while it listens.

    The token comes from the file ``LOCKSTEP_TOKEN_FILE`` or ``<home>/token``, never from an argument or a variable's
    value, where other users of the machine could read it. Raises ``NoServiceError``.
    """
    folder = home()
    url = os.environ.get("LOCKSTEP_URL")
    if url and not url.startswith(("http://", "https://")):
        raise NoServiceError(f"LOCKSTEP_URL is {url!r}, but has to begin with http:// or https://")
    if not url:
        note = folder / "service.json"
        try:
            url = str(json.loads(note.read_text(encoding="utf-8"))["url"])
        except FileNotFoundError:
            raise NoServiceError(
                f"no Lockstep service is running for {folder}; start one with `lockstep serve`, "
                "or set LOCKSTEP_URL to one that runs elsewhere"
            ) from None
        except (OSError, ValueError, KeyError) as error:
            raise NoServiceError(
                f"{note} cannot be read ({error}); remove it and start `lockstep serve` again"
            ) from None
    file = Path(os.environ.get("LOCKSTEP_TOKEN_FILE") or folder / "token")
    try:
        return ServiceAddress(url.rstrip("/"), file.read_text(encoding="utf-8").strip())
    except OSError as error:
        raise NoServiceError(
            f"the service's token cannot be read from {file} ({error.strerror}); set LOCKSTEP_TOKEN_FILE to its file"
        ) from None
