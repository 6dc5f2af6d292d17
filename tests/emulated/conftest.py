"""The emulated machines of these tests: one boot for all cases of a shape that were chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from two_sockets import WITHOUT_SMT

from support import emulated
from support.emulated import Case, Result

HERE = Path(__file__).parent
LIMIT = 1500
"""Seconds for one test: the machine may have to be booted several times, and the case may be its last."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One machine after the other: those of the machine without SMT come last."""
    ours = [number for number, item in enumerate(items) if item.path.is_relative_to(HERE)]
    line = sorted(
        (items[number] for number in ours), key=lambda item: any(one.shape == WITHOUT_SMT for one in of(item))
    )
    for number, item in zip(ours, line, strict=True):
        item.add_marker(pytest.mark.timeout(LIMIT))
        items[number] = item


def of(item: pytest.Item) -> list[Case]:
    """The cases of one test."""
    call = getattr(item, "callspec", None)
    return [value for value in call.params.values() if isinstance(value, Case)] if call is not None else []


@pytest.fixture(scope="session")
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Case], Result]]:
    """What came of a case; all cases of the tests that were chosen run in one boot."""
    emulated.needed()
    cases = {case.id: case for item in request.session.items for case in of(item)}
    with emulated.machines(list(cases.values())) as machines:
        yield lambda case: machines[case.shape].of(case)
