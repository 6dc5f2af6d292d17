"""What is asked of a job after its submission, why it waits, and its timeline."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("rerun_of", sa.String(length=36), nullable=True))
    op.add_column("jobs", sa.Column("follows", sa.String(length=36), nullable=True))
    op.add_column("jobs", sa.Column("follows_any", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("jobs", sa.Column("refused_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("user_hold", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("jobs", sa.Column("wanted", sa.String(length=16), nullable=True))
    op.add_column("jobs", sa.Column("slurm_reason", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("expected_start", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "timeline",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("timeline_of_job", "timeline", ["job_id", "id"])


def downgrade() -> None:
    op.drop_table("timeline")
    for column in (
        "expected_start", "slurm_reason", "wanted", "user_hold", "refused_since", "follows_any", "follows", "rerun_of",
    ):  # fmt: skip
        op.drop_column("jobs", column)
