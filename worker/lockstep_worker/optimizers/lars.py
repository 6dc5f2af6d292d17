"""LARS: momentum SGD with a step in proportion to each layer's weights (You et al., arXiv 1708.03888)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import Optimizer, ParamsT

from lockstep_worker.optimizers.trust import check_state, dense, norm, refuse_negative


class LARS(Optimizer):
    """Algorithm 1 of the paper.

    For a parameter w with gradient g, learning rate r, momentum m, weight decay b:

    ratio = trust_coefficient * |w| / (|g| + b * |w|)
    v = m * v + r * ratio * (g + b * w)
    w = w - v

    The learning rate is inside the momentum, as in the paper and unlike torch's SGD. Where ``adapt`` is false in a
    parameter group (biases, normalisation: see ``parameter_groups``), and where |w| or the denominator is 0, the ratio
    is 1. The decay of the learning rate (the paper's is polynomial) is not in here: the rate is set from outside.

    An update of one parameter needs its whole gradient and no other's: norms are taken parameter by parameter. So
    updates may be deferred layer by layer, but not made piece by piece of one parameter. Raises ``ValueError`` for a
    negative figure, ``RuntimeError`` for a sparse gradient.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,  # a default, since Horovod's DistributedOptimizer makes a copy by its groups alone
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        adapt: bool = True,
    ) -> None:
        refuse_negative(lr=lr, momentum=momentum, weight_decay=weight_decay, trust_coefficient=trust_coefficient)
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "weight_decay": weight_decay,
                "trust_coefficient": trust_coefficient,
                "adapt": adapt,
            },
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch does it; ``ValueError`` for the state of another kind of optimizer, before anything is changed."""
        check_state(state_dict, "velocity")
        super().load_state_dict(state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Updates every parameter that has a gradient; the loss that ``closure`` returns, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            decay = group["weight_decay"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = dense(parameter.grad, "LARS")
                ratio = 1.0
                if group["adapt"]:
                    weights = norm(parameter)
                    divisor = norm(gradient) + decay * weights
                    if weights > 0 and divisor > 0:
                        ratio = group["trust_coefficient"] * weights / divisor
                state = self.state[parameter]
                if not state:
                    state["velocity"] = torch.zeros_like(parameter)
                velocity = state["velocity"].mul_(group["momentum"])
                velocity.add_(gradient.add(parameter, alpha=decay), alpha=group["lr"] * ratio)
                parameter.sub_(velocity)
        return loss
