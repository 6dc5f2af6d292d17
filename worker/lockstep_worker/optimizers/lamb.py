"""LAMB: Adam with a step in proportion to each layer's weights (You et al., arXiv 1904.00962)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import Optimizer, ParamsT

from lockstep_worker.optimizers.trust import check_state, dense, norm, refuse_negative


class LAMB(Optimizer):
    """Algorithm 2 of the paper, whose phi is the identity here.

    For a parameter w with gradient g in its t-th step, learning rate r, weight decay b:

    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    u = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) + b * w
    w = w - r * ratio * u,   ratio = |w| / |u|

    Where ``adapt`` is false in a parameter group (biases, normalisation: see ``parameter_groups``), and where |w| or
    |u| is 0, the ratio is 1.

    An update of one parameter needs its whole gradient and no other's: norms are taken parameter by parameter. So
    updates may be deferred layer by layer, but not made piece by piece of one parameter. Variants that first divide by
    the norm of all gradients need every gradient before any update; this is none of them. Raises ``ValueError`` for a
    figure out of its range, ``RuntimeError`` for a sparse gradient.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.001,  # a default, since Horovod's DistributedOptimizer makes a copy by its groups alone
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        adapt: bool = True,
    ) -> None:
        refuse_negative(lr=lr, eps=eps, weight_decay=weight_decay)
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas are {betas}; each has to be at least 0 and less than 1")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "adapt": adapt})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch does it; ``ValueError`` for the state of another kind of optimizer, before anything is changed."""
        check_state(state_dict, "step", "mean", "mean_of_squares")
        super().load_state_dict(state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Updates every parameter that has a gradient; the loss that ``closure`` returns, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = dense(parameter.grad, "LAMB")
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros(())  # a tensor, as torch's AdamW has it: it is broadcast with the rest
                    state["mean"] = torch.zeros_like(parameter)
                    state["mean_of_squares"] = torch.zeros_like(parameter)
                state["step"] += 1
                steps = state["step"].item()
                mean = state["mean"].lerp_(gradient, 1 - beta1)
                squares = state["mean_of_squares"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                update = mean / (1 - beta1**steps)
                update.div_((squares / (1 - beta2**steps)).sqrt_().add_(group["eps"]))
                update.add_(parameter, alpha=group["weight_decay"])
                ratio = 1.0
                if group["adapt"]:
                    weights, length = norm(parameter), norm(update)
                    if weights > 0 and length > 0:
                        ratio = weights / length
                parameter.sub_(update, alpha=group["lr"] * ratio)
        return loss
