"""Arms side by side: whose turn it is, how long it lasts, when two trainings were the same, and what is kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from benchmarks.side_by_side.turns import Outcome, equal, order, steps_of

TRAINED = Outcome(
    step_seconds=(0.1, 0.2),
    losses=(tuple(2.3 - 0.01 * step for step in range(20)), tuple(2.4 - 0.01 * step for step in range(20))),
    digests=("same", "same"),
    cpus=((0,), (1,)),
    threads=(1, 1),
    variables=({"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "1"}),
    verdicts=("as planned",),
)


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_every_arm_comes_first_and_last_equally_often(count: int) -> None:
    arms = list(range(count))
    rounds = [order(arms, number) for number in range(2 * count)]
    assert all(sorted(one) == arms for one in rounds)
    assert set(Counter(one[0] for one in rounds).values()) == {2}
    assert set(Counter(one[-1] for one in rounds).values()) == {2}


def test_all_arms_make_the_same_number_of_steps_unless_one_is_much_slower() -> None:
    assert steps_of({"ours": 0.10, "peer": 0.12, "slow": 1.5}, None) == {"ours": 12, "peer": 12, "slow": 2}


def test_even_a_very_slow_arm_makes_two_steps_a_slice() -> None:
    assert steps_of({"ours": 0.1, "slow": 60.0}, None)["slow"] == 2


def test_a_given_number_of_steps_is_kept() -> None:
    assert steps_of({"ours": 0.1, "peer": 0.1}, 1) == {"ours": 1, "peer": 1}


def test_the_same_training_is_equal_to_the_rounding_of_another_number_of_threads() -> None:
    rounded = replace(TRAINED, losses=tuple(tuple(loss * (1 + 1e-6) for loss in one) for one in TRAINED.losses))
    assert equal(TRAINED, rounded)


def test_an_arm_that_made_fewer_steps_is_compared_as_far_as_it_went() -> None:
    assert equal(TRAINED, replace(TRAINED, losses=tuple(one[:10] for one in TRAINED.losses)))


@pytest.mark.parametrize(
    "other",
    [
        replace(TRAINED, losses=(TRAINED.losses[0], (*TRAINED.losses[1][:-1], 2.0))),
        replace(TRAINED, losses=(TRAINED.losses[0], (*TRAINED.losses[1][:-1], float("nan")))),
        replace(TRAINED, losses=(TRAINED.losses[1], TRAINED.losses[0])),
        replace(TRAINED, losses=TRAINED.losses[:1]),
        replace(TRAINED, losses=((), ())),
        replace(TRAINED, digests=("one", "another")),
    ],
    ids=["a loss differs", "a loss is NaN", "ranks swapped", "a rank is missing", "no step", "two models"],
)
def test_another_training_is_not_equal(other: Outcome) -> None:
    assert not equal(TRAINED, other)
    assert not equal(other, TRAINED)
