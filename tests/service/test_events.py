"""Server-sent events, from a real server: what a reader is told, and that it never holds the server up."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient
from httpx_sse import ServerSentEvent, connect_sse

from lockstep_service.boundary import Application
from lockstep_service.dispatch.ingest import read_spools, unfinished
from lockstep_service.dispatch.reconcile import reconcile
from lockstep_service.jobs import repository
from lockstep_service.timeline import repository as timeline
from lockstep_slurm.job.identity import new_job_id
from support.placements import machine, shares, verdict, verdict_values

from .conftest import HandMadeRun

Json = dict[str, Any]


@pytest.fixture
def server(browser: TestClient, app: Application) -> Iterator[httpx.Client]:
    """The application behind a real socket, and a client with the token."""
    found = uvicorn.Server(
        uvicorn.Config(browser.app, port=0, lifespan="off", log_config=None, timeout_graceful_shutdown=3)
    )
    thread = threading.Thread(target=found.run)
    thread.start()
    while not found.started:
        time.sleep(0.01)
    port = found.servers[0].sockets[0].getsockname()[1]
    headers = {"Authorization": f"Bearer {app.keys.token}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", headers=headers, timeout=10) as client:
        yield client
    found.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def hand(api: TestClient, made_by_hand: Callable[[], HandMadeRun]) -> HandMadeRun:
    """A run that lives, known to the service."""
    made = made_by_hand()
    made.claim()
    made.spool(made.line(step=1, loss=1.0))
    api.post("/api/v1/jobs/import", json={"run_dir": str(made.run)}).raise_for_status()
    return made


def read(client: httpx.Client, path: str, count: int, last: str | None = None) -> list[ServerSentEvent]:
    """The first ``count`` events of a stream."""
    headers = {"Last-Event-ID": last} if last else {}
    with connect_sse(client, "GET", path, headers=headers) as source:
        source.response.raise_for_status()
        events = source.iter_sse()
        return list(islice(events, count or None))


class TestStreamJobEvents:
    def test_anonymous(self, browser: TestClient, job: Json) -> None:
        assert browser.get(f"/api/v1/jobs/{job['id']}/events").status_code == 401

    def test_none(self, api: TestClient) -> None:
        assert api.get(f"/api/v1/jobs/{new_job_id()}/events").status_code == 404

    def test_the_present_comes_at_once_and_the_rest_as_it_happens(
        self, server: httpx.Client, app: Application, hand: HandMadeRun
    ) -> None:
        with connect_sse(server, "GET", f"/jobs/{hand.id}/events") as source:
            events = source.iter_sse()
            first, second = next(events), next(events)
            assert (first.event, second.event) == ("job", "metrics")
            assert json.loads(first.data)["phase"] == "running"
            assert "spec" not in json.loads(first.data)
            assert json.loads(second.data)["last"]["step"] == 1
            assert next(events).event == "timeline"
            hand.spool(hand.line(step=2, loss=0.5))
            read_spools(app, hand.id, hand.run)
            third = next(events)
            assert (third.event, json.loads(third.data)["last"]["step"]) == ("metrics", 2)
            (hand.run / "logs" / "job-local.log").write_text("hello\n")
            fourth = next(events)
            assert (fourth.event, json.loads(fourth.data)) == ("log", {"size": 6})
            hand.end()
            reconcile(app)
            fifth = next(events)
            assert (fifth.event, json.loads(fifth.data)["phase"]) == ("job", "ended well")
            assert next(events).event == "timeline"
            unfinished(app, everything=False)
            rest = list(events)
        assert [event.event for event in rest][-1] == "end"
        assert all(event.id for event in [first, second, third, fourth, fifth, *rest])

    def test_a_verdict_is_told_with_the_job_itself(
        self, server: httpx.Client, app: Application, hand: HandMadeRun
    ) -> None:
        plan = shares(machine(), 1)
        with connect_sse(server, "GET", f"/jobs/{hand.id}/events") as source:
            events = source.iter_sse()
            assert json.loads(next(events).data)["verdict"] is None
            assert [next(events).event, next(events).event] == ["metrics", "timeline"]
            told = verdict_values(verdict(plan.ranks[0], rank=0, node="node1"))
            hand.spool(hand.line(kind="verdict", **told))
            read_spools(app, hand.id, hand.run)
            event = next(events)
        found = json.loads(event.data)
        assert (event.event, found["verdict"], found["verdicts"]["as_planned"]) == ("job", "as planned", 1)

    def test_a_note_in_the_timeline_is_told_with_where_it_ends(
        self, server: httpx.Client, api: TestClient, app: Application, hand: HandMadeRun
    ) -> None:
        with connect_sse(server, "GET", f"/jobs/{hand.id}/events") as source:
            events = source.iter_sse()
            known = json.loads(list(islice(events, 3))[-1].data)
            with app.database.writing() as session:
                row = repository.lock(session, hand.id)
                assert row is not None
                timeline.note(session, row, "remark", "Somebody looked at it")
            told = list(islice(events, 2))
        assert [event.event for event in told] == ["job", "timeline"]
        newest = api.get(f"/api/v1/jobs/{hand.id}/timeline", params={"cursor": known["latest"]}).json()["items"]
        assert [entry["text"] for entry in newest] == ["Somebody looked at it."]
        assert json.loads(told[1].data) == {"latest": newest[0]["id"]}

    def test_who_left_between_the_jobs_change_and_its_timeline_is_told_of_it(
        self, server: httpx.Client, hand: HandMadeRun
    ) -> None:
        path = f"/jobs/{hand.id}/events"
        (first, second) = read(server, path, 2)
        assert (first.event, second.event) == ("job", "metrics")
        assert read(server, path, 1, second.id)[0].event == "timeline"

    def test_who_comes_back_is_told_only_what_is_new(
        self, server: httpx.Client, app: Application, hand: HandMadeRun
    ) -> None:
        path = f"/jobs/{hand.id}/events"
        last = read(server, path, 3)[-1].id
        hand.spool(hand.line(step=2, loss=0.5))
        read_spools(app, hand.id, hand.run)
        (event,) = read(server, path, 1, last)
        assert (event.event, json.loads(event.data)["last"]["step"]) == ("metrics", 2)

    @pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # which is not asked about such an id
    @pytest.mark.parametrize("last", ["", "nonsense", "1-2-3", "9" * 40 + "-0-0-0", "-1--1--1--1"])
    def test_an_id_that_is_none_of_ours_is_told_everything(
        self, server: httpx.Client, hand: HandMadeRun, last: str
    ) -> None:
        assert [event.event for event in read(server, f"/jobs/{hand.id}/events", 2, last)] == ["job", "metrics"]

    def test_a_job_that_is_over_is_told_and_the_stream_closes(
        self, server: httpx.Client, api: TestClient, job: Json, app: Application
    ) -> None:
        api.post(f"/api/v1/jobs/{job['id']}/cancel")
        unfinished(app, everything=False)
        assert [event.event for event in read(server, f"/jobs/{job['id']}/events", 0)] == [
            "job", "metrics", "timeline", "end",
        ]  # fmt: skip

    def test_a_reader_that_left_is_forgotten(self, server: httpx.Client, app: Application, hand: HandMadeRun) -> None:
        read(server, f"/jobs/{hand.id}/events", 1)
        deadline = time.monotonic() + 5
        while app.broadcaster._subscriptions:
            assert time.monotonic() < deadline
            time.sleep(0.05)


class TestStreamEvents:
    def test_anonymous(self, browser: TestClient) -> None:
        assert browser.get("/api/v1/events").status_code == 401

    def test_which_jobs_change(self, server: httpx.Client, api: TestClient, spec: Json) -> None:
        with connect_sse(server, "GET", "/events") as source:
            made = api.post("/api/v1/jobs", json=spec).json()["id"]
            event = next(source.iter_sse())
        assert (event.event, json.loads(event.data)) == ("jobs", {"id": made})

    def test_who_has_signed_out_is_told_nothing_more(
        self, server: httpx.Client, api: TestClient, app: Application, spec: Json, job: Json
    ) -> None:
        own = {"Origin": str(server.base_url).removesuffix("/api/v1/")}
        with httpx.Client(base_url=server.base_url, headers=own, timeout=10) as browser:
            browser.post("/session", json={"token": app.keys.token}).raise_for_status()
            copied = httpx.Client(base_url=server.base_url, cookies=browser.cookies, timeout=10)
            with copied, connect_sse(copied, "GET", f"/jobs/{job['id']}/events") as source:
                events = source.iter_sse()
                assert [event.event for event in islice(events, 3)] == ["job", "metrics", "timeline"]
                browser.delete("/session").raise_for_status()
                api.post(f"/api/v1/jobs/{job['id']}/hold").raise_for_status()
                assert list(events) == []

    def test_who_comes_back_is_told_what_it_missed(
        self, server: httpx.Client, api: TestClient, app: Application, job: Json
    ) -> None:
        with app.database.reading() as session:
            row = repository.get(session, job["id"])
        assert row is not None
        before = str(int(row.changed_at.timestamp() * 1_000_000) - 1)
        (event,) = read(server, "/events", 1, before)
        assert json.loads(event.data) == {"id": job["id"]}
