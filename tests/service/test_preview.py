"""``POST /jobs/preview``: what a submission would come to; it stores nothing and waits for nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from lockstep_service.app import create_app
from lockstep_service.boundary import Application
from lockstep_service.clusters import repository as clusters
from lockstep_service.jobs.forecasts import Answer, Forecasts, NoAnswer
from lockstep_service.settings import Settings
from lockstep_service.wire import now
from lockstep_slurm.client import LocalClient
from lockstep_slurm.client.protocol import (
    ClusterAnswer,
    SlurmForecast,
    SlurmNode,
    SlurmPartition,
    SlurmRefusedError,
    SlurmUnavailableError,
)

Json = dict[str, Any]
URL = "/api/v1/jobs/preview"


class Slurm(LocalClient):
    """A local queue whose forecasts are counted, and which can refuse, be away, or say nothing for a while."""

    kind = "command"
    asked = 0
    refuses: str | None = None
    away = False
    answers: threading.Event | None = None

    def test(self, script: str, name: str) -> SlurmForecast:
        self.asked += 1
        if self.answers is not None:
            assert self.answers.wait(60)
        if self.away:
            raise SlurmUnavailableError("connection refused")
        if self.refuses:
            raise SlurmRefusedError(self.refuses)
        return super().test(script, name)


@pytest.fixture
def slurm(settings: Settings) -> Slurm:
    return Slurm(settings.home / "local")


@pytest.fixture
def browser(settings: Settings, slurm: Slurm) -> Iterator[TestClient]:
    """A caller of an application on that scheduler, which may be asked at any time."""
    with TestClient(create_app(settings, slurm), base_url="http://127.0.0.1") as client:
        client.app.state.application.forecasts.gap = 0.0  # type: ignore[attr-defined]
        yield client


def preview(api: TestClient, spec: Json) -> Json:
    return api.post(URL, json=spec).raise_for_status().json()  # type: ignore[no-any-return]


def know(app: Application, *nodes: SlurmNode) -> None:
    """The cluster's last answer is these nodes, all of one partition."""
    partition = SlurmPartition(name="main", state="UP", nodes=tuple(node.name for node in nodes), default=True)
    with app.database.writing() as session:
        clusters.keep_answer(session, "default", app.client.kind, ClusterAnswer(nodes, (partition,)), now())


def node(name: str, *, cores: int = 8, cpus: int | None = None, threads: int = 1) -> SlurmNode:
    whole = 2 * cores * threads
    return SlurmNode(
        name=name, state="IDLE", cpus=whole if cpus is None else cpus, sockets=2, cores_per_socket=cores,
        threads_per_core=threads, memory=64_000, partitions=("main",),
    )  # fmt: skip


