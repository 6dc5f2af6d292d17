"""Brakes: how long nothing is submitted after silence or a refusal, and when one job may try."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lockstep_service.dispatch.brakes import EVERYTHING, Brakes


def put_on(brakes: Brakes, moment: float, what: object = "group") -> float:
    return brakes.put_on(what, "why", moment, 2.0, 15.0)


def test_a_pause_doubles_until_it_is_as_long_as_allowed() -> None:
    brakes, moment, pauses = Brakes(), 100.0, []
    for _ in range(5):
        until = put_on(brakes, moment)
        pauses.append(until - moment)
        moment = until
    assert pauses == [2.0, 4.0, 8.0, 15.0, 15.0]


def test_refusals_that_were_on_their_way_together_count_once() -> None:
    brakes = Brakes()
    assert [put_on(brakes, 100.0), put_on(brakes, 100.1), put_on(brakes, 101.9)] == [102.0, 102.0, 102.0]


def test_after_its_pause_it_is_still_on_until_one_was_taken() -> None:
    brakes = Brakes()
    put_on(brakes, 100.0)
    assert brakes.left("group", 103.0) == 0
    assert brakes.is_on("group")
    brakes.take_off("group")
    assert not brakes.is_on("group")
    assert put_on(brakes, 104.0) == 106.0


def test_one_groups_brake_is_no_other_groups_and_the_next_try_is_the_first_of_all() -> None:
    brakes = Brakes()
    assert brakes.next_try(100.0) is None
    put_on(brakes, 100.0, ("main", None, "short"))
    assert not brakes.is_on(("main", None, "long"))
    assert not brakes.is_on(EVERYTHING)
    assert brakes.any_group()
    put_on(brakes, 101.0, EVERYTHING)
    assert brakes.next_try(101.5) == 0.5
    assert brakes.reason(EVERYTHING) == "why"


class Meanwhile(float):
    """A moment, or what a brake holds, at the look at which another thread puts a brake on."""

    put_on: Callable[[object], object] = staticmethod(lambda _what: None)

    def __rsub__(self, other: float) -> float:
        self.put_on(object())
        return other - float(self)

    def __ne__(self, other: object) -> bool:
        self.put_on(object())
        return False


@pytest.mark.parametrize("look", ["any_group", "next_try"])
def test_a_brake_that_is_put_on_while_they_are_gone_through_is_no_error(look: str) -> None:
    brakes, found = Brakes(), Meanwhile(100.0)
    for what in (found, EVERYTHING):
        put_on(brakes, 99.0, what)
    found.put_on = lambda what: put_on(brakes, 99.0, what)
    assert brakes.next_try(found) == 1.0 if look == "next_try" else not brakes.any_group()
