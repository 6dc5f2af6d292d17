"""The library: the three packages that a rank imports of Lockstep, as one file that never changes.

It reaches an environment that Lockstep did not build by ``PYTHONPATH``; why a zip is in docs/decisions/0004.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import os
import secrets
import zipfile
from functools import lru_cache
from pathlib import Path

from lockstep_slurm.errors import LockstepError
from lockstep_slurm.job import beneath
from lockstep_slurm.job.owned import not_own, not_own_folder

PACKAGES = ("lockstep", "lockstep_slurm", "lockstep_worker")
FOLDER = "library"
"""Beside the run directories, because that is the one place that compute nodes are known to see."""
_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The same for every file, so that the same sources make the same bytes; no zip can name an earlier moment."""


class LibraryError(LockstepError):
    """The library cannot be made; the message says where and why."""


def provide(runs: Path) -> Path:
    """The library of this very Lockstep below ``runs``, made where it is not there yet; its absolute path.

    Its name holds its content's digest, and it appears whole (another name, then renamed): a job that was submitted
    earlier keeps the one that it was written for. Its name can be guessed, and its code runs as the user in every rank:
    so the folder must be nobody else's, and the bytes are compared. Raises ``LibraryError``.
    """
    content = _content()
    final = runs.absolute() / FOLDER / _name(content)
    partial = final.with_name(f".{final.name}.{secrets.token_hex(4)}.partial")
    try:
        final.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (why := not_own_folder(final.parent)) is not None:
            raise LibraryError(
                f"{final.parent} {why}, so another user could choose what ranks import of Lockstep there: "
                "remove it, or name a folder for runs that only you may write to"
            )
        if _is_there(final, content):
            return final
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(final)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise LibraryError(
            f"what ranks import of Lockstep cannot be put into {final.parent}: {error.strerror}; "
            "name a folder for runs that you may write to"
        ) from error
    return final


def _is_there(file: Path, content: bytes) -> bool:
    """Whether ``file``, in a folder of one's own, is one's own as well and has these bytes; else it is made anew."""
    try:
        return not_own(file) is None and beneath.read_file(file.parent, file.name, limit=len(content)) == content
    except (FileNotFoundError, beneath.NotPlainError):
        return False


def name() -> str:
    """The file's name, which every script of today has in it."""
    return _name(_content())


@lru_cache(maxsize=1)
def _content() -> bytes:
    """The zip's bytes: every file of the three packages, sorted; the same as long as this process lives."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for package in PACKAGES:
            root = _source(package)
            for file in sorted(root.rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    name = f"{package}/{file.relative_to(root).as_posix()}"
                    zipped.writestr(_entry(name), file.read_bytes())
    return archive.getvalue()


@lru_cache(maxsize=1)
def _name(content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    return f"lockstep-{importlib.metadata.version('lockstep')}-{digest[:16]}.zip"


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EARLIEST)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


def _source(package: str) -> Path:
    """The folder of a package. Found by name, since nothing here may import the worker."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise LibraryError(
            f"the package {package} is not installed beside lockstep_slurm; install lockstep again, whole"
        )
    return Path(found.origin).parent
