"""``watch``, ``submit --watch`` and ``logs -f`` while the service is away: the job's end alone ends them."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lockstep_service.jobs.schemas import EXAMPLE_ID, EXAMPLE_SUMMARY
from lockstep_slurm.cli import stream
from support import answers
from support.answers import Answer
from support.lockstep import Lockstep, wait_for

RUNNING: dict[str, Any] = EXAMPLE_SUMMARY
ENDED = RUNNING | {"phase": "ended well", "state": "COMPLETED"}
EVENTS = f"/jobs/{EXAMPLE_ID}/events"
BUSY = answers.problem(503, "The database does not answer.", Retry_After="3")


def test_a_proxys_and_the_services_own_503_are_waited_for_as_long_as_they_ask(tmp_path: Path) -> None:
    def answer(path: str, n: int) -> Answer:
        if path == EVENTS:
            in_turn = [answers.stream(("job", RUNNING)), answers.BAD_GATEWAY, BUSY, answers.stream(("end", ENDED))]
            return in_turn[min(n, 3)]
        return answers.of(ENDED)

    with answers.serving(tmp_path, answer) as (server, ours):
        done = ours.run("watch", EXAMPLE_ID)
    # Before: the 502 was the job's bad end, code 1.
    assert done.returncode == 0, done.stderr
    assert "ended well" in done.stdout
    assert "HTTP 502 came from" in done.stderr
    asked = server.of(EVENTS)
    assert len(asked) == 4
    # The pause alone would be at most two seconds there.
    assert asked[3].time - asked[2].time >= 3


def test_a_service_that_is_away_right_after_the_end_has_told_of_it_all_the_same(tmp_path: Path) -> None:
    def answer(path: str, _: int) -> Answer:
        return answers.stream(("end", ENDED)) if path == EVENTS else BUSY

    with answers.serving(tmp_path, answer) as (_, ours):
        done = ours.run("watch", EXAMPLE_ID)
    # Before: 1, as if the job had ended badly.
    assert (done.returncode, f"digits {EXAMPLE_ID} ended well" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize(
    "instead", [answers.HTML, answers.stream(), answers.Answer(302, "text/html", "", (("Location", "/sign-in"),))]
)
def test_what_tells_of_nothing_is_not_asked_again_and_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], instead: Answer
) -> None:
    def answer(path: str, n: int) -> Answer:
        if path != EVENTS or n >= 100:  # who does not pause gets here soon, in place of never
            return answers.stream(("end", ENDED)) if path == EVENTS else answers.of(ENDED)
        return answers.stream(("job", RUNNING)) if n == 0 else instead

    monkeypatch.setattr(stream, "PATIENCE_SECONDS", 2.0)
    with answers.serving(tmp_path, answer) as (server, ours):
        code = answers.command_here(ours, monkeypatch, "watch", EXAMPLE_ID)
    said = capsys.readouterr().err
    # Before: a hundred requests within a second, with a line each.
    assert code == 3, said
    assert len(server.of(EVENTS)) <= 6
    assert said.count("(waiting for it)") == 1
    assert "The job is not touched by that" in said


def test_an_address_that_never_was_the_services_is_said_at_once(tmp_path: Path) -> None:
    with answers.serving(tmp_path, lambda *_: answers.HTML) as (server, ours):
        done = ours.run("watch", EXAMPLE_ID, timeout=60)
    assert (done.returncode, len(server.asked)) == (3, 1), done.stderr


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_cannot_be_answered_just_now_is_nothing_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with answers.serving(tmp_path, lambda *_: answers.problem(status, "Not just now.")) as (_, ours):
        # Before: 1, what was asked could not be done.
        assert answers.command_here(ours, monkeypatch, "show", EXAMPLE_ID) == 3


SPEAKS = """\
import signal, time
from pathlib import Path
signal.alarm(240)  # nobody cancels it where the test fails
for number in range(3):
    while not Path(__file__).with_name(f"say{number}").exists():
        time.sleep(0.05)
    print(f"said {number}", flush=True)
signal.pause()
"""


@contextmanager
def following(ours: Lockstep, job: str, out: Path, err: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``lockstep logs -f`` of this job."""
    with out.open("wb") as written, err.open("wb") as said:
        process = subprocess.Popen(
            ["lockstep", "logs", "-f", job], env=ours.environment, cwd=ours.home, stdout=written, stderr=said
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_followed_log_goes_on_behind_a_service_that_stops_or_is_killed(tmp_path: Path) -> None:
    ours = Lockstep(tmp_path, None)
    ours.start("local")
    out, err = tmp_path / "out", tmp_path / "err"
    try:
        (tmp_path / "speaks.py").write_text(SPEAKS)
        (tmp_path / "job.toml").write_text('[training]\nscript = "speaks.py"\n')
        job = ours.json("submit", tmp_path / "job.toml")["id"]
        with following(ours, job, out, err) as process:
            for number, how in enumerate((signal.SIGTERM, signal.SIGKILL, None)):
                (tmp_path / f"say{number}").touch()

                def told(number: int = number) -> bool:
                    # Before: it had ended with 0 behind SIGTERM, and with a traceback behind SIGKILL.
                    assert process.poll() is None, err.read_text()
                    return f"said {number}" in out.read_text()

                wait_for(f"what the job says as its {number}", told)
                if how is not None:
                    ours.kill(how)
                    ours.start("local")
            ours.run("cancel", job)
            assert process.wait(timeout=60) == 0
    finally:
        ours.kill(signal.SIGTERM)
    assert "Traceback" not in err.read_text()
    assert [out.read_text().count(f"said {number}") for number in range(3)] == [1, 1, 1]
