"""``Entry``: the first module that is called after a step, as a rule the root of the next forward pass.

In training nothing waits there. Evaluation does: its fast paths ask whether an argument overrides torch's functions,
as a guarded parameter does. So does code that reads its parameters without asking torch: TorchScript, compiled code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook


class Entry:
    """Calls ``reached`` once, if the next module's call is one before which no parameter may be guarded any more."""

    def __init__(self, reached: Callable[[], None]) -> None:
        self._reached = reached
        self._handle: Any = None
        self._opaque: dict[int, bool] = {}

    def watch(self) -> None:
        """From now on, for one call."""
        if self._handle is None:
            self._handle = register_module_forward_pre_hook(self._called)

    def leave(self) -> None:
        """No more."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _called(self, module: nn.Module, _arguments: Any) -> None:  # noqa: ANN401
        self.leave()
        if not torch.is_grad_enabled() or not module.training or self._is_opaque(module):
            self._reached()

    def _is_opaque(self, module: nn.Module) -> bool:
        known = self._opaque.get(id(module))
        if known is None:
            known = self._opaque[id(module)] = any(is_opaque(one) for one in module.modules())
        return known


def is_opaque(module: nn.Module) -> bool:
    """TorchScript, or compiled: its operations do not pass the guards."""
    return (
        isinstance(module, torch.jit.ScriptModule)
        or getattr(module, "_compiled_call_impl", None) is not None
        or type(module).__name__ == "OptimizedModule"
    )
