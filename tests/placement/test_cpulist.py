"""CPU lists go to text and come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_slurm.placement.cpulist import compress, from_mask, parse


@given(st.sets(st.integers(0, 2047), min_size=1))
def test_a_list_comes_back(numbers: set[int]) -> None:
    assert parse(compress(numbers)) == tuple(sorted(numbers))
    assert from_mask(sum(1 << number for number in numbers)) == tuple(sorted(numbers))


def test_it_is_written_as_linux_writes_it() -> None:
    assert compress([8, 3, 1, 0, 2, 3]) == "0-3,8"
    assert compress([]) == "none"
    assert parse("") == ()


@pytest.mark.parametrize("text", ["a", "1-", "-1", "3-1", "0-3-5", "0-99999999999", "65536"])
def test_what_is_no_list_is_refused_by_its_words(text: str) -> None:
    with pytest.raises(ValueError, match="no list of CPUs"):
        parse(text)


def test_a_mask_beyond_any_machine_is_refused() -> None:
    with pytest.raises(ValueError, match="no machine's"):
        from_mask(1 << (1 << 20))