class TestPreviewJob:
    def test_anonymous(self, browser: TestClient, spec: Json) -> None:
        assert browser.post(URL, json=spec).status_code == 401

    def test_it_is_the_script_that_a_submission_would_have_and_nothing_is_stored(
        self, api: TestClient, app: Application, spec: Json
    ) -> None:
        found = preview(api, spec)
        assert api.get("/api/v1/jobs").json()["items"] == []
        assert app.client.queue() == []
        assert list(app.runs.glob("0*")) == []
        job = api.post("/api/v1/jobs", json=spec).json()
        assert found["script"] == api.get(f"/api/v1/jobs/{job['id']}/script").text
        assert (found["spec"], found["filled"], found["ranks"]) == (job["spec"], job["filled"], 1)
        assert found["slurm"]["opinion"] == "would start"
        assert found["slurm"]["asked_at"] is not None

    def test_what_a_submission_is_refused_for_a_preview_is_refused_for(
        self, api: TestClient, app: Application, spec: Json
    ) -> None:
        know(app, node("node1"))
        app.site = app.site.model_validate({"partitions": {"main": {"nodes": 1}}})
        for change in (
            {"resources": {"nodes": 0}},
            {"resources": {"nodes": 2, "partition": "main"}},
            {"resources": {"partition": "nowhere"}},
            {"placement": {"ranks_per_node": 512}},
        ):
            refused, wanted = api.post(URL, json=spec | change), api.post("/api/v1/jobs", json=spec | change)
            assert refused.status_code == wanted.status_code == 422
            assert refused.json() == wanted.json()

    def test_a_default_time_limit_that_ends_before_the_signal_is_refused_before_anything_is_stored(
        self, api: TestClient, app: Application, spec: Json
    ) -> None:
        """Stored, no answer could have its spec, and Slurm would have the job told to stop again and again."""
        app.site = app.site.model_validate({"partitions": {"debug": {"defaults": {"time": "30"}}}})
        wanted = spec | {"resources": {"partition": "debug"}, "checkpoint": {"signal_seconds": 1800}}
        for url in (URL, "/api/v1/jobs"):
            answer = api.post(url, json=wanted)
            assert answer.status_code == 422
            (problem,) = answer.json()["errors"]
            assert problem["where"] == "resources.time"
            assert (
                "is 30 (1800 s), the default of partition 'debug', and checkpoint.signal_seconds is 1800"
                in (problem["message"])
            )
        assert api.get("/api/v1/jobs").json()["items"] == []

    def test_what_the_site_fills_in_is_shown_as_such(self, api: TestClient, app: Application, spec: Json) -> None:
        app.site = app.site.model_validate({"defaults": {"time": "30"}})
        found = preview(api, spec)
        assert (found["spec"]["resources"]["time"], found["filled"]) == ("30", ["resources.time"])
        assert "#SBATCH --time=30\n" in found["script"]

    def test_a_path_that_is_not_there_is_said(self, api: TestClient, spec: Json, tmp_path: Path) -> None:
        missing, there = tmp_path / "missing.py", tmp_path / "there"
        there.mkdir()
        found = preview(api, spec | {"training": {"script": str(missing)}, "environment": {"venv": str(there)}})
        (warning,) = [said for said in found["warnings"] if "not there" in said]
        assert warning.startswith(f"training.script: {missing} ")
        unnameable = preview(api, spec | {"training": {"script": "/" + "x" * 4000}})
        assert any("not there" in said for said in unnameable["warnings"])

    def test_the_job_that_it_comes_after_is_looked_at_too(self, api: TestClient, spec: Json) -> None:
        before = api.post("/api/v1/jobs", json=spec).json()
        found = api.post(f"{URL}?after={before['id']}", json=spec).raise_for_status().json()
        assert found["warnings"][0] == f"It waits for job {before['id']} ({before['name']}) to end well"
        assert api.post(f"{URL}?after=none", json=spec).status_code == 422
        api.post(f"/api/v1/jobs/{before['id']}/cancel").raise_for_status()
        refused = api.post(f"{URL}?after={before['id']}", json=spec)
        assert refused.status_code == 422
        assert "ended badly already" in refused.json()["detail"]
        assert api.post(f"{URL}?after={before['id']}&after_any=true", json=spec).status_code == 200


class TestPlacement:
    def test_it_is_that_of_the_most_common_kind_of_node_that_fits(
        self, api: TestClient, app: Application, spec: Json
    ) -> None:
        know(app, node("small", cores=1), node("big1"), node("big2"), node("odd", cores=16))
        found = preview(api, spec | {"placement": {"ranks_per_node": 2, "cpus_per_rank": 8}})
        placement = found["placement"]
        assert placement["nodes"] == ["big1", "big2"]
        assert placement["topology"]["name"] == "big1"
        assert [one["local_rank"] for one in placement["placement"]["ranks"]] == [0, 1]
        assert len(placement["granted"]) == len(placement["topology"]["cores"]) == 16
        assert "--cpus-per-task=8" in placement["srun"]
        assert any("2 kinds of nodes" in said for said in found["warnings"])

    def test_cpus_that_a_node_keeps_for_itself_are_not_planned_with(
        self, api: TestClient, app: Application, spec: Json
    ) -> None:
        know(app, node("node1", cores=2, cpus=3))
        found = preview(api, spec | {"resources": {"exclusive": True}})
        used = {cpu for rank in found["placement"]["placement"]["ranks"] for cpu in rank["compute"]}
        assert len(found["placement"]["granted"]) == 3
        assert used <= set(found["placement"]["granted"])
        assert any("3 of its 4 CPUs" in said for said in found["warnings"])

    def test_what_cannot_be_planned_is_said_and_the_rest_is_there(
        self, api: TestClient, app: Application, spec: Json
    ) -> None:
        know(app, node("node1", cores=1))
        found = preview(api, spec | {"placement": {"ranks_per_node": 1, "cpus_per_rank": 2, "loader_cpus": 5}})
        assert found["placement"] is None
        assert any("No placement can be planned on node1" in said for said in found["warnings"])
        assert found["script"].startswith("#!/bin/bash")

    def test_without_a_word_of_any_node_there_is_none(self, api: TestClient, app: Application, spec: Json) -> None:
        know(app)
        found = preview(api, spec)
        assert found["placement"] is None
        assert any("No node of the partition is known" in said for said in found["warnings"])


