"""The contenders: the same model and optimizer, its gradients averaged in one way or another, or not at all."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import lockstep
from benchmarks.exposing.cases import CARRIED, DDP, PLAIN, STOCK, Case
from lockstep_worker.models.alexnet import alexnet
from lockstep_worker.models.googlenet import googlenet
from lockstep_worker.models.gpt import GPT
from lockstep_worker.models.resnet import resnet50
from lockstep_worker.models.vgg import vgg16

POOL = 4
"""Batches of a rank, drawn once and used in turn: making noise is no part of a training."""
RATE = 1e-3
MODELS: Mapping[str, Callable[[], nn.Module]] = {
    "resnet50": resnet50, "vgg16": vgg16, "googlenet": googlenet, "alexnet": alexnet,
}  # fmt: skip

Batch = tuple[Tensor, Tensor]


def build(case: Case) -> nn.Module:
    """The case's model, with the same parameters on every rank."""
    torch.manual_seed(7)
    model = GPT(**dict(case.gpt)) if case.model == "gpt" else MODELS[case.model]()
    return model.train()


def batches(case: Case, rank: int) -> list[Batch]:
    """A rank's batches of noise."""
    dice = torch.Generator().manual_seed(1000 + rank)
    found: list[Batch] = []
    for _ in range(POOL):
        if case.model == "gpt":
            sizes = dict(case.gpt)
            tokens = torch.randint(sizes["vocabulary"], (case.batch, sizes["context"] + 1), generator=dice)
            found.append((tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()))
        else:
            images = torch.randn(case.batch, 3, case.side, case.side, generator=dice)
            found.append((images, torch.randint(1000, (case.batch,), generator=dice)))
    return found


class Contender:
    """One of them. All make their steps on the same batches, with the same masks of dropout."""

    def __init__(self, kind: str, case: Case, model: nn.Module, pool: list[Batch]) -> None:
        """Takes ``model`` for its own. Making one is a collective of all ranks."""
        self.kind = kind
        self.own = model
        self.losses: list[float] = []
        self._pool = pool
        self._model = model
        optimizer: Any = torch.optim.SGD(model.parameters(), lr=RATE, momentum=case.momentum)
        named = list(model.named_parameters())
        if kind == STOCK:
            import horovod.torch as hvd

            optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=named)
        elif kind == DDP:
            # Gradients are views of its buckets, and buffers stay a rank's own as they do with the others: both make
            # it faster.
            self._model = nn.parallel.DistributedDataParallel(
                model, gradient_as_bucket_view=True, forward_sync_buffers=False
            )
        elif kind in CARRIED:
            optimizer = lockstep.DistributedOptimizer(optimizer, named_parameters=named, transport=CARRIED[kind])
        self._optimizer = optimizer

    def step(self) -> None:
        """One step of the training."""
        done = len(self.losses)
        torch.manual_seed(done)
        samples, labels = self._pool[done % POOL]
        self._optimizer.zero_grad()
        scores = self._model(samples)
        loss = cross_entropy(scores.flatten(0, -2), labels.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.losses.append(float(loss.item()))

    def rest(self) -> None:
        """Does what is left of its last step."""
        if self.kind in CARRIED:
            self._optimizer.complete()

    def digest(self) -> str:
        """Of its parameters, bit for bit."""
        self.rest()
        found = hashlib.sha256()
        for parameter in self.own.parameters():
            found.update(parameter.detach().contiguous().numpy().tobytes())
        return found.hexdigest()

    def tuning(self) -> dict[str, Any] | None:
        """What ours has chosen; None where there is nothing to choose, or nothing was chosen yet."""
        found: dict[str, Any] | None = self._optimizer.tuning if self.kind in CARRIED else None
        return found and {**{name: found["plan"][name] for name in ("piece_bytes", "credit")}, "why": found["why"]}

    # -- of the one without communication ------------------------------------------------------------------------------

    def layers(self) -> list[dict[str, float]]:
        """Makes a step, and tells of each parameter what ``bound.Layer`` is made of."""
        used: dict[nn.Parameter, float] = {}
        released: dict[nn.Parameter, float] = {}
        began = time.perf_counter()

        def entered(module: nn.Module, _arguments: Any) -> None:  # noqa: ANN401
            for parameter in module.parameters(recurse=False):
                used.setdefault(parameter, time.perf_counter() - began)

        def arrived(parameter: nn.Parameter) -> None:
            released[parameter] = time.perf_counter()

        handles: list[Any] = [module.register_forward_pre_hook(entered) for module in self.own.modules()]
        handles += [one.register_post_accumulate_grad_hook(arrived) for one in self.own.parameters()]  # type: ignore[no-untyped-call]
        samples, labels = self._pool[0]
        self._optimizer.zero_grad()
        began = time.perf_counter()
        loss = cross_entropy(self._model(samples).flatten(0, -2), labels.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        backward_ended = time.perf_counter()
        self._optimizer.step()
        update = time.perf_counter() - backward_ended
        for handle in handles:
            handle.remove()
        whole = sum(parameter.numel() for parameter in self.own.parameters())
        return [
            {
                "size": parameter.numel() * parameter.element_size(),
                "released": backward_ended - released[parameter],
                "used": used[parameter],
                "update": update * parameter.numel() / whole,
            }
            for parameter in self.own.parameters()
        ]

    def gradients(self) -> list[Tensor]:
        """Of its last step."""
        return [one.grad for one in self.own.parameters() if one.grad is not None]


def make(case: Case, rank: int) -> dict[str, Contender]:
    """The case's contenders by kind, each with a model of its own that begins with the same parameters."""
    first, pool = build(case), batches(case, rank)
    copies = [copy.deepcopy(first) for _ in case.contenders[1:]]
    assert case.contenders[0] == PLAIN
    return {
        kind: Contender(kind, case, model, pool)
        for kind, model in zip(case.contenders, [first, *copies], strict=True)
    }  # fmt: skip
