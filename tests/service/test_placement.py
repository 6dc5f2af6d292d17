"""``GET /jobs/{id}/placement``: what ranks told of their placement, and what the job's page makes of it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from lockstep_service.boundary import Application
from lockstep_service.dispatch.ingest import read_spools
from lockstep_service.jobs import repository, view
from lockstep_service.metrics.record import RecordError, parse
from lockstep_service.tables import AttemptRow, PlacementRow, VerdictRow
from lockstep_slurm.job.identity import new_job_id
from support.placements import machine, placement_values, shares, verdict, verdict_values

from .conftest import HandMadeRun

Json = dict[str, Any]
MACHINE = machine()
PLAN = shares(MACHINE, 2)
NODE1 = placement_values("node1", MACHINE, PLAN, 0)


def line(seq: int, kind: str, values: Json, rank: int = 0, attempt: int = 1) -> bytes:
    record = {"v": 1, "attempt": attempt, "rank": rank, "seq": seq, "time": 1764000000.5, "kind": kind, "step": None}
    return json.dumps(record | {"values": values}).encode() + b"\n"


def said(seq: int, rank: int, when: str = "init", attempt: int = 1, **more: Any) -> bytes:
    found = verdict(PLAN.ranks[rank % 2], rank=rank, node=f"node{rank // 2 + 1}", when=when, **more)
    return line(seq, "verdict", verdict_values(found), rank, attempt)


MOVED = {"horovod": (0, 1)}


@pytest.fixture
def job(job: Json, app: Application) -> Json:
    """A job of four ranks, which no machine that the tests run on need have room for."""
    with app.database.writing() as session:
        row = repository.lock(session, job["id"])
        assert row is not None
        row.ranks = 4
    return job


@pytest.fixture
def post(browser: TestClient, job: Json, job_token: str) -> Callable[..., Any]:
    def send(*lines: bytes) -> Any:
        headers = {"Authorization": f"Bearer {job_token}", "Content-Encoding": "gzip"}
        return browser.post(
            f"/api/v1/jobs/{job['id']}/records", content=gzip.compress(b"".join(lines)), headers=headers
        )

    return send


@pytest.fixture
def look(api: TestClient, job: Json) -> Callable[..., Any]:
    def get(status: int = 200, **query: Any) -> Any:
        answer = api.get(f"/api/v1/jobs/{job['id']}/placement", params=query)
        assert answer.status_code == status, answer.text
        return answer.json()

    return get


@pytest.fixture
def verdict_of(api: TestClient, job: Json) -> Callable[[], tuple[str | None, Json | None]]:
    """What the job itself says of its verdict."""

    def get() -> tuple[str | None, Json | None]:
        found = api.get(f"/api/v1/jobs/{job['id']}").json()
        return found["verdict"], found["verdicts"]

    return get


class TestGetJobPlacement:
    def test_anonymous(self, browser: TestClient, job: Json) -> None:
        assert browser.get(f"/api/v1/jobs/{job['id']}/placement").status_code == 401

    def test_the_jobs_own_token_reads_nothing(self, browser: TestClient, job: Json, job_token: str) -> None:
        headers = {"Authorization": f"Bearer {job_token}"}
        assert browser.get(f"/api/v1/jobs/{job['id']}/placement", headers=headers).status_code == 401

    def test_no_such_job(self, api: TestClient) -> None:
        assert api.get(f"/api/v1/jobs/{new_job_id()}/placement").status_code == 404

    def test_before_anything_was_told(self, look: Any, verdict_of: Any) -> None:
        assert look() == {"attempt": None, "result": None, "nodes": []}
        assert verdict_of() == (None, None)

    def test_an_attempt_or_a_node_that_is_none_is_named(self, look: Any, post: Any) -> None:
        post(line(1, "placement", NODE1)).raise_for_status()
        assert "no attempt 2; it has [1]" in look(404, attempt=2)["detail"]
        assert "'node7'; of these: node1" in look(404, node="node7")["detail"]

    def test_the_plan_comes_back_as_it_was_told(self, look: Any, post: Any) -> None:
        document = json.loads(NODE1["document"])
        post(line(1, "placement", NODE1)).raise_for_status()
        (node,) = look()["nodes"]
        assert (node["topology"], node["placement"], node["grant"]) == (document["topology"], document["placement"], [])
        assert [(one["rank"], one["granted"], one["verdict"]) for one in node["ranks"]] == [
            (rank, list(MACHINE.cpus), None) for rank in (0, 1)
        ]

    def test_no_verdict_before_every_rank_of_every_node_has_said_something(
        self, look: Any, post: Any, verdict_of: Any
    ) -> None:
        post(line(1, "placement", NODE1), said(2, 0), said(1, 1)).raise_for_status()
        found = look()
        assert (found["attempt"], found["result"], found["nodes"][0]["result"]) == (1, None, "as planned")
        result, counts = verdict_of()
        assert (result, counts["as_planned"], counts["ranks"]) == (None, 2, 4)
        post(said(1, 2), said(1, 3, moved=MOVED)).raise_for_status()
        found = look()
        assert (found["result"], [node["result"] for node in found["nodes"]]) == (
            "deviates",
            ["as planned", "deviates"],
        )
        assert found["nodes"][1]["ranks"][1]["verdict"]["deviations"] == ["horovod may run on [0, 1], planned was [7]"]
        result, counts = verdict_of()
        assert (result, counts["as_planned"], counts["deviates"]) == ("deviates", 3, 1)

    def test_a_plan_that_could_not_do_all_is_degraded(self, look: Any, post: Any, verdict_of: Any) -> None:
        worse = shares(MACHINE, 2, degraded="one core for everything").ranks[1]
        last = verdict_values(verdict(worse, rank=3, node="node2"))
        post(said(1, 0), said(1, 1), said(1, 2), line(1, "verdict", last, 3)).raise_for_status()
        assert (look()["result"], verdict_of()[0]) == ("degraded", "degraded")

    def test_a_node_that_told_no_plan_has_its_ranks_verdicts(self, look: Any, post: Any) -> None:
        post(said(1, 2)).raise_for_status()
        (node,) = look()["nodes"]
        assert (node["node"], node["topology"], node["placement"], len(node["ranks"])) == ("node2", None, None, 1)

    def test_the_newest_word_of_a_rank_holds_in_whatever_order_they_come(
        self, look: Any, post: Any, verdict_of: Any
    ) -> None:
        post(said(9, 0, "steps")).raise_for_status()
        post(said(3, 0, moved=MOVED), said(2, 0)).raise_for_status()
        ((rank,),) = [node["ranks"] for node in look()["nodes"]]
        assert (rank["verdict"]["when"], rank["verdict"]["result"]) == ("steps", "as planned")
        assert verdict_of()[1]["as_planned"] == 1

    def test_the_newest_plan_of_a_node_holds(self, look: Any, post: Any) -> None:
        later = placement_values("node1", MACHINE, PLAN, 0, grant=["CPUs 3 and 7 are shared"])
        post(line(2, "placement", later)).raise_for_status()
        post(line(1, "placement", NODE1)).raise_for_status()
        assert look()["nodes"][0]["grant"] == ["CPUs 3 and 7 are shared"]

    def test_twice_is_once(self, post: Any, verdict_of: Any) -> None:
        for _ in range(2):
            post(line(1, "placement", NODE1), said(2, 0)).raise_for_status()
        assert verdict_of()[1] == {"as_planned": 1, "degraded": 0, "deviates": 0, "ranks": 4, "revision": 1}

    def test_each_attempt_has_its_own(
        self, look: Any, post: Any, verdict_of: Any, app: Application, job: Json, run_of: Callable[[Json], HandMadeRun]
    ) -> None:
        run_of(job).claim(2)
        post(*(said(1, rank, moved=MOVED) for rank in range(4))).raise_for_status()
        post(*(said(1, rank, attempt=2) for rank in range(4))).raise_for_status()
        assert (look()["attempt"], look()["result"], verdict_of()[0]) == (2, "as planned", "as planned")
        assert look(attempt=1)["result"] == "deviates"
        # A late word of an attempt that is over changes nothing for the newest.
        post(said(2, 0, "steps")).raise_for_status()
        assert verdict_of()[0] == "as planned"

    def test_an_attempt_that_nobody_claimed_takes_nothing_over(
        self, look: Any, post: Any, verdict_of: Any, api: TestClient, job: Json
    ) -> None:
        def step(attempt: int, loss: float) -> bytes:
            return line(9, "step", {"loss": loss}, attempt=attempt).replace(b'"step": null', b'"step": 3')

        post(*(said(1, rank) for rank in range(4)), step(1, 0.5)).raise_for_status()
        post(*(said(1, rank, moved=MOVED, attempt=2**31 - 1) for rank in range(4)), step(2**31 - 1, 7.5))
        assert (verdict_of()[0], look()["attempt"], look()["result"]) == ("as planned", 1, "as planned")
        assert api.get(f"/api/v1/jobs/{job['id']}").json()["last"]["loss"] == 0.5
        assert look(attempt=2**31 - 1)["result"] == "deviates"

    def test_an_attempt_that_has_said_nothing_yet_has_no_verdict(
        self, look: Any, post: Any, app: Application, job: Json
    ) -> None:

        post(*(said(1, rank) for rank in range(4))).raise_for_status()
        with app.database.writing() as session:
            row = repository.lock(session, job["id"])
            assert row is not None
            row.attempts.append(AttemptRow(number=2, ranks=4, nodes=["node1"]))
            session.flush()
            shown = view.summary(row)
        assert (shown.verdict, shown.verdicts) == (None, None)
        assert look() == {"attempt": 2, "result": None, "nodes": []}

    def test_a_brief_answer_has_results_and_sentences_alone(self, look: Any, post: Any) -> None:
        post(line(1, "placement", NODE1), said(2, 0, moved=MOVED)).raise_for_status()
        (node,) = look(brief=True)["nodes"]
        found = node["ranks"][0]["verdict"]
        assert (node["topology"], node["placement"], found["threads"]) == (None, None, [])
        assert len(found["deviations"]) == 1
        assert look(node="node1")["nodes"][0]["ranks"][0]["verdict"]["threads"]

    def test_only_the_documents_that_are_shown_are_read(self, look: Any, post: Any, app: Application) -> None:
        node2 = placement_values("node2", MACHINE, PLAN, 2)
        post(line(1, "placement", NODE1), line(1, "placement", node2, 2), *(said(2, rank) for rank in range(4)))
        with app.database.writing() as session:
            for table in (PlacementRow, VerdictRow):
                session.execute(update(table).where(table.node == "node2").values(document="cannot be read"))
        assert look(brief=True)["result"] == "as planned"
        found = look(node="node1")
        assert (found["result"], len(found["nodes"]), found["nodes"][0]["topology"] is None) == ("as planned", 1, False)
        look(500)

    def test_is_not_sent_again_to_who_has_it(self, api: TestClient, post: Any, job: Json) -> None:
        url = f"/api/v1/jobs/{job['id']}/placement"
        tag = {"If-None-Match": api.get(url).headers["etag"]}
        assert api.get(url, headers=tag).status_code == 304
        post(said(1, 0)).raise_for_status()
        assert api.get(url, headers=tag).status_code == 200

    def test_comes_by_the_spool_as_well(
        self, look: Any, app: Application, job: Json, run_of: Callable[[Json], HandMadeRun]
    ) -> None:
        hand = run_of(job)
        bad = line(1, "verdict", NODE1, rank=3)
        hand.spool(line(1, "placement", NODE1), bad, *(said(2, rank) for rank in range(4)))
        read_spools(app, hand.id, Path(hand.run))
        assert look()["result"] == "as planned"

    def test_adds_no_figures(self, api: TestClient, post: Any, job: Json) -> None:
        post(line(1, "placement", NODE1), said(2, 0)).raise_for_status()
        found = api.get(f"/api/v1/jobs/{job['id']}/metrics").json()
        assert (found["series"], found["by_rank"], found["revision"]) == ([], [], 1)


GOOD = verdict_values(verdict(PLAN.ranks[0], rank=0, node="node1"))


def without(values: Json, key: str) -> Json:
    document = json.loads(values["document"])
    del document[key]
    return values | {"document": json.dumps(document)}


class TestParse:
    @pytest.mark.parametrize(
        ("kind", "values", "says"),
        [
            ("placement", {"node": "node1"}, "values.document"),
            ("placement", NODE1 | {"node": "a\nb"}, "values.node"),
            ("placement", NODE1 | {"node": "n" * 256}, "values.node"),
            ("placement", NODE1 | {"document": "{"}, "not JSON"),
            ("placement", NODE1 | {"document": "[" * 100_000}, "nested"),
            ("placement", NODE1 | {"document": 7}, "values.document"),
            ("placement", without(NODE1, "topology"), "values.document.topology"),
            ("placement", without(NODE1, "ranks"), "values.document.ranks"),
            ("verdict", GOOD | {"when": "later"}, "values.when"),
            ("verdict", GOOD | {"result": "fine"}, "values.result"),
            ("verdict", GOOD | {"local_rank": -1}, "values.local_rank"),
            ("verdict", without(GOOD, "threads"), "values.document.threads"),
            ("verdict", GOOD | {"result": "deviates"}, "has values.result 'deviates', but its values.document says"),
            ("verdict", GOOD | {"node": "node2"}, "values.node 'node2'"),
            ("verdict", GOOD | {"local_rank": 1}, "values.local_rank 1"),
            ("verdict", GOOD | {"when": "steps"}, "values.when 'steps'"),
            ("verdict", GOOD | {"deviations": 3}, "values.deviations 3"),
        ],
    )
    def test_what_is_no_such_record_says_where(self, kind: str, values: Json, says: str) -> None:
        with pytest.raises(RecordError, match=says):
            parse(line(1, kind, values))

    def test_a_rank_gives_no_verdict_in_anothers_name(self) -> None:
        with pytest.raises(RecordError, match="rank 1, but its values"):
            parse(line(1, "verdict", GOOD, rank=1))

    def test_one_bad_document_refuses_its_request_with_its_line(self, post: Any, look: Any) -> None:
        answer = post(line(1, "placement", NODE1), line(2, "verdict", without(GOOD, "result")))
        assert (answer.status_code, answer.json()["errors"][0]["where"]) == (422, "line 2")
        assert look()["nodes"] == []

    def test_a_key_of_a_newer_worker_is_no_fault(self) -> None:
        document = json.loads(GOOD["document"]) | {"tomorrow": 1}
        assert parse(line(1, "verdict", GOOD | {"document": json.dumps(document)})).kind == "verdict"

    def test_threads_that_a_record_had_no_room_for_are_counted(self, post: Any, look: Any) -> None:
        document = json.loads(GOOD["document"]) | {"left_out": 200}
        post(line(1, "verdict", GOOD | {"document": json.dumps(document)}), said(1, 1)).raise_for_status()
        assert [rank["verdict"]["left_out"] for rank in look()["nodes"][0]["ranks"]] == [200, 0]

    def test_a_threads_name_may_be_any_bytes(self, post: Any, look: Any) -> None:
        document = json.loads(GOOD["document"])
        document["threads"][0]["name"] = "\udcff\x00<b>"
        post(line(1, "verdict", GOOD | {"document": json.dumps(document)})).raise_for_status()
        assert look()["nodes"][0]["ranks"][0]["verdict"]["threads"][0]["name"] == "?\x00<b>"
