"""A model of the user's own: found where the spec says, and plain words where it is not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lockstep_worker import models
from lockstep_worker.errors import ModelError

SOURCE = """
from torch import nn
not_a_function = 3
def build(width=2, bias=True):
    return nn.Linear(width, 3, bias=bias)
def other():
    return [nn.Linear(1, 1)]
def broken():
    raise KeyError("mine")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_own").mkdir()
    (tmp_path / "my_own" / "__init__.py").write_text("")
    (tmp_path / "my_own" / "nets.py").write_text(SOURCE)
    (tmp_path / "my_own" / "needy.py").write_text("import a_package_that_is_not_there\n")
    for name in ("my_own", "my_own.nets", "my_own.needy"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def build(name: str, folder: Path | None, **arguments: Any) -> nn.Module:
    return models.build(name, arguments=arguments, path=None if folder is None else str(folder))


def test_its_function_is_called_with_the_arguments_of_the_spec(folder: Path) -> None:
    torch.manual_seed(3)
    model = build("my_own.nets:build", folder, width=5, bias=False)
    assert isinstance(model, nn.Linear)
    assert model.weight.shape == (3, 5)
    assert model.bias is None
    torch.manual_seed(3)
    assert torch.equal(model.weight, nn.Linear(5, 3, bias=False).weight), "from torch's random state"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "my_own.net:build",
            r"there is no module 'my_own\.net' in .*; set training\.model_path to the folder that hol",
        ),
        ("my_other.nets:build", r"there is no module 'my_other' in"),
        ("my_own.nets:built", r"my_own/nets\.py has no 'built'; name one that returns a torch\.nn\.Module"),
        ("my_own.nets:not_a_function", r"'not_a_function' of .*my_own/nets\.py is no function"),
        ("my_own.nets:other", r"my_own\.nets:other returned list, and not a torch\.nn\.Module"),
    ],
)
def test_what_was_not_found_is_told(folder: Path, name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        build(name, folder)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"training\.model_path: there is no folder .*/none on this node"):
        build("my_own.nets:build", tmp_path / "none")


def test_what_the_users_own_code_raises_is_not_hidden(folder: Path) -> None:
    with pytest.raises(KeyError, match="mine"):
        build("my_own.nets:broken", folder)
    with pytest.raises(TypeError, match="unexpected keyword argument 'depth'"):
        build("my_own.nets:build", folder, depth=3)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        build("my_own.needy:build", folder)
