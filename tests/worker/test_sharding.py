"""An epoch's order is its seed's alone: however often the number of ranks changes, each sample is trained on once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lockstep_worker.data.sharding import behind, order, steps_left

PARTS = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(0, 7)), min_size=1, max_size=6)
"""One after the other: so many ranks, with batches of this size, for at most so many steps."""


def trained(samples: int, epoch: int, seed: int, parts: list[tuple[int, int, int]]) -> tuple[list[int], int]:
    """What all ranks together train on in one epoch, in order; and how many samples were done at the end."""
    seen: list[int] = []
    done = 0
    for ranks, size, steps in parts:
        for _ in range(min(steps, steps_left(samples, done, batch_size=size, ranks=ranks))):
            for rank in range(ranks):
                own = behind(samples, epoch, done, batch_size=size, rank=rank, seed=seed)
                assert len(own) == size
                seen += own.tolist()
            done += size * ranks
    return seen, done


@given(st.integers(0, 200), st.integers(0, 3), st.integers(0, 5), PARTS)
def test_a_training_goes_on_right_behind_what_was_trained_with_any_number_of_ranks(
    samples: int, epoch: int, seed: int, parts: list[tuple[int, int, int]]
) -> None:
    seen, done = trained(samples, epoch, seed, parts)
    assert seen == order(samples, epoch, seed)[:done].tolist()
    assert len(set(seen)) == len(seen), "a sample came twice"


@given(st.integers(0, 200), st.integers(0, 200), st.integers(1, 6), st.integers(1, 9), st.integers(1, 9))
def test_an_epoch_ends_where_no_full_global_batch_is_left_or_at_its_cap(
    samples: int, done: int, ranks: int, size: int, cap: int
) -> None:
    left = steps_left(samples, done, batch_size=size, ranks=ranks)
    assert done + left * size * ranks <= max(samples, done)
    assert samples - done - left * size * ranks < size * ranks
    capped = steps_left(samples, done, batch_size=size, ranks=ranks, cap=cap)
    assert capped == min(left, max(0, cap * size * ranks - done) // (size * ranks))
    whole = samples // (size * ranks)
    assert steps_left(samples, 0, batch_size=size, ranks=ranks, cap=cap) == min(cap, whole)
