"""``Entry``: the first call, after a step, of a module that holds what is guarded: as a rule the next forward's root.

In training nothing waits there. Evaluation does: its fast paths ask whether an argument overrides torch's functions,
as a guarded parameter does. So does code that reads its parameters without asking torch: TorchScript, compiled code.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook


class Entry:
    """Calls ``reached`` if that call is one before which none of the module's parameters may be guarded any more."""

    def __init__(self, reached: Callable[[], None]) -> None:
        self._reached = reached
        self._handle: Any = None
        self._guarded: set[int] = set()
        self._holds: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()
        self._opaque: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()

    def watch(self, parameters: Iterable[Tensor]) -> None:
        """From now on, for one such call. Modules without any of them (a teacher, a metric) do not count."""
        guarded = {id(one) for one in parameters}
        if guarded != self._guarded:
            self._guarded = guarded
            self._holds.clear()
        if self._handle is None:
            self._handle = register_module_forward_pre_hook(self._called)

    def leave(self) -> None:
        """No more."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _called(self, module: nn.Module, _arguments: Any) -> None:  # noqa: ANN401
        holds = self._holds.get(module)
        if holds is None:
            holds = self._holds[module] = any(id(one) in self._guarded for one in module.parameters())
        if not holds:
            return
        self.leave()
        if not torch.is_grad_enabled() or not module.training or self._is_opaque(module):
            self._reached()

    def _is_opaque(self, module: nn.Module) -> bool:
        known = self._opaque.get(module)
        if known is None:
            known = self._opaque[module] = any(is_opaque(one) for one in module.modules())
        return known


def is_opaque(module: nn.Module) -> bool:
    """TorchScript, or compiled: its operations do not pass the guards."""
    return (
        isinstance(module, torch.jit.ScriptModule)
        or getattr(module, "_compiled_call_impl", None) is not None
        or type(module).__name__ == "OptimizedModule"
    )
