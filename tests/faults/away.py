"""slurmctld is down for a while: how fast submissions are answered meanwhile, and what the service says of its jobs."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from faults.run import Run, Say, brought_up
from faults.schedule import Form

AGAIN = 0.1
"""Seconds from one submission's answer to the next: as several people do who know nothing of the outage."""
RUNNING, WAITING = 3, 6
"""Jobs of either kind before the outage: those run and those wait throughout it."""
P95 = 0.150
"""Seconds, of a submission's answer: so that nobody who submits notices the outage."""
PATIENCE = 900.0
"""Seconds for anything that has to come: hundreds of trainings, at the end."""
MAY_CHANGE = frozenset({"stale_since", "observed_at", "last"})
"""What may differ in a job before and during the outage: its staleness, when Slurm last spoke (perhaps after the look
before), and the figures that its ranks send."""


@dataclass(frozen=True)
class Away:
    """The figures of an outage. Times in seconds."""

    seconds: float
    submissions: int
    median: float
    p95: float
    longest: float
    refused: int
    """Submissions that were not answered with 201."""
    changed: list[str]
    """Of the jobs there were before: what changed but their staleness, in words."""
    stale: int
    """Of these jobs, how many showed at the end of the outage that they are stale."""
    before: int
    sent_on: int
    """Of those that were submitted meanwhile, how many trained once slurmctld was back."""
    trained_twice: int


def measure(form: Form, say: Say, *, client: str = "command") -> Away:
    """One outage by SIGTERM, as long as ``form.measured`` submissions take."""
    with brought_up(form, 0, say, keep=False, client=client) as run, _api(run) as api:
        script = Path(__file__).with_name("training.py")

        def submit(number: int, seconds: float, **resources: str) -> httpx.Response:
            return api.post(
                "/jobs",
                json={
                    "name": f"away{number}",
                    "training": {"script": str(script), "arguments": [str(run.ledger), str(number), str(seconds)]},
                    "resources": {"partition": "crowd", "time": "0:30:00"} | resources,
                },
            )

        # So long that none ends while nobody can be asked: a running job's own end would be news of the run's files.
        known = [submit(n, 600).raise_for_status().json()["id"] for n in range(RUNNING)]
        known += [
            submit(n, 0, begin="now+2hours").raise_for_status().json()["id"] for n in range(RUNNING, RUNNING + WAITING)
        ]
        wanted = Counter({"running": RUNNING, "waiting": WAITING})
        _wait("the jobs to run and to wait", lambda: Counter(_job(api, one)["phase"] for one in known) == wanted)
        _wait("a training of each that runs", lambda: run.ledger.read_text().count("start") == RUNNING)
        before = _settled(api, known)
        run.controller.terminate()
        began = time.monotonic()
        seconds, refused = [], 0
        for number in range(form.measured):
            asked = time.monotonic()
            answer = submit(100 + number, 0)
            seconds.append(time.monotonic() - asked)
            refused += answer.status_code != 201
            say(number / form.measured, "away")
            time.sleep(AGAIN)
        _wait("the jobs to be stale", lambda: all(_job(api, one)["stale_since"] for one in known))
        during = {one: _job(api, one) for one in known}
        lasted = time.monotonic() - began
        run.controller.start()
        _wait("all others to train", lambda: run.ledger.read_text().count("end ") == form.measured - refused)
        for one in known:
            api.post(f"/jobs/{one}/cancel").raise_for_status()
        _wait("the queue to be empty", lambda: not run.controller.queued())
        ends = Counter(line.split()[1] for line in run.ledger.read_text().splitlines() if line.startswith("start "))
        return Away(
            seconds=lasted,
            submissions=form.measured,
            median=statistics.median(seconds),
            p95=statistics.quantiles(seconds, n=20, method="inclusive")[-1],
            longest=max(seconds),
            refused=refused,
            changed=_differences(before, during),
            stale=sum(job["stale_since"] is not None for job in during.values()),
            before=len(known),
            sent_on=sum(int(number) >= 100 for number in ends),
            trained_twice=sum(times > 1 for times in ends.values()),
        )


def findings(away: Away) -> list[str]:
    """What is not as it should be."""
    checks = [
        (away.p95 < P95, f"a submission took {away.p95 * 1000:.0f} ms (p95) while slurmctld was down"),
        (away.refused == 0, f"{away.refused} submissions were refused while slurmctld was down"),
        (not away.changed, "; ".join(away.changed)),
        (away.stale == away.before, f"{away.stale} of {away.before} jobs showed that they are stale"),
        (away.sent_on == away.submissions, f"{away.sent_on} of {away.submissions} trained afterwards"),
        (away.trained_twice == 0, f"{away.trained_twice} trained twice"),
    ]
    return [words for holds, words in checks if not holds]


def _api(run: Run) -> httpx.Client:
    headers = {"Authorization": f"Bearer {run.service.token}"}
    return httpx.Client(base_url=f"{run.service.url}/api/v1", headers=headers, timeout=60)


def _job(api: httpx.Client, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/jobs/{job_id}").raise_for_status().json()
    return found


def _settled(api: httpx.Client, ids: list[str]) -> dict[str, dict[str, Any]]:
    """The jobs, once two looks some seconds apart say the same but when Slurm last said so."""
    last: dict[str, dict[str, Any]] = {}
    moving: list[str] = []
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = {one: _job(api, one) for one in ids}
        moving = _differences(last, found) if last else ["this is the first look"]
        if not moving:
            return found
        last = found
        time.sleep(5)
    raise TimeoutError(f"the jobs did not come to rest: {'; '.join(moving)}")


def _differences(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> list[str]:
    return [
        f"{one}: {key} was {job[key]!r} and became {after[one][key]!r}"
        for one, job in before.items()
        for key in job
        if key not in MAY_CHANGE and job[key] != after[one][key]
    ]


def _wait(what: str, look: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            if look():
                return
        time.sleep(0.2)
    raise TimeoutError(f"waited {PATIENCE:.0f} s for {what}")
