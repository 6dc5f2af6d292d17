"""The database: every table as a typed class. What a column holds is said here, how it changes in the repositories."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Moment(TypeDecorator[datetime]):
    """An aware moment; SQLite knows no time zones, so UTC is what is stored."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database: in UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """From the database: aware, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


JobKey = String(36)


class Base(DeclarativeBase):
    """The base of all tables."""

    type_annotation_map = {datetime: Moment, dict[str, Any]: JSON, list[str]: JSON}  # noqa: RUF012


class JobRow(Base):
    """A job: what was asked for, what was done about it, and what Slurm said."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("length(id) = 36", name="jobs_id_is_uuid"),
        CheckConstraint(
            "phase IN ('accepted', 'waiting', 'running', 'ended well', 'ended badly', 'unknown')",
            name="jobs_phase_is_known",
        ),
        UniqueConstraint("idempotency_key", name="jobs_idempotency_key"),
        Index("jobs_newest_first", "created_at", "id"),
        Index("jobs_live", "final"),
        Index("jobs_changed", "changed_at"),
    )

    id: Mapped[str] = mapped_column(JobKey, primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    spec: Mapped[str] = mapped_column(Text)
    """The ``JobSpec`` as JSON."""
    script: Mapped[str] = mapped_column(Text)
    run_dir: Mapped[str] = mapped_column(Text)
    client: Mapped[str] = mapped_column(String(16))
    by_hand: Mapped[bool] = mapped_column(default=False)
    nodes_requested: Mapped[int]
    ranks: Mapped[int]
    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    idempotency_digest: Mapped[str | None] = mapped_column(String(64))
    token_hash: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]

    # The outbox.
    submit_started_at: Mapped[datetime | None]
    """When the last submit that has not been answered was begun; null when every submit so far was answered."""
    submit_tries: Mapped[int] = mapped_column(default=0)
    lost_since: Mapped[datetime | None]
    """The first look-up by name that found no copy after an answer was lost."""
    held: Mapped[bool] = mapped_column(default=False)
    """Whether the Slurm job was submitted held, and is not yet released."""
    submit_after: Mapped[datetime | None]
    """Not to be tried again before."""
    dispatched_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    cancel_sent_at: Mapped[datetime | None]

    # What Slurm said.
    slurm_job_id: Mapped[int | None] = mapped_column(BigInteger)
    state: Mapped[str | None] = mapped_column(String(32))
    flags: Mapped[list[str]] = mapped_column(default=list)
    phase: Mapped[str] = mapped_column(String(16), default="accepted")
    reason: Mapped[str | None] = mapped_column(Text)
    slurm_nodes: Mapped[list[str]] = mapped_column(default=list)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    observed_at: Mapped[datetime | None]
    stale_since: Mapped[datetime | None]
    ended_seen_at: Mapped[datetime | None]
    """When this service first saw evidence of the end: from here the exit record's grace is counted."""
    missing_since: Mapped[datetime | None]
    """Since when Slurm has had no word of it, neither in its queue nor in its records."""
    final: Mapped[bool] = mapped_column(default=False)
    """The job has ended and its spool has been read to the end: nothing will change any more."""

    # What its ranks reported.
    revision: Mapped[int] = mapped_column(default=0)
    """Grows with every batch of new records."""
    last: Mapped[dict[str, Any]] = mapped_column(default=dict)
    shipped_at: Mapped[datetime | None]
    """When the ranks last sent records themselves."""

    attempts: Mapped[list[AttemptRow]] = relationship(
        order_by="AttemptRow.number", lazy="selectin", cascade="all, delete-orphan"
    )


class AttemptRow(Base):
    """An attempt, as its claim and its exit record tell."""

    __tablename__ = "attempts"

    job_id: Mapped[str] = mapped_column(JobKey, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    slurm_job_id: Mapped[int | None] = mapped_column(BigInteger)
    restart_count: Mapped[int] = mapped_column(default=0)
    nodes: Mapped[list[str]] = mapped_column(default=list)
    ranks: Mapped[int]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    exit_code: Mapped[int | None]
    exit_signal: Mapped[int | None]
    message: Mapped[str | None] = mapped_column(Text)


class RecordRow(Base):
    """One record, verbatim; (attempt, rank, seq) is its identity for ever."""

    __tablename__ = "records"
    __table_args__ = (
        Index("records_by_step", "job_id", "kind", "attempt", "step", "rank"),
        Index("records_by_revision", "job_id", "revision"),
    )

    job_id: Mapped[str] = mapped_column(JobKey, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    rank: Mapped[int] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    revision: Mapped[int]
    """The job's revision that this record came with."""
    time: Mapped[float]
    kind: Mapped[str] = mapped_column(String(256))
    step: Mapped[int | None] = mapped_column(BigInteger)
    values: Mapped[str] = mapped_column(Text)
    """The record's ``values`` as JSON."""


class RankRow(Base):
    """Up to where the records of a rank are stored without a hole."""

    __tablename__ = "ranks"

    job_id: Mapped[str] = mapped_column(JobKey, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    rank: Mapped[int] = mapped_column(primary_key=True)
    contiguous: Mapped[int] = mapped_column(BigInteger, default=0)
    step: Mapped[int | None] = mapped_column(BigInteger)
    """Its newest step."""


class SpoolRow(Base):
    """How far a spool file has been read."""

    __tablename__ = "spools"

    job_id: Mapped[str] = mapped_column(JobKey, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    file: Mapped[str] = mapped_column(String(512), primary_key=True)
    """Relative to the run directory's ``spool``."""
    offset: Mapped[int] = mapped_column(BigInteger, default=0)
    """Bytes; always just behind a newline."""


class ClusterRow(Base):
    """The last answer of a cluster, so that a spec can be checked while Slurm is away."""

    __tablename__ = "clusters"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    client: Mapped[str] = mapped_column(String(16))
    answer: Mapped[dict[str, Any]] = mapped_column(default=dict)
    observed_at: Mapped[datetime | None]
    stale_since: Mapped[datetime | None]
