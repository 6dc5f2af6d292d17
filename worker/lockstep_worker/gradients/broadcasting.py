"""Horovod's broadcast of an optimizer's state, where the optimizer is one of ours."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from lockstep_worker.gradients.errors import GradientError

OWN = "_lockstep"
"""The name in an optimizer's ``__dict__`` of what is ours in it."""


def by_itself(broadcast: Callable[..., Any]) -> Callable[..., Any]:
    """Horovod's ``broadcast_optimizer_state`` on an optimizer of ours.

    A rank without any state makes one by a step on gradients of zeros, which is to be its own: the others may have a
    state. Where they have, what that step does to parameters (weight decay) is taken back, since they do not do it.
    """

    @functools.wraps(broadcast)
    def wrapped(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        optimizer: Any = arguments[0] if arguments else named.get("optimizer")
        own = getattr(optimizer, "__dict__", {}).get(OWN)
        if own is None or own.reducer is None:
            return broadcast(*arguments, **named)
        own.complete()
        if own.reducer.begun:
            raise GradientError("broadcast_optimizer_state() between backward() and step(): gradients are exchanged")
        empty = not optimizer.state
        own.by_itself = True
        every = [one for group in optimizer.param_groups for one in group["params"]] if empty else []
        before = [(one, one.grad, one.detach().clone()) for one in every]
        alike = True
        try:
            alike = all(own.reducer.transport.gather(empty))
            return broadcast(*arguments, **named)
        finally:
            own.by_itself = False
            with torch.no_grad():
                for one, gradient, value in before:
                    one.grad = gradient
                    if not alike:
                        one.copy_(value)

    return wrapped
