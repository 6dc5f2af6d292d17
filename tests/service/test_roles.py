"""API and dispatch as one process or as two: who may run beside whom, and that the two hear of each other."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from lockstep_service import notify, roles
from lockstep_service.app import create_app
from lockstep_service.boundary import Application
from lockstep_service.events.follower import Follower
from lockstep_service.jobs import repository
from lockstep_service.jobs.repository import Changed
from lockstep_service.roles import Role, RoleError
from lockstep_service.settings import Settings
from lockstep_service.wire import now
from support.lockstep import wait_for

Json = dict[str, Any]


class TestWhoMayRunBesideWhom:
    @pytest.mark.parametrize(
        ("first", "second"),
        [("all", "all"), ("all", "api"), ("all", "dispatch"), ("api", "all"), ("api", "api"), ("dispatch", "all"),
         ("dispatch", "dispatch")],
    )  # fmt: skip
    def test_no_two_do_the_same_for_one_home(self, tmp_path: Path, first: Role, second: Role) -> None:
        with roles.alone(tmp_path, first), pytest.raises(RoleError, match="runs for"), roles.alone(tmp_path, second):
            pass
        with roles.alone(tmp_path, second):
            pass  # once the first has ended

    def test_an_api_and_a_dispatch_do(self, tmp_path: Path) -> None:
        with ExitStack() as stack:
            stack.enter_context(roles.alone(tmp_path, "api"))
            stack.enter_context(roles.alone(tmp_path, "dispatch"))

    def test_who_is_in_the_way_is_named(self, tmp_path: Path) -> None:
        with roles.alone(tmp_path, "all"):
            (tmp_path / "service.json").write_text(json.dumps({"pid": 17, "url": "http://here:1"}))
            for second in ("api", "dispatch"):
                with pytest.raises(RoleError, match=r"process 17, http://here:1"), roles.alone(tmp_path, second):
                    pass

    def test_the_apis_address_is_known_while_it_runs(self, tmp_path: Path) -> None:
        assert roles.api_address(tmp_path) is None
        roles.note(tmp_path, "api").write_text(json.dumps({"pid": 17, "url": "http://here:1"}))
        assert roles.api_address(tmp_path) == "http://here:1"
        roles.note(tmp_path, "api").write_text("{")
        assert roles.api_address(tmp_path) is None


class TestFollower:
    def test_tells_of_each_change_once_and_of_what_there_is_to_dispatch(
        self, app: Application, api: TestClient, spec: Json
    ) -> None:
        heard: list[list[Changed]] = []
        follower = Follower(app.database, lambda changes: heard.append(list(changes)))
        follower.look()
        assert heard == []
        job = api.post("/api/v1/jobs", json=spec).raise_for_status().json()
        follower.look()
        follower.look()
        assert [[(one.id, one.to_dispatch) for one in changes] for changes in heard] == [[(job["id"], True)]]
        with app.database.writing() as session:
            row = repository.lock(session, job["id"])
            assert row is not None
            row.dispatched_at, row.phase = now(), "waiting"
            repository.changed(session, row)
        follower.look()
        assert [one.to_dispatch for one in heard[-1]] == [False]
        api.post(f"/api/v1/jobs/{job['id']}/cancel").raise_for_status()
        follower.look()
        assert [one.to_dispatch for one in heard[-1]] == [True]
        assert len(heard) == 3

    def test_a_change_that_was_committed_late_is_not_missed(
        self, app: Application, api: TestClient, spec: Json
    ) -> None:
        heard: list[Changed] = []
        follower = Follower(app.database, heard.extend)
        first = api.post("/api/v1/jobs", json=spec).raise_for_status().json()
        late = api.post("/api/v1/jobs", json=spec).raise_for_status().json()
        with app.database.writing() as session:
            row = repository.lock(session, first["id"])
            assert row is not None
            row.changed_at = now() + timedelta(seconds=1)
        follower.look()
        with app.database.writing() as session:
            row = repository.lock(session, late["id"])
            assert row is not None
            row.changed_at = now()  # older than what was told already
        follower.look()
        assert [one.id for one in heard].count(late["id"]) == 2
        assert [one.id for one in heard].count(first["id"]) == 1


class TestDispatchAlone:
    def test_answers_for_its_health_and_for_nothing_else(self, settings: Settings) -> None:
        alone = settings.model_copy(update={"role": "dispatch"})
        with TestClient(create_app(alone), base_url="http://127.0.0.1:8080", raise_server_exceptions=False) as client:
            assert client.get("/healthz").status_code == 200
            assert client.get("/readyz").json() == {"database": True, "dispatch": True}
            assert client.get("/metrics").status_code == 401
            assert client.get("/api/v1/jobs").status_code == 404
            assert client.get("/").status_code == 404

    def test_an_api_alone_says_that_another_dispatches(self, settings: Settings) -> None:
        alone = settings.model_copy(update={"role": "api"})
        with TestClient(create_app(alone), base_url="http://127.0.0.1:8080") as client:
            assert client.get("/readyz").json() == {"database": True, "dispatch": None}


class Two:
    """An API and a dispatch of one home, as a person starts them."""

    def __init__(self, home: Path, database_url: str) -> None:
        self.home = home
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": os.environ["HOME"],
            "LOCKSTEP_HOME": str(home),
            "LOCKSTEP_DATABASE_URL": database_url,
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, role: Role) -> None:
        with (self.home / f"{role}.log").open("ab") as log:
            command = ["lockstep", "serve", "--client", "local", "--role", role, "--port", "0"]
            self.processes.append(
                subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            )

    def ready(self, role: Role) -> str:
        def look() -> str | None:
            try:
                url = str(json.loads(roles.note(self.home, role).read_text())["url"])
                return url if httpx.get(f"{url}/readyz", timeout=5).status_code == 200 else None
            except (OSError, ValueError, httpx.TransportError):
                return None

        return wait_for(f"the {role}", look, 60)


@pytest.fixture
def two(tmp_path: Path, database_url: str) -> Iterator[Two]:
    (tmp_path / "home").mkdir(mode=0o700)
    found = Two(tmp_path / "home", database_url)
    yield found
    for process in found.processes:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
    for process in found.processes:
        process.wait(30)


def test_two_processes_that_start_at_once_are_one_service(two: Two, spec: Json) -> None:
    two.start("api")  # both at once, over an empty database
    two.start("dispatch")
    url = two.ready("api")
    two.ready("dispatch")
    headers = {"Authorization": f"Bearer {(two.home / 'token').read_text().strip()}"}
    heard: list[str] = []
    with httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=60) as client:
        connected = threading.Event()

        def listen() -> None:
            with httpx.stream("GET", f"{url}/api/v1/events", headers=headers, timeout=120) as answer:
                connected.set()
                heard.extend(line for line in answer.iter_lines() if line.startswith("data:"))

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        assert connected.wait(60)
        two.processes[1].send_signal(signal.SIGSTOP)
        job = client.post("/jobs", json=spec).raise_for_status().json()
        wait_for("the listener to hear of the new job", lambda: heard, 60)
        two.processes[1].send_signal(signal.SIGCONT)
        wait_for("the listener to hear of what the dispatch did", lambda: len(heard) > 1, 60)
        slurm_id = wait_for(
            "the dispatch to hear of it", lambda: client.get(f"/jobs/{job['id']}").json()["slurm_job_id"], 60
        )
        assert slurm_id
        client.post(f"/jobs/{job['id']}/cancel").raise_for_status()
        phase = wait_for(
            "the cancel to be passed on",
            lambda: (found := client.get(f"/jobs/{job['id']}").json()["phase"]).startswith("ended") and found,
            60,
        )
        assert phase == "ended badly"
        report = json.loads(Path(client.get(f"/jobs/{job['id']}").json()["run_dir"], "report.json").read_text())
    assert report["url"] == url
    assert job["id"] in heard[-1]
    assert "Traceback" not in (two.home / "api.log").read_text() + (two.home / "dispatch.log").read_text()


def test_systemd_is_told_once_and_no_child_is_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert notify.ready()
        assert manager.recv(100) == b"READY=1"
        assert "NOTIFY_SOCKET" not in os.environ
        assert not notify.ready()
