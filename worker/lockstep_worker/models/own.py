"""A model of the user's own, by ``module:function``: imported here, inside the job, and nowhere else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from lockstep_worker.errors import ModelError


def own_model(name: str, arguments: Mapping[str, Any], path: str | None = None) -> nn.Module:
    """What the function of ``name`` makes of ``arguments``; its module is looked for in the folder ``path`` first.

    Raises ``ModelError`` where there is no such module or function, or it makes no ``torch.nn.Module``. What the user's
    own code raises, at its import or in the function, is raised as it is, with its traceback.
    """
    module_name, _, function_name = name.partition(":")
    if path is not None:
        if not Path(path).is_dir():
            raise ModelError(f"training.model_path: there is no folder {path} on this node")
        sys.path.insert(0, path)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # One that the user's own module imports is that module's error, not ours.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        looked = path or "the environment of the ranks"
        raise ModelError(
            f"training.model: there is no module {error.name!r} in {looked}; set training.model_path to the folder "
            "that holds it, or install it there"
        ) from None
    function = getattr(module, function_name, None)
    if not callable(function):
        there = (
            f"{function_name!r} of {module.__file__} is no function"
            if hasattr(module, function_name)
            else (f"{module.__file__} has no {function_name!r}")
        )
        raise ModelError(f"training.model: {there}; name one that returns a torch.nn.Module")
    model = function(**arguments)
    if not isinstance(model, nn.Module):
        raise ModelError(f"training.model: {name} returned {type(model).__name__}, and not a torch.nn.Module")
    return model
