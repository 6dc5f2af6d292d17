"""Records that are taken in as columns make the same figures as records that are taken in one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from lockstep_service.metrics import figures as module
from lockstep_service.metrics.figures import Figures
from lockstep_service.metrics.record import Record
from lockstep_service.metrics.stretch import LEAST, Stretch, parts


@st.composite
def runs(draw: st.DrawFn) -> list[Record]:
    """Records as ranks report them, with all that may be odd about them: jumps, repeats, holes, other kinds, texts."""
    found: list[Record] = []
    seqs, steps = {0: 0, 1: 0}, {0: 0, 1: 0}
    for _ in range(draw(st.integers(1, 6))):
        rank = draw(st.sampled_from((0, 0, 1)))
        seqs[rank] = max(0, seqs[rank] + draw(st.sampled_from((0, 0, 0, 0, 2, -3))))
        steps[rank] += draw(st.sampled_from((0, 0, 0, 3, -7)))
        names = draw(st.sampled_from((("loss",), ("loss", "seconds"), ("seconds", "loss"), ("note", "loss"))))
        kind = draw(st.sampled_from(("step", "step", "step", "evaluation", "usage")))
        odd = draw(st.sampled_from((None, None, None, 3, 11)))
        for number in range(draw(st.integers(1, 5 * LEAST))):
            seqs[rank] += 1
            steps[rank] += 1
            values: dict[str, Any] = {name: float((seqs[rank] * 7 + len(name)) % 13) / 4 for name in names}
            if number == odd:
                values["loss"] = draw(st.sampled_from(("NaN", "Infinity", 3, "a word")))
            step = None if number == odd and draw(st.booleans()) else steps[rank]
            found.append(Record(1, rank, seqs[rank], 1e9 + len(found) * 0.5, kind, step, values))
    return found


def taken(batches: Iterable[Sequence[Record]], *, by_column: bool) -> tuple[list[bool], Any, Any]:
    """Which were new, and all that is to be stored then."""
    found, new = Figures(), []
    with mock.patch.object(module, "parts", parts if by_column else lambda records: [records]):
        for batch in batches:
            new += found.take(batch)
    return new, *found.stored()


@given(runs(), st.integers(1, 200))
def test_columns_make_what_single_records_make(records: list[Record], size: int) -> None:
    batches = [records[start : start + size] for start in range(0, len(records), size)]
    assert taken(batches, by_column=True) == taken(batches, by_column=False)


def test_long_curves_and_windows_are_the_same_too() -> None:
    records = [Record(1, rank, seq, 1e9 + seq, "step", seq, {"loss": 1.0 / seq, "seconds": 0.25})
               for first in range(1, 12_000, 500) for rank in (0, 1) for seq in range(first, first + 500)]  # fmt: skip
    batches = [records[start : start + 1700] for start in range(0, len(records), 1700)]
    assert taken(batches, by_column=True) == taken(batches, by_column=False)


def test_curves_that_grow_long_within_a_batch_are_the_same_too() -> None:
    steps = [*range(1, 9000), *range(4000, 8000), *range(8500, 12_000), *range(100, 200), *range(12_000, 12_100)]
    records = [Record(1, 0, seq, 1e9 + seq, "step", step, {"loss": 1.0 / seq}) for seq, step in enumerate(steps, 1)]
    assert taken([records], by_column=True) == taken([records], by_column=False)


def test_steps_that_went_back_are_kept_where_the_window_is_full() -> None:
    ahead = [Record(1, 0, seq, 1e9 + seq, "step", seq, {"loss": 1.0}) for seq in range(1, 1025)]
    back = [Record(1, 0, 1024 + seq, 2e9 + seq, "step", seq, {"loss": 1.0}) for seq in range(1, 2 * LEAST)]
    assert taken([ahead, back], by_column=True) == taken([ahead, back], by_column=False)


@given(runs())
def test_every_record_is_in_one_part_and_their_order_stays(records: list[Record]) -> None:
    found = list(parts(records))
    assert [one for part in found for one in (part.records if isinstance(part, Stretch) else part)] == records


def test_what_ranks_usually_send_is_one_stretch() -> None:
    records = [Record(1, 0, seq, 1e9 + seq, "step", seq, {"loss": 0.5}) for seq in range(1, 1001)]
    (whole,) = parts(records)
    assert isinstance(whole, Stretch)
    assert whole.records == records
