"""The schedule: the same for the same seed, and never without a fault that the form names."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faults.schedule import FULL, LAST, SHORT, WITH_A_KILL, Form, schedule

seeds = st.integers(0, 10**9)
forms = st.sampled_from([FULL, SHORT])


@given(seed=seeds, form=forms)
def test_the_same_seed_makes_the_same_run(seed: int, form: Form) -> None:
    assert schedule(seed, form, message_timeout=5) == schedule(seed, form, message_timeout=5)
    assert schedule(seed, form, message_timeout=5) != schedule(seed + 1, form, message_timeout=5)


@given(seed=seeds, form=forms)
def test_every_run_has_every_fault_while_there_is_something_left_to_hurt(seed: int, form: Form) -> None:
    plan = schedule(seed, form, message_timeout=5)
    assert len(plan.kills) == form.kills
    assert Counter(fault.kind for fault in plan.surroundings) == {
        "terminate": form.terminations,
        "stop": form.stops,
        "disk": 1,
        "limit": 1,
        "full table": 1,
    }
    assert all(0 < fault.at < LAST for fault in (*plan.kills, *plan.surroundings))


@given(seed=seeds, form=forms)
def test_what_happens_around_the_service_happens_one_after_another(seed: int, form: Form) -> None:
    plan = schedule(seed, form, message_timeout=5)
    assert [fault.at for fault in plan.kills] == sorted(fault.at for fault in plan.kills)
    for before, after in zip(plan.surroundings, plan.surroundings[1:], strict=False):
        assert before.at < before.until < after.at


@given(seed=seeds, timeout=st.floats(1, 60))
def test_a_stop_lasts_longer_than_slurm_waits_for_an_answer(seed: int, timeout: float) -> None:
    plan = schedule(seed, FULL, message_timeout=timeout)
    assert all(fault.seconds > timeout for fault in plan.surroundings if fault.kind == "stop")


@given(seed=seeds)
def test_a_second_thing_that_goes_wrong_does_so_while_the_first_lasts(seed: int) -> None:
    plan = schedule(seed, FULL, message_timeout=5)
    with_a_kill = [fault for fault in plan.surroundings if fault.kill_after is not None]
    assert {fault.kind for fault in with_a_kill} <= WITH_A_KILL
    assert all(fault.kill_after is not None and fault.kill_after <= fault.seconds for fault in with_a_kill)


@pytest.mark.parametrize("form", [FULL, SHORT])
def test_the_forms_can_meet_their_own_limits(form: Form) -> None:
    # Were fewer outstanding than the limit allows, it would refuse nothing.
    assert form.limit < form.outstanding
    # And as the last fault begins there is still something to be submitted.
    assert LAST * form.submissions + form.outstanding + form.burst < form.submissions
    assert FULL.kills >= 30
