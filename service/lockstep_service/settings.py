"""``Settings``: everything that can be set, from ``LOCKSTEP_*`` variables or the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of the service. Durations are seconds, sizes bytes."""

    model_config = SettingsConfigDict(env_prefix="LOCKSTEP_", extra="ignore", frozen=True)

    home: Path = Field(
        default_factory=lambda: Path.home() / ".lockstep", description="Where everything is kept, mode 0700"
    )
    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(0, ge=0, le=65_535, description="Port to listen on; 0: a free one")
    allowed_hosts: tuple[str, ...] = Field((), description="Further host names by which the service may be called")
    database_url: str | None = Field(
        None, description="postgresql://... or sqlite:///...; by default SQLite, `<home>/lockstep.db`"
    )
    client: Literal["auto", "command", "local", "pyslurm"] = Field("auto", description="How to talk to the scheduler")
    slurm_conf: Path | None = Field(None, description="slurm.conf, where it is not at Slurm's own default place")
    python: str = Field(
        default_factory=lambda: sys.executable, description="Interpreter of the ranks, an absolute path"
    )
    runs: Path | None = Field(None, description="Where run directories are made; by default `<home>/runs`")
    reconcile_seconds: float = Field(2.0, gt=0, le=60, description="Between two looks at Slurm while jobs live")
    reconcile_limit_seconds: float = Field(10.0, gt=0, le=600, description="Longest such pause, while nothing moves")
    submit_retry_seconds: float = Field(2.0, gt=0, description="First pause before a submit is tried again")
    submit_retry_limit_seconds: float = Field(60.0, gt=0, description="Longest such pause")
    lookup_seconds: float = Field(
        20.0, gt=0, description="Between the two look-ups for a lost submit: 2 x Slurm's MessageTimeout (10 s)"
    )
    ingest_seconds: float = Field(2.0, gt=0, description="How long a spool may lie before the service reads it itself")
    exit_grace_seconds: float = Field(
        10.0, ge=0, description="How long an exit record may take to appear after COMPLETED"
    )
    cluster_seconds: float = Field(60.0, gt=0, description="How old the last answer about nodes may be")
    body_limit: int = Field(1 << 20, gt=0, description="Largest request body, except records")
    records_limit: int = Field(8 << 20, gt=0, description="Largest body of records, as sent")
    records_plain_limit: int = Field(64 << 20, gt=0, description="Largest body of records, decompressed")
    session_days: int = Field(14, ge=1, le=365, description="How long a browser stays signed in")
    dispatch: bool = Field(True, description="Whether this process submits and reconciles")  # noqa: FBT003

    @property
    def url(self) -> str:
        """The database's address, in SQLAlchemy's form."""
        address = self.database_url or f"sqlite:///{self.home / 'lockstep.db'}"
        for prefix in ("postgresql://", "postgres://"):
            if address.startswith(prefix):
                return "postgresql+psycopg://" + address.removeprefix(prefix)
        return address

    @property
    def runs_root(self) -> Path:
        """Where run directories are made, absolute."""
        return (self.runs or self.home / "runs").absolute()
