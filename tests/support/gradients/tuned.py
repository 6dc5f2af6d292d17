"""Cases of the tuning: chosen by measuring, alike on all ranks, taken back by a later run, and measured again."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor, nn
from torch.nn import functional

import lockstep
from lockstep_worker.gradients.errors import GradientError
from lockstep_worker.gradients.tcp import TcpTransport
from lockstep_worker.gradients.transport import HorovodTransport, Transport, transport_name
from support.gradients import models
from support.gradients.training import Case, Run, backward, equal_on_all_ranks, ordinary_step, raises

PAIRS = 8
"""Of turns that confirm a plan here, where steps differ by more than chance does."""
TRIALS = 3 + 5 * 4 + 4 * PAIRS
"""Steps until it is chosen, at most."""


class Paced(HorovodTransport):
    """A link on which each piece takes ``seconds`` and ``per_byte`` at least, one after another."""

    def __init__(self, name: str, seconds: float, per_byte: float = 0.0) -> None:
        super().__init__(name)
        self.seconds, self.per_byte = seconds, per_byte
        self._free_at = 0.0
        self._ends: dict[int, float] = {}
        """By handle."""

    def start(self, buffer: Tensor, name: str, landed: Callable[[], None]) -> int:
        handle = super().start(buffer, name, landed)
        takes = self.seconds + self.per_byte * buffer.numel() * buffer.element_size()
        self._free_at = max(self._free_at, time.perf_counter()) + takes
        self._ends[handle] = self._free_at
        return handle

    def is_done(self, handle: int) -> bool:
        return super().is_done(handle) and time.perf_counter() >= self._ends[handle]


class PacedTcp(TcpTransport):
    """Connections over which each piece takes ``seconds`` at least, one after another."""

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(HorovodTransport(name))
        self.seconds = seconds
        self._free_at = 0.0
        self._due: dict[int, float] = {}
        """By the piece's number."""

    def start(self, buffer: Tensor, name: str, landed: Callable[[], None]) -> Any:
        handle = super().start(buffer, name, landed)
        now = time.perf_counter()
        self._due[handle.number] = self._free_at = max(self._free_at, now) + self.seconds
        timer = threading.Timer(self._free_at - now, self.wake)
        timer.daemon = True
        timer.start()
        return handle

    def is_done(self, handle: Any) -> bool:
        return super().is_done(handle) and time.perf_counter() >= self._due[handle.number]


def wide() -> nn.Sequential:
    """Twelve layers of 256 KiB."""
    return nn.Sequential(*(nn.Sequential(nn.Linear(256, 256), nn.Tanh()) for _ in range(12)))


def wide_loss(model: Any, _step: int) -> Tensor:
    return functional.mse_loss(model(models.data(2, 256)), models.data(2, 256))


def shared(fact: Any) -> bool:
    """Whether it is the same on all ranks."""
    facts = hvd.allgather_object(fact)
    return all(other == facts[0] for other in facts)


def trained(how: str, steps: int, step: Callable[[Run, int], None] = ordinary_step, **options: Any) -> Run:
    """A run of the wide model, of which the ranks' parameters were equal at every step."""
    run = Run(Case(wide, wide_loss, steps=steps, step=step), how, **{"piece_bytes": None, **options})
    assert all(equal_on_all_ranks(run.train())), how
    return run


def tuned() -> None:
    """Where every piece takes long large pieces are chosen, on all ranks alike, and no bit is another one for it."""
    steps = TRIALS + 2
    expected = trained("horovod", steps).trace if hvd.size() == 2 else None
    # The rule of thumb takes one piece for all where each takes 30 ms, and the least ones where none is there in 32
    # (over TCP 16): of which a busy machine must not make less than 32.
    ways: list[tuple[str, Transport]] = [("deferred", Paced("tuned", 0.05))]
    if hvd.size() == 2:
        ways = [("deferred", PacedTcp("tuned.deferred", 0.022)), ("undeferred", Paced("tuned.undeferred", 0.03))]
    for how, transport in ways:
        seen: list[Any] = []

        def step(run: Run, number: int, seen: list[Any] = seen) -> None:
            run.optimizer._own.reducer.planner.pairs = PAIRS
            ordinary_step(run, number)
            seen.append(run.optimizer.tuning)

        run = trained(how, steps, step, transport=transport)
        assert expected is None or run.trace == expected, f"{how} differs from Horovod's"
        assert seen[:5] == [None] * 5
        assert shared(seen)
        plan, why = seen[-1]["plan"], seen[-1]["why"]
        assert seen[-1]["transport"] == transport_name(transport)
        assert seen[-1]["ranks"] == hvd.size()
        assert plan["piece_bytes"] >= 1 << 20, seen[-1]
        assert "of 4 plans tried" in why, why
        if how == "deferred":
            assert "and it was faster than " in why, why
            assert seen.count(None) == TRIALS, why


def tuning_taken_back() -> None:
    """A later run sends the same pieces in the same order, from its first step on, and measures nothing."""
    traces = [trained("deferred", 8, piece_bytes=300_000, credit=1).trace] if hvd.size() == 2 else []
    document = kept(piece_bytes=300_000, credit=1)
    assert document["why"] == "as given"
    for tuning in (document, json.dumps(document)):
        plans: list[Any] = []

        def step(run: Run, number: int, plans: list[Any] = plans) -> None:
            ordinary_step(run, number)
            plans.append(run.optimizer._own.reducer.plan.as_json())
            assert run.is_pending(), "deferred from the first step on"
            assert run.optimizer.tuning == {**document, "why": "as recorded"}

        run = trained("deferred", 8, step, tuning=tuning)
        traces.append(run.trace)
        assert traces[-1] == traces[0]
        assert plans == [document["plan"]] * 8
    says_whose_it_is(document)


