"""Digits reach 0.98 whatever the seed and the number of ranks, and where another number of ranks goes on half-way.

The short form is a part of the tests. ``SEEDS=1,2,3`` makes all of it, and ``-s`` shows the rows of the table in
docs/checkpoints.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lockstep_slurm.job.file import read
from lockstep_slurm.job.rundir import read_exit, saved_steps
from support.ranks import ROOT, Launched, processes_of
from support.trainings import digests, is_contiguous

SEEDS = [int(seed) for seed in os.environ.get("SEEDS", "").split(",") if seed]
ONWARD = {2: 4, 4: 1}
"""How many ranks go on from the middle of a training of so many."""
TRAINING = read(ROOT / "examples" / "digits.toml").training.model_dump(exclude_none=True)
EPOCHS, BATCH, SAMPLES = TRAINING["epochs"], TRAINING["batch_size"], 1437
ENOUGH = 0.98
MakeRun = Callable[..., Path]
Launch = Callable[..., Launched]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("ranks", [1, 2, 4] if SEEDS else [2])
@pytest.mark.parametrize("seed", SEEDS or [TRAINING["seed"]])
def test_digits_reach_it_and_so_they_do_where_other_ranks_go_on(
    make_run: MakeRun, launch: Launch, seed: int, ranks: int
) -> None:
    in_epoch = SAMPLES // (BATCH * ranks) // 2
    middle = EPOCHS // 2 * (SAMPLES // (BATCH * ranks)) + in_epoch
    saving = {"checkpoint": {"every_steps": middle, "best": False}}
    whole = launch(make_run(saving, **TRAINING | {"seed": seed}), ranks)
    assert whole.wait(280) == 0, whole.text
    check(whole, ranks)
    assert middle in saved_steps(whole.run)
    said = f"\n| {seed} | {ranks} | {accuracies(whole)[-1]:.4f} |"
    if (others := ONWARD.get(ranks)) is not None:
        origin = {"resume_from": str(whole.run), "resume_step": middle}
        going_on = launch(make_run({"checkpoint": origin}, **TRAINING | {"seed": seed}), others)
        assert going_on.wait(280) == 0, going_on.text
        assert f"step {middle}, saved by attempt 1 of job {whole.run.name} with {ranks} ranks" in going_on.text
        rest = (SAMPLES - in_epoch * BATCH * ranks) // (BATCH * others)
        left = rest + (EPOCHS - EPOCHS // 2 - 1) * (SAMPLES // (BATCH * others))
        made = [one for one in going_on.records("step") if one["rank"] == 0]
        assert [one["step"] for one in made] == list(range(middle + 1, middle + 1 + left))
        assert [one["values"]["epoch"] for one in made].count(EPOCHS // 2 + 1) == rest, "in the middle of an epoch"
        assert len(digests(going_on)) == 1
        assert accuracies(going_on)[-1] >= ENOUGH
        said += f" {others} | {accuracies(going_on)[-1]:.4f} |"
    print(said)


def accuracies(launched: Launched) -> list[float]:
    """By epoch, of the 360 samples that are held out."""
    assert {one["values"]["samples"] for one in launched.records("evaluation")} == {360}
    return [one["values"]["accuracy"] for one in launched.records("evaluation")]


def check(launched: Launched, ranks: int) -> None:
    """One good model, every step of every rank reported without a hole, and nothing left running."""
    assert accuracies(launched)[-1] >= ENOUGH
    assert {record["rank"] for record in launched.records("evaluation")} == {0}
    assert len(launched.records("end")) == ranks
    assert len(digests(launched)) == 1
    total = EPOCHS * (SAMPLES // (BATCH * ranks))
    # Every rank says what it planned, then reports every step, without a hole.
    planned = {record["rank"]: record["values"]["steps"] for record in launched.records("start")}
    assert planned == dict.fromkeys(range(ranks), total)
    steps = launched.records("step")
    for rank in range(ranks):
        assert [record["step"] for record in steps if record["rank"] == rank] == list(range(1, total + 1))
    for values in (record["values"] for record in steps):
        assert values["samples"] == BATCH
        assert 0 <= values["exposed_s"] <= values["seconds"]
        assert values["samples_per_s"] == pytest.approx(values["samples"] / values["seconds"])
    assert is_contiguous(launched)
    ended = read_exit(launched.run, 1)
    assert ended is not None
    assert (ended.code, ended.rank, ended.message) == (0, 0, None)
    assert f"0: epoch {EPOCHS}: held-out accuracy" in launched.text
    assert processes_of(launched.run) == []
