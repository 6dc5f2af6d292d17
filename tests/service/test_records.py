"""``POST /jobs/{id}/records``: what ranks send."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from alembic import command
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, text

from lockstep_service.auth.service import token_hash
from lockstep_service.boundary import Application
from lockstep_service.database import alembic_config
from lockstep_service.dispatch.ingest import read_spools
from lockstep_service.jobs import repository as jobs
from lockstep_service.metrics import repository, service
from lockstep_service.metrics.cache import FiguresCache
from lockstep_service.metrics.record import Record, RecordError, batch_of, parse
from lockstep_service.tables import ChunkRow
from lockstep_slurm.job.identity import new_job_id
from support.placements import machine, placement_values, shares, verdict, verdict_values

from .conftest import HandMadeRun

Json = dict[str, Any]


def line(seq: int, rank: int = 0, **more: Any) -> bytes:
    record = {
        "v": 1,
        "attempt": 1,
        "rank": rank,
        "seq": seq,
        "time": 1764000000.5,
        "kind": "step",
        "step": seq,
        "values": {},
    }
    return json.dumps(record | more).encode() + b"\n"


def stored(app: Application, job: Json) -> list[tuple[int, int]]:
    with app.database.reading() as session:
        return sorted((one.rank, one.seq) for one in repository.records(session, job["id"]))


@pytest.fixture
def post(browser: TestClient, job: Json, job_token: str) -> Any:
    def send(body: bytes, *, token: str = job_token, encoding: str | None = "gzip", job_id: str = job["id"]) -> Any:
        headers = {"Authorization": f"Bearer {token}"} | ({"Content-Encoding": encoding} if encoding else {})
        return browser.post(f"/api/v1/jobs/{job_id}/records", content=body, headers=headers)

    return send


class TestPostRecords:
    def test_anonymous(self, browser: TestClient, job: Json) -> None:
        assert browser.post(f"/api/v1/jobs/{job['id']}/records", content=line(1)).status_code == 401

    def test_the_services_own_token_and_a_wrong_one_are_refused(self, post: Any, app: Application, job: Json) -> None:
        assert post(gzip.compress(line(1)), token=app.keys.token).status_code == 403
        assert post(gzip.compress(line(1)), token="guess").status_code == 403
        assert stored(app, job) == []

    def test_the_token_is_for_its_job_alone(self, post: Any, api: TestClient, spec: Json) -> None:
        other = api.post("/api/v1/jobs", json=spec).json()
        assert post(gzip.compress(line(1)), job_id=other["id"]).status_code == 403
        assert post(gzip.compress(line(1)), job_id=new_job_id()).status_code == 403

    def test_a_token_that_was_right_is_refused_once_the_job_has_another(
        self, post: Any, app: Application, job: Json
    ) -> None:
        assert post(gzip.compress(line(1))).status_code == 200
        with app.database.writing() as session:
            row = jobs.lock(session, job["id"])
            assert row is not None
            row.token_hash = token_hash("another")
        assert post(gzip.compress(line(2))).status_code == 403
        assert post(gzip.compress(line(2)), token="another").status_code == 200
        assert stored(app, job) == [(0, 1), (0, 2)]

    def test_the_token_opens_nothing_else(self, browser: TestClient, job: Json, job_token: str) -> None:
        headers = {"Authorization": f"Bearer {job_token}"}
        for path in ("", "/metrics", "/logs", "/script", "/events"):
            assert browser.get(f"/api/v1/jobs/{job['id']}{path}", headers=headers).status_code == 401

    def test_the_answer_is_up_to_where_nothing_is_missing(self, post: Any) -> None:
        assert post(gzip.compress(line(1) + line(2) + line(4) + line(1, rank=3))).json() == {
            "acknowledged": {"1/0": 2, "1/3": 1}
        }
        assert post(gzip.compress(line(3))).json() == {"acknowledged": {"1/0": 4}}

    def test_what_cannot_be_divided_is_no_figure_and_is_stored(self, post: Any, job: Json, api: TestClient) -> None:
        usage = {"cpu_s": 1e308, "elapsed_s": 1e-300}
        body = line(1, kind="usage", values=usage) + line(
            2, values={"samples": 1.0, "seconds": 10.0, "samples_per_s": 1e308}
        )
        assert post(gzip.compress(body)).status_code == 200
        last = api.get(f"/api/v1/jobs/{job['id']}").json()["last"]
        assert (last["cpus"], last["samples_per_s"]) == (None, None)

    def test_twice_is_once(self, post: Any, app: Application, job: Json, api: TestClient) -> None:
        body = gzip.compress(line(1) + line(2))
        assert post(body).json() == post(body).json() == {"acknowledged": {"1/0": 2}}
        assert stored(app, job) == [(0, 1), (0, 2)]
        assert api.get(f"/api/v1/jobs/{job['id']}/metrics").json()["revision"] == 1

    def test_plain_and_many_members_are_taken(self, post: Any, app: Application, job: Json) -> None:
        post(line(1), encoding=None).raise_for_status()
        post(gzip.compress(line(2)) + gzip.compress(line(3))).raise_for_status()
        assert stored(app, job) == [(0, 1), (0, 2), (0, 3)]

    def test_one_bad_line_is_named_and_all_are_refused(self, post: Any, app: Application, job: Json) -> None:
        answer = post(gzip.compress(line(1) + b"{\n" + line(3)))
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["where"] == "line 2"
        assert stored(app, job) == []

    def test_values_are_kept_word_for_word(self, post: Any, app: Application, job: Json) -> None:
        values = {
            "loss": "NaN",
            "high": "Infinity",
            "list": [1, 2.5],
            "text": 'ü\u0000"',
            "big": 10**30,
            "tiny": 5e-324,
        }
        post(gzip.compress(line(1, values=values))).raise_for_status()
        with app.database.reading() as session:
            (chunk,) = session.scalars(select(ChunkRow.body).where(ChunkRow.job_id == job["id"]))
        assert json.loads(gzip.decompress(chunk))["values"] == values

    def test_a_kind_that_is_not_known_is_kept(self, post: Any, app: Application, job: Json) -> None:
        post(gzip.compress(line(1, kind="tomorrow"))).raise_for_status()
        assert stored(app, job) == [(0, 1)]

    @pytest.mark.parametrize("body", [b"not gzip", gzip.compress(line(1))[:-4]], ids=["text", "cut short"])
    def test_what_is_no_gzip(self, post: Any, body: bytes) -> None:
        assert post(body).status_code == 400

    def test_an_encoding_that_is_not_known(self, post: Any) -> None:
        assert post(line(1), encoding="br").status_code == 400

    def test_too_long_once_unpacked(self, post: Any, app: Application, job: Json) -> None:
        bomb = gzip.compress(b" " * (app.settings.records_plain_limit + 1), 9)
        assert len(bomb) < app.settings.records_limit
        assert post(bomb).status_code == 413

    def test_too_long_as_sent(self, post: Any, app: Application) -> None:
        assert post(b" " * (app.settings.records_limit + 1), encoding=None).status_code == 413

    def test_too_many_members(self, post: Any) -> None:
        assert post(gzip.compress(line(1)) + gzip.compress(b"") * 100).status_code == 400

    def test_numbers_and_names_that_are_none(self, post: Any, app: Application, job: Json) -> None:
        beyond = line(1, values={"loss": 7.25}).replace(b"7.25", b"1e999")
        assert "beyond" in post(gzip.compress(beyond)).json()["detail"]
        half = line(1, values={"\ud800": None})
        assert post(gzip.compress(half)).status_code == 422
        assert stored(app, job) == []

    def test_one_connection_to_the_database_is_enough(self, post: Any, app: Application) -> None:
        """Were two needed, as many ranks as there are connections would wait for each other."""
        others = [app.database.engine.connect() for _ in range(29)]
        try:
            assert post(gzip.compress(line(1))).status_code == 200
        finally:
            for one in others:
                one.close()

    def test_more_at_once_than_there_is_room_for_is_told_to_come_back(self, post: Any, app: Application) -> None:
        app.taking_in.inside = app.settings.records_at_once
        answer = post(gzip.compress(line(1)))
        assert (answer.status_code, answer.headers["Retry-After"], answer.json()["status"]) == (429, "1", 429)
        app.taking_in.inside -= 1
        assert post(b"not gzip").status_code == 400
        assert post(gzip.compress(line(1))).json() == {"acknowledged": {"1/0": 1}}
        assert app.taking_in.inside == app.settings.records_at_once - 1

    def test_last_follows(self, post: Any, api: TestClient, job: Json) -> None:
        def step(rank: int, seq: int, loss: object) -> bytes:
            values = {"loss": loss, "samples_per_s": 100.0, "epoch": 1.5, "exposed_s": 1.0, "seconds": 4.0}
            return line(seq, rank, step=seq - 1, values=values)

        start = [line(1, rank, kind="start", step=None, values={"node": "node1", "steps": 9}) for rank in (0, 1)]
        post(gzip.compress(b"".join([*start, step(0, 2, 1.0), step(1, 2, 3.0), step(0, 3, 0.5)]))).raise_for_status()
        last = api.get(f"/api/v1/jobs/{job['id']}").json()["last"]
        assert (last["step"], last["steps"], last["loss"], last["samples_per_s"]) == (1, 9, 2.0, 200.0)
        assert (last["epoch"], last["exposed_share"], last["accuracy"]) == (1.5, 0.25, None)
        post(gzip.compress(step(1, 3, "NaN") + line(4, kind="evaluation", step=2, values={"accuracy": 0.9})))
        last = api.get(f"/api/v1/jobs/{job['id']}").json()["last"]
        assert (last["step"], last["loss"], last["samples_per_s"], last["accuracy"]) == (2, None, 200.0, 0.9)

    def test_last_of_many_ranks_is_right_when_the_job_is_final(
        self, app: Application, job: Json, run_of: Callable[[Json], HandMadeRun]
    ) -> None:
        hand = run_of(job)
        for step in (1, 2):
            hand.spool(*(hand.line(rank, step=step, loss=float(step)) for rank in range(100)))
            read_spools(app, hand.id, hand.run)
        with app.database.writing() as session:
            row = jobs.lock(session, hand.id)
            assert row is not None
            service.settle(app, session, row, ())
            assert (row.last["step"], row.last["loss"]) == (2, 2.0)

    def test_last_says_how_many_ranks_told_a_throughput(self, post: Any, api: TestClient, job: Json) -> None:
        spoken = line(1, 0, step=1, values={"samples_per_s": 100.0}) + line(2, 0, step=2, values={"loss": 0.5})
        post(gzip.compress(spoken)).raise_for_status()
        last = api.get(f"/api/v1/jobs/{job['id']}").json()["last"]
        assert (last["samples_per_s"], last["samples_per_s_ranks"], last["loss"]) == (100.0, 1, 0.5)
        post(gzip.compress(line(1, 1, step=1, values={}) + line(2, 1, step=2, values={}))).raise_for_status()
        last = api.get(f"/api/v1/jobs/{job['id']}").json()["last"]
        assert (last["samples_per_s"], last["samples_per_s_ranks"], last["loss"]) == (100.0, 1, 0.5)

    def test_last_has_what_was_used_over_the_whole_training(self, post: Any, api: TestClient, job: Json) -> None:
        def usage(rank: int, number: int, cpu_s: float, **more: float) -> bytes:
            values = {"elapsed_s": 5.0 * number, "cpu_s": cpu_s, "cpus": 0.0, **more}
            return line(number, rank, kind="usage", step=number, values=values)

        body = usage(0, 1, 9.0) + usage(1, 1, 9.0) + usage(0, 2, 20.0, received_bytes=1e7, sent_bytes=5e6)
        post(gzip.compress(body + usage(1, 2, 10.0))).raise_for_status()
        last = api.get(f"/api/v1/jobs/{job['id']}").json()["last"]
        assert (last["cpus"], last["received_bytes_per_s"], last["sent_bytes_per_s"]) == (1.5, 1e6, 5e5)


class TestBatchOf:
    """All lines at once, in C: the same records as line by line, or none."""

    scalars = st.one_of(
        st.integers(-(10**30), 10**30), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)
    )
    values = st.dictionaries(st.text(max_size=8), st.one_of(scalars, st.lists(scalars, max_size=3)), max_size=4)
    odd: st.SearchStrategy[Any] = st.sampled_from(
        [None, -1, 0, 1, 2**31, 2**63 - 1, 2**63, 1.0, 0.5, True, "1", "", "a\x00", "step", [], {}]
    )

    keys = st.sampled_from(["seq", "rank", "attempt", "step", "time", "kind", "v", "values"])
    one_odd = st.lists(st.tuples(keys, st.one_of(odd, values)), max_size=1)

    @given(one_odd, values, st.booleans(), st.sampled_from([b"", b"\r", b"\n"]))
    def test_says_what_parse_says(self, odd: list[tuple[str, Any]], values: Json, escaped: bool, end: bytes) -> None:
        record = {"v": 1, "attempt": 1, "rank": 0, "seq": 1, "time": 1.5, "kind": "step", "step": 1, "values": values}
        text = json.dumps(record | dict(odd), ensure_ascii=escaped).encode("utf-8", "surrogatepass")
        found = batch_of(text + end + b"\n")
        try:
            wanted = parse(text)
        except RecordError:
            assert found is None
            return
        # What only parse can read, such as half a surrogate pair, is left to it.
        if found is not None:
            (one,) = found.records
            assert [getattr(one, name) for name in Record.__struct_fields__] == [
                getattr(wanted, name) for name in Record.__struct_fields__
            ]
            assert found.lines.count(b"\n") == 1

    def test_reads_what_ranks_send(self) -> None:
        found = batch_of(line(1, values={"loss": "NaN", "list": [1, "a"]}) + b"\n" + line(2, kind="tomorrow")[:-1])
        assert found is not None
        assert [record.seq for record in found.records] == [1, 2]
        assert found.only([False, True]).lines == line(2, kind="tomorrow")


class TestMigration:
    def test_down_and_up_again_with_records_in_it(
        self, app: Application, api: TestClient, job: Json, run_of: Callable[[Json], HandMadeRun]
    ) -> None:
        hand, topology = run_of(job), machine()
        plan = shares(topology, 2)
        told = verdict_values(verdict(plan.ranks[0], rank=0, node="node1"))
        odd = json.loads(told["document"])
        odd["threads"][0]["name"] = "\udcff\x00"
        hand.spool(
            hand.line(kind="placement", **placement_values("node1", topology, plan, 0)),
            hand.line(kind="verdict", **told | {"document": json.dumps(odd)}),
            *(
                hand.line(rank, step=step, loss=step / 7, text="\ud800\x00")
                for step in range(1, 9)
                for rank in range(2)
            ),
        )
        read_spools(app, hand.id, hand.run)
        hand.spool(hand.line(kind="evaluation", step=9, accuracy=0.5, big=10**30, note="NaN"))
        read_spools(app, hand.id, hand.run)

        def seen() -> tuple[Json, Json, list[Any]]:
            with app.database.reading() as session:
                found = sorted(repository.records(session, hand.id), key=lambda one: (one.rank, one.seq))
            answers = [api.get(f"/api/v1/jobs/{hand.id}/{what}").json() for what in ("metrics", "placement")]
            return answers[0], answers[1], found

        before = seen()
        assert len(before[2]) == 19
        command.downgrade(alembic_config(app.database.engine), "0003")
        with app.database.engine.connect() as connection:
            ranks = connection.execute(text("SELECT rank, contiguous, step FROM ranks ORDER BY rank")).all()
            assert connection.execute(text("SELECT count(*) FROM records")).scalar_one() == 19
        assert [tuple(row) for row in ranks] == [(0, 11, 8), (1, 8, 8)]
        app.database.upgrade()
        app.figures = FiguresCache()
        assert seen() == before
        hand.spool(hand.line(0, step=9, loss=1.0), hand.line(1, step=9, loss=3.0))
        read_spools(app, hand.id, hand.run)
        assert api.get(f"/api/v1/jobs/{hand.id}").json()["last"]["loss"] == 2.0


class TestParse:
    @pytest.mark.parametrize(
        ("bad", "says"),
        [(b"{", "not JSON"), (b"[]", "object"), (b"\xff", "UTF-8"), (line(2, rank=-1), "rank -1"), (line(0), "seq 0"),
         (line(2, time="now"), "time 'now'"), (line(2, time=1e300), "time"), (line(2, values=[]), "values"),
         (line(2, v=2), "reads 1"), (line(2, kind=""), "kind"), (line(2, kind="a\x00b"), "kind"),
         (line(2, step=1.5), "step"), (line(True), "seq True"), (line(2, values={"a": None}), "values.a"),
         (line(2, values={"a": True}), "values.a"),
         (line(2).replace(b"{}", b'{"loss":NaN}'), "NaN"), (b"[" * 100_000, "nested"), (b" " * (1 << 21), "bytes long"),
         (line(2, values={"a": 7.25}).replace(b"7.25", b"-1e400"), "beyond"),
         (line(2, step=2**63), "step"), (b'{"v": ' + b"9" * 5000 + b"}", "JSON")],
    )  # fmt: skip
    def test_what_is_no_record_says_why(self, bad: bytes, says: str) -> None:
        with pytest.raises(RecordError, match=says):
            parse(bad)

    def test_a_record(self) -> None:
        assert parse(line(7, values={"loss": 0.5})) == Record(1, 0, 7, 1764000000.5, "step", 7, {"loss": 0.5})


def test_a_rank_that_is_gone_before_its_body_is_whole_is_no_failure_of_the_service(
    app: Application, browser: TestClient, job: Json, job_token: str, caplog: pytest.LogCaptureFixture
) -> None:
    received = iter([{"type": "http.request", "body": b"half a b", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(received)

    async def send(message: Any) -> None:
        sent.append(message)

    path = f"/api/v1/jobs/{job['id']}/records"
    headers = [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {job_token}".encode()), (b"content-length", b"99")]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8080),
    }  # fmt: skip

    async def ask() -> None:
        await browser.app(scope, receive, send)

    asyncio.run(ask())
    assert [message["status"] for message in sent if "status" in message] == [400]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert stored(app, job) == []
