"""A new job that goes on from another job's checkpoint: the spec's ``checkpoint.resume_from``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lockstep
from lockstep_slurm.job.identity import new_job_id
from lockstep_slurm.job.rundir import make_run_directory, saved_steps
from lockstep_worker.checkpoint.folder import Name, names
from lockstep_worker.checkpoint.of import of_recipe
from lockstep_worker.optimizers import parameter_groups
from lockstep_worker.optimizers.lamb import LAMB

Begin = Callable[..., Path]
CheckpointError = lockstep.checkpoint.CheckpointError


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """``begin(resume_from=..., ...)``: a new job's run directory, in which this process is from then on."""

    def make(attempt: int = 1, run: Path | None = None, **section: Any) -> Path:
        if run is None:
            text = json.dumps({"checkpoint": section})
            run = make_run_directory(tmp_path / "runs", new_job_id(), text, "#!", by_hand=True)
        monkeypatch.setenv("LOCKSTEP_RUN", str(run))
        monkeypatch.setenv("LOCKSTEP_FENCE", str(attempt))
        monkeypatch.setenv("LOCKSTEP_ATTEMPT", str(attempt))
        return run

    return make


def train(total: int, *, fails_at: int | None = None, scores: tuple[float, ...] = ()) -> list[float]:
    """The losses of the steps that this start makes; saved behind each third step.

    ``scores``: of an evaluation behind each of the first steps; a better one than before is saved, too.
    """
    torch.manual_seed(1)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    with lockstep.checkpoint.of(model=model, optimizer=optimizer) as state:
        for step in state.steps(total):
            if step == fails_at:
                raise ArithmeticError
            optimizer.zero_grad()
            loss = model(torch.randn(8, 4)).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if step < len(scores):
                state.evaluated(scores[step])
            if (step + 1) % 3 == 0:
                state.save()
    return losses


def test_it_goes_on_bit_by_bit_and_from_its_own_once_it_has_one(
    begin: Begin, capsys: pytest.CaptureFixture[str]
) -> None:
    begin()
    whole = train(12)
    first = begin()
    train(6)
    before = {file.name: file.read_bytes() for file in (first / "checkpoints").iterdir()}
    second = begin(resume_from=str(first))
    with pytest.raises(ArithmeticError):
        train(12, fails_at=8)
    begin(2, second)
    with pytest.raises(ArithmeticError):
        train(12, fails_at=10)
    begin(3, second)
    assert train(12) == whole[9:]
    said = capsys.readouterr().err
    assert said.count(f"goes on from the checkpoint of step 6, saved by attempt 1 of job {first.name}\n") == 2
    assert "goes on from the checkpoint of step 9, saved by attempt 2\n" in said
    assert names(second / "checkpoints") == [Name(3, 12), Name(2, 9)]
    assert {file.name: file.read_bytes() for file in (first / "checkpoints").iterdir()} == before


@pytest.mark.parametrize(
    ("which", "step"), [({}, 6), ({"resume_step": "last"}, 6), ({"resume_step": "best"}, 2), ({"resume_step": 3}, 3)]
)
def test_of_a_jobs_checkpoints_the_spec_says_which(begin: Begin, which: dict[str, Any], step: int) -> None:
    first = begin(keep=9)
    train(6, scores=(0.1, 0.9, 0.2))
    assert saved_steps(first) == [1, 2, 3, 6]
    for place in (first, first / "checkpoints"):
        begin(resume_from=str(place), **which)
        with lockstep.checkpoint.of(model=(model := nn.Linear(4, 2)), optimizer=momentum(model)) as state:
            assert (state.step, state.resumed_at) == (step, step)
    begin(resume_from=str(first / "checkpoints" / Name(1, step).file))
    with lockstep.checkpoint.of(model=(model := nn.Linear(4, 2)), optimizer=momentum(model)) as state:
        assert state.step == step


