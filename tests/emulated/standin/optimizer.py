"""Stands for ``torch.optim.optimizer``: steps, and the hooks that are told of each."""

from __future__ import annotations

from collections.abc import Callable

_hooks: list[Callable[..., object]] = []


class Handle:
    """What takes a hook away again."""

    def __init__(self, hook: Callable[..., object]) -> None:
        self._hook = hook

    def remove(self) -> None:
        """No more of them."""
        _hooks.remove(self._hook)


def register_optimizer_step_post_hook(hook: Callable[..., object]) -> Handle:
    """``hook`` is called after each step of any optimizer."""
    _hooks.append(hook)
    return Handle(hook)


class SGD:
    """An optimizer of nothing."""

    def __init__(self, parameters: list[object], lr: float) -> None:
        self.parameters, self.lr = parameters, lr

    def step(self) -> None:
        """One step."""
        for hook in _hooks:
            hook(self, (), {})
