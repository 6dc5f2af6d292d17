"""Every question to the database about clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from functools import lru_cache

from pydantic import TypeAdapter
from sqlalchemy import Text, cast, select
from sqlalchemy.orm import Session

from lockstep_service.tables import ClusterRow
from lockstep_slurm.client.protocol import ClusterAnswer

_FORM = TypeAdapter(ClusterAnswer)


def get(session: Session, name: str) -> ClusterRow | None:
    """The cluster of this name."""
    return session.get(ClusterRow, name)


def newest(session: Session) -> Sequence[ClusterRow]:
    """All clusters."""
    return session.scalars(select(ClusterRow).order_by(ClusterRow.name)).all()


def kept(session: Session, name: str, client: str) -> ClusterAnswer | None:
    """What the cluster last answered to this kind of client; None where it never did."""
    wanted = select(cast(ClusterRow.answer, Text)).where(
        ClusterRow.name == name, ClusterRow.client == client, ClusterRow.observed_at.is_not(None)
    )
    text = session.scalars(wanted).one_or_none()
    return None if text is None else _read(text)


def observed(session: Session, name: str, client: str) -> datetime | None:
    """When the cluster last answered this kind of client; None where it never did."""
    wanted = select(ClusterRow.observed_at).where(ClusterRow.name == name, ClusterRow.client == client)
    return session.scalars(wanted).one_or_none()


@lru_cache(maxsize=4)
def _read(text: str) -> ClusterAnswer:
    """Thousands of nodes, and the same words for every submission between two looks at them."""
    return _FORM.validate_json(text)


def answer(row: ClusterRow | None) -> ClusterAnswer:
    """The cluster's last answer; an empty one if there is none."""
    return _FORM.validate_python(row.answer if row is not None else {})


def keep_answer(session: Session, name: str, client: str, found: ClusterAnswer, moment: datetime) -> None:
    """Stores what the cluster just answered."""
    row = _existing(session, name, client)
    row.answer, row.observed_at, row.stale_since = asdict(found), moment, None


def keep_silence(session: Session, name: str, client: str, moment: datetime) -> None:
    """Stores that the cluster just did not answer."""
    row = _existing(session, name, client)
    row.stale_since = row.stale_since or moment


def _existing(session: Session, name: str, client: str) -> ClusterRow:
    row = session.get(ClusterRow, name)
    if row is None:
        row = ClusterRow(name=name, client=client)
        session.add(row)
    row.client = client
    return row
