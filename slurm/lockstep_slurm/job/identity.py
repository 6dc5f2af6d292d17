"""Who a job is: its id, and the Slurm job name that carries it (standard library only, Python >= 3.9)."""

from __future__ import annotations

import os
import time
import uuid

NAME_LIMIT = 64


def new_job_id() -> str:
    """A UUIDv7 (RFC 9562, 5.7) in its canonical text form: ids sort by the time they were made.

    Of our own and not a library's, because a run made by hand takes its id on a compute node, where only the
    standard library is certain.
    """
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & ((1 << 48) - 1)) << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def is_job_id(text: str) -> bool:
    """Whether ``text`` is a job id in canonical form; anything else is never used as a folder's name."""
    try:
        return str(uuid.UUID(text)) == text and uuid.UUID(text).version == 7
    except ValueError:
        return False


def slurm_name(name: str, job_id: str) -> str:
    """The Slurm job's name: what a person called it, a dot, and the job's id, by which a lost submit is found again.

    The name and not the comment, because a comment reaches accounting only where the site says so.
    """
    return f"{name}.{job_id}"
