"""``POST /jobs/{id}/records``: what ranks send."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from lockstep_service.boundary import Application
from lockstep_service.metrics.record import Record, RecordError, parse
from lockstep_service.tables import RecordRow
from lockstep_slurm.job.identity import new_job_id

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
        wanted = select(RecordRow.rank, RecordRow.seq).where(RecordRow.job_id == job["id"])
        return sorted(session.execute(wanted))


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

    def test_the_token_opens_nothing_else(self, browser: TestClient, job: Json, job_token: str) -> None:
        headers = {"Authorization": f"Bearer {job_token}"}
        for path in ("", "/metrics", "/logs", "/script", "/events"):
            assert browser.get(f"/api/v1/jobs/{job['id']}{path}", headers=headers).status_code == 401

    def test_the_answer_is_up_to_where_nothing_is_missing(self, post: Any) -> None:
        assert post(gzip.compress(line(1) + line(2) + line(4) + line(1, rank=3))).json() == {
            "acknowledged": {"1/0": 2, "1/3": 1}
        }
        assert post(gzip.compress(line(3))).json() == {"acknowledged": {"1/0": 4}}

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
            assert json.loads(session.scalars(select(RecordRow.values)).one()) == values

    def test_a_kind_that_is_not_known_is_kept(self, post: Any, app: Application, job: Json) -> None:
        post(gzip.compress(line(1, kind="tomorrow"))).raise_for_status()
        assert stored(app, job) == [(0, 1)]

    @pytest.mark.parametrize("body", [b"not gzip", gzip.compress(line(1))[:-4]])
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

    def test_last_follows(self, post: Any, api: TestClient, job: Json) -> None:
        def step(rank: int, seq: int, loss: object) -> bytes:
            values = {"loss": loss, "samples_per_s": 100.0, "epoch": 1.5, "communication_s": 1.0, "seconds": 4.0}
            return line(seq, rank, step=seq - 1, values=values)

        start = [line(1, rank, kind="start", step=None, values={"node": "node1", "steps": 9}) for rank in (0, 1)]
        post(gzip.compress(b"".join([*start, step(0, 2, 1.0), step(1, 2, 3.0), step(0, 3, 0.5)]))).raise_for_status()
        last = api.get(f"/api/v1/jobs/{job['id']}").json()["last"]
        assert (last["step"], last["steps"], last["loss"], last["samples_per_s"]) == (1, 9, 2.0, 200.0)
        assert (last["epoch"], last["communication_share"], last["accuracy"]) == (1.5, 0.25, None)
        post(gzip.compress(step(1, 3, "NaN") + line(4, kind="evaluation", step=2, values={"accuracy": 0.9})))
        last = api.get(f"/api/v1/jobs/{job['id']}").json()["last"]
        assert (last["step"], last["loss"], last["samples_per_s"], last["accuracy"]) == (2, None, 200.0, 0.9)


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
        assert parse(line(7, values={"loss": 0.5})) == Record(1, 0, 7, 1764000000.5, "step", 7, '{"loss":0.5}')