def test_the_best_is_chosen_of_those_that_can_be_read(begin: Begin, capsys: pytest.CaptureFixture[str]) -> None:
    first = begin(keep=9)
    train(6, scores=(0.1, 0.9, 0.2))
    torn = first / "checkpoints" / Name(1, 3).file
    os.truncate(torn, 9)
    begin(resume_from=str(first), resume_step="best")
    with lockstep.checkpoint.of(model=(model := nn.Linear(4, 2)), optimizer=momentum(model)) as state:
        assert state.step == 2
    assert f"not looked at for the best one: {torn} is " in capsys.readouterr().err


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    """As ``train`` has one."""
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def test_where_there_is_no_such_checkpoint_it_says_what_there_is(begin: Begin, tmp_path: Path) -> None:
    first = begin()
    train(6)
    for section, message in (
        ({"resume_from": str(first), "resume_step": 4}, r"is 4, and \S+ has no checkpoint of that step; it has 3, 6$"),
        ({"resume_from": str(first), "resume_step": "best"}, "none of the 2 checkpoints in .* behind an evaluation"),
        ({"resume_from": str(tmp_path)}, f"{tmp_path} has no checkpoint; there is nothing to go on from"),
        ({"resume_from": str(tmp_path / "gone")}, "gone is neither a checkpoint nor a folder that this node sees"),
        ({"resume_from": __file__}, "is no checkpoint of Lockstep's"),
    ):
        begin(**section)
        with pytest.raises(CheckpointError, match=message):
            train(6)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (nn.Linear(4, 3), r"does not fit model: weight is 2 x 4 in it, and 3 x 4 here \(and 1 more differ\)$"),
        (nn.Linear(4, 2, bias=False), "does not fit model: it has bias, 2, which the model has not$"),
        (nn.Sequential(nn.Linear(4, 2)), r"it has no 0.weight, which the model has, 2 x 4 \(and 3 more differ\)$"),
    ],
)
def test_of_another_model_it_is_said_which_parameter_is_another(begin: Begin, other: nn.Module, message: str) -> None:
    first = begin()
    train(3)
    begin(resume_from=str(first))
    with pytest.raises(CheckpointError, match=message):
        lockstep.checkpoint.of(model=other, optimizer=momentum(other))


@pytest.mark.parametrize(("kind", "lacking"), [(torch.optim.AdamW, "'step'"), (LAMB, "step, mean, .* in its state")])
def test_another_kind_of_optimizer_is_refused_at_once(
    begin: Begin, kind: Callable[[Any], torch.optim.Optimizer], lacking: str
) -> None:
    first = begin()
    train(3)
    begin(resume_from=str(first))
    model = nn.Linear(4, 2)
    message = f"does not fit optimizer: it was saved by another kind of optimizer, which has no {lacking}$"
    with pytest.raises(CheckpointError, match=message):
        lockstep.checkpoint.of(model=model, optimizer=kind(model.parameters()))


def test_adamw_of_a_recipe_whose_groups_have_all_of_lambs_options_is_no_lamb(begin: Begin) -> None:
    first, model = begin(), nn.Linear(4, 2)
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(parameter_groups(model, 0.1))
    with lockstep.checkpoint.of(model=model, optimizer=optimizer) as state:
        for _ in state.steps(1):
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
    begin(resume_from=str(first))
    model = nn.Linear(4, 2)
    message = "another kind of optimizer, which has no mean, mean_of_squares in its state$"
    with pytest.raises(CheckpointError, match=message):
        lockstep.checkpoint.of(model=model, optimizer=LAMB(parameter_groups(model, 0.1)))


def test_in_a_recipe_the_new_specs_words_of_the_optimizer_count(begin: Begin) -> None:
    first = begin()
    train(3)
    begin(resume_from=str(first))
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5, weight_decay=0.01)
    with of_recipe(model=model, optimizer=optimizer) as state:
        assert state.step == 3
        (group,) = optimizer.param_groups
        assert (group["momentum"], group["weight_decay"]) == (0.5, 0.01)
        assert all("momentum_buffer" in optimizer.state[one] for one in model.parameters())
