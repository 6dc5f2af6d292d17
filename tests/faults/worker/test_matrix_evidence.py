"""The kill matrix's verdict: each thing that can be wrong is said, and nothing of a job that went on as it should."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from faults.worker.evidence import Found, Row, Step, Wanted, resumed, row

TOTAL = 6
REFERENCE = {(rank, step): float(rank + 1 / step).hex() for rank in (0, 1) for step in range(1, TOTAL + 3)}


def steps(attempt: int, first: int, last: int) -> list[Step]:
    """What both ranks made in one attempt."""
    return [Step(attempt, rank, step, REFERENCE[rank, step]) for step in range(first, last + 1) for rank in (0, 1)]


# Saved at 2 and 4, ended behind 5, went on from 4.
TRAINED = [*steps(1, 1, 5), *steps(2, 5, 6)]
WENT_ON = Found(
    slurm_state="COMPLETED", phase="ended well", state="COMPLETED", reason="", attempts=2, total=TOTAL,
    trained=TRAINED, recorded=TRAINED, dropped={}, torn=[], saved=2, checkpoints={1: 4, 2: 6}, unreadable=[], left=[],
)  # fmt: skip
WANTED = Wanted("COMPLETED", 2)


def judged(wanted: Wanted = WANTED, **changes: Any) -> Row:
    """The verdict on a job that went on, with these changes."""
    return row("a", "a fault", wanted, replace(WENT_ON, **changes), REFERENCE)


def test_a_job_that_went_on_as_it_should_holds_and_is_told() -> None:
    found = judged()
    assert found.findings == ()
    assert found.holds
    assert found.outcome == "COMPLETED, ended well, 2 attempts"
    assert found.losses == "14 of 14 equal"
    assert found.checkpoints == "step 2 at the fault, went on from 4"
    assert (found.spool, found.left) == ("complete", "nothing")


def test_a_job_that_ended_badly_with_its_reason_holds_and_shows_by_hand_that_it_would_go_on() -> None:
    changes = {"slurm_state": "FAILED", "state": "FAILED", "phase": "ended badly", "reason": "rank 1 was killed"}
    found = judged(Wanted("FAILED", 1, "rank 1"), again=True, **changes)
    assert found.findings == ()
    assert found.outcome == "FAILED, ended badly, 1 attempt: rank 1 was killed"
    assert found.checkpoints.endswith("went on from 4 (requeued by hand)")


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"slurm_state": "FAILED"}, "Slurm says FAILED, not COMPLETED"),
        ({"state": "NODE_FAIL"}, "the service says NODE_FAIL where Slurm says COMPLETED"),
        ({"phase": "unknown"}, "its phase is unknown, not ended well"),
        ({"reason": "it failed"}, "it has a reason, 'it failed'"),
        ({"attempts": 3}, "it made 3 attempts, not 2"),
        ({"recorded": [*TRAINED[:-1], replace(TRAINED[-1], loss="0x0p+0")]}, "1 of the spool's losses differ"),
        ({"trained": [*TRAINED[:-1], replace(TRAINED[-1], loss="0x0p+0")]}, "1 of the training's losses differ"),
        ({"trained": TRAINED[:-1]}, "rank 1 never made 1 of 6 steps; first: 6"),
        ({"unreadable": ["x is torn"]}, "a checkpoint cannot be read: x is torn"),
        ({"saved": 0}, "nothing was saved before the fault"),
        ({"saved": 5}, "attempt 2 went on from step 4, though step 5 had been saved"),
        ({"checkpoints": {1: 5, 2: 6}}, "attempt 2 went on from step 4, though step 5 had been saved"),
        ({"recorded": TRAINED[:-1]}, "of rank 1, attempt 2, 1 steps are not in the spool, which says 0 dropped"),
        ({"recorded": TRAINED[:-1], "dropped": {(2, 1): 1}}, "of rank 1, attempt 2, 1 steps are not in the spool, tho"),
        ({"torn": ["h1.jsonl has '{'"]}, "the spool: h1.jsonl has '{'"),
        ({"left": ["12: python"]}, "it left 12: python"),
        ({"notes": ("it stood still",)}, "it stood still"),
    ],
)
def test_everything_that_went_wrong_is_said(changes: dict[str, Any], finding: str) -> None:
    found = judged(**changes)
    assert not found.holds
    assert any(said.startswith(finding) for said in found.findings), found.findings


def test_a_reason_has_to_be_the_fault_s() -> None:
    found = judged(Wanted("COMPLETED", 2, "SIGKILL"), reason="it failed")
    assert found.findings == ("its reason is 'it failed', in which 'SIGKILL' is not",)


def test_records_may_be_missing_where_the_fault_takes_them_and_as_many_are_said_to_be() -> None:
    wanted = replace(WANTED, dropped=True)
    assert judged(wanted, recorded=TRAINED[:-1], dropped={(2, 1): 1}).holds
    assert judged(wanted, recorded=TRAINED[:-1], dropped={(2, 1): 1}).spool == "1 steps missing, 1 said to be"
    assert not judged(wanted, recorded=TRAINED[:-2], dropped={(2, 1): 2}).holds, "another rank's do not count"


def test_where_an_attempt_went_on_is_its_first_step_less_one() -> None:
    assert resumed(TRAINED) == {1: 0, 2: 4}
