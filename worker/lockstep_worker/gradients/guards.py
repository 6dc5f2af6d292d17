"""Tensors that are not to be read yet: whoever touches one by an operation of torch's waits for it.

While a tensor is guarded its class is a subclass whose ``__torch_function__`` calls back before the first operation
on it, and puts the class back. So a layer's weights, a weight that is used without its module being called
(``nn.MultiheadAttention.out_proj``), a tied one, ``state_dict``, ``deepcopy`` and ``print`` are all the same case, and
a tensor that is not guarded costs nothing. What reads memory without asking torch is not seen: an alias made earlier
(``p.data``), TorchScript, ``torch.tensor(p)``, wrappers of ``torch.func``; ``entry`` covers what is called as a module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

Touched = Callable[[Tensor], None]
"""Called with the guarded tensor; has to ``release`` it, or to raise."""

_guarded: dict[int, tuple[Tensor, type, Touched, AbstractContextManager[Any]]] = {}
"""By id: the tensor (so that its id stays its own), the class it had, whom to call, within what ``.grad`` is set."""
_classes: dict[type, type] = {}
_bases: dict[type, type] = {}


def can_guard(tensor: Tensor) -> bool:
    """Whether its class leaves room for ours: one with a ``__torch_function__`` of its own does not."""
    own = getattr(type(tensor), "__torch_function__", None)
    return own is nn.Parameter.__torch_function__ or getattr(own, "__func__", own) is _tensors_own


def guard(tensor: Tensor, touched: Touched, alone: AbstractContextManager[Any] | None = None) -> None:
    """Guards it; again, with another callback, if it is guarded. ``alone``: its ``.grad`` is set within that."""
    known = _guarded.get(id(tensor))
    base = type(tensor) if known is None else known[1]
    _guarded[id(tensor)] = (tensor, base, touched, alone or nullcontext())
    if known is None:
        tensor.__class__ = _classes.get(base) or _guarded_class(base)


def release(tensor: Tensor) -> None:
    """An ordinary tensor again."""
    known = _guarded.pop(id(tensor), None)
    if known is not None:
        tensor.__class__ = known[1]


def _guarded_class(base: type) -> type:
    def __deepcopy__(self: Tensor, memo: dict[int, Any]) -> Tensor:  # noqa: N807
        _touch(self)
        return cast("Tensor", self.__deepcopy__(memo))  # type: ignore[no-untyped-call]

    def __reduce_ex__(self: Tensor, protocol: Any) -> Any:  # noqa: ANN401, N807
        _touch(self)
        return self.__reduce_ex__(protocol)  # type: ignore[no-untyped-call]

    made = type(
        f"Guarded{base.__name__}", (base,),
        {
            "__doc__": "A tensor whose value is on its way.",
            # Dynamo calls it, breaks its graph there, and does not trace it.
            "__torch_function__": classmethod(torch.compiler.disable(_torch_function)),  # type: ignore[no-untyped-call]
            "__deepcopy__": __deepcopy__,
            "__reduce_ex__": __reduce_ex__,
        },
    )  # fmt: skip
    _classes[base], _bases[made] = made, base
    return made


def _torch_function(
    _cls: type,
    function: Any,  # noqa: ANN401
    _types: Any,  # noqa: ANN401
    arguments: tuple[Any, ...] = (),
    named: dict[str, Any] | None = None,
) -> Any:  # noqa: ANN401
    named = named or {}
    if function in _SETTERS:
        known = _guarded.get(id(arguments[0]))
        with known[3] if known is not None else nullcontext(), torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001
            return function(*arguments, **named)
    if function in _HARMLESS:
        with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 - what torch.overrides itself offers for it
            return function(*arguments, **named)
    _touch_all(arguments)
    _touch_all(named.values())
    return function(*arguments, **named)


def _touch_all(values: Iterable[Any]) -> None:
    for value in values:
        if type(value) in _bases:
            _touch(value)
        elif isinstance(value, (list, tuple)):
            _touch_all(value)
        elif isinstance(value, dict):
            _touch_all(value.values())


def _touch(tensor: Tensor) -> None:
    known = _guarded.get(id(tensor))
    if known is None:
        # A copy that has got the class of its original, and nothing to wait for.
        base = _bases.get(type(tensor))
        if base is not None:
            tensor.__class__ = base
        return
    known[2](tensor)


_tensors_own = Tensor.__torch_function__.__func__  # type: ignore[attr-defined]

_PROPERTIES = (
    "shape", "dtype", "device", "layout", "ndim", "requires_grad", "is_leaf", "grad_fn", "grad", "is_sparse", "is_cuda",
    "is_cpu", "is_meta", "is_quantized", "is_mkldnn", "is_nested", "names", "output_nr", "retains_grad", "itemsize",
    "nbytes", "_version", "_backward_hooks", "_post_accumulate_grad_hooks",
)  # fmt: skip
_METHODS = (
    "size", "dim", "ndimension", "numel", "nelement", "element_size", "stride", "storage_offset", "is_contiguous",
    "is_floating_point", "is_complex", "is_signed", "get_device", "register_hook",
    "register_post_accumulate_grad_hook", "requires_grad_",
)  # fmt: skip


def _accessors() -> set[Any]:
    found = [getattr(Tensor, name) for name in _PROPERTIES if hasattr(Tensor, name)]
    return {getattr(one, way) for one in found for way in ("__get__", "__set__", "__delete__") if hasattr(one, way)}


_gradients: Any = Tensor.grad
_SETTERS = {_gradients.__set__, _gradients.__delete__}
"""What takes away or replaces a gradient that another thread's update may be about to read."""
_HARMLESS = ({getattr(Tensor, name) for name in _METHODS} | _accessors()) - _SETTERS
"""What reads no element."""


def untouched() -> Any:  # noqa: ANN401 - torch's own context manager
    """Within it guarded tensors are as any others: for those who know what they do."""
    return torch._C.DisableTorchFunctionSubclass()  # noqa: SLF001
