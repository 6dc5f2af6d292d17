"""When the ranks of a job were last heard, whichever way their records come."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("heard_at", sa.DateTime(timezone=True), nullable=True))
    # Of those whose records come by files it is known with their next record.
    op.execute("UPDATE jobs SET heard_at = shipped_at WHERE shipped_at IS NOT NULL")


def downgrade() -> None:
    op.drop_column("jobs", "heard_at")
