"""The file of one checkpoint: tensors as bytes, a manifest behind them, and a footer by which a torn file is known.

    16 bytes   b"LOCKSTEP-SAVED-1"
    body       the tensors, each at a multiple of 64 bytes
    manifest   JSON in UTF-8: what it is of, the body's size and SHA-256, each tensor's place, the state
    footer     the manifest's SHA-256 (32 bytes), its length (8 bytes, little endian), b"LOCKSTEP-ENDED-1"

It is written from front to back, so a file that was cut short has no footer. Nothing in it is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lockstep_worker.checkpoint.errors import CheckpointError
from lockstep_worker.checkpoint.snapshot import memory_of, tensor_at
from lockstep_worker.checkpoint.tree import unflatten

BEGINS, ENDS = b"LOCKSTEP-SAVED-1", b"LOCKSTEP-ENDED-1"
_FOOTER = struct.Struct("<32sQ16s")
_CHUNK = 1 << 20
"""Bytes between two moments at which the writing thread has the interpreter: so few that what was hashed is still in
the cache when it is written. To write 205 MB took 0.10 to 0.42 s of CPU in chunks of 8 MiB, and takes 0.04 in these."""
_LONGEST_MANIFEST = 1 << 30


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says of itself."""

    job: str | None
    """The job's id; None for a script that no Lockstep has started."""
    attempt: int
    step: int
    """Steps completed when it was saved."""
    ranks: int
    saved: float
    """Seconds since the epoch."""
    score: float | None
    """Of the evaluation after ``step``, where there was one; higher is better."""
    tuning: dict[str, Any] | None
    """What the gradient exchange has measured and agreed on (``DistributedOptimizer.tuning``)."""
    body_bytes: int
    body_sha256: str
    tensors: list[Any]
    """Each one's dtype, shape and first byte in the body."""
    state: Any
    """The document of ``tree.flatten``."""


def write(stream: BinaryIO, body: memoryview, **known: Any) -> Manifest:  # noqa: ANN401 - the manifest's other fields
    """Writes one checkpoint; ``known`` are the fields of the manifest but the body's. Returns the manifest."""
    digest = hashlib.sha256()
    stream.write(BEGINS)
    for start in range(0, len(body), _CHUNK):
        chunk = body[start : start + _CHUNK]
        digest.update(chunk)
        stream.write(chunk)
    manifest = Manifest(body_bytes=len(body), body_sha256=digest.hexdigest(), **known)
    text = json.dumps(asdict(manifest), separators=(",", ":")).encode()
    stream.write(text)
    stream.write(_FOOTER.pack(hashlib.sha256(text).digest(), len(text), ENDS))
    return manifest


def read_manifest(path: Path) -> Manifest:
    """What the checkpoint says of itself; its body is not looked at. Raises ``CheckpointError``."""
    try:
        with path.open("rb") as file:
            return _manifest(file, path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


def read(path: Path) -> tuple[Manifest, Any]:
    """The checkpoint and its state, with tensors of this process's own. Raises ``CheckpointError`` for any bad byte."""
    try:
        with path.open("rb") as file:
            manifest = _manifest(file, path)
            file.seek(len(BEGINS))
            buffer = torch.empty(manifest.body_bytes, dtype=torch.uint8)
            body, digest = memory_of(buffer), hashlib.sha256()
            for start in range(0, len(body), _CHUNK):
                part = body[start : start + _CHUNK]
                if file.readinto(part) != len(part):
                    raise CheckpointError(f"{path} became shorter while it was read")
                digest.update(part)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if digest.hexdigest() != manifest.body_sha256:
        raise CheckpointError(
            f"{path} is damaged: its tensors have the SHA-256 {digest.hexdigest()[:16]}..., and were saved with "
            f"{manifest.body_sha256[:16]}..."
        )
    try:
        state = unflatten(manifest.state, [tensor_at(buffer, place) for place in manifest.tensors])
    except (CheckpointError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has no state that can be read: {error}") from error
    return manifest, state


def _manifest(file: BinaryIO, path: Path) -> Manifest:
    size = os.fstat(file.fileno()).st_size
    if file.read(len(BEGINS)) != BEGINS:
        raise CheckpointError(f"{path} is no checkpoint of Lockstep's: it begins with other bytes")
    least = len(BEGINS) + _FOOTER.size
    if size >= least:
        file.seek(size - _FOOTER.size)
        digest, length, ends = _FOOTER.unpack(file.read(_FOOTER.size))
    if size < least or ends != ENDS:
        raise CheckpointError(f"{path} is torn: it is {size} bytes long and does not end as one that was saved whole")
    if length > min(size - least, _LONGEST_MANIFEST):
        raise CheckpointError(f"{path} is damaged: its manifest of {length} bytes does not fit into {size}")
    file.seek(size - _FOOTER.size - length)
    text = file.read(length)
    if hashlib.sha256(text).digest() != digest:
        raise CheckpointError(f"{path} is damaged: its manifest is not the one that was saved")
    try:
        document = json.loads(text)
        known = {field.name for field in fields(Manifest)}
        manifest = Manifest(**{name: value for name, value in document.items() if name in known})
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} has a manifest that this version cannot read: {error}") from error
    if len(BEGINS) + manifest.body_bytes + length + _FOOTER.size != size:
        raise CheckpointError(f"{path} is torn: its body is not the {manifest.body_bytes} bytes that were saved")
    return manifest
