"""``Entry``: the calls of modules, after a step and until its update is done.

A called module touches the parameters that are its own, before its code runs: what it hands to TorchScript or to an
extension is not read too early. Code that is opaque as a whole (TorchScript, compiled) touches all that it holds.
So does what runs in evaluation or without gradients, whose fast paths ask whether an argument overrides torch's
functions, as a guarded parameter does; if the root of a forward pass does so, everything is completed there.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook


class Entry:
    """Calls ``touched`` with what a module uses, or ``reached`` where nothing may be guarded any more."""

    def __init__(self, reached: Callable[[], None], touched: Callable[[Sequence[Tensor]], None]) -> None:
        self._reached = reached
        self._touched = touched
        # Where Dynamo meets the hook in a compiled module it calls it, and does not trace it.
        self._hook: Any = torch.compiler.disable(self._called)  # type: ignore[no-untyped-call]
        self._handle: Any = None
        self._guarded: set[int] = set()
        self._entered = False
        """Whether a module that holds any of them was called: the root of a forward pass."""
        self._holds: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()

    def watch(self, parameters: Iterable[Tensor]) -> None:
        """From now on, until ``leave``. Modules without any of them (a teacher, a metric) do not count."""
        self._entered = False
        guarded = {id(one) for one in parameters}
        if guarded != self._guarded:
            self._guarded = guarded
            self._holds.clear()
        if self._handle is None:
            self._handle = register_module_forward_pre_hook(self._hook)

    def leave(self) -> None:
        """No more."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _called(self, module: nn.Module, _arguments: Any) -> None:  # noqa: ANN401
        if torch._C._functorch.peek_interpreter_stack() is not None:  # noqa: SLF001 - no public way to ask
            # torch.func works on wrappers of the parameters, made from their memory: nobody sees which.
            self._reached()
            return
        whole = not torch.is_grad_enabled() or not module.training
        if (whole or not self._entered) and not self._is_holding(module):
            return
        if whole and not self._entered:
            self._reached()
            return
        self._entered = True
        every = module.parameters() if whole or is_opaque(module) else module._parameters.values()  # noqa: SLF001 - its own
        own = [one for one in every if one is not None and id(one) in self._guarded]
        if own:
            self._touched(own)

    def _is_holding(self, module: nn.Module) -> bool:
        holds = self._holds.get(module)
        if holds is None:
            holds = self._holds[module] = any(id(one) in self._guarded for one in module.parameters())
        return holds


def is_opaque(module: nn.Module) -> bool:
    """TorchScript, or compiled: its operations do not pass the guards."""
    return (
        isinstance(module, torch.jit.ScriptModule)
        or getattr(module, "_compiled_call_impl", None) is not None
        or type(module).__name__ == "OptimizedModule"
    )
