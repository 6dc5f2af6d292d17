"""The database: its schema up and down, its settings, and where it must not lie."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from lockstep_service.database import Database, DatabaseError, alembic_config
from lockstep_service.retention import open_existing
from lockstep_service.tables import Base
from lockstep_slurm.filesystem import network_filesystem


class TestMigrations:
    def test_upgrade_makes_exactly_the_tables_that_the_code_has(self, database_url: str) -> None:
        database = Database(database_url)
        database.upgrade()
        with database.engine.connect() as connection:
            assert (
                compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata)
                == []
            )
        database.close()

    def test_down_and_up_again(self, database_url: str) -> None:
        database = Database(database_url)
        database.upgrade()
        command.downgrade(alembic_config(database.engine), "base")
        assert inspect(database.engine).get_table_names() == ["alembic_version"]
        database.upgrade()
        database.upgrade()
        assert set(inspect(database.engine).get_table_names()) == {*Base.metadata.tables, "alembic_version"}
        database.close()


class TestSqlite:
    def test_is_opened_for_many_readers_and_a_patient_writer(self, tmp_path: Path) -> None:
        database = Database(f"sqlite:///{tmp_path / 'a.db'}")
        with database.engine.connect() as connection:
            found = {
                name: connection.execute(text(f"PRAGMA {name}")).scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            }
        # 2 is FULL: what was answered survives a power cut.
        assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
        database.close()

    def test_writers_wait_for_each_other(self, tmp_path: Path) -> None:
        database = Database(f"sqlite:///{tmp_path / 'a.db'}")
        with database.writing() as session:
            session.execute(text("CREATE TABLE counts (n INTEGER)"))
            session.execute(text("INSERT INTO counts VALUES (0)"))

        def count() -> None:
            for _ in range(20):
                with database.writing() as session:
                    n = session.execute(text("SELECT n FROM counts")).scalar_one()
                    session.execute(text("UPDATE counts SET n = :n"), {"n": n + 1})

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with database.reading() as session:
            assert session.execute(text("SELECT n FROM counts")).scalar_one() == 80
        database.close()

    def test_what_fails_is_rolled_back(self, tmp_path: Path) -> None:
        database = Database(f"sqlite:///{tmp_path / 'a.db'}")
        database.upgrade()

        def fail() -> None:
            with database.writing() as session:
                session.execute(text("INSERT INTO clusters (name, client, answer) VALUES ('a', 'local', '{}')"))
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        with database.reading() as session:
            assert session.execute(text("SELECT count(*) FROM clusters")).scalar_one() == 0
        database.close()

    @pytest.mark.parametrize(
        "url",
        [
            "sqlite:////nonexistent/folder/a.db", "sqlite://", "mysql://host/name", "lockstep.db",
            "mysql://host/name?password=w0rd", "postgresql://ada:p@ss:w0rd@db/name", "postgresql://ada:p@w0rd@db/name",
            "postgresql://db:w0rd/name", "mysql://ada:w0rd@db/name",
        ],
    )  # fmt: skip
    def test_what_cannot_be_used_says_so_without_a_password(self, url: str) -> None:
        for use in (Database, open_existing):
            with pytest.raises(DatabaseError) as caught:
                use(url)
            assert "w0rd" not in str(caught.value)

    def test_a_network_file_system_is_refused_with_the_cure(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lockstep_service.database.network_filesystem", lambda _folder: "nfs4")
        with pytest.raises(DatabaseError, match="LOCKSTEP_DATABASE_URL"):
            Database(f"sqlite:///{tmp_path / 'a.db'}")


@pytest.mark.parametrize(
    ("mounts", "found"),
    [
        ("/dev/vda / ext4 rw 0 0", None),
        ("/dev/vda / ext4 rw 0 0\nhome:/x {here} nfs4 rw 0 0", "nfs4"),
        ("home:/x / nfs rw 0 0\ntmpfs {here} tmpfs rw 0 0", None),
        ("/dev/vda / ext4 rw 0 0\na:/x {here} nfs rw 0 0\n/dev/vdb {here} xfs rw 0 0", None),
        ("home:/x / lustre rw 0 0\n/dev/vda {here}-else ext4 rw 0 0", "lustre"),
    ],
)
def test_the_file_system_that_is_on_top_counts(tmp_path: Path, mounts: str, found: str | None) -> None:
    file = tmp_path / "mounts"
    file.write_text(mounts.format(here=tmp_path))
    assert network_filesystem(tmp_path, file) == found
