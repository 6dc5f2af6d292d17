"""A run directory, and a node's writer in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.writers import Node


@pytest.fixture
def run(make_run: Callable[..., Path]) -> Path:
    return make_run(model="digits-mlp", data="digits")


@pytest.fixture
def node(run: Path, tmp_path: Path) -> Iterator[Node]:
    folder = tmp_path / "n"
    folder.mkdir(mode=0o700)
    node = Node(run, folder)
    yield node
    if node.helper.process.poll() is None:
        node.helper.process.kill()
    node.helper.process.wait()
    assert node.helper.process.stdout is not None
    node.helper.process.stdout.close()
