"""Records as they came in, together; curves rolled up; documents of placements with their rows."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_BATCH = 1000
_chunks = sa.table(
    "chunks", sa.column("job_id"), sa.column("revision"), sa.column("records"), sa.column("body", sa.LargeBinary())
)
_records = sa.table(
    "records", *(sa.column(name) for name in ("job_id", "attempt", "rank", "seq", "revision", "time", "kind", "step")),
    sa.column("values"),
)  # fmt: skip
_ranks = sa.table("ranks", *(sa.column(name) for name in ("job_id", "attempt", "rank", "contiguous", "step")))
_placements = sa.table(
    "placements", *(sa.column(name) for name in ("job_id", "attempt", "node", "rank", "seq", "brief", "document"))
)
_verdicts = sa.table(
    "verdicts",
    *(sa.column(name) for name in ("job_id", "attempt", "rank", "when", "seq", "node", "brief", "document")),
)


def upgrade() -> None:
    op.create_table(
        "chunks",
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("records", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "revision"),
    )
    op.create_table(
        "figures",
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_table(
        "curves",
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "number"),
    )
    for table, columns in (("placements", ("brief", "document")), ("verdicts", ("brief", "document"))):
        for column in columns:
            op.add_column(table, sa.Column(column, sa.Text(), nullable=False, server_default="{}"))
    op.add_column("verdicts", sa.Column("node", sa.String(length=255), nullable=False, server_default=""))
    _chunk_records()
    _copy_documents()
    op.drop_index("records_by_step", "records")
    op.drop_index("records_by_revision", "records")
    op.drop_table("records")
    op.drop_table("ranks")


def downgrade() -> None:
    op.create_table(
        "ranks",
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("contiguous", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "attempt", "rank"),
    )
    op.create_table(
        "records",
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("kind", sa.String(length=256), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("values", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "attempt", "rank", "seq"),
    )
    _unchunk_records()
    op.create_index("records_by_revision", "records", ["job_id", "revision"], unique=False)
    op.create_index("records_by_step", "records", ["job_id", "kind", "attempt", "step", "rank"], unique=False)
    op.drop_column("verdicts", "node")
    for table in ("verdicts", "placements"):
        op.drop_column(table, "document")
        op.drop_column(table, "brief")
    op.drop_table("curves")
    op.drop_table("figures")
    op.drop_table("chunks")


def _chunk_records() -> None:
    """One chunk for each revision of a job, in the order of the records."""
    connection = op.get_bind()
    jobs = connection.execute(sa.select(_records.c.job_id).distinct()).scalars().all()
    for job_id in jobs:
        wanted = (
            sa.select(_records)
            .where(_records.c.job_id == job_id)
            .order_by(_records.c.revision, _records.c.attempt, _records.c.rank, _records.c.seq)
            .execution_options(yield_per=_BATCH)
        )
        found = connection.execute(wanted).mappings()
        for number, rows in itertools.groupby(found, key=lambda row: row["revision"]):
            lines = [_line(row) for row in rows]
            body = gzip.compress(b"".join(lines), 1)
            chunk = {"job_id": job_id, "revision": number, "records": len(lines), "body": body}
            connection.execute(sa.insert(_chunks), chunk)


def _line(row: Mapping[str, Any]) -> bytes:
    head = {"v": 1} | {name: row[name] for name in ("attempt", "rank", "seq", "time", "kind", "step")}
    return (json.dumps(head, separators=(",", ":"))[:-1] + ',"values":' + row["values"] + "}\n").encode()


def _unchunk_records() -> None:
    connection = op.get_bind()
    places = connection.execute(sa.select(_chunks.c.job_id, _chunks.c.revision)).all()
    told: dict[tuple[str, int, int], list[int]] = {}
    steps: dict[tuple[str, int, int], int] = {}
    for job_id, number in sorted(places):
        body = connection.execute(
            sa.select(_chunks.c.body).where(_chunks.c.job_id == job_id, _chunks.c.revision == number)
        ).scalar_one()
        rows = []
        for line in gzip.decompress(body).split(b"\n"):
            if not line.strip():
                continue
            found = json.loads(line)
            place = job_id, found["attempt"], found["rank"]
            told.setdefault(place, []).append(found["seq"])
            step = found.get("step")
            if found["kind"] == "step" and step is not None:
                steps[place] = max(step, steps.get(place, step))
            values = json.dumps(found["values"], ensure_ascii=True, separators=(",", ":"))
            head = {name: found[name] for name in ("attempt", "rank", "seq", "time", "kind")}
            rows.append({"job_id": job_id, "revision": number, **head, "step": step, "values": values})
        connection.execute(sa.insert(_records), rows)
    if told:
        rows = [
            {"job_id": job_id, "attempt": attempt, "rank": rank, "contiguous": _contiguous(seqs),
             "step": steps.get((job_id, attempt, rank))}
            for (job_id, attempt, rank), seqs in told.items()
        ]  # fmt: skip
        connection.execute(sa.insert(_ranks), rows)


def _contiguous(seqs: list[int]) -> int:
    reached = 0
    for seq in sorted(seqs):
        if seq != reached + 1:
            break
        reached = seq
    return reached


def _copy_documents() -> None:
    """The documents of placements and verdicts, from the records that have been named until now."""
    connection = op.get_bind()
    for table, keys, long in ((_placements, ("attempt", "node"), ("topology", "placement")),
                              (_verdicts, ("attempt", "rank", "when"), ("threads",))):  # fmt: skip
        wanted = sa.select(table.c.job_id, *(table.c[key] for key in keys), _records.c["values"]).join(
            _records,
            sa.and_(*(_records.c[name] == table.c[name] for name in ("job_id", "attempt", "rank", "seq"))),
        )
        for row in connection.execute(wanted).mappings().all():
            values = json.loads(row["values"])
            document = json.loads(values["document"])
            brief = document | {"threads": []} if table is _verdicts else document
            brief = {name: part for name, part in brief.items() if name not in long or name == "threads"}
            change = {"brief": _text(brief), "document": _text(document)}
            if table is _verdicts:
                change["node"] = values["node"]
            where = [table.c.job_id == row["job_id"], *(table.c[key] == row[key] for key in keys)]
            connection.execute(sa.update(table).where(*where).values(**change))


def _text(document: dict[str, Any]) -> str:
    """As JSON that every database takes: half a surrogate pair, which a thread's name may have, becomes a "?"."""
    whole = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace").decode()
    return json.dumps(json.loads(whole), separators=(",", ":"))
