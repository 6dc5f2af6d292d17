"""Schemathesis against a running service: every operation of the OpenAPI document, with what it allows and what not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]

HOOKS = Path(__file__).with_name("fuzzing_hooks.py")


@dataclass(frozen=True)
class Found:
    """What a run of Schemathesis came to."""

    calls: Counter[str]
    """Per operation, such as ``POST /api/v1/jobs``."""
    statuses: Counter[int]
    printed: str
    failed: bool


def table(calls: Counter[str], statuses: Counter[int]) -> str:
    """Calls per operation and per status, as text."""
    rows = [f"{count:7d}  {name}" for name, count in sorted(calls.items())]
    return "\n".join([*rows, "", *(f"{count:7d}  {status}" for status, count in sorted(statuses.items())),
                      "", f"{sum(calls.values()):7d}  calls"])  # fmt: skip


def fuzz(
    document: Json, url: str, token: str, known: dict[str, list[str]], folder: Path, *, examples: int, seed: int,
    phases: str = "examples,coverage,fuzzing,stateful", only: str | None = None, without: tuple[str, ...] = (),
) -> Found:  # fmt: skip
    """Calls every operation of ``document``, at most ``examples`` random calls each besides the systematic ones.

    ``known``: per parameter (``path.id``) values that the service has; half of the calls take one of them.
    ``only``: one operation's id; ``without``: those to leave out. The files are left in ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "schemathesis.toml").write_text(_config(url, token, known))
    events = folder / "events.ndjson"
    events.unlink(missing_ok=True)
    chosen = ["--include-operation-id", only] if only else []
    chosen += [word for name in without for word in ("--exclude-operation-id", name)]
    done = subprocess.run(
        [Path(sys.executable).with_name("schemathesis"), "--config-file", folder / "schemathesis.toml", "--no-color",
         "run", folder / "openapi.json", "--url", url, "--max-examples", str(examples), "--seed", str(seed),
         "--phases", phases, "--report", "ndjson", "--report-ndjson-path", events, *chosen],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    calls, statuses = _counted(events)
    printed = done.stdout + done.stderr
    (folder / "printed.txt").write_text(printed)
    return Found(calls, statuses, printed, done.returncode != 0)


def _config(url: str, token: str, known: dict[str, list[str]]) -> str:
    lines = [
        f"base-url = {json.dumps(url)}",
        "request-timeout = 30",
        "max-stream-events = 1",
        "continue-on-failure = true",
        f"hooks = {json.dumps(str(HOOKS))}",
        "[headers]",
        f"Authorization = {json.dumps('Bearer ' + token)}",
        "[generation]",
        'database = "none"',
        # What the schema cannot say (no such partition, no such folder, no gzip in there) is refused as well.
        "[checks.positive_data_acceptance]",
        'expected-statuses = ["2xx", "3xx", "400", "401", "403", "404", "409", "422", "429"]',
    ]
    for number, values in enumerate(known.values()):
        lines += [f"[dictionaries.known{number}]", f"values = {json.dumps(values)}"]
    lines += ["[parameters]"]
    lines += [
        f'{json.dumps(name)} = {{ dictionary = "known{number}", probability = 0.5 }}'
        for number, name in enumerate(known)
    ]
    # Until a job changes it says nothing, and goes on for ever: what it has said after so many seconds is looked at.
    lines += ["[[operations]]", 'include-operation-id = "stream_events"', "request-timeout = 2"]
    return "\n".join(lines) + "\n"


def _counted(events: Path) -> tuple[Counter[str], Counter[int]]:
    calls: Counter[str] = Counter()
    statuses: Counter[int] = Counter()
    with events.open(encoding="utf-8") as lines:
        scenarios = [json.loads(line)["ScenarioFinished"] for line in lines if line.startswith('{"ScenarioFinished"')]
    for scenario in scenarios:
        recorder = scenario["recorder"]
        for case_id, interaction in recorder.get("interactions", {}).items():
            case = recorder["cases"][case_id]["value"]
            calls[f"{case['method']} {case['path']}"] += 1
            answer = interaction["response"]
            statuses[0 if answer is None else answer["status_code"]] += 1
    return calls, statuses
