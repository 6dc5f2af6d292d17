"""What an operator sees: Prometheus' figures, the log's lines, and which request and job they are about."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event, text

from lockstep_service.boundary import Application
from lockstep_service.dispatch import submit
from lockstep_service.jobs import repository
from lockstep_service.telemetry.controller import counted
from lockstep_service.telemetry.logs import Plain, about_job, add_context, json_formatter
from lockstep_service.telemetry.measures import Measures, Window
from lockstep_slurm.client.protocol import (
    SlurmClient,
    SlurmRefusedError,
    SlurmUnavailableError,
    SlurmUnknownJobError,
)

Json = dict[str, Any]
JOB = "01900000-0000-7000-8000-000000000000"


def figures(api: TestClient) -> dict[tuple[str, tuple[str, ...]], float]:
    """What ``/metrics`` says: by name and the values of its labels, in the order of the labels' names."""
    answer = api.get("/metrics").raise_for_status()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


class TestMetrics:
    def test_are_for_whoever_has_the_services_token(self, browser: TestClient) -> None:
        assert browser.get("/metrics").status_code == 401

    def test_are_in_prometheus_form(self, api: TestClient) -> None:
        answer = api.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        asked = api.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert asked.headers["content-type"].startswith("application/openmetrics-text")
        assert asked.text.endswith("# EOF\n")

    def test_count_jobs_by_phase_as_they_are_now(self, api: TestClient, spec: Json, job: Json) -> None:
        assert job["phase"] == "accepted"
        api.post("/api/v1/jobs", json=spec).raise_for_status()
        api.post(f"/api/v1/jobs/{job['id']}/cancel").raise_for_status()
        found = figures(api)
        assert {labels[0]: count for (name, labels), count in found.items() if name == "lockstep_jobs"} == {
            "accepted": 1, "waiting": 0, "running": 0, "ended well": 0, "ended badly": 1, "unknown": 0,
        }  # fmt: skip
        assert found["lockstep_database_up", ()] == 1

    def test_count_submits_without_an_answer(self, app: Application, api: TestClient, job: Json) -> None:
        assert figures(api)["lockstep_submits_unanswered", ()] == 0
        with app.database.writing() as session:
            row = repository.lock(session, job["id"])
            assert row is not None
            row.submit_started_at = row.created_at
        assert figures(api)["lockstep_submits_unanswered", ()] == 1

    def test_count_and_time_what_the_scheduler_is_asked(self, app: Application, api: TestClient, job: Json) -> None:
        assert submit.submit_due(app) == 1
        with pytest.raises(SlurmUnknownJobError):
            app.client.cancel(10**6)
        found = figures(api)
        assert found["lockstep_controller_queries_total", ("yes", "submit")] == 1
        assert found["lockstep_controller_queries_total", ("no", "cancel")] == 1
        assert found["lockstep_controller_queries_per_minute", ("submit",)] == 1
        assert found["lockstep_controller_query_seconds_count", ("submit",)] == 1
        app.client.cancel(app.client.queue()[0].id)

    def test_time_requests_by_operation_and_not_by_path(self, api: TestClient, job: Json) -> None:
        api.get(f"/api/v1/jobs/{job['id']}")
        api.get("/api/v1/jobs/none")
        api.get("/whatever/a/stranger/tries")
        found = figures(api)
        assert found["lockstep_request_seconds_count", ("GET", "get_job", "200")] == 1
        assert found["lockstep_request_seconds_count", ("GET", "get_job", "404")] == 1
        assert not [labels for _, labels in found if any("stranger" in label or job["id"] in label for label in labels)]

    def test_say_that_the_database_is_away_instead_of_failing(self, app: Application, api: TestClient) -> None:
        with app.database.engine.begin() as connection:
            connection.execute(text("ALTER TABLE jobs RENAME TO elsewhere"))
        found = figures(api)
        assert found["lockstep_database_up", ()] == 0
        assert ("lockstep_jobs", ("accepted",)) not in found

    def test_counting_jobs_asks_two_questions_whatever_their_number(
        self, app: Application, api: TestClient, job: Json
    ) -> None:
        asked: list[str] = []
        event.listen(app.database.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
        figures(api)
        assert len([statement for statement in asked if "FROM jobs" in statement]) == 2


class Silent:
    """A scheduler that answers each question otherwise."""

    kind = "silent"

    def queue(self) -> list[str]:
        return ["a job"]

    def cancel(self, job_id: int) -> None:
        raise SlurmRefusedError(f"no, not {job_id}")

    def submit(self, submission: object) -> int:
        raise SlurmUnavailableError("nobody")


class TestCounting:
    @pytest.fixture
    def measures(self) -> Measures:
        return Measures()

    @pytest.fixture
    def client(self, measures: Measures) -> Any:
        silent: Any = Silent()
        return counted(silent, measures)

    def test_changes_nothing_of_what_is_answered(self, client: SlurmClient) -> None:
        assert client.kind == "silent"
        assert client.queue() == ["a job"]  # type: ignore[comparison-overlap]

    def test_tells_yes_from_no_from_nobody(self, client: Any, measures: Measures) -> None:
        client.queue()
        with pytest.raises(SlurmRefusedError, match="not 7"):
            client.cancel(7)
        with pytest.raises(SlurmUnavailableError):
            client.submit(None)
        assert {
            (kind, answer): measures.registry.get_sample_value(
                "lockstep_controller_queries_total", {"kind": kind, "answer": answer}
            )
            for kind, answer in (("queue", "yes"), ("cancel", "no"), ("submit", "none"))
        } == {("queue", "yes"): 1, ("cancel", "no"): 1, ("submit", "none"): 1}

    def test_what_is_older_than_a_minute_is_not_of_this_minute(self) -> None:
        now = [100.0]
        window = Window(clock=lambda: now[0])
        window.add("queue")
        now[0] += 30
        window.add("queue")

        def count() -> float:
            (family,) = window.collect()
            return float(family.samples[0].value)

        assert count() == 2
        now[0] += 30
        assert count() == 1
        now[0] += 30
        assert count() == 0

    def test_a_turn_that_fails_is_timed_and_counted_and_fails(self, measures: Measures) -> None:
        def fail() -> float:
            raise OSError("the disk is full")

        with pytest.raises(OSError, match="full"):
            measures.turning("ingest", fail)()
        assert measures.turning("ingest", lambda: 2.5)() == 2.5
        value = measures.registry.get_sample_value
        assert value("lockstep_turn_failures_total", {"loop": "ingest"}) == 1
        assert value("lockstep_turn_seconds_count", {"loop": "ingest"}) == 2


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    """A record as the handler's filter leaves it."""
    made = logging.getLogger("a.logger").makeRecord("a.logger", logging.WARNING, "", 1, message, arguments, None)
    made.__dict__ |= extra
    assert add_context(made)
    return made


class TestLog:
    @pytest.fixture
    def lines(self) -> Iterator[list[Json]]:
        """What is logged as JSON during the test."""
        found: list[Json] = []

        class Keep(logging.Handler):
            def emit(self, one: logging.LogRecord) -> None:
                found.append(json.loads(self.format(one)))

        handler = Keep()
        handler.addFilter(add_context)
        handler.setFormatter(json_formatter())
        root = logging.getLogger()
        before = root.level
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        yield found
        root.removeHandler(handler)
        root.setLevel(before)

    def test_a_line_of_json_says_when_how_bad_and_where(self) -> None:
        found = json.loads(json_formatter().format(record("%d jobs ü \n", 3)))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(\+00:00|Z)", found.pop("time"))
        assert found == {"level": "WARNING", "logger": "a.logger", "message": "3 jobs ü \n"}

    def test_a_job_among_the_messages_arguments_is_what_it_is_about(self) -> None:
        other = JOB[:-1] + "f"

        def said() -> list[str]:
            about_job(other)
            records = (record("job %s: %s", JOB, "no"), record("it: %(why)s", {"why": "no"}))
            return [json.loads(json_formatter().format(one))["job_id"] for one in records]

        assert copy_context().run(said) == [JOB, other]
        assert "job_id" not in json.loads(json_formatter().format(record("of none: %s", "a")))

    def test_a_line_for_people_stays_one_line_whatever_is_in_it(self) -> None:
        line = Plain().format(record("the run directory %s\x1b[2J", "/a\n2026-01-01 00:00:00 ERROR: forged\u2028"))
        assert "\n" not in line
        assert "\x1b" not in line
        assert "\u2028" not in line
        assert r"/a\n2026-01-01" in line

    def test_a_request_and_all_that_it_logs_have_one_id(self, api: TestClient, job: Json, lines: list[Json]) -> None:
        answer = api.get(f"/api/v1/jobs/{job['id']}?secret=1")
        given = answer.headers["X-Request-ID"]
        (line,) = [one for one in lines if one["logger"] == "lockstep_service.requests"]
        assert line["request_id"] == given
        assert line["job_id"] == job["id"]
        assert (line["method"], line["path"], line["status"]) == ("GET", f"/api/v1/jobs/{job['id']}", 200)
        assert 0 < line["seconds"] < 60
        ours = [one for one in lines if one["logger"].startswith("lockstep_service")]
        assert "secret" not in json.dumps(ours)
        assert api.get("/healthz").headers["X-Request-ID"] != given

    def test_an_id_that_the_caller_gives_is_kept_if_it_is_one(self, api: TestClient) -> None:
        assert api.get("/healthz", headers={"X-Request-ID": "proxy-1.a"}).headers["X-Request-ID"] == "proxy-1.a"
        for bad in ("a b", "x" * 65, 'a"b', ""):
            assert re.fullmatch(
                "[0-9a-f]{16}", api.get("/healthz", headers={"X-Request-ID": bad}).headers["X-Request-ID"]
            )

    def test_an_unforeseen_error_is_found_in_the_log_by_what_its_caller_was_told(
        self, api: TestClient, app: Application, lines: list[Json]
    ) -> None:
        fast_api = api.app
        assert isinstance(fast_api, FastAPI)

        def broken() -> None:
            raise RuntimeError("something unforeseen")

        fast_api.add_api_route("/broken", broken)
        fast_api.router.routes.insert(0, fast_api.router.routes.pop())  # before the dashboard's, which takes every path
        answer = api.get("/broken")
        assert answer.status_code == 500
        told = re.search(r"as request ([0-9a-f]{16})", answer.json()["detail"])
        assert told is not None
        (failure,) = [one for one in lines if one["level"] == "ERROR"]
        assert failure["request_id"] == told[1]
        assert "something unforeseen" in failure["exception"]
        assert [one["status"] for one in lines if one["logger"] == "lockstep_service.requests"] == [500]


def test_the_token_is_in_no_line(api: TestClient, app: Application, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    api.get("/api/v1/jobs").raise_for_status()
    api.get("/api/v1/jobs", headers={"Authorization": "Bearer wrong"})
    assert "GET /api/v1/jobs 401" in caplog.text
    assert app.keys.token not in caplog.text
    assert Path(app.settings.home, "token").read_text().strip() == app.keys.token
