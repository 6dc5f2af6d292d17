"""A job's timeline as it is kept and given out: in order, once, in pages, and for how little."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, select

from lockstep_service.boundary import Application
from lockstep_service.jobs import repository as jobs
from lockstep_service.tables import AttemptRow, JobRow, TimelineRow
from lockstep_service.timeline import repository
from lockstep_service.wire import now
from lockstep_slurm.job.identity import new_job_id

from .conftest import HandMadeRun

Json = dict[str, Any]


def texts(app: Application, job_id: str) -> list[str]:
    with app.database.reading() as session:
        return [row.text for row in repository.page(session, job_id, 0, 1000)]


def change(app: Application, job_id: str, **values: Any) -> None:
    with app.database.writing() as session:
        row = jobs.lock(session, job_id)
        assert row is not None
        for name, value in values.items():
            setattr(row, name, value)
        jobs.changed(session, row)


class TestGetTimeline:
    def test_anonymous(self, browser: TestClient, job: Json) -> None:
        assert browser.get(f"/api/v1/jobs/{job['id']}/timeline").status_code == 401

    def test_a_jobs_own_token_does_not_open_it(self, browser: TestClient, job: Json, job_token: str) -> None:
        headers = {"Authorization": f"Bearer {job_token}"}
        assert browser.get(f"/api/v1/jobs/{job['id']}/timeline", headers=headers).status_code in {401, 403}

    def test_of_no_job(self, api: TestClient) -> None:
        assert api.get(f"/api/v1/jobs/{new_job_id()}/timeline").status_code == 404

    def test_what_happened_in_order(self, api: TestClient, app: Application, job: Json) -> None:
        change(
            app, job["id"], phase="waiting", dispatched_at=datetime(2026, 11, 23, 6, 0, 1, tzinfo=UTC), slurm_job_id=12
        )
        found = api.get(f"/api/v1/jobs/{job['id']}/timeline").json()
        first, second = found["items"]
        assert found["next_cursor"] is None
        assert (first["kind"], first["time"], first["text"]) == ("stored", job["created_at"], "It was stored.")
        assert second["id"] > first["id"]
        assert second | {"id": 0} == {
            "id": 0, "time": "2026-11-23T06:00:01.000Z", "kind": "dispatched", "attempt": None,
            "text": "This machine's own queue took it as job 12.",
        }  # fmt: skip

    def test_it_comes_in_pages(self, api: TestClient, app: Application, job: Json, spec: Json) -> None:
        other = api.post("/api/v1/jobs", json=spec).json()
        for number in range(4):
            change(app, job["id"], user_hold=number % 2 == 0)
            change(app, other["id"], user_hold=number % 2 == 0)
        path = f"/api/v1/jobs/{job['id']}/timeline"
        pages: list[list[str]] = []
        cursor: dict[str, str] = {}
        while True:
            page = api.get(path, params={"limit": "2"} | cursor).json()
            pages.append([entry["text"] for entry in page["items"]])
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        on, off = "Its owner holds it back.", "Its owner holds it back no longer."
        assert pages == [["It was stored.", on], [off, on], [off]]

    @pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "\u0663", "9" * 19])
    def test_a_cursor_that_is_none_is_refused(self, api: TestClient, job: Json, cursor: str) -> None:
        refused = api.get(f"/api/v1/jobs/{job['id']}/timeline", params={"cursor": cursor})
        assert (refused.status_code, refused.json()["errors"][0]["where"]) == (422, "cursor")

    def test_it_is_sent_again_only_when_there_is_something_new(
        self, api: TestClient, app: Application, job: Json
    ) -> None:
        path = f"/api/v1/jobs/{job['id']}/timeline"
        tag = {"If-None-Match": api.get(path).headers["ETag"]}
        assert api.get(path, headers=tag).status_code == 304
        change(app, job["id"], user_hold=True)
        assert api.get(path, headers=tag).status_code == 200


class TestWhatIsStored:
    def test_a_submission_and_its_cancel(self, api: TestClient, app: Application, job: Json) -> None:
        api.post(f"/api/v1/jobs/{job['id']}/cancel").raise_for_status()
        assert texts(app, job["id"]) == [
            "It was stored.",
            "Its owner asked for its end.",
            "It ended badly: it was cancelled before it was submitted to Slurm.",
        ]

    def test_a_run_by_hand(self, api: TestClient, app: Application, made_by_hand: Callable[[], HandMadeRun]) -> None:
        hand = made_by_hand()
        hand.claim()
        api.post("/api/v1/jobs/import", json={"run_dir": str(hand.run)}).raise_for_status()
        assert texts(app, hand.id) == [
            "Its run directory was made by hand.",
            "It was started by hand.",
            "Attempt 1 began with 1 rank on node1.",
            "It was imported from its run directory.",
        ]
        hand.end(code=3, message="No such data")
        api.post("/api/v1/jobs/import", json={"run_dir": str(hand.run)}).raise_for_status()
        assert texts(app, hand.id)[4:] == [
            "Attempt 1 ended with exit code 3: No such data.",
            "It ended badly: rank 0 on node1 ended with exit code 3.",
        ]

    def test_a_note_is_kept_in_its_place_and_told_to_open_pages(self, app: Application, job: Json) -> None:
        with app.database.reading() as session:
            before = jobs.get(session, job["id"])
        with app.database.writing() as session:
            row = jobs.lock(session, job["id"])
            assert row is not None
            repository.note(session, row, "submit", "Copy 13 was cancelled while it was held")
            row.phase, row.dispatched_at, row.slurm_job_id = "waiting", now(), 12
            jobs.changed(session, row)
            jobs.changed(session, row)
        assert texts(app, job["id"]) == [
            "It was stored.", "Copy 13 was cancelled while it was held.", "This machine's own queue took it as job 12.",
        ]  # fmt: skip
        with app.database.reading() as session:
            after = jobs.get(session, job["id"])
        assert before is not None
        assert after is not None
        assert after.changed_at > before.changed_at

    def test_a_change_that_was_flushed_and_one_after_it_are_each_told_once(self, app: Application, job: Json) -> None:
        with app.database.writing() as session:
            row = jobs.lock(session, job["id"])
            assert row is not None
            row.phase, row.dispatched_at, row.slurm_job_id = "waiting", now(), 12
            row.attempts.append(AttemptRow(number=1, ranks=1, nodes=["a"], started_at=now()))
            jobs.changed(session, row)
            session.flush()
            row.attempts[0].exit_code = 0
            jobs.changed(session, row)
        assert texts(app, job["id"])[1:] == [
            "This machine's own queue took it as job 12.",
            "Attempt 1 began with 1 rank on a.",
            "Attempt 1 ended with exit code 0.",
        ]

    def test_what_is_rolled_back_is_not_told(self, app: Application, job: Json) -> None:
        def fail() -> None:
            with app.database.writing() as session:
                row = jobs.lock(session, job["id"])
                assert row is not None
                repository.note(session, row, "remark", "Never")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        assert texts(app, job["id"]) == ["It was stored."]

    def test_slurms_changing_words_are_kept_once_until_the_job_moves(self, app: Application, job: Json) -> None:
        change(app, job["id"], phase="waiting", dispatched_at=now(), slurm_job_id=12)
        for word in ("Priority", "Resources", "Priority", "Resources"):
            change(app, job["id"], reason=word)
        waits = "It waits; Slurm's word for why is"
        assert texts(app, job["id"])[2:] == [f"{waits} Priority.", f"{waits} Resources."]
        change(app, job["id"], phase="running", started_at=now(), reason=None)
        change(app, job["id"], phase="waiting", reason="Resources")
        change(app, job["id"], reason="Priority")
        assert texts(app, job["id"])[4:] == [
            "This machine's own queue started it.",
            "This machine's own queue put it back into the queue: Resources.",
            f"{waits} Priority.",
        ]

    def test_a_job_that_stands_still_cannot_fill_the_database(self, app: Application, job: Json) -> None:
        with app.database.writing() as session:
            row = jobs.lock(session, job["id"])
            assert row is not None
            for number in range(150):
                repository.note(session, row, "waiting", f"Reason {number}")
        assert len(texts(app, job["id"])) == 1 + 100

    def test_a_thousand_jobs_cost_one_statement_more(self, app: Application) -> None:
        made = [
            JobRow(
                id=new_job_id(), name="n", spec="{}", script="", run_dir="/", client="command", nodes_requested=1,
                ranks=1, created_at=now(), changed_at=now(), attempts=[],
            )
            for _ in range(1000)
        ]  # fmt: skip
        with app.database.writing() as session:
            session.add_all(made)
        statements: list[str] = []
        event.listen(app.database.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
        with app.database.writing() as session:
            for row in session.scalars(select(JobRow)).all():
                row.phase, row.dispatched_at = "waiting", now()
                jobs.changed(session, row)
        # The jobs, their attempts (500 at a time), the jobs' update and the timeline's insert; one of them begins.
        assert [one.split()[0] for one in statements if "timeline" in one] == ["INSERT"]
        assert len(statements) <= 6, statements
        with app.database.reading() as session:
            assert len(session.scalars(select(TimelineRow)).all()) == 1000
