"""Whose gradients go over TCP though nobody said so."""

from __future__ import annotations

import pytest

from lockstep_worker.carrier import MOST_RANKS, _suits_tcp
from lockstep_worker.recipe import Recipe


@pytest.mark.parametrize(
    ("transport", "exchange", "operations", "ranks", "suits"),
    [
        ("auto", "lockstep", "gloo", 2, True),
        ("auto", "lockstep", "gloo", MOST_RANKS, True),
        ("auto", "lockstep", "gloo", MOST_RANKS + 1, False),
        ("auto", "lockstep", "mpi", 2, False),
        ("auto", "lockstep", "ccl", 2, False),
        ("auto", "lockstep", None, 2, False),
        ("auto", "horovod", "gloo", 2, False),
        ("horovod", "lockstep", "gloo", 2, False),
    ],
)
def test_a_few_ranks_whose_horovod_goes_over_tcp_itself(
    transport: str, exchange: str, operations: str | None, ranks: int, suits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if operations is None:
        monkeypatch.delenv("HOROVOD_CPU_OPERATIONS", raising=False)
    else:
        monkeypatch.setenv("HOROVOD_CPU_OPERATIONS", operations)
    recipe = Recipe("digits-mlp", "digits", exchange=exchange, transport=transport)
    assert _suits_tcp(recipe, ranks) == suits
