"""Whose gradients go over TCP though nobody said so."""

from __future__ import annotations

import pytest

from lockstep_slurm.job.cycle import MOST_RANKS_OVER_TCP, goes_over_tcp
from lockstep_worker.carrier import _suits_tcp
from lockstep_worker.recipe import Recipe


@pytest.mark.parametrize(
    ("transport", "exchange", "operations", "ranks", "suits"),
    [
        ("auto", "lockstep", "gloo", 2, True),
        ("auto", "lockstep", "gloo", MOST_RANKS_OVER_TCP, True),
        ("auto", "lockstep", "gloo", MOST_RANKS_OVER_TCP + 1, False),
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
    if operations is not None:
        # What is known before the ranks are started: Horovod's cycle goes by it.
        said = {"transport": None if transport == "auto" else transport, "exchange": exchange, "backend": operations}
        assert goes_over_tcp(said, ranks) == suits
