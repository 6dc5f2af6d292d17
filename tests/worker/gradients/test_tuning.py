"""The pure part of tuning: what is fitted, what is tried, what is kept, and what is taken back from a document."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_worker.gradients.drift import TWICE, Drift
from lockstep_worker.gradients.errors import GradientError
from lockstep_worker.gradients.link import LATENCY, Link, fit
from lockstep_worker.gradients.order import Timing, arrivals, schedule
from lockstep_worker.gradients.pieces import Size, lay_out
from lockstep_worker.gradients.plan import Measured, Plan, measured_plan
from lockstep_worker.gradients.recorded import document_of, plan_of, record_of
from lockstep_worker.gradients.trials import CHANCE, PAIRS, Choice, Trials, confirmed, looks_best, wins_wanted
from lockstep_worker.gradients.tuning import Costs, candidates, exposed
from support.gradients.lateness import lateness

MIB = 1 << 20
SIZES = [Size(MIB // 4, 4, "float32")] * 24
"""24 layers of 1 MiB."""
DESCRIBED = [[f"layer.{number}", [MIB // 4], [1], "float32"] for number in range(24)]


def measured(link: Link, step: float = 0.3) -> Measured:
    """Backward from the last layer to the first in two thirds of a step, forward in one."""
    return Measured(
        released={number: step * 2 / 3 * (24 - number) / 24 for number in range(24)},
        used={number: step / 3 * number / 24 for number in range(24)},
        link=link,
    )


@given(
    st.floats(0, 0.01), st.floats(1e-10, 1e-6),
    st.lists(st.integers(1, 1 << 24), min_size=6, max_size=40, unique=True), st.integers(0, 1000),
)  # fmt: skip
def test_a_link_is_found_from_its_pieces_though_some_were_held_up(
    latency: float, per_byte: float, sizes: list[int], seed: int
) -> None:
    chance = random.Random(seed)
    sizes = [*sizes, 1000, 100_000, 10_000_000]
    true = Link(latency, per_byte)
    samples = [(size, true.seconds(size)) for size in sizes for _ in range(4)]
    found = fit(samples)
    assert found.per_byte == pytest.approx(per_byte, rel=1e-3)
    assert found.latency == pytest.approx(latency, rel=1e-3, abs=1e-3 * per_byte * max(sizes))
    held_up = [(size, seconds + (1.0 if place % 8 == 0 else 0.0)) for place, (size, seconds) in enumerate(samples)]
    chance.shuffle(held_up)
    assert fit(held_up).seconds(5e6) == pytest.approx(true.seconds(5e6), rel=0.3, abs=5e-3)


def test_a_link_of_which_one_size_is_known_has_the_usual_latency() -> None:
    alike = fit([(1000, 0.002), (1100, 0.0022), (900, 0.0018)])
    assert alike.latency == LATENCY
    assert alike.per_byte == pytest.approx(2e-6)
    assert fit([(1000, 0.004), (4000, 0.002)]) == Link(LATENCY, 5e-7)  # larger and no slower: nothing to learn from it
    assert fit([]) == Link(LATENCY, 0.0)
    assert fit([]).carries(1.0) == float("inf")
    assert Link(1.0, 0.5).carries(2.0) == 2.0
    assert Link(1.0, 0.5).carries(0.5) == 0.0


jobs = st.lists(
    st.builds(Timing, st.floats(0, 5), st.floats(0, 9), st.floats(0.01, 3)), min_size=1, max_size=8,
)  # fmt: skip


@given(jobs)
def test_with_credit_enough_pieces_arrive_as_the_order_was_made_for(timings: list[Timing]) -> None:
    order = schedule(timings)
    arrived = arrivals(timings, order, credit=len(timings), turnaround=1.0, fuses=False)
    late = max(at - timing.deadline for at, timing in zip(arrived, timings, strict=True))
    assert late == pytest.approx(lateness(timings, order))
    for credit, turnaround, fuses in itertools.product((1, 2, 3), (0.0, 0.5), (False, True)):
        slower = arrivals(timings, order, credit=credit, turnaround=turnaround, fuses=fuses)
        assert all(one >= other - 1e-9 for one, other in zip(slower, arrived, strict=True))


def test_what_is_handed_over_one_by_one_pauses_and_what_is_fused_arrives_together() -> None:
    timings = [Timing(0.0, 9.0, 1.0)] * 4
    order = [0, 1, 2, 3]

    def arrive(credit: int, *, fuses: bool) -> list[float]:
        return arrivals(timings, order, credit=credit, turnaround=0.5, fuses=fuses)

    assert arrive(1, fuses=False) == [1.0, 2.5, 4.0, 5.5]
    assert arrive(2, fuses=False) == [1.0, 2.0, 3.0, 4.0]
    assert arrive(2, fuses=True) == [2.0, 2.0, 4.5, 4.5]
    assert arrive(4, fuses=True) == [4.0] * 4


def plans_for(link: Link, costs: Costs, piece_bytes: int | None = None, credit: int | None = None) -> list[Plan]:
    return candidates(
        7, SIZES, range(24), piece_bytes, credit, measured=measured(link), costs=costs
    )  # fmt: skip


COSTS = Costs(piece_cpu=0.0, turnaround=1e-3, fuses=False, defer=True)


def test_tried_are_plans_that_the_model_expects_least_of() -> None:
    slow = Link(1e-3, 0.25 / (24 * MIB))  # 24 MiB take 0.25 s of a step of 0.3 s
    found = plans_for(slow, COSTS)
    assert found[0] == measured_plan(7, SIZES, range(24), None, None, measured=measured(slow))
    assert 2 <= len(found) <= 4
    assert len({(one.piece_bytes, one.credit) for one in found}) == len(found)
    cost = [exposed(one, SIZES, measured(slow), COSTS) for one in found[1:]]
    assert cost == sorted(cost)
    # A latency like that is paid once a piece; a link without one carries what is due first in small ones.
    ranked = plans_for(Link(0.01, 0.1 / (24 * MIB)), COSTS)[1:]
    assert ranked[0].piece_bytes == 4 * MIB
    ranked = plans_for(Link(0.0, 0.28 / (24 * MIB)), COSTS)[1:]
    assert ranked[0].piece_bytes < MIB
    # So does a core that has to look after each piece.
    dear = replace(COSTS, piece_cpu=2e-3)
    assert plans_for(Link(0.0, 0.1 / (24 * MIB)), dear)[1].piece_bytes == 4 * MIB


def test_the_default_is_larger_where_pieces_are_fused_or_carried_by_the_exchanges_thread() -> None:
    link = Link(1e-3, 0.25 / (24 * MIB))
    costs = (COSTS, replace(COSTS, driven=True), replace(COSTS, fuses=True))
    alone, driven, fused = (plans_for(link, one) for one in costs)
    assert (alone[0].credit, driven[0].credit, fused[0].credit) == (2, 2, 1)
    seconds = [link.seconds(one[0].piece_bytes) for one in (alone, driven, fused)]
    assert seconds == pytest.approx([0.008, 0.016, 0.032], rel=1e-4)
    assert len({(one.piece_bytes, one.credit) for one in fused}) == len(fused) > 1
    given = plans_for(link, replace(COSTS, fuses=True), piece_bytes=3 * MIB, credit=2)
    assert [(one.piece_bytes, one.credit) for one in given] == [(3 * MIB, 2)]


def test_what_is_given_is_given_in_every_plan_and_what_comes_to_the_same_is_not_tried() -> None:
    link = Link(1e-3, 0.25 / (24 * MIB))
    assert {one.piece_bytes for one in plans_for(link, COSTS, piece_bytes=3 * MIB)} == {3 * MIB}
    assert {one.credit for one in plans_for(link, COSTS, credit=3)} == {3}
    assert len(plans_for(link, COSTS, piece_bytes=3 * MIB)) == 2  # another credit
    assert len(plans_for(link, COSTS, 3 * MIB, 3)) == 1
    small = [Size(100, 4, "float32")] * 5
    seen = Measured({}, {number: number / 10 for number in range(5)}, link)
    assert len(candidates(1, small, range(5), None, None, measured=seen, costs=COSTS)) == 1  # one piece


def turns_of(trials: Trials) -> list[int]:
    """Steps that take as many seconds as steps were made."""
    turns = []
    while not trials.over:
        turns.append(trials.plans.index(trials.next()))
        trials.note(float(len(turns)))
    return turns


def test_every_plan_has_its_turns_there_and_back() -> None:
    plans = plans_for(Link(1e-3, 1e-8), COSTS)
    trials = Trials.of_all(plans, rounds=2)
    trials.note(99.0)  # the step before
    there = list(range(len(plans)))
    assert turns_of(trials) == [*reversed(there), *there, *reversed(there)]
    assert trials.seconds()[0] == [float(len(plans) + 1), float(3 * len(plans))]


def test_the_default_and_another_plan_are_first_in_turn() -> None:
    default, other = plans_for(Link(1e-3, 1e-8), COSTS)[:2]
    trials = Trials.in_pairs(default, other, "known", pairs=3)
    trials.note(99.0)
    assert turns_of(trials) == [0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1]
    assert trials.seconds() == [[2.0, 8.0, 10.0], [4.0, 6.0, 12.0]], "the second step of each turn"


def test_the_plan_that_looks_best_is_not_kept_yet() -> None:
    plans = plans_for(Link(1e-3, 1e-8), COSTS)[:3]
    default, same = [0.100, 0.102, 0.099, 0.101], [0.101, 0.101, 0.102, 0.102]
    better, best = [0.090, 0.150, 0.096, 0.095], [0.090, 0.091, 0.090, 0.092]

    def chosen(*ranks: list[list[float]]) -> tuple[int, bool]:
        found = looks_best(plans, ranks)
        return found.index, found.doubtful

    assert chosen([default, better, same]) == (1, True)
    assert chosen([default, better, best]) == (2, True)
    assert chosen([default, best, better]) == (1, True)
    assert chosen([default, same, same]) == chosen([default, default, default]) == (0, False)
    assert chosen([default, [one - 0.0002 for one in default], same]) == (0, False)  # by less than is worth it
    # A step is as long as it is on its slowest rank.
    assert chosen([default, best, same], [default, default, same]) == (0, False)
    assert looks_best(plans, [[default, same, same]]).why.endswith("of 3 plans tried in 4 steps each none was faster")


def against(*gains: float) -> Choice:
    """What is kept where another plan gained so much of each pair of steps."""
    default = [0.100 + 0.001 * (place % 3) for place in range(len(gains))]
    other = [one * (1 - gain) for one, gain in zip(default, gains, strict=True)]
    plans = plans_for(Link(1e-3, 1e-8), COSTS)[:2]
    trials = Trials.in_pairs(plans[0], plans[1], "of 4 plans tried one was the fastest", pairs=len(gains))
    assert trials.choose([[default, other]]) == confirmed(plans, [[default, other]], str(trials.known))
    return trials.choose([[default, other]])


def test_it_is_kept_if_it_was_faster_in_enough_further_pairs() -> None:
    assert [wins_wanted(pairs) for pairs in (3, 8, 11, PAIRS)] == [4, 7, 9, 12]
    found = against(*[0.1] * 12, *[-0.1] * 4)
    assert (found.index, found.doubtful) == (1, False)
    assert found.why.endswith(
        "in 12 of 16 pairs of further turns (12 wanted), median gain 10.0 ms of a step of 101.0 ms"
    )
    assert ": of 4 plans tried one was the fastest, and it was faster than " in found.why
    assert against(*[0.1] * 11, *[0.0] * 5).index == 0
    assert "was the fastest, which was not confirmed: faster than" in against(*[0.1] * 11, *[0.0] * 5).why
    assert against(*[0.1] * 12, *[-5.0] * 4).index == 1, "a step that was held up is one step"
    assert against(*[0.004] * 16).index == 0, "always, and by less than is worth it"
    assert against(*[0.1] * 3).index == 0, "three pairs say nothing"


def kept(gains: tuple[float, float, float], noise: float, tunings: int, seed: int) -> list[int]:
    """Which plan is kept, of the default and three that gain so much of a step. One step in eight is held up."""
    plans, chance = plans_for(Link(1e-3, 1e-8), COSTS), random.Random(seed)
    assert len(plans) == 4

    def tried(trials: Trials) -> Choice:
        while not trials.over:
            gain = (0.0, *gains)[plans.index(trials.next())]
            held_up = chance.uniform(0, 4 * noise) if chance.random() < 1 / 8 else 0.0
            trials.note((1 - gain) * (1 + chance.gauss(0, noise) + held_up))
        return trials.choose([trials.seconds()])

    def tuned() -> int:
        found = tried(Trials.of_all(plans))
        if not found.doubtful:
            return found.index
        return found.index if tried(Trials.in_pairs(plans[0], plans[found.index], found.why)).index else 0

    return [tuned() for _ in range(tunings)]


@pytest.mark.parametrize("noise", [0.02, 0.10, 0.15])
def test_chance_keeps_a_plan_that_is_no_better_in_a_few_of_a_hundred_tunings(noise: float) -> None:
    assert sum(map(bool, kept((0.0, 0.0, 0.0), noise, 1500, seed=1))) <= CHANCE * 1500
    assert sum(map(bool, kept((-0.03, -0.03, -0.03), noise, 1500, seed=2))) <= 0.01 * 1500


@pytest.mark.parametrize(("noise", "gain", "wanted"), [(0.02, 0.03, 0.7), (0.02, 0.1, 1.0), (0.10, 0.1, 0.4)])
def test_a_plan_that_gains_is_kept_as_often_as_its_steps_tell(noise: float, gain: float, wanted: float) -> None:
    assert kept((0.0, gain, 0.0), noise, 300, seed=3).count(2) >= wanted * 300


def steps(drift: Drift, windows: int, **seconds: float) -> None:
    chance = random.Random(1)
    for _ in range(windows * drift.window):
        exposed, busy, step = (seconds[name] * chance.uniform(0.97, 1.03) for name in ("exposed", "busy", "step"))
        drift.note(exposed, busy, step)


@pytest.mark.parametrize(
    ("changed", "wants"),
    [
        ({}, False),
        ({"exposed": 0.012}, False),  # by 1 % of a step
        ({"exposed": 0.030, "step": 0.12}, True),
        ({"busy": 0.16, "exposed": 0.02}, True),  # the link is slower, and hidden for now
        ({"busy": 0.03}, True),  # it is faster: smaller pieces would do
        ({"exposed": 0.0}, False),
        ({"step": 0.3}, False),  # a training that computes more
    ],
)
def test_a_rank_wants_to_measure_again_when_its_steps_have_changed(changed: dict[str, float], wants: bool) -> None:
    drift, before = Drift(window=5), {"exposed": 0.01, "busy": 0.08, "step": 0.1}
    drift.restart()
    steps(drift, 10, **before)
    assert not drift.wants
    steps(drift, TWICE - 1, **before | changed)
    assert not drift.wants  # a window may have had bad luck
    steps(drift, 1, **before | changed)
    assert drift.wants == wants


def test_a_rank_that_measures_again_in_vain_becomes_patient() -> None:
    drift = Drift(window=5)
    pauses = []
    for _ in range(6):
        drift.restart()
        steps(drift, 1, exposed=0.01, busy=0.08, step=0.1)
        for windows in itertools.count(1):
            steps(drift, 1, exposed=0.05, busy=0.08, step=0.1)
            if drift.wants:
                pauses.append(windows)
                break
    assert pauses == [2, 4, 8, 16, 32, 64]
    drift.restart()
    steps(drift, 300, exposed=0.01, busy=0.08, step=0.1)
    steps(drift, 2, exposed=0.05, busy=0.08, step=0.1)
    assert drift.wants
    drift.restart()
    steps(drift, 1, exposed=0.01, busy=0.08, step=0.1)
    steps(drift, 2, exposed=0.05, busy=0.08, step=0.1)
    assert drift.wants  # after a long calm it is quick again


def document() -> dict[str, Any]:
    plan = measured_plan(3, SIZES, range(24), 3 * MIB, 3, measured=measured(Link(1e-3, 1e-8)))
    return told_of(plan)


def told_of(plan: Plan) -> dict[str, Any]:
    return document_of(plan, DESCRIBED, transport="horovod", ranks=2, cycle_time_ms=1.0, slice_us=100.0, why="tried")


def test_a_tuning_comes_back_as_it_was_from_a_checkpoint() -> None:
    told = document()
    plan = plan_of(json.dumps(told), DESCRIBED, SIZES)
    assert plan == plan_of(told, DESCRIBED, SIZES)
    assert plan.as_json() == told["plan"]
    assert plan.measured
    assert told_of(plan) == told
    record = record_of(told)
    assert json.loads(str(record.pop("document"))) == told
    assert record == {"piece_bytes": 3 * MIB, "credit": 3, "pieces": len(plan.order), "transport": "horovod",
                      "cycle_time_ms": 1.0, "slice_us": 100.0, "why": "tried"}  # fmt: skip
    assert "cycle_time_ms" not in record_of({**told, "cycle_time_ms": None})
    assert "slice_us" not in record_of({**told, "slice_us": None})
    huge = {**told, "parameters": [1] * 20_000}
    assert "document" not in record_of(huge)  # a record has 32 KiB


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"version": 2}, "tuning has version 2; this Lockstep knows 1"),
        ({"parameters": None}, "tuning is not what optimizer.tuning told: TypeError"),
        ({"plan": None}, "tuning is not what optimizer.tuning told: TypeError"),
        ({"parameters": [1, 2]}, "tuning is of a model with 2 parameters, the optimizer has 24"),
        ({"parameters": [0] * 24}, r"its parameter 0 is not \['layer.0', \[262144\]"),
        ({"plan.credit": 0}, r"its credit \(0\) at least 1"),
        ({"plan.credit": "2"}, "numbers and lists of numbers"),
        ({"plan.piece_bytes": 100}, r"piece_bytes \(100\) has to be at least 128"),
        ({"plan.sequence": [0, 0]}, "name some of 24 parameters, each once"),
        ({"plan.sequence": [24]}, "name some of 24 parameters, each once"),
        ({"plan.sequence": []}, "name some of 24 parameters, each once"),
        ({"plan.order": [0]}, "order has to name each of its 12 pieces once"),
        ({"plan.colour": 1}, "tuning's plan has to have credit, measured"),
    ],
)
def test_what_is_no_tuning_of_this_model_is_said(wrong: dict[str, Any], said: str) -> None:
    told = document()
    for name, value in wrong.items():
        part, _, inner = name.partition(".")
        if inner:
            told[part][inner] = value
        else:
            told[part] = value
    with pytest.raises(GradientError, match=said):
        plan_of(told, DESCRIBED, SIZES)


def test_a_tuning_that_is_no_json_is_said() -> None:
    for text in ("{", "[]", "3", "{}"):
        with pytest.raises(GradientError, match=r"tuning is not what optimizer\.tuning told"):
            plan_of(text, DESCRIBED, SIZES)


def test_pieces_of_any_size_have_their_tensors_at_the_same_places() -> None:
    one, other = (lay_out(SIZES, range(24), size) for size in (MIB, 5 * MIB))
    assert (one.starts, one.flags, one.lengths) == (other.starts, other.flags, other.lengths)
