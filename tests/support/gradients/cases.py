"""The cases in which a deferred, an undeferred and Horovod's own training have to be equal bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import horovod.torch as hvd
import torch
from torch import nn

from lockstep_worker.optimizers.lamb import LAMB
from lockstep_worker.optimizers.lars import LARS
from support.gradients import models, steps
from support.gradients.training import Case


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1, amsgrad=True)


class Normed(torch.optim.SGD):
    """Scales each parameter's update by a norm, as LARS does, by operations that autocast would change."""

    separable = True

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for one in group["params"]:
                if one.grad is not None:
                    flat = one.grad.flatten()
                    one.add_(one.grad / (flat @ flat + 1).sqrt(), alpha=-group["lr"])


def normed(parameters: Any) -> torch.optim.Optimizer:
    return Normed(parameters, lr=0.05)


def grouped(parameters: Any) -> torch.optim.Optimizer:
    """Two groups of other rates, as trainings without weight decay of biases have them."""
    found = list(parameters)
    return torch.optim.Adam(
        [{"params": [one for one in found if one.dim() > 1], "weight_decay": 0.1},
         {"params": [one for one in found if one.dim() <= 1], "lr": 0.003}], lr=0.01, foreach=True,
    )  # fmt: skip


def three_passes() -> dict[str, Any]:
    return {"backward_passes_per_step": 3}


def as_horovods() -> dict[str, Any]:
    """What a script in Horovod's style says, and changes nothing."""
    return {
        "compression": hvd.Compression.none, "backward_passes_per_step": 1, "op": hvd.Average,
        "gradient_predivide_factor": 1.0, "num_groups": 0, "groups": None, "sparse_as_dense": False,
        "process_set": hvd.global_process_set,
    }  # fmt: skip


def of_torch(kind: type[torch.optim.Optimizer], **options: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: kind(parameters, **options)


OF_TORCH = {
    "nadam": of_torch(torch.optim.NAdam, lr=0.01),
    "radam": of_torch(torch.optim.RAdam, lr=0.01, weight_decay=0.1),
    "adamax": of_torch(torch.optim.Adamax, lr=0.01),
    "adadelta": of_torch(torch.optim.Adadelta, lr=0.5),
    "adagrad": of_torch(torch.optim.Adagrad, lr=0.05, lr_decay=0.1),
    "rmsprop": of_torch(torch.optim.RMSprop, lr=0.01, momentum=0.5),
    "rprop": of_torch(torch.optim.Rprop, lr=0.01),
    "asgd": of_torch(torch.optim.ASGD, lr=0.05, t0=2.0),
}
"""The rest of those that are known to be separable, by the names of their cases."""


CASES = {
    "momentum": Case(models.mlp, models.mlp_loss),
    "adamw": Case(models.mlp, models.mlp_loss, adamw),
    **{name: Case(models.mlp, models.mlp_loss, one, steps=5, undeferred=False) for name, one in OF_TORCH.items()},
    "lars": Case(models.mlp, models.mlp_loss, lambda parameters: LARS(parameters, 1.0, weight_decay=0.01)),
    "lamb": Case(models.mlp, models.mlp_loss, lambda parameters: LAMB(parameters, 0.01, weight_decay=0.01)),
    "groups": Case(models.mlp, models.mlp_loss, grouped),
    "convolutions": Case(models.convolutions, models.convolutions_loss),
    "channels last": Case(models.channels_last, models.convolutions_loss, peer=False),
    "attention": Case(models.transformer, models.transformer_loss),
    "autocast": Case(models.transformer, models.autocast_loss, normed),
    "tied": Case(models.Tied, models.tied_loss, adamw),
    "unused on one rank": Case(lambda: models.Branches(with_never=False), models.branches_loss, steps=12),
    "functional": Case(models.mlp, models.functional_loss),
    "frozen": Case(models.frozen_mlp, models.mlp_loss),
    "frozen behind a forward pass": Case(models.mlp, models.mlp_loss, step=steps.freezing_step, peer=False),
    "accumulation": Case(
        models.mlp, models.mlp_loss, step=steps.accumulating_step, horovod_step=steps.accumulating_on_horovod
    ),
    "passes": Case(
        models.mlp, models.mlp_loss, step=steps.passes_on_ours, horovod_step=steps.accumulating_on_horovod,
        options=three_passes(),
    ),
    "horovod's arguments": Case(
        models.mlp, models.mlp_loss, step=steps.accumulating_on_horovod, options=as_horovods(), undeferred=False
    ),
    "mixed dtypes": Case(models.Mixed, models.mlp_loss, undeferred=False),
    "mixed dtypes over tcp": Case(
        models.Mixed, models.mlp_loss, options={"transport": "tcp", "piece_bytes": 512}, undeferred=False
    ),
    "clipping": Case(
        models.mlp, models.mlp_loss, options={"max_grad_norm": 0.1}, horovod_step=steps.clipping_on_horovod
    ),
    "clipping by hand": Case(models.mlp, models.mlp_loss, step=steps.clipping_by_hand),
    "loss scaling": Case(models.mlp, models.mlp_loss, step=steps.scaled_step, steps=6),
    "loss scaling, fused": Case(
        models.mlp, models.mlp_loss, steps.fused, step=steps.scaled_step, steps=6, undeferred=False
    ),
    "scheduler": Case(models.mlp, models.mlp_loss, step=steps.scheduled_step),
    "reading between steps": Case(models.transformer, models.transformer_loss, step=steps.watched_step, steps=11),
    "delays": Case(models.transformer, models.transformer_loss, step=steps.delayed_step, steps=20),
    "zeroing": Case(models.mlp, models.mlp_loss, step=steps.zeroing_step, steps=15),
    "retained": Case(lambda: nn.Linear(12, 5), models.mlp_loss, step=steps.retained_step),
    "one piece at a time": Case(models.mlp, models.mlp_loss, steps=6, options={"piece_bytes": 512, "credit": 1}),
    "all at once": Case(models.mlp, models.mlp_loss, options={"piece_bytes": 256, "credit": 1000}),
    "one piece": Case(models.mlp, models.mlp_loss, options={"piece_bytes": 1 << 20}),
    "gloo": Case(models.transformer, models.transformer_loss, options={"transport": "gloo"}),
    "tcp": Case(models.transformer, models.transformer_loss, options={"transport": "tcp"}),
    "tcp, small pieces": Case(
        models.transformer, models.transformer_loss, options={"transport": "tcp", "piece_bytes": 512, "credit": 3}
    ),
    "five hundred steps while plans are tried": Case(
        models.layers, models.layers_loss, step=steps.one_of_hundreds, steps=500, undeferred=False,
        options={"transport": "tcp", "piece_bytes": None},
    ),
}  # fmt: skip
UNDEFERRED = {"clipping", "clipping by hand", "loss scaling", "loss scaling, fused"}
"""Cases in which nothing may be deferred."""
