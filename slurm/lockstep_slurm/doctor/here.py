"""What is known of this machine: the facts that the checks of ``machine_checks`` judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "service": (
        "fastapi",
        "uvicorn",
        "sqlalchemy",
        "alembic",
        "pydantic_settings",
        "sse_starlette",
        "itsdangerous",
        "msgspec",
        "prometheus_client",
        "pythonjsonlogger",
        "pyrate_limiter",
    ),
    "postgres": ("psycopg",),
    "pyslurm": ("pyslurm",),
}
"""The modules that each extra brings, except ``worker``; ``pyproject.toml`` has the packages."""
SLURM_COMMANDS = ("sbatch", "squeue", "scontrol", "scancel", "srun")
PROGRAMS = (*SLURM_COMMANDS, "lstopo", "hwloc-ls", "numactl", "ip")


@dataclass(frozen=True)
class Here:
    """This machine and this Python. Sizes in bytes."""

    python: tuple[int, int]
    executable: str
    missing: Mapping[str, tuple[str, ...]]
    """For each extra the modules that are not there."""
    programs: frozenset[str]
    home: Path
    home_filesystem: str
    own_database: bool
    """Whether LOCKSTEP_DATABASE_URL names a database, so that none lies in the home folder."""
    runs: Path
    runs_error: str | None
    """Why no run folder could be made there."""
    runs_free: int
    runs_free_files: int | None
    """None where the file system has no such limit."""
    encoding: str
    locale_error: str | None
    variables: tuple[str, ...] = field(default=())
    """Names of the shell's variables that change what Slurm's commands do."""
