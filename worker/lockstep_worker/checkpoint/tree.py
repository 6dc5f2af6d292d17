"""A nested state as plain JSON and a list of tensors, and back: no pickle, so that a checkpoint runs no code.

What ``state_dict()`` returns is made of dicts, lists, tuples, numbers, texts and tensors; anything else is refused by
its path and type.
"""

from __future__ import annotations

import base64
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lockstep_worker.checkpoint.errors import CheckpointError

DTYPES: Mapping[str, torch.dtype] = {
    str(dtype).partition(".")[2]: dtype
    for dtype in (
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128,
        torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool,
    )
}  # fmt: skip
"""The dtypes that a checkpoint holds, by name."""


def flatten(state: Any, where: str = "state") -> tuple[Any, list[Tensor]]:  # noqa: ANN401 - a nested state
    """``state`` as (JSON document, tensors): the document names tensors by their number.

    Tensors that are one memory (tied weights) are one in the list. Raises ``CheckpointError`` for what is neither.
    """
    tensors: list[Tensor] = []
    numbers_of: dict[tuple[Any, ...], int] = {}

    def node(value: Any, path: str) -> Any:  # noqa: ANN401, PLR0911 - one for each kind
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, numbers.Integral):
            return int(value)
        if isinstance(value, numbers.Real):
            return float(value)
        if isinstance(value, Tensor):
            return {"tensor": _number(_plain(value, path), tensors, numbers_of)}
        if isinstance(value, Mapping):
            return {"dict": [[node(key, path), node(one, f"{path}[{key!r}]")] for key, one in value.items()]}
        if isinstance(value, tuple):
            return {"tuple": [node(one, f"{path}[{place}]") for place, one in enumerate(value)]}
        if isinstance(value, list):
            return [node(one, f"{path}[{place}]") for place, one in enumerate(value)]
        if isinstance(value, bytes):
            return {"bytes": base64.b64encode(value).decode()}
        raise CheckpointError(
            f"{path} is a {type(value).__module__}.{type(value).__qualname__}, which no checkpoint holds: keep "
            "numbers, texts, tensors, and dicts, lists and tuples of them in a state"
        )

    return node(state, where), tensors


def unflatten(document: Any, tensors: Sequence[Tensor]) -> Any:  # noqa: ANN401
    """The state that ``flatten`` told. Raises ``CheckpointError`` for a document that it did not make."""
    if document is None or isinstance(document, (bool, int, float, str)):
        return document
    if isinstance(document, list):
        return [unflatten(one, tensors) for one in document]
    if isinstance(document, dict) and len(document) == 1:
        ((kind, content),) = document.items()
        if kind == "tensor" and isinstance(content, int) and 0 <= content < len(tensors):
            return tensors[content]
        if kind == "tuple" and isinstance(content, list):
            return tuple(unflatten(one, tensors) for one in content)
        if kind == "bytes" and isinstance(content, str):
            return base64.b64decode(content)
        if kind == "dict" and isinstance(content, list):
            return {unflatten(key, tensors): unflatten(value, tensors) for key, value in content}
    raise CheckpointError(f"its state has {str(document)[:80]!r}, which is no form of one")


def _plain(tensor: Tensor, path: str) -> Tensor:
    """The memory of an ordinary tensor; a parameter's without its gradient."""
    found = tensor.detach()
    if found.layout != torch.strided or found.is_quantized or name_of(found.dtype) not in DTYPES:
        raise CheckpointError(f"{path} is a tensor of {found.dtype}, {found.layout}, which no checkpoint holds")
    return found if found.device.type == "cpu" else found.cpu()


def name_of(dtype: torch.dtype) -> str:
    """``float32`` of ``torch.float32``."""
    return str(dtype).partition(".")[2]


def _number(tensor: Tensor, tensors: list[Tensor], numbers_of: dict[tuple[Any, ...], int]) -> int:
    memory = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()) if tensor.numel() else (object(),)
    if memory not in numbers_of:
        numbers_of[memory] = len(tensors)
        tensors.append(tensor)
    return numbers_of[memory]
