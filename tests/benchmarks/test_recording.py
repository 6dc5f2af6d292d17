"""What recording costs: the row of the real thing, a few steps long, has its target and counts."""

from __future__ import annotations

from benchmarks.recording import SHARE, STEP, measure


def test_the_row_has_the_budget_as_its_peer_and_its_target() -> None:
    row = measure(2)
    assert row.valid, "a step's record is not in the spool, or not with every name"
    assert (row.target, row.peer) == (1.0, 1e6 * SHARE * STEP)
    assert row.ours > 0
    assert not row.simulated
