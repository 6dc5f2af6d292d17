"""The database's disk is full: what a caller is told, and that its key still stands for one job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from lockstep_service.app import create_app
from lockstep_service.boundary import Application
from lockstep_service.settings import Settings
from support.disks import fill

Json = dict[str, Any]


def test_a_submission_is_told_to_try_again_and_its_key_then_stands_for_one_job(
    disk: Path, lockstep_home: Path, spec: Json
) -> None:
    settings = Settings(home=lockstep_home, database_url=f"sqlite:///{disk / 'lockstep.db'}", dispatch=False)
    with TestClient(create_app(settings), base_url="http://127.0.0.1:8080", raise_server_exceptions=False) as client:
        app: Application = client.app.state.application  # type: ignore[attr-defined]
        headers = {"Authorization": f"Bearer {app.keys.token}"}
        filler = fill(disk)
        # In the log that SQLite has already, a few more may still find room.
        answers = [
            client.post("/api/v1/jobs", json=spec, headers=headers | {"Idempotency-Key": f"{number}"})
            for number in range(50)
        ]
        refused = answers[-1]
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "5"
        assert "database or disk is full" in refused.json()["detail"]
        assert client.get("/api/v1/jobs", headers=headers).status_code == 200
        filler.unlink()
        again = client.post("/api/v1/jobs", json=spec, headers=headers | {"Idempotency-Key": "49"})
        assert again.status_code == 201
        stored = client.get("/api/v1/jobs?limit=200", headers=headers).json()["items"]
        assert len(stored) == sum(answer.status_code == 201 for answer in answers) + 1
