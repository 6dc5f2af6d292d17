"""The gate: how many submissions may be on their way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from faults.clients import Gate


def let_through(gate: Gate) -> int:
    """Lets go whatever may."""
    count = 0
    while gate.open:
        gate.wait()
        count += 1
    return count


def test_so_many_are_outstanding_and_one_more_for_each_that_trained() -> None:
    gate = Gate(3)
    assert let_through(gate) == 3
    gate.trained(2)
    gate.trained(2)
    assert let_through(gate) == 2


@given(outstanding=st.integers(1, 100), burst=st.integers(1, 100), faults=st.integers(1, 20))
def test_each_fault_meets_as_many_and_none_uses_up_what_later_ones_need(
    outstanding: int, burst: int, faults: int
) -> None:
    gate, trained, gone = Gate(outstanding), 0, 0
    gone += let_through(gate)
    for _ in range(faults):
        gate.more(burst)
        gate.more(burst)  # a fault that waits for something asks again
        more = let_through(gate)
        assert more == burst
        gone += more
        trained += burst
        gate.trained(trained)
        gone += let_through(gate)
        assert gone == trained + outstanding
