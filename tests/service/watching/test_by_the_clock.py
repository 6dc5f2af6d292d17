"""The dispatch loops over minutes and hours, by a clock that the test moves: how often Slurm is asked; an outage."""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from lockstep_service.boundary import Application
from lockstep_service.dispatch.brakes import EVERYTHING
from lockstep_service.jobs import repository
from lockstep_service.settings import Settings
from lockstep_service.wire import now
from lockstep_slurm.client.protocol import SlurmJob, SlurmNode
from support.clock import Clock

from .conftest import Answers, Json, Turns, dispatched, row, run_of

URL = "/api/v1/jobs"
QUESTIONS = {"queue", "records", "find", "nodes", "partitions", "ping"}
MINUTES = 60
NODE = SlurmNode("node1", "IDLE", cpus=64)


@pytest.fixture
def answers() -> Answers:
    return Answers(nodes=[NODE])


@pytest.fixture
def settings(database_url: str, lockstep_home: Path) -> Settings:
    return Settings(home=lockstep_home, database_url=database_url, dispatch=False, submit_rate=0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def turns(app: Application) -> Turns:
    return Turns(app)


def asked_in(turns: Turns, answers: Answers) -> list[tuple[str, list[str]]]:
    """The loops that turn now, and what each asks Slurm."""
    found, before = [], len(answers.asked)
    for name in turns.take():
        found.append((name, [one for one in answers.asked[before:] if one in QUESTIONS]))
        before = len(answers.asked)
    return found


def test_no_turn_asks_slurm_more_than_two_questions(
    app: Application, api: TestClient, answers: Answers, clock: Clock, turns: Turns, spec: Json
) -> None:
    waits, _gone, fails, goes = dispatched(app, api, spec, 4)
    hand = run_of(app, fails)
    hand.claim(slurm_job_id=fails.id)
    running = replace(fails, state="RUNNING", reason=None, nodes=("node1",))
    answers.queue = [waits, running, goes]  # of the second neither queue nor records know anything
    asked = []
    for second in range(0, 140, 2):
        if second == 80:
            # One is cancelled that was dispatched after the last look at the queue, which another has left.
            answers.queue = [one for one in answers.queue if one.id != goes.id]
            with app.database.writing() as session:
                found = repository.lock(session, row(app, waits).id)
                assert found is not None
                found.dispatched_at = now()
            api.post(f"{URL}/{row(app, waits).id}/cancel").raise_for_status()
        if second == 100:  # not when nodes are asked for anyway
            answers.tell(fails, state="NODE_FAIL")
            answers.nodes = [replace(NODE, state="DOWN", reason="Not responding")]
        asked += asked_in(turns, answers)
        clock.move(2)
    assert {name for name, _ in asked} == {"submit", "reconcile", "ingest", "nodes"}
    assert [(name, questions) for name, questions in asked if len(questions) > 2] == []
    counts = Counter(one for _, questions in asked for one in questions)
    assert counts["queue"] >= 140 / app.settings.reconcile_limit_seconds
    assert counts["records"] > 1
    # Once a minute, and when the job has ended by a node.
    assert 2 <= counts["nodes"] == counts["partitions"] <= 4
    assert (row(app, waits).state, row(app, goes).phase) == ("CANCELLED", "unknown")
    assert "Slurm says node1 is DOWN (Not responding)" in str(row(app, fails).reason)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # which has no part in it
def test_the_log_says_now_and_then_that_slurm_is_away_and_once_that_it_is_back(
    app: Application,
    api: TestClient,
    answers: Answers,
    clock: Clock,
    turns: Turns,
    spec: Json,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "lockstep_service")

    def pass_by(minutes: int) -> list[str]:
        """Lets time pass; what the log says meanwhile, without which job it is about."""
        caplog.clear()
        for _ in range(minutes * 12):
            list(turns.take())
            clock.move(5)
        return [record.getMessage() for record in caplog.records if "request" not in record.name]

    waits, goes, lost, lost_later = dispatched(app, api, spec, 4)
    # Two are in neither queue nor records, since different moments: they are looked up by turns, seldom.
    answers.queue = [waits, goes, lost_later]
    assert pass_by(40) == []
    answers.queue = [waits, goes]
    assert pass_by(4) == []
    assert [row(app, one).phase for one in (lost, lost_later)] == ["unknown", "unknown"]
    answers.silent = True
    job = row(app, goes).id
    api.post(f"{URL}/{job}/cancel").raise_for_status()
    away = pass_by(25)
    for what in (
        "the cluster's nodes could not be asked for",
        "Slurm could not be asked about 4 jobs",
        "1 jobs could not be cancelled yet",
    ):
        first, *later = (line.removeprefix(f"{what}: connection timed out") for line in away if line.startswith(what))
        assert first == ""
        assert [re.sub(r"\d min", "_ min", line) for line in later] == [
            " (it has failed for 1_ min)",
            " (it has failed for 2_ min)",
        ]
    assert len(away) == 9
    answers.silent = False
    back = pass_by(5)
    assert [line.partition(", after ")[0] for line in sorted(back)] == [
        "Slurm tells of its jobs again",
        "the cluster tells its nodes again",
    ]
    # Behind a long silence both are due at once, behind a short one they are not.
    answers.silent = True
    pass_by(1)
    answers.silent = False
    assert "Slurm tells of its jobs again" in [line.partition(", after ")[0] for line in pass_by(12)]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # what is asked of it is asked above as well
def test_an_hour_without_slurm_changes_nothing_but_that_it_is_stale_and_all_is_dispatched_once_afterwards(
    app: Application, api: TestClient, answers: Answers, clock: Clock, turns: Turns, spec: Json
) -> None:
    def doc(job: SlurmJob) -> Json:
        found: Json = api.get(f"{URL}/{job.name.rpartition('.')[2]}").raise_for_status().json()
        return {key: value for key, value in found.items() if key not in {"stale_since", "timeline"}}

    waits, lives, ends, recorded, vanishes = before = dispatched(app, api, spec, 5)
    hands = {job.id: run_of(app, job) for job in before[1:]}
    for number, hand in hands.items():
        hand.claim(slurm_job_id=number)
    hands[vanishes.id].claim(slurm_job_id=vanishes.id, pid=2**22 + 1)
    running = [replace(job, state="RUNNING", reason=None, nodes=("node1",)) for job in before[1:]]
    answers.queue = [waits, *running]
    for _ in range(5):
        list(turns.take())
        clock.move(2)
    known = [doc(job) for job in before]
    assert [one["phase"] for one in known] == ["waiting", *["running"] * 4]

    answers.silent, answers.late = True, 1
    accepted: list[str] = []
    for minute in range(MINUTES):
        if minute % 15 == 1:
            answer = api.post(f"{URL}/batch", json={"spec": spec, "changes": [{}] * 50})
            accepted += [one["id"] for one in answer.raise_for_status().json()["items"]]
        if minute == MINUTES // 2:
            hands[ends.id].end()
            hands[recorded.id].end()
        list(turns.take())
        clock.move(60)
        if minute % 15 == 14:
            assert [doc(job) for job in before] == known
            assert None not in {row(app, job).stale_since for job in before}
    assert len(accepted) == 200
    # It was tried with those that were under way together, and from then on with pings alone.
    assert answers.asked.count("submit") <= app.settings.submit_parallel
    assert app.outbox.brakes.is_on(EVERYTHING)
    listed = api.get(URL, params={"limit": 100}).json()["items"]
    assert {(one["phase"], one["slurm_job_id"]) for one in listed} == {("accepted", None)}
    assert all("Slurm does not answer" in one["reason"] for one in listed)

    # It forgot meanwhile what had ended, and of one there is no record either.
    late = [job for job in answers.queue if job.id > 1000]
    assert len(late) == 1
    answers.silent, answers.queue = False, [waits, running[0], *late]
    answers.records = [replace(recorded, state="COMPLETED", reason=None)]
    for _ in range(40):
        list(turns.take())
        clock.move(2)
    assert {job.id: row(app, job).phase for job in before} == {
        waits.id: "waiting", lives.id: "running", ends.id: "ended well", recorded.id: "ended well",
        vanishes.id: "unknown",
    }  # fmt: skip
    assert {row(app, job).stale_since for job in before} == {None}
    taken = {job.name.rpartition(".")[2]: job for job in answers.queue if job.id > 1000}
    assert len(answers.queue) == 2 + len(accepted)
    assert sorted(taken) == sorted(accepted)
    assert {job.reason for job in taken.values()} == {"Priority"}
    found = [(row(app, job), job.id) for job in taken.values()]
    assert {(one.phase, one.slurm_job_id == number) for one, number in found} == {("waiting", True)}
