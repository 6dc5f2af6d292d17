"""What ``benchmarks.malloc`` makes of pairs of starts, and that a start of it trains."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.malloc import note, row, started


def start(ms: float, pages: float = 0.0, *, foreign: float = 0.0, last: float = 6.5) -> dict[str, Any]:
    return {"ms": ms, "pages": pages, "foreign": foreign, "losses": [7.0, last]}


def test_a_row_is_of_pairs_and_the_note_tells_how_far_starts_lie_apart() -> None:
    pairs = [{"keep": start(100), "system": start(110, 5000)}, {"keep": start(101), "system": start(130, 7000)}]
    found = row("gpt", 2, pairs)
    assert (found.case, found.ours, found.peer, found.valid) == ("gpt, 8 texts, 2 threads", 100.5, 120, True)
    assert found.ratio == pytest.approx((110 / 100 + 130 / 101) / 2)
    assert note("gpt", 2, pairs) == (
        "gpt, 8 texts, 2: kept 0 pages a step, 100 to 101 ms; as it comes 6,000 pages a step, 110 to 130 ms"
    )


def test_unlike_losses_and_a_busy_machine_make_it_void() -> None:
    assert not row("gpt", 1, [{"keep": start(1), "system": start(1, last=6.4)}]).valid
    assert not row("gpt", 1, [{"keep": start(1, foreign=0.2), "system": start(1, foreign=0.2)}]).valid


def test_a_start_trains_the_same_with_the_variables_and_without() -> None:
    kept, system = started("gpt", 1, "keep"), started("gpt", 1, "system")
    assert kept["losses"] == system["losses"]
    assert kept["losses"][-1] < kept["losses"][0]
    assert kept["pages"] < system["pages"] / 2