class TestSlurmsOpinion:
    def test_a_refusal_is_in_slurms_own_words(self, api: TestClient, slurm: Slurm, spec: Json) -> None:
        slurm.refuses = "allocation failure: Requested node configuration is not available"
        found = preview(api, spec)
        assert (found["slurm"]["opinion"], found["slurm"]["message"]) == ("refused", slurm.refuses)
        assert found["slurm"]["asked_at"] is not None

    def test_while_slurm_is_away_all_else_is_answered(self, api: TestClient, slurm: Slurm, spec: Json) -> None:
        slurm.away = True
        found = preview(api, spec)
        assert found["slurm"]["opinion"] == "no answer"
        assert "connection refused" in found["slurm"]["message"]
        assert found["slurm"]["message"].startswith("Slurm does not answer: ")
        assert found["script"].startswith("#!/bin/bash")
        assert found["placement"] is not None

    def test_no_preview_waits_long_for_a_slurm_that_says_nothing_and_none_asks_it_twice(
        self, api: TestClient, app: Application, slurm: Slurm, spec: Json
    ) -> None:
        app.forecasts.patience = 0.05
        slurm.answers = threading.Event()
        for _ in range(2):
            told = preview(api, spec)["slurm"]
            assert (told["opinion"], told["message"]) == ("no answer", "Slurm has not answered within 0.05 s")
        other = preview(api, spec | {"name": "other"})["slurm"]
        assert (other["opinion"], "another script" in other["message"]) == ("not asked", True)
        assert slurm.asked == 1
        app.forecasts.patience = 60
        slurm.answers.set()
        assert preview(api, spec)["slurm"]["opinion"] == "would start"
        assert slurm.asked == 1

    def test_the_same_script_is_asked_about_once(self, api: TestClient, slurm: Slurm, spec: Json) -> None:
        first, second = preview(api, spec), preview(api, spec)
        assert first["slurm"] == second["slurm"]
        assert slurm.asked == 1
        preview(api, spec | {"name": "other"})
        assert slurm.asked == 2

    def test_slurm_is_not_asked_again_so_soon_and_when_is_said(
        self, api: TestClient, app: Application, slurm: Slurm, spec: Json
    ) -> None:
        app.forecasts.gap = 60
        assert preview(api, spec)["slurm"]["opinion"] == "would start"
        told = preview(api, spec | {"name": "other"})["slurm"]
        assert told["opinion"] == "not asked"
        assert 0 < told["ask_again_s"] <= 60
        assert slurm.asked == 1
        assert preview(api, spec)["slurm"]["opinion"] == "would start"


class TestForecasts:
    """The rule itself, with every caller at once."""

    def test_however_many_ask_two_questions_are_a_gap_apart(self, tmp_path: Path) -> None:
        client, forecasts = Slurm(tmp_path / "local"), Forecasts(gap=0.2, patience=60)
        told: list[Answer | NoAnswer] = []

        def ask(number: int) -> None:
            turn = 0
            while client.asked < 4:
                turn += 1
                told.append(forecasts.of(client, f"#!/bin/bash\n# {number} {turn}\n", "x"))
                time.sleep(0.01)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        asked = sorted({found.asked for found in told if isinstance(found, Answer)})
        assert len(asked) == client.asked >= 4
        assert all(later - earlier > 0.19 for earlier, later in pairwise(asked))
        assert all(0 < found.seconds <= 0.2 for found in told if isinstance(found, NoAnswer))

    def test_an_answer_is_not_given_for_ever(self, tmp_path: Path) -> None:
        client, forecasts = Slurm(tmp_path / "local"), Forecasts(gap=0.0, keeps=0.0)
        for _ in range(2):
            assert isinstance(forecasts.of(client, "#!/bin/bash\n", "x"), Answer)
        assert client.asked == 2
