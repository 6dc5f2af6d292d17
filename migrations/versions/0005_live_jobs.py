"""Indexes by which the loops find what is theirs, however many jobs live or have ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_PARTIAL = {
    "jobs_outbox": (("created_at", "id"), "dispatched_at IS NULL"),
    "jobs_to_cancel": (("cancel_requested_at",), "cancel_requested_at IS NOT NULL AND cancel_sent_at IS NULL"),
    "jobs_wanted": (("wanted",), "wanted IS NOT NULL"),
    "jobs_follows": (("follows",), "follows IS NOT NULL"),
    "jobs_stale": (("stale_since",), "stale_since IS NOT NULL"),
}


def upgrade() -> None:
    op.drop_index("jobs_live", "jobs")
    op.create_index("jobs_live", "jobs", ["final", "phase", "changed_at", "id"])
    for name, (columns, where) in _PARTIAL.items():
        op.create_index(name, "jobs", list(columns), sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def downgrade() -> None:
    for name in _PARTIAL:
        op.drop_index(name, "jobs")
    op.drop_index("jobs_live", "jobs")
    op.create_index("jobs_live", "jobs", ["final"])
