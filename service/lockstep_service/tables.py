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
    Integer,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
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


def _of_some(name: str, *columns: str, where: str) -> Index:
    """An index of those rows alone that a loop looks for: few, however many jobs live."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


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
        # All that the reconcile loop asks for in every cycle: from the index alone.
        Index("jobs_live", "final", "phase", "changed_at", "id"),
        _of_some("jobs_outbox", "created_at", "id", where="dispatched_at IS NULL"),
        _of_some(
            "jobs_to_cancel",
            "cancel_requested_at",
            where="cancel_requested_at IS NOT NULL AND cancel_sent_at IS NULL",
        ),
        _of_some("jobs_wanted", "wanted", where="wanted IS NOT NULL"),
        _of_some("jobs_follows", "follows", where="follows IS NOT NULL"),
        _of_some("jobs_stale", "stale_since", where="stale_since IS NOT NULL"),
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
    rerun_of: Mapped[str | None] = mapped_column(JobKey)
    """The job that this one repeats, which may have been deleted since."""
    follows: Mapped[str | None] = mapped_column(JobKey)
    """The job whose end this one waits for before Slurm hears of it."""
    follows_any: Mapped[bool] = mapped_column(default=False)
    """Whether any end of that job will do; else it has to end well."""
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
    refused_since: Mapped[datetime | None]
    """Since when Slurm has refused it for a reason that may pass; null when its last answer was another."""
    dispatched_at: Mapped[datetime | None]
    user_hold: Mapped[bool] = mapped_column(default=False)
    """Whether its owner wants it kept from starting; not to be mixed up with ``held``."""
    wanted: Mapped[str | None] = mapped_column(String(16))
    """``hold``, ``release`` or ``requeue``: asked for, and not yet passed on to Slurm."""
    cancel_requested_at: Mapped[datetime | None]
    cancel_sent_at: Mapped[datetime | None]

    # What Slurm said.
    slurm_job_id: Mapped[int | None] = mapped_column(BigInteger)
    state: Mapped[str | None] = mapped_column(String(32))
    flags: Mapped[list[str]] = mapped_column(default=list)
    phase: Mapped[str] = mapped_column(String(16), default="accepted")
    reason: Mapped[str | None] = mapped_column(Text)
    slurm_reason: Mapped[str | None] = mapped_column(Text)
    """Slurm's own word for why it waits, verbatim."""
    expected_start: Mapped[datetime | None]
    """Slurm's estimate while it waits."""
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
    verdicts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Of the newest attempt that told of its placement: how many ranks came to which result, and at which revision."""
    shipped_at: Mapped[datetime | None]
    """When the ranks last sent records themselves."""
    heard_at: Mapped[datetime | None]
    """When the ranks are last known to have told something: sent it, or written it into their spools."""

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


class TimelineRow(Base):
    """One thing that happened to a job, in the order in which the service learnt of it."""

    __tablename__ = "timeline"
    __table_args__ = (Index("timeline_of_job", "job_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(JobKey, ForeignKey("jobs.id", ondelete="CASCADE"))
    time: Mapped[datetime]
    """When it happened, as far as that is known; else when the service learnt of it."""
    kind: Mapped[str] = mapped_column(String(32))
    attempt: Mapped[int | None]
    text: Mapped[str] = mapped_column(Text)
    """One plain sentence."""


class ChunkRow(Base):
    """Records as they came in together, each once; (attempt, rank, seq) is the identity of a record for ever."""

    __tablename__ = "chunks"

    job_id: Mapped[str] = mapped_column(JobKey, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True)
    """The job's revision that they came with."""
    records: Mapped[int]
    """How many."""
    body: Mapped[bytes]
    """The lines, word for word, by gzip."""


class FiguresRow(Base):
    """What the records up to a revision come to, but for the curves."""

    __tablename__ = "figures"

    job_id: Mapped[str] = mapped_column(JobKey, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    revision: Mapped[int]
    body: Mapped[bytes]
    """``Figures.stored``."""


class CurveRow(Base):
    """One curve of a job, rolled up, as of its figures' revision."""

    __tablename__ = "curves"

    job_id: Mapped[str] = mapped_column(JobKey, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    """The order in which a job's curves came up."""
    body: Mapped[bytes]
    """``Curve.kept``, compressed."""


class PlacementRow(Base):
    """A node's newest placement; ``seq`` is its record's."""

    __tablename__ = "placements"

    job_id: Mapped[str] = mapped_column(JobKey, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    node: Mapped[str] = mapped_column(String(255), primary_key=True)
    rank: Mapped[int]
    seq: Mapped[int] = mapped_column(BigInteger)
    brief: Mapped[str] = mapped_column(Text, default="{}")
    """The document without the machine and the plan, as JSON."""
    document: Mapped[str] = mapped_column(Text, default="{}")


class VerdictRow(Base):
    """A rank's newest verdict at a moment of its life; ``seq`` is its record's."""

    __tablename__ = "verdicts"

    job_id: Mapped[str] = mapped_column(JobKey, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    rank: Mapped[int] = mapped_column(primary_key=True)
    when: Mapped[str] = mapped_column(String(16), primary_key=True)
    """``init`` or ``steps``."""
    seq: Mapped[int] = mapped_column(BigInteger)
    node: Mapped[str] = mapped_column(String(255), default="")
    result: Mapped[str] = mapped_column(String(16))
    brief: Mapped[str] = mapped_column(Text, default="{}")
    """The document without its threads, as JSON."""
    document: Mapped[str] = mapped_column(Text, default="{}")


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
