"""``lockstep.DistributedOptimizer`` on real Horovod ranks: equal to Horovod's own, bit for bit, deferred or not.

One start of two ranks runs every case (``support.gradients.ranks``), another one of four ranks some; each test is one
case's outcome.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.job.identity import new_job_id
from lockstep_slurm.job.rundir import make_run_directory
from lockstep_slurm.job.spec import JobSpec
from lockstep_worker.slices import slice_of
from support.ranks import ROOT, Launched, base_environment

CASES = (
    "momentum", "adamw", "nadam", "radam", "adamax", "adadelta", "adagrad", "rmsprop", "rprop", "asgd", "lars", "lamb",
    "groups", "convolutions", "channels last", "attention", "autocast", "tied",
    "unused on one rank", "functional", "frozen", "frozen behind a forward pass", "accumulation", "passes",
    "horovod's arguments", "mixed dtypes", "mixed dtypes over tcp", "clipping", "clipping by hand", "loss scaling",
    "loss scaling, fused", "scheduler",
    "reading between steps", "delays", "zeroing", "retained", "one piece at a time", "all at once", "one piece", "gloo",
    "tcp", "tcp, small pieces", "five hundred steps while plans are tried",
    "unused everywhere", "a layer waits for itself alone", "a teacher waits for nothing",
    "one order", "a cut link", "unfreezing", "unfreezing on one rank", "unfreezing on one rank over tcp",
    "without a backward pass", "two optimizers", "copies are complete", "opaque code", "forks", "says what is wrong",
    "uses too early", "unknown optimizers", "hooks of a step", "further parameters", "many steps", "sleeps",
    "sleeps over tcp",
    "traced", "saved as torchscript", "other threads that change", "clipping what is scaled", "joining within a step",
    "closed over gloo",
    "resuming", "scripts", "transforms", "compiled code", "other threads", "failing updates", "state in groups",
    "zeroed in between", "evaluating while measured", "strange cpus", "groups that end", "isolation",
    "tuned", "tuning taken back", "drifting", "a layer freezes while plans are tried",
    "a slow rank is waited for", "a slow link is not a slow rank", "what has no room is not told",
)  # fmt: skip
FOUR = (
    "four ranks", "four ranks over tcp", "four ranks over gloo", "unfreezing on one rank", "many steps",
    "five hundred steps", "tuned", "tuning taken back",
)  # fmt: skip
pytestmark = pytest.mark.timeout(900)
"""Four ranks on two busy CPUs take 26 s on a quiet machine, and 180 s have been seen."""

Outcomes = dict[str, list[dict[str, Any]]]


def outcomes_of(folder: Path, ranks: int) -> tuple[Outcomes, Launched]:
    script = ROOT / "tests" / "support" / "gradients" / "ranks.py"
    spec = JobSpec.model_validate(
        {
            "training": {"script": str(script)},
            "environment": {"variables": {"PYTHONPATH": str(ROOT / "tests")}},
        }
    )
    run = make_run_directory(folder / "runs", new_job_id(), spec.model_dump_json(), "#!/bin/bash\n", by_hand=True)
    launched = Launched(run, ["--local-ranks", str(ranks)], base_environment())
    try:
        launched.wait(700)
    finally:
        if launched.process.poll() is None:
            launched.process.kill()
            launched.process.wait()
    found: Outcomes = {}
    for line in launched.text.splitlines():
        if (begins := line.find('{"case"')) >= 0:
            outcome = json.loads(line[begins:])
            found.setdefault(outcome["case"], []).append(outcome)
    return found, launched


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcomes, Launched]:
    return outcomes_of(tmp_path_factory.mktemp("two"), 2)


@pytest.fixture(scope="module")
def four_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcomes, Launched]:
    return outcomes_of(tmp_path_factory.mktemp("four"), 4)


def check(outcomes: Outcomes, launched: Launched, case: str, ranks: int) -> None:
    found = outcomes.get(case, [])
    for outcome in found:
        assert not outcome["wrong"], outcome["wrong"]
    assert sorted(outcome["rank"] for outcome in found) == list(range(ranks)), launched.text[-6000:]


@pytest.mark.parametrize("case", CASES)
def test_two_ranks(case: str, two_ranks: tuple[Outcomes, Launched]) -> None:
    check(*two_ranks, case, 2)


@pytest.mark.parametrize("case", FOUR)
def test_four_ranks(case: str, four_ranks: tuple[Outcomes, Launched]) -> None:
    check(*four_ranks, case, 4)


def test_every_case_is_told(two_ranks: tuple[Outcomes, Launched], four_ranks: tuple[Outcomes, Launched]) -> None:
    assert set(two_ranks[0]) == {*CASES, "ending"}
    assert set(four_ranks[0]) == {*FOUR, "ending"}


@pytest.mark.parametrize("ranks", [2, 4])
def test_an_update_on_its_way_is_done_at_shutdown_and_at_exit(
    ranks: int, two_ranks: tuple[Outcomes, Launched], four_ranks: tuple[Outcomes, Launched]
) -> None:
    outcomes, launched = two_ranks if ranks == 2 else four_ranks
    check(outcomes, launched, "ending", ranks)
    assert len({outcome["digest"] for outcome in outcomes["ending"]}) == 1
    assert launched.process.returncode == 0, launched.text[-3000:]
    assert "was not completed" not in launched.text


def test_the_run_says_what_is_not_deferred(two_ranks: tuple[Outcomes, Launched]) -> None:
    said = [line for line in two_ranks[1].text.splitlines() if "updates are not deferred" in line]
    assert any("max_grad_norm needs every gradient before any update" in line for line in said)
    assert any("Global is not known to update each parameter by its own gradient alone" in line for line in said)
    assert "lockstep: the exchange thread stays where it is, it cannot go to CPUs 4000" in two_ranks[1].text
    assert not any("1: lockstep" in line for line in said), "once for all ranks"


def test_the_tuning_is_recorded_once_for_all_ranks(two_ranks: tuple[Outcomes, Launched]) -> None:
    found = two_ranks[1].records("tuning")
    assert {record["rank"] for record in found} == {0}
    chosen = [record["values"] for record in found if "plans tried" in record["values"]["why"]]
    assert len(chosen) >= 4  # deferred, undeferred, and before and after a link has changed
    assert {values["transport"] for values in chosen} == {"horovod", "tcp"}
    for values in chosen:
        document = json.loads(values.pop("document"))
        assert document["plan"]["piece_bytes"] == values["piece_bytes"]
        assert len(document["plan"]["order"]) == values["pieces"]
        short = {} if slice_of(os.getpid()) is None else {"slice_us": 100.0}  # before Linux 6.12 there is none
        assert {name: values.pop(name) for name in ("slice_us",) if name in values} == short
        of_horovod = {"cycle_time_ms": 1.0} if values["transport"] == "horovod" else {}
        assert {name: values.pop(name) for name in ("cycle_time_ms",) if name in values} == of_horovod
        assert set(values) == {"piece_bytes", "credit", "pieces", "transport", "why"}
    assert "it is measured again" in two_ranks[1].text
    said = "the tuning was made with 64 ranks over gloo, and these are 2 over horovod; it is measured anew"
    assert two_ranks[1].text.count(said) == 1
