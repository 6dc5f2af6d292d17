"""Runs made by hand are taken in from their run directories."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from lockstep_service.app import create_app
from lockstep_service.boundary import Application
from lockstep_service.dispatch import worklists
from lockstep_service.settings import Settings
from lockstep_slurm.client import LocalClient
from lockstep_slurm.client.protocol import SlurmJob

from .conftest import SPEC, HandMadeRun

Json = dict[str, Any]
URL = "/api/v1/jobs"


class Reused(LocalClient):
    """A scheduler that gave number 7 to a second job: that one is in its queue, and the first one in its records."""

    kind = "command"

    def queue(self) -> list[SlurmJob]:
        return [SlurmJob(7, "another", "PENDING")]

    def finished(self, ids: Sequence[int]) -> list[SlurmJob]:
        at = datetime.now(UTC)
        ended = SlurmJob(7, SPEC["name"], "TIMEOUT", started=at - timedelta(minutes=5), ended=at + timedelta(seconds=1))
        return [one for one in [ended] if one.id in ids]


class TestImportRun:
    URL = f"{URL}/import"

    def test_anonymous(self, browser: TestClient, tmp_path: Path) -> None:
        assert browser.post(self.URL, json={"run_dir": str(tmp_path)}).status_code == 401

    @pytest.mark.parametrize("run_dir", ["/", "/nonexistent", "relative", "/etc/passwd"])
    def test_what_is_no_run_directory(self, api: TestClient, run_dir: str) -> None:
        answer = api.post(self.URL, json={"run_dir": run_dir})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["where"] == "run_dir"

    @pytest.mark.parametrize("key", ["run", "nodes", "path"])
    def test_a_key_that_it_does_not_have_is_told_its_own_keys(self, api: TestClient, tmp_path: Path, key: str) -> None:
        answer = api.post(self.URL, json={"run_dir": str(tmp_path), key: "x"})
        assert answer.status_code == 422
        (item,) = answer.json()["errors"]
        assert (item["where"], item["value"]) == (key, "x")
        assert item["message"] == "is not a key that exists here; there are: run_dir"

    def test_a_run_that_ended_well(self, api: TestClient, made_by_hand: Callable[[], HandMadeRun]) -> None:
        hand = made_by_hand()
        hand.claim()
        hand.spool(hand.line(step=1, loss=0.5), hand.line(kind="end", steps=1))
        hand.end()
        answer = api.post(self.URL, json={"run_dir": str(hand.run)})
        assert answer.status_code == 201
        job = answer.json()
        assert (job["id"], job["phase"], job["by_hand"], job["state"]) == (hand.id, "ended well", True, None)
        assert (job["last"]["step"], job["last"]["loss"]) == (1, 0.5)
        assert job["attempts"][0]["exit_code"] == 0
        assert [one["name"] for one in api.get(f"{URL}/{hand.id}/metrics").json()["series"]] == ["loss"]

    def test_again_reads_it_again(self, api: TestClient, made_by_hand: Callable[[], HandMadeRun]) -> None:
        hand = made_by_hand()
        hand.claim()
        assert api.post(self.URL, json={"run_dir": str(hand.run)}).json()["phase"] == "running"
        hand.spool(hand.line(step=1, loss=0.5))
        hand.end(code=3, message="It had enough.")
        answer = api.post(self.URL, json={"run_dir": str(hand.run)})
        assert answer.status_code == 200
        assert (answer.json()["phase"], answer.json()["last"]["step"]) == ("ended badly", 1)
        assert answer.json()["reason"].startswith("It had enough.")
        assert len(api.get(URL).json()["items"]) == 1

    def test_a_run_whose_process_is_gone_is_unknown_and_not_failed(
        self, api: TestClient, made_by_hand: Callable[[], HandMadeRun]
    ) -> None:
        hand = made_by_hand()
        hand.claim(pid=2**22 + 1)
        assert api.post(self.URL, json={"run_dir": str(hand.run)}).json()["phase"] == "unknown"

    def test_a_hostile_run_directory_is_refused_in_words(
        self, api: TestClient, made_by_hand: Callable[[], HandMadeRun], tmp_path: Path
    ) -> None:
        def refused(hand: HandMadeRun) -> str:
            answer = api.post(self.URL, json={"run_dir": str(hand.run)})
            assert answer.status_code == 422
            assert answer.json()["errors"][0]["where"] == "run_dir"
            return str(answer.json()["detail"])

        late = made_by_hand()
        origin = late.run / "origin.json"
        origin.write_text(json.dumps(json.loads(origin.read_text()) | {"created": 1e300}))
        assert "created" in refused(late)
        for key, value in (("claimed", "yesterday"), ("claimed", 1e300), ("ranks", "two"), ("slurm_job_id", 10**30)):
            odd = made_by_hand()
            odd.claim()
            claim = odd.run / "claims" / "000001.json"
            claim.write_text(json.dumps(json.loads(claim.read_text()) | {key: value}))
            refused(odd)
        (tmp_path / "secret").write_text("secret")
        linked = made_by_hand()
        (linked.run / "job.sbatch").unlink()
        (linked.run / "job.sbatch").symlink_to(tmp_path / "secret")
        assert "job.sbatch" in refused(linked)
        assert api.get(URL).json()["items"] == []

    def test_a_run_that_turns_out_to_live_is_followed_again(
        self, api: TestClient, app: Application, made_by_hand: Callable[[], HandMadeRun]
    ) -> None:
        hand = made_by_hand()
        hand.claim(pid=2**22 + 1)
        assert api.post(self.URL, json={"run_dir": str(hand.run)}).json()["phase"] == "unknown"
        hand.claim()
        assert api.post(self.URL, json={"run_dir": str(hand.run)}).json()["phase"] == "running"
        with app.database.reading() as session:
            assert list(worklists.live_marks(session)) == [hand.id]

    def test_a_run_of_another_user(self, api: TestClient, made_by_hand: Callable[[], HandMadeRun]) -> None:
        hand = made_by_hand()
        if os.geteuid() == 0:
            os.chown(hand.run, 65534, 65534)
            answer = api.post(self.URL, json={"run_dir": str(hand.run)})
            assert answer.status_code == 422
            assert "user 65534" in answer.json()["detail"]
        else:
            assert hand.run.stat().st_uid == os.geteuid()

    def test_a_run_of_the_service_is_known(
        self, api: TestClient, app: Application, job: Json, run_of: Callable[[Json], HandMadeRun]
    ) -> None:
        hand = run_of(job)
        answer = api.post(self.URL, json={"run_dir": str(hand.run)})
        assert (answer.status_code, answer.json()["by_hand"]) == (200, False)
        with app.database.reading() as session:
            assert worklists.unfinished(session)[0].id == job["id"]

    def test_a_run_whose_number_another_job_has_by_now(
        self, settings: Settings, made_by_hand: Callable[[], HandMadeRun]
    ) -> None:
        hand = made_by_hand()
        hand.claim(pid=2**22 + 1, slurm_job_id=7)
        with TestClient(create_app(settings, Reused(settings.home / "local")), base_url="http://127.0.0.1") as caller:
            found: Application = caller.app.state.application  # type: ignore[attr-defined]
            caller.headers["Authorization"] = f"Bearer {found.keys.token}"
            job = caller.post(self.URL, json={"run_dir": str(hand.run)}).raise_for_status().json()
        assert (job["phase"], job["state"], job["slurm_job_id"]) == ("ended badly", "TIMEOUT", 7)