def kept(**options: Any) -> Any:
    """What a training of a few steps has chosen, after a checkpoint."""
    found: list[Any] = []

    def step(run: Run, number: int) -> None:
        ordinary_step(run, number)
        found.append(run.optimizer.tuning)

    trained("deferred", 4, step, **options)
    assert shared(found)
    return json.loads(json.dumps(found[-1]))


def says_whose_it_is(document: Any) -> None:
    """Where it is not of this model, or not alone; and where not all ranks have it."""

    def made(model: nn.Module, **options: Any) -> Any:
        base = torch.optim.SGD(model.parameters(), lr=0.05)
        return lockstep.DistributedOptimizer(base, model.named_parameters(), **options)

    with raises(GradientError, "tuning is of a model with 24 parameters, the optimizer has 6"):
        made(models.mlp(), tuning=document)
    other: Any = wide()
    other[0][0] = nn.Linear(256, 256, bias=True, dtype=torch.float64)
    with raises(GradientError, "its parameter 0 is not ['0.0.weight', [256, 256], [256, 1], 'float64']"):
        made(other, tuning=document)
    with raises(GradientError, "leave piece_bytes and credit out"):
        made(wide(), tuning=document, credit=2)
    # A network's folder may show ranks another newest checkpoint each: what rank 0 found counts.
    for holder in (0, 1):
        model: Any = wide()
        optimizer = made(model, tuning=document if hvd.rank() == holder else None)
        backward(wide_loss(model, 0))
        optimizer.step()
        plan = optimizer._own.reducer.plan
        assert (plan.as_json() == document["plan"]) == plan.measured == (holder == 0)
        optimizer.close()
    # Other layers are frozen than were, or it is of other ranks on another link: it is measured anew, and no hang.
    for frozen, tuning in ((2, document), (0, {**document, "ranks": 64, "transport": "gloo"})):
        model = wide()
        model[3].requires_grad_(not frozen)
        optimizer = made(model, tuning=tuning)
        plans = []
        for number in range(4):
            optimizer.zero_grad()
            backward(wide_loss(model, number))
            optimizer.step()
            plans.append(optimizer._own.reducer.plan)
        assert [one.measured for one in plans] == [False, False, False, True]
        assert len(plans[-1].sequence) == 24 - frozen
        optimizer.close()


def drifting() -> None:
    """One rank's link changes in mid-run: all measure again at the same step, and no bit is another one for it."""
    window = 4
    transport = Paced("drifting", 0.0, 0.03 / (3 << 20))
    seen: list[Any] = []

    def step(run: Run, number: int) -> None:
        planner = run.optimizer._own.reducer.planner
        planner.rounds, planner.pairs, planner.drift.window = 3, PAIRS, window
        if "before" not in run.extra and len(seen) - seen.count(None) == 2 * window:
            run.extra["before"] = seen[-1]
            if hvd.rank() == 1:
                transport.seconds = 0.035  # of each piece: few of them are better now
        if "before" in run.extra and run.extra["before"] != seen[-1]:
            return  # it was chosen again, at the same step on all ranks: enough
        ordinary_step(run, number)
        seen.append(run.optimizer.tuning)

    run = trained("deferred", 190, step, transport=transport, credit=2)
    assert shared(seen)
    assert len(seen) < 190, "it was not measured again"
    if hvd.size() == 2:
        assert run.trace == trained("horovod", len(seen)).trace
    assert seen[-1]["plan"]["piece_bytes"] >= 1 << 20, seen[-1]
    assert seen[-1]["plan"]["number"] > run.extra["before"]["plan"]["number"]


def a_layer_freezes_while_plans_are_tried() -> None:
    """In either stage: all ranks agree on a plan for what is left at the next step, and try from the beginning."""
    frozen: list[int] = []
    """The step, by stage."""

    def step(run: Run, number: int) -> None:
        planner = run.optimizer._own.reducer.planner
        planner.rounds = 1
        ordinary_step(run, number)
        trials = planner._trials
        if trials is not None and len(frozen) < 2 and (trials.known is not None) == bool(frozen):
            frozen.append(number)
            run.model[2 * len(frozen)].requires_grad_(requires_grad=False)
        elif frozen and number == frozen[-1] + 2:  # one step tells the ranks, the next one has the new plan
            assert trials is None
            assert not planner.plan.measured
            assert len(planner.plan.sequence) == 24 - 2 * len(frozen)
            assert run.optimizer.tuning is None

    # 3 + 1 steps and one that tells; 3 + 2 x 4 + 1 and one that tells; and the new plan's first.
    trained("deferred", 20, step, transport=Paced("freezing", 0.035))
    assert len(frozen) == 2, frozen
    assert shared(frozen)


CASES: dict[str, Callable[[], None]] = {
    function.__name__.replace("_", " "): function
    for function in (tuned, tuning_taken_back, drifting, a_layer_freezes_while_plans_are_tried)
}
FOUR: dict[str, Callable[[], None]] = {"tuned": tuned, "tuning taken back": tuning_taken_back}
