"""What ``benchmarks.computing`` makes of pairs of starts, and that a start of it trains."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.computing import KEPT, PARTS, are_the_same, note, row, started
from benchmarks.exposing.cases import case_of

GPT, MALLOC, LAYOUT = case_of("gpt"), PARTS["malloc"], PARTS["layout"]


def start(ms: float, pages: float = 0.0, *, foreign: float = 0.0, last: float = 6.5) -> dict[str, Any]:
    return {"ms": ms, "pages": pages, "foreign": foreign, "losses": [7.0, last]}


def test_a_row_is_of_pairs_and_the_note_tells_how_far_starts_lie_apart() -> None:
    pairs = [(start(100), start(110, 5000)), (start(101), start(130, 7000))]
    found = row(MALLOC, GPT, 2, pairs)
    assert (found.case, found.ours, found.peer, found.valid) == ("gpt, 8 texts, 2 threads", 100.5, 120, True)
    assert found.ratio == pytest.approx((110 / 100 + 130 / 101) / 2)
    assert note(MALLOC, GPT, 1, pairs) == (
        "gpt, 8 texts, 1 thread: ours 0 pages a step, 100 to 101 ms; "
        "glibc as it comes 6,000 pages a step, 110 to 130 ms"
    )


def test_unlike_losses_and_a_busy_machine_make_it_void() -> None:
    assert not row(MALLOC, GPT, 1, [(start(1), start(1, last=6.499))]).valid
    assert row(LAYOUT, GPT, 1, [(start(1), start(1, last=6.4))]).valid
    assert not row(LAYOUT, GPT, 1, [(start(1), start(1, last=5.9))]).valid
    first_differs = {**start(1), "losses": [7.01, 6.49]}
    assert not row(LAYOUT, GPT, 1, [(start(1), first_differs)]).valid
    assert not row(MALLOC, GPT, 1, [(start(1, foreign=0.2), start(1, foreign=0.2))]).valid


def test_a_start_trains_the_same_however_memory_is_had_and_keeps_it_where_it_is_told_to() -> None:
    kept = started("googlenet", 1, KEPT, channels_last=False)
    system = started("googlenet", 1, {}, channels_last=False)
    assert kept["losses"] == system["losses"]
    assert kept["losses"][-1] < kept["losses"][0]
    assert kept["pages"] < system["pages"] / 2


def test_a_start_with_channels_last_has_about_the_same_losses() -> None:
    first, last = (started("googlenet", 1, KEPT, channels_last=one) for one in (False, True))
    assert first["losses"] != last["losses"], "another layout is summed up in another order"
    assert are_the_same(first["losses"], last["losses"], LAYOUT.tolerance)
