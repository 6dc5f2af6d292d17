"""Figures for people, and what ``ls`` and ``show`` make of a job in the width that there is."""

from __future__ import annotations

import re
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lockstep_service.jobs.schemas import EXAMPLE_ID, EXAMPLE_SPEC, EXAMPLE_SUMMARY
from lockstep_slurm.cli import step_time
from lockstep_slurm.cli.output import number
from support import answers
from support.answers import Answer
from support.lockstep import Lockstep, wait_for


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (9999.6, 4, "10,000"),  # before: 1e+04
        (-9999.6, 4, "-10,000"),
        (9999.4, 4, "9999"),
        (12345.6, 4, "12,346"),
        (999.7, 4, "999.7"),
        (999.7, 3, "1,000"),  # before: 1e+03
        (999.4, 3, "999"),
        (0.01234567, 4, "0.01235"),
        (1234567, 4, "1,234,567"),
        (0.0, 4, "0"),
        (float("nan"), 4, "nan"),
        (None, 4, "-"),
    ],
)
def test_a_figure_is_rounded_before_its_form_is_chosen(value: float | None, digits: int, shown: str) -> None:
    assert number(value, digits) == shown


def test_a_step_of_nearly_a_second_is_a_thousand_milliseconds() -> None:
    parts = [{"name": "forward", "seconds": 0.9997}]
    spent = {
        "median": {"rank": 0, "seconds": 0.9997, "parts": parts}, "told": 1,
        "sentence": None, "untold": None, "exchange": None,
    }  # fmt: skip
    assert [re.findall(r"\S+ ms", line) for line in step_time.lines(spent)] == [["1,000 ms"], ["1,000 ms"]]


def test_an_attempt_that_is_over_is_not_said_to_run(tmp_path: Path) -> None:
    over: dict[str, Any] = EXAMPLE_SUMMARY["attempts"][0]
    attempts = [
        over,  # a later one exists
        over | {"number": 2, "exit_code": 3, "message": "it said no"},
        over | {"number": 3, "exit_signal": 9},
        over | {"number": 4},
    ]
    job = EXAMPLE_SUMMARY | {"spec": EXAMPLE_SPEC, "global_batch": None, "verdicts": None, "attempts": attempts}
    lost = job | {"attempts": [over | {"ended_at": "2026-11-23T07:00:05.000Z"}]}

    def answer(path: str, n: int) -> Answer:
        if path.endswith("/timeline"):
            return answers.of({"items": [], "next_cursor": None})
        if path.endswith("/metrics"):
            return answers.of({"step_time": None, "data": None})
        return answers.of(job if n == 0 else lost)

    with answers.serving(tmp_path, answer) as (_, ours):
        shown, after = (
            [line for line in ours.run("show", EXAMPLE_ID).stdout.splitlines() if line.startswith("attempt")]
            for _ in range(2)
        )
    # Before: of the first one, and of the one that ended without a record, "running".
    assert shown == [
        f"attempt {number}: Slurm job 12, restart 0, on node1, node2: {end}"
        for number, end in ((1, "no exit record"), (2, "exit 3 it said no"), (3, "signal 9"), (4, "running"))
    ]
    assert after == ["attempt 1: Slurm job 12, restart 0, on node1, node2: no exit record"]


LONG = "small-net-on-two-sockets-seed"
REPORTS = """\
import lockstep
for step in range(1, 4):
    lockstep.report(step=step, loss=0.5, samples_per_s=9999.6)
"""


def plain(drawn: str) -> str:
    """What a terminal shows, without its colours."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn).replace("\r\n", "\n")


def test_a_narrow_terminal_shows_names_and_figures_whole(tmp_path: Path) -> None:
    ours = Lockstep(tmp_path, None)
    ours.start("local")
    try:
        (tmp_path / "reports.py").write_text(REPORTS)
        (tmp_path / "job.toml").write_text('[training]\nscript = "reports.py"\n')
        each = ours.json("submit", tmp_path / "job.toml", "--each", f"name={LONG}-a,{LONG}-b")["items"]
        for job in each:
            wait_for("its end and its throughput", partial(_told, ours, job["id"]), 120)
        run_dir = ours.job(each[0]["id"])["run_dir"]
        piped = ours.run("ls").stdout
        listed = {width: plain(ours.run_in_terminal("ls", width=width)[1]) for width in (80, 120, 160)}
        code, shown = ours.run_in_terminal("show", each[0]["id"][-12:], width=80)
    finally:
        ours.kill(signal.SIGTERM)
    for width, text in listed.items():
        # Before: at 80 columns two or three characters of each, at 120 the same ones of both names, and an ellipsis.
        assert "…" not in text, (width, text)
        assert max(map(len, text.splitlines())) <= width
        for job in each:
            line = next(line for line in text.splitlines() if job["id"][-12:] in line)
            assert {job["name"], "10,000"} <= set(line.split()), (width, line)
    assert each[0]["id"] in listed[160]
    assert piped.split("\n")[0].split() == [
        "JOB", "NAME", "PHASE", "STATE", "NODES", "SAMPLES/S", "LOSS", "ACCURACY", "AGE"
    ]  # fmt: skip
    assert all(job["id"] in piped for job in each)
    assert code == 0
    assert "…" not in shown
    assert run_dir in "".join(line.strip() for line in plain(shown).splitlines())


def _told(ours: Lockstep, job_id: str) -> bool:
    job = ours.job(job_id)
    assert job["phase"] != "ended badly", job["reason"]
    return job["phase"] == "ended well" and job["last"]["samples_per_s"] is not None
