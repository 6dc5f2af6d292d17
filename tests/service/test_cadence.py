"""How often Slurm is asked: by what moves, and by what asking costs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lockstep_service.dispatch.cadence import Cadence

CADENCE = Cadence(least=2, most=10)
pauses = st.floats(0, 200)
costs = st.floats(0, 100)


def test_while_things_move_it_is_asked_shortly_and_then_more_and_more_seldom() -> None:
    pause = CADENCE.pause(10, moved=True, cost=0.05)
    assert pause == 2
    seen = []
    for _ in range(6):
        pause = CADENCE.pause(pause, moved=False, cost=0.05)
        seen.append(pause)
    assert seen == [3, 4.5, 6.75, 10, 10, 10]


@given(pauses, st.booleans(), costs)
def test_asking_never_takes_more_than_a_twentieth_of_the_time_up_to_two_minutes(
    before: float, moved: bool, cost: float
) -> None:
    pause = CADENCE.pause(before, moved=moved, cost=cost)
    assert 2 <= pause <= 120
    assert pause >= min(20 * cost, 120)


@given(costs)
def test_however_often_it_is_called_for_a_pause_stays(cost: float) -> None:
    assert 1 <= CADENCE.gap(cost) <= 10
    assert Cadence(least=0.05, most=0.1).gap(cost) <= 0.1
