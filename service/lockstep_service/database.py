"""The database: opening SQLite or PostgreSQL rightly, one session per unit of work, and the schema's migrations."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DataError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from lockstep_service.events.broadcaster import Broadcaster, Change
from lockstep_slurm.errors import LockstepError
from lockstep_slurm.filesystem import network_filesystem

_BUSY_MILLISECONDS = 15_000
_CHANGES = "lockstep_changes"
_AT_COMMIT = "lockstep_at_commit"
_ENDS = "lockstep_ends"
UNSTORABLE = (ValueError, OverflowError, DataError)
"""What a value that no column can hold is refused with, by Python or by either database: a NUL, a number too large."""


class DatabaseError(LockstepError):
    """The database cannot be used as it is."""


class _Turn:
    """The turn of one of this process's writers, where there is but one at a time.

    Without it SQLite lets a second one sleep, longer from look to look, while others that came later get in.
    """

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._mine = False

    def take(self) -> None:
        """Waits for it, as long as SQLite would; from then on SQLite itself is asked."""
        self._mine = self._mine or self._lock.acquire(timeout=_BUSY_MILLISECONDS / 1000)

    def give_back(self) -> None:
        """After the commit; on whichever thread."""
        if self._mine:
            self._mine = False
            self._lock.release()


class Database:
    """An engine and its two kinds of session."""

    def __init__(self, url: str, broadcaster: Broadcaster | None = None) -> None:
        self.engine = _open(url)
        self._broadcaster = broadcaster
        # SQLite: a writer takes the lock at its start. A reader that turns writer in mid-transaction would fail with
        # SQLITE_BUSY at once, without waiting, when another has written since (SQLite's documentation of BEGIN).
        self._writer = self.engine.execution_options(lockstep_writes=True)
        self._one_writer = Lock()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that sees one moment of the database and changes nothing."""
        with Session(self.engine, expire_on_commit=False, autoflush=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session that is committed at the end, or rolled back on an error; what changed is told after the commit."""
        turn = _Turn(self._one_writer)
        writer = self._writer.execution_options(lockstep_turn=turn)
        with Session(writer, expire_on_commit=False) as session:
            committed = False
            try:
                yield session
                for act in session.info.get(_AT_COMMIT, ()):
                    act(session)
                session.commit()
                committed = True
            finally:
                turn.give_back()
                for end in session.info.get(_ENDS, []):
                    end(committed)
            changes: list[Change] = session.info.get(_CHANGES, [])
        if self._broadcaster is not None:
            for change in dict.fromkeys(changes):
                self._broadcaster.publish(change)

    def upgrade(self) -> None:
        """Brings the schema to the newest version; ``DatabaseError`` when the database does not answer."""
        try:
            command.upgrade(alembic_config(self.engine), "head")
        except OperationalError as error:
            raise DatabaseError(
                f"The database {_shown(self.engine.url)} cannot be used: {str(error.orig).strip():.500}. See whether "
                "it runs, or set LOCKSTEP_DATABASE_URL to another."
            ) from None

    def answers(self) -> bool:
        """Whether a question to the database is answered."""
        try:
            with self.engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except SQLAlchemyError:
            return False
        return True

    def close(self) -> None:
        """Closes every connection."""
        self.engine.dispose()


def told(session: Session, change: Change) -> None:
    """Notes what this transaction changes, to be told once it is committed."""
    session.info.setdefault(_CHANGES, []).append(change)


def at_commit(session: Session, act: Callable[[Session], None]) -> None:
    """Has ``act`` called once as the last step of a writing transaction, however often it is asked for."""
    session.info.setdefault(_AT_COMMIT, {})[act] = None


def at_end(session: Session, call: Callable[[bool], None]) -> None:
    """Has ``call`` called when this ``writing`` transaction is over, with whether it was committed."""
    session.info.setdefault(_ENDS, []).append(call)


def migrations() -> Path:
    """Where the migrations are: beside this package when it is installed, in the repository otherwise."""
    installed = Path(__file__).parent / "_migrations"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "migrations"


_ESCAPED = "In a password @ is written %40, : is %3A, and / is %2F."


def alembic_config(engine: Engine) -> Config:
    """Alembic's configuration, without a file; ``migrations/env.py`` takes the engine from its attributes."""
    config = Config()
    config.set_main_option("script_location", str(migrations()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["engine"] = engine
    return config


def _shown(url: URL) -> str:
    """The address as it may be printed: libpq takes a password in the query as well."""
    return url.set(query={}).render_as_string(hide_password=True)


def parsed(address: str) -> URL:
    """The database's address in its parts; ``DatabaseError`` where it is none, in which it is not shown."""
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):  # it may have a password in it, whole or in what could not be read
        raise DatabaseError(
            "The database's address (LOCKSTEP_DATABASE_URL, --database) is no URL; give sqlite:////absolute/path.db or "
            f"postgresql://user@host/name. {_ESCAPED}"
        ) from None
    if "@" in (url.host or ""):
        raise DatabaseError(f"The database's address (LOCKSTEP_DATABASE_URL, --database) has two @. {_ESCAPED}")
    return url


def _open(address: str) -> Engine:
    url = parsed(address)
    if url.get_backend_name() == "postgresql":
        return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20, isolation_level="READ COMMITTED")
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        raise DatabaseError(
            f"LOCKSTEP_DATABASE_URL is {_shown(url)}; give sqlite:////absolute/path.db or postgresql://user@host/name."
        )
    folder = Path(url.database).absolute().parent
    if not folder.is_dir():
        raise DatabaseError(
            f"The folder {folder} of the database does not exist; make it, or set another database_url."
        )
    if (kind := network_filesystem(folder)) is not None:
        raise DatabaseError(
            f"{url.database} lies on {kind}, a network file system, where SQLite's locks cannot be trusted. Set "
            "LOCKSTEP_DATABASE_URL to sqlite:////a/local/disk/lockstep.db, or to a PostgreSQL database."
        )
    engine = create_engine(url, connect_args={"timeout": _BUSY_MILLISECONDS / 1000}, pool_size=10, max_overflow=20)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    if not isinstance(connection, sqlite3.Connection):
        raise DatabaseError(
            f"SQLite is opened by {type(connection).__module__}; the standard library's sqlite3 is needed."
        )
    connection.isolation_level = None  # so that _begin_sqlite says how a transaction begins, and not the driver
    for pragma in (
        f"busy_timeout = {_BUSY_MILLISECONDS}",
        "journal_mode = WAL",
        "synchronous = FULL",  # an acknowledged record or submission survives a power cut
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if (turn := options.get("lockstep_turn")) is not None:
        turn.take()
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("lockstep_writes", False) else "BEGIN")
