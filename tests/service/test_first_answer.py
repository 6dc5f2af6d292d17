"""Before Slurm has ever said what nodes it has: requests are answered, and do not wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import NoReturn

import pytest
from fastapi.testclient import TestClient

from lockstep_service.app import create_app
from lockstep_service.boundary import Application
from lockstep_service.settings import Settings
from lockstep_slurm.client import LocalClient
from lockstep_slurm.client.protocol import SlurmNode, SlurmUnavailableError
from support.lockstep import wait_for

from .conftest import Json

URL = "/api/v1/jobs"
GIVES_UP_AFTER = 30.0


class Stopped(LocalClient):
    """A local queue that says nothing of its nodes until ``goes_on`` is set, as behind a controller that is stopped."""

    kind = "command"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.home / "local")
        self.goes_on = threading.Event()
        self.asked, self.unanswered = 0, 0

    def nodes(self) -> list[SlurmNode]:
        self.asked += 1
        if not self.goes_on.wait(GIVES_UP_AFTER):
            self.unanswered += 1
            raise SlurmUnavailableError("connection timed out")
        return super().nodes()


@pytest.fixture
def slurm(settings: Settings) -> Stopped:
    return Stopped(settings)


@pytest.fixture
def browser(settings: Settings, slurm: Stopped) -> Iterator[TestClient]:
    """A caller of an application that was never started before, on that scheduler."""
    with TestClient(create_app(settings, slurm), base_url="http://127.0.0.1:8080") as client:
        yield client
        slurm.goes_on.set()


def test_no_request_waits_for_a_slurm_that_does_not_answer_and_all_are_checked_once_it_has(
    app: Application, api: TestClient, slurm: Stopped, spec: Json
) -> None:
    app.answers.patience = 0.05
    too_many = spec | {"resources": {"nodes": 3}}
    assert api.post(URL, json=too_many).status_code == 201
    batch = api.post(f"{URL}/batch", json={"spec": spec, "changes": [{}, {}]})
    assert batch.status_code == 201
    assert api.post(f"{URL}/preview", json=spec).json()["placement"] is None
    # One question, asked in the background, is still open.
    assert (slurm.asked, slurm.unanswered) == (1, 0)
    slurm.goes_on.set()
    wait_for("the answer", lambda: app.answers.kept, 60)
    assert api.post(URL, json=too_many).status_code == 422
    assert api.post(f"{URL}/preview", json=spec).json()["placement"] is not None
    assert slurm.asked == 1


def test_where_it_answers_the_first_request_is_checked_already(
    app: Application, api: TestClient, slurm: Stopped, spec: Json
) -> None:
    slurm.goes_on.set()
    assert api.post(URL, json=spec | {"resources": {"nodes": 3}}).status_code == 422
    assert slurm.asked == 1


def test_after_one_silence_nobody_waits_again(
    app: Application, api: TestClient, spec: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nodes() -> NoReturn:
        raise SlurmUnavailableError("connection refused")

    monkeypatch.setattr(app.client, "nodes", nodes)
    began = time.monotonic()
    for _ in range(3):
        assert api.post(URL, json=spec).status_code == 201
    assert time.monotonic() - began < app.answers.patience
    assert api.get("/api/v1/clusters").json()["items"][0]["reachable"] is False
