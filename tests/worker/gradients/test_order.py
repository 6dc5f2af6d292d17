"""The pure part of the exchange: nothing is lost by packing, and the order is as good as can be."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep_worker.gradients.link import Link
from lockstep_worker.gradients.order import Timing, schedule
from lockstep_worker.gradients.pieces import HEADER, Size, lay_out
from lockstep_worker.gradients.plan import Measured, Plan, first_plan, measured_plan
from support.gradients.lateness import lateness

sizes = st.lists(
    st.builds(
        lambda elements, kind: Size(elements, *kind),
        st.integers(0, 5000),
        st.sampled_from([(4, "float32"), (2, "float16"), (8, "float64")]),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


@given(sizes, st.integers(2 * HEADER, 20_000), st.randoms(use_true_random=False))
def test_pieces_hold_every_element_once_within_their_limit(found: list[Size], limit: int, chance: object) -> None:
    sequence = list(range(len(found)))
    chance.shuffle(sequence)  # type: ignore[attr-defined]
    layout = lay_out(found, sequence, limit)
    for dtype, length in layout.lengths.items():
        pieces = sorted((one for one in layout.pieces if one.dtype == dtype), key=lambda one: one.start)
        assert [one.start for one in pieces] == [0, *(one.stop for one in pieces[:-1])]
        assert pieces[-1].stop == length
    items = {size.dtype: size.item for size in found}
    assert all((one.stop - one.start) * items[one.dtype] <= limit for one in layout.pieces)
    taken: dict[str, set[int]] = {}
    for number, size in enumerate(found):
        own = range(layout.flags[number], layout.starts[number] + size.elements)
        assert layout.starts[number] * size.item % HEADER == 0
        assert layout.flags[number] + 2 <= layout.starts[number]
        assert not taken.setdefault(size.dtype, set()) & set(own)
        taken[size.dtype] |= set(own)
        inside = [
            index
            for index, piece in enumerate(layout.pieces)
            if piece.dtype == size.dtype and piece.start < own.stop and own.start < piece.stop
        ]
        assert set(inside) <= set(layout.parts[number])
        assert all(number in layout.pieces[part].tensors for part in layout.parts[number])


def test_small_tensors_share_a_piece_and_a_large_one_is_cut() -> None:
    found = [Size(10, 4, "float32")] * 5 + [Size(5000, 4, "float32")]
    layout = lay_out(found, range(6), 4096)
    assert layout.pieces[0].tensors == (0, 1, 2, 3, 4, 5)
    assert len(layout.parts[5]) == 6
    # What would fit into a piece is not cut where the one before it is full enough.
    layout = lay_out([Size(600, 4, "float32")] * 2, range(2), 4096)
    assert [one.tensors for one in layout.pieces] == [(0,), (1,)]


def test_a_piece_has_room_for_more_than_its_header() -> None:
    with pytest.raises(ValueError, match="piece_bytes is 100; a piece has at least 128"):
        lay_out([Size(1, 4, "float32")], [0], 100)


unit_jobs = st.lists(
    st.builds(lambda release, due: Timing(release, due, 1), st.integers(0, 6), st.integers(0, 9)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60)
@given(unit_jobs)
def test_no_order_is_less_late_for_pieces_of_one_size(timings: list[Timing]) -> None:
    order = schedule(timings)
    assert sorted(order) == list(range(len(timings)))
    best = min(lateness(timings, one) for one in itertools.permutations(range(len(timings))))
    assert lateness(timings, order) == best


def test_the_first_layers_overtake_what_waits_for_the_link() -> None:
    # Released from the last layer (2) to the first (0); the link is slow.
    timings = [Timing(3.0, 10.0, 5.0), Timing(2.0, 11.0, 5.0), Timing(1.0, 12.0, 5.0)]
    assert schedule(timings) == [2, 0, 1]


def test_before_anything_is_measured_pieces_that_would_be_fused_go_one_at_a_time() -> None:
    found = [Size(1000, 4, "float32")]
    places = {fuses: first_plan(1, found, [0], None, None, fuses=fuses).credit for fuses in (False, True)}
    assert places == {False: 2, True: 1}
    assert first_plan(1, found, [0], None, 3, fuses=True).credit == 3


def test_a_plan_is_the_same_after_its_journey() -> None:
    found = [Size(100, 4, "float32"), Size(3000, 4, "float32"), Size(10, 4, "float32")]
    first = first_plan(1, found, [0, 1, 2], 1024, 2)
    assert first.order == tuple(reversed(range(len(first.order))))
    seen = Measured(released={0: 0.3, 1: 0.2, 2: 0.1}, used={1: 0.0, 0: 0.1}, link=Link(0.0, 1e-7))
    plan = measured_plan(2, found, [0, 1, 2], 1024, 2, measured=seen)
    assert plan.sequence == (1, 0, 2)  # by first use; what was never used comes last
    assert sorted(plan.order) == sorted(first.order)
    for per_byte, expected in ((8e-9, 1_000_000), (1e-6, 512 << 10), (1e-12, 8 << 20), (0.0, 8 << 20)):
        seen = Measured(released={}, used={}, link=Link(0.0, per_byte))
        assert measured_plan(2, found, [0, 1, 2], None, 2, measured=seen).piece_bytes == expected
    assert Plan.from_json(json.loads(json.dumps(plan.as_json()))) == plan
