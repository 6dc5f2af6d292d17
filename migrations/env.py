"""Alembic's entry: runs the migrations on the engine that the service hands over, or on ``LOCKSTEP_DATABASE_URL``."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, Engine, text

from lockstep_service.database import Database
from lockstep_service.settings import Settings
from lockstep_service.tables import Base

LOCK = 1801_08030
"""Any number that nobody else takes; SQLite needs none, since its migrations begin with the writer's lock."""


def run(connection: Connection) -> None:
    """Runs the migrations that are asked for, all in one transaction: both databases roll a schema back."""
    if connection.dialect.name == "postgresql":
        # Two processes that start at once must not both make the tables; held until the transaction ends.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    # SQLite cannot change a column in place; Alembic's batch mode copies the table instead.
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        # Both can; by default Alembic believes that SQLite cannot, and commits after each migration.
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def engine() -> Engine:
    """The engine of the caller, or the one that the settings name when Alembic is called by hand."""
    found = context.config.attributes.get("engine")
    return found if isinstance(found, Engine) else Database(Settings().url).engine


with engine().execution_options(lockstep_writes=True).connect() as connection:
    run(connection)
    connection.commit()
