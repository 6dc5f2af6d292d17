"""The service's token and the key of its cookies: making them once, keeping them 0600, comparing in constant time."""

from __future__ import annotations

import getpass
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from lockstep_slurm.errors import LockstepError


class KeyFileError(LockstepError):
    """A secret's file cannot be used as it is."""


@dataclass(frozen=True)
class Keys:
    """The secrets of one service."""

    token: str
    session_key: str
    user: str

    @property
    def cookie(self) -> str:
        """The cookie's name, different for each service: browsers share cookies between the ports of one host."""
        return f"lockstep_{hashlib.sha256(self.session_key.encode()).hexdigest()[:8]}"

    @property
    def fingerprint(self) -> str:
        """Of the token: a session opened with an older token ends when the token changes."""
        return hashlib.sha256(b"session" + self.token.encode()).hexdigest()[:32]


def load_keys(home: Path) -> Keys:
    """The secrets under ``home``, made where they are missing."""
    return Keys(token=_secret(home / "token"), session_key=_secret(home / "session.key"), user=getpass.getuser())


def same(given: str, kept: str) -> bool:
    """Whether two secrets are equal, in a time that tells nothing of them."""
    return hmac.compare_digest(hashlib.sha256(given.encode()).digest(), hashlib.sha256(kept.encode()).digest())


def token_hash(token: str) -> str:
    """What is stored of a job's token; its 256 random bits need no salt."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_token() -> str:
    """A token for one job."""
    return secrets.token_urlsafe(32)


def _secret(path: Path) -> str:
    """The secret in ``path``; a new one, complete and 0600 from its first moment, if there is none."""
    try:
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError:
        _make(path)
        mode = 0o600
    if mode & 0o077:
        raise KeyFileError(
            f"{path} can be read by others (mode {mode:04o}): chmod 600 {path}, or delete it for a new one."
        )
    if not (text := path.read_text("utf-8").strip()):
        raise KeyFileError(f"{path} is empty: delete it, and a new one is made at the next start.")
    return text


def _make(path: Path) -> None:
    whole = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    try:
        path.hardlink_to(whole)
    except FileExistsError:
        return  # another process made it in this moment, and its secret is the one
    finally:
        whole.unlink()
