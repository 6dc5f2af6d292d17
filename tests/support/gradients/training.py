"""Trains one case on this rank in the way that is asked, and keeps what it was at every step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor, nn

import lockstep

Step = Callable[["Run", int], None]


@dataclass
class Case:
    """What is trained. ``loss`` makes a rank's loss of a step from the model; ``options`` are for ours alone."""

    model: Callable[[], nn.Module]
    loss: Callable[[Any, int], Tensor]
    optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer] = lambda parameters: torch.optim.SGD(
        parameters, lr=0.05, momentum=0.9, weight_decay=0.01
    )
    steps: int = 8
    step: Step = field(default_factory=lambda: ordinary_step)
    options: dict[str, Any] = field(default_factory=dict)
    horovod_step: Step | None = None
    """Where Horovod's own optimizer needs it said otherwise."""
    peer: bool = True
    """Whether Horovod's own can train it."""
    undeferred: bool = True
    """Whether it is trained undeferred as well."""

    @property
    def ways(self) -> list[str]:
        """How it is trained."""
        return ["horovod"] * self.peer + ["undeferred"] * self.undeferred + ["deferred"]


class Run:
    """One training, and its trace: every loss, and the parameters' digest at the end of every backward pass."""

    def __init__(self, case: Case, how: str, **options: Any) -> None:
        self.case = case
        self.how = how
        torch.manual_seed(17)
        self.model: Any = case.model()
        self.base = case.optimizer(self.model.parameters())
        self.trace: list[Any] = []
        self.pending = 0
        """Steps after which an update was really on its way."""
        if how == "horovod":
            self.optimizer: Any = hvd.DistributedOptimizer(self.base, named_parameters=self.model.named_parameters())
        else:
            options = {"piece_bytes": 1024, **case.options, **options}
            self.optimizer = lockstep.DistributedOptimizer(
                self.base, named_parameters=self.model.named_parameters(), defer=how == "deferred", **options
            )
        self.extra: dict[str, Any] = {}

    def train(self) -> list[Any]:
        """The trace."""
        step = self.case.horovod_step if self.how == "horovod" and self.case.horovod_step else self.case.step
        for number in range(self.case.steps):
            torch.manual_seed(1000 * number + hvd.rank())
            step(self, number)
            self.pending += self.is_pending()
        # Buffers (running means) are each rank's own.
        self.trace.append([digest(self.model.state_dict().values()), state_digest(self.optimizer)])
        if self.how != "horovod":
            self.optimizer.close()
        return self.trace

    def note(self, loss: Tensor) -> None:
        """Called after backward(), when every update of the step before is done in any case."""
        self.trace.append([float(loss.item()).hex(), digest(one.detach() for one in self.model.parameters())])

    def is_pending(self) -> bool:
        """Whether an update is on its way."""
        deferral = self.optimizer._own.deferral if self.how != "horovod" else None
        return deferral is not None and deferral.pending


def ordinary_step(run: Run, number: int) -> None:
    run.optimizer.zero_grad()
    loss = run.case.loss(run.model, number)
    backward(loss)
    run.note(loss)
    run.optimizer.step()


def backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def digest(tensors: Iterable[Tensor]) -> str:
    """Of the bits of all these tensors."""
    found = hashlib.sha256()
    for one in tensors:
        found.update(one.detach().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def state_digest(optimizer: torch.optim.Optimizer) -> str:
    """Of the optimizer's state, as ``state_dict`` tells it."""
    state = optimizer.state_dict()["state"]
    return digest(
        value if isinstance(value, Tensor) else torch.tensor(float(value))
        for _, values in sorted(state.items())
        for name, value in sorted(values.items())
        if value is not None
    )


def equal_on_all_ranks(trace: list[Any]) -> list[bool]:
    """Whether the parameters (not the losses, which are each rank's own) were the same at every step."""
    parts = [step[1] for step in trace]
    facts = hvd.allgather_object(parts, name="traces")
    return [all(other[place] == facts[0][place] for other in facts) for place in range(len(parts))]


@contextmanager
def raises(kind: type[BaseException], text: str) -> Iterator[None]:
    """As pytest's."""
    try:
        yield
    except kind as error:
        assert text in str(error), f"{error} does not say {text!r}"
    else:
        raise AssertionError(f"no {kind.__name__}")
