"""``Settings``: everything that can be set, from ``LOCKSTEP_*`` variables or the command line."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from lockstep_service.roles import Role
from lockstep_slurm.job.file import SpecError, problems

_HOST = re.compile(r"\*|(\*\.)?[\w.-]+", re.ASCII)


def _is_host(name: str) -> bool:
    if ":" not in name:
        return _HOST.fullmatch(name) is not None
    try:
        IPv6Address(name[1:-1] if name[0] + name[-1] == "[]" else name)
    except ValueError:
        return False
    return True


class SettingsError(SpecError):
    """A variable whose value cannot be used; the message names each."""


class Settings(BaseSettings):
    """Settings of the service. Durations are seconds, sizes bytes."""

    model_config = SettingsConfigDict(env_prefix="LOCKSTEP_", extra="ignore", frozen=True)

    home: Path = Field(
        default_factory=lambda: Path.home() / ".lockstep", description="Where everything is kept, mode 0700"
    )
    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(0, ge=0, le=65_535, description="Port to listen on; 0: a free one")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Further host names by which the service may be called, with commas between"
    )
    database_url: str | None = Field(
        None, description="postgresql://... or sqlite:///...; by default SQLite, `<home>/lockstep.db`"
    )
    client: Literal["auto", "command", "local", "pyslurm"] = Field("auto", description="How to talk to the scheduler")
    slurm_conf: Path | None = Field(None, description="slurm.conf, where it is not at Slurm's own default place")
    site: Path | None = Field(
        None, description="The site's cluster.toml; by default /etc/lockstep/cluster.toml, else `<home>/cluster.toml`"
    )
    python: str | None = Field(
        None, description="Interpreter of the ranks, an absolute path; by default the site's, else the service's own"
    )
    runs: Path | None = Field(
        None, description="Where run directories are made; by default the site's, else `<home>/runs`"
    )
    reconcile_seconds: float = Field(2.0, gt=0, le=60, description="Between two looks at Slurm while jobs live")
    reconcile_limit_seconds: float = Field(10.0, gt=0, le=600, description="Longest such pause, while nothing moves")
    submit_retry_seconds: float = Field(2.0, gt=0, description="First pause before a submit is tried again")
    submit_retry_limit_seconds: float = Field(60.0, gt=0, description="Longest such pause")
    submit_rate: int = Field(100, ge=0, le=100_000, description="Submits a second at most; 0: no limit")
    submit_parallel: int = Field(4, ge=1, le=64, description="Submits that are under way at once")
    refused_limit_seconds: float = Field(
        86_400.0, gt=0, description="How long a refusal that may pass, or may not, is waited out before the job ends"
    )
    lookup_seconds: float | None = Field(
        None,
        gt=0,
        description="Between the two look-ups for a lost submit; by default 2 x MessageTimeout, as Slurm tells it",
    )
    ingest_seconds: float = Field(2.0, gt=0, description="How long a spool may lie before the service reads it itself")
    exit_grace_seconds: float = Field(
        10.0,
        ge=0,
        description="How long an exit record may take to appear after COMPLETED, or Slurm's record to tell of an end",
    )
    cluster_seconds: float = Field(60.0, gt=0, description="How old the last answer about nodes may be")
    body_limit: int = Field(1 << 20, gt=0, description="Largest request body, except records")
    records_limit: int = Field(8 << 20, gt=0, description="Largest body of records, as sent")
    records_plain_limit: int = Field(16 << 20, gt=0, description="Largest body of records, decompressed")
    link_seconds: float = Field(900, gt=0, description="How long a link lets a browser in, if nobody used it before")
    https: bool = Field(False, description="Browsers reach it through TLS only: the cookie is sent nowhere else")  # noqa: FBT003
    records_at_once: int = Field(
        16, ge=1, le=32, description="Requests with records that are taken in at once; more are answered with 429"
    )
    keep_records_days: float | None = Field(
        None, ge=0, description="Records of jobs that ended longer ago are removed, their curves stay; unset: never"
    )
    keep_jobs_days: float | None = Field(
        None, ge=0, description="Jobs that ended longer ago are removed from the database; unset: never"
    )
    session_days: int = Field(14, ge=1, le=365, description="How long a browser stays signed in")
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="Log lines for people or for machines; auto: for people on a terminal, else JSON"
    )
    role: Role = Field("all", description="What this process does: the API, the dispatch, or both")
    restored: bool = Field(
        False,  # noqa: FBT003
        description="Whether the database comes from a backup: what it has as not submitted is looked for first",
    )
    dispatch: bool = Field(True, description="Whether this process submits and reconciles")  # noqa: FBT003

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        names = tuple(name.strip() for name in value.split(",") if name.strip())
        for name in names:
            if not _is_host(name):
                raise ValueError(f"has {name!r}, which is no host name; give names with commas between")
        return names

    @classmethod
    def read(cls, **options: Any) -> Self:  # noqa: ANN401 - whatever fields there are
        """The settings by ``options`` and the environment; ``SettingsError`` names the variables that are wrong."""
        try:
            return cls(**options)
        except ValidationError as error:
            found = [(f"LOCKSTEP_{where.upper()}", sentence) for where, sentence in problems(error, cls)]
            raise SettingsError("the service's settings", found) from None

    @property
    def dispatches(self) -> bool:
        """Whether this process submits and reconciles."""
        return self.dispatch and self.role != "api"

    @property
    def url(self) -> str:
        """The database's address, in SQLAlchemy's form."""
        address = self.database_url or f"sqlite:///{self.home / 'lockstep.db'}"
        for prefix in ("postgresql://", "postgres://"):
            if address.startswith(prefix):
                return "postgresql+psycopg://" + address.removeprefix(prefix)
        return address
