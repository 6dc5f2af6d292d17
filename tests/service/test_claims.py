"""Whose records are the job's: claims are looked at where nobody who stores something waits for their file system."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from fastapi.testclient import TestClient

from lockstep_service.boundary import Application
from lockstep_service.dispatch import ingest
from lockstep_service.jobs import attempts
from lockstep_service.jobs import repository as jobs
from lockstep_slurm.job import rundir

from .conftest import HandMadeRun

Json = dict[str, Any]


class FileSystem:
    """The look at a run directory's claims, on a file system that may hang."""

    def __init__(self) -> None:
        self.goes_on = Event()
        self.goes_on.set()
        self.hangs = Event()
        """Set once somebody waits for it."""
        self.gave_up = False
        self.looks = 0

    def claimed_attempts(self, run: Path) -> frozenset[int]:
        self.looks += 1
        if not self.goes_on.is_set():
            self.hangs.set()
            self.gave_up = not self.goes_on.wait(30) or self.gave_up
        return rundir.claimed_attempts(run)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileSystem]:
    made = FileSystem()
    for module in (attempts, ingest):
        monkeypatch.setattr(module, "claimed_attempts", made.claimed_attempts, raising=False)
    yield made
    made.goes_on.set()


@pytest.fixture
def hand(job: Json, run_of: Callable[[Json], HandMadeRun]) -> HandMadeRun:
    """The job's run directory, in which two attempts are claimed."""
    made = run_of(job)
    made.claim(1)
    made.claim(2)
    return made


@pytest.fixture
def post(browser: TestClient, job: Json, job_token: str) -> Callable[..., Any]:
    def send(*lines: bytes) -> Any:
        headers = {"Authorization": f"Bearer {job_token}"}
        return browser.post(f"/api/v1/jobs/{job['id']}/records", content=b"".join(lines), headers=headers)

    return send


def last_loss(api: TestClient, job: Json) -> object:
    return api.get(f"/api/v1/jobs/{job['id']}").json()["last"]["loss"]


class TestHangingFileSystem:
    def test_no_submission_waits_for_a_request_with_records(
        self, shared: FileSystem, hand: HandMadeRun, post: Any, api: TestClient, job: Json, spec: Json
    ) -> None:
        shared.goes_on.clear()
        with ThreadPoolExecutor(1) as pool:
            records = pool.submit(post, hand.line(attempt=2, step=1, loss=0.5))
            try:
                assert shared.hangs.wait(30)
                assert api.post("/api/v1/jobs", json=spec).status_code == 201
                assert not records.done()
            finally:
                shared.goes_on.set()
            assert records.result(30).json() == {"acknowledged": {"2/0": 1}}
        assert last_loss(api, job) == 0.5
        assert not shared.gave_up

    @pytest.mark.parametrize("ended", [False, True], ids=["while it runs", "at its end"])
    def test_no_submission_waits_for_spools(
        self, ended: bool, shared: FileSystem, hand: HandMadeRun, app: Application, api: TestClient, job: Json,
        spec: Json,
    ) -> None:  # fmt: skip
        hand.spool(hand.line(attempt=2, step=1, loss=0.5), attempt=2)
        with app.database.writing() as session:
            row = jobs.lock(session, hand.id)
            assert row is not None
            row.phase = "ended badly" if ended else "running"
        if ended:
            ingest.read_spools(app, hand.id, hand.run)
        shared.goes_on.clear()
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(ingest.unfinished, app, everything=True)
            try:
                assert shared.hangs.wait(30)
                assert api.post("/api/v1/jobs", json=spec).status_code == 201
                assert not reading.done()
            finally:
                shared.goes_on.set()
            assert reading.result(30)
        assert last_loss(api, job) == 0.5
        assert not shared.gave_up

    def test_no_records_wait_for_a_page(
        self, shared: FileSystem, hand: HandMadeRun, post: Any, api: TestClient, job: Json
    ) -> None:
        post(hand.line(attempt=2, step=1, loss=0.5)).raise_for_status()
        shared.goes_on.clear()
        with ThreadPoolExecutor(1) as pool:
            page = pool.submit(api.get, f"/api/v1/jobs/{job['id']}/metrics")
            try:
                assert shared.hangs.wait(30)
                assert post(hand.line(attempt=1, step=1, loss=7.5)).status_code == 200
                assert not shared.gave_up
            finally:
                shared.goes_on.set()
            assert {one["attempt"] for one in page.result(30).json()["series"]} == {1, 2}


class TestClaims:
    def test_what_was_seen_is_not_looked_for_again(
        self, shared: FileSystem, hand: HandMadeRun, post: Any, api: TestClient, job: Json
    ) -> None:
        for step in range(1, 4):
            post(hand.line(attempt=2, step=step, loss=0.5)).raise_for_status()
            post(hand.line(attempt=1, step=step, loss=7.5)).raise_for_status()
        assert shared.looks == 1
        assert last_loss(api, job) == 0.5

    def test_a_claim_that_was_not_there_yet_is_looked_for_again(
        self, shared: FileSystem, hand: HandMadeRun, post: Any, api: TestClient, job: Json
    ) -> None:
        post(hand.line(attempt=1, step=1, loss=7.5), hand.line(attempt=3, step=1, loss=0.25)).raise_for_status()
        assert last_loss(api, job) == 7.5
        hand.claim(3)
        post(hand.line(attempt=3, step=2, loss=0.125)).raise_for_status()
        assert (last_loss(api, job), shared.looks) == (0.125, 2)

    def test_the_service_that_comes_after_knows_them_by_the_first_records_of_any_attempt(
        self, hand: HandMadeRun, post: Any, app: Application, api: TestClient, job: Json
    ) -> None:
        post(hand.line(attempt=2, step=1, loss=0.5)).raise_for_status()
        app.claims = attempts.Claims()
        post(hand.line(attempt=1, step=1, loss=7.5)).raise_for_status()
        assert last_loss(api, job) == 0.5
