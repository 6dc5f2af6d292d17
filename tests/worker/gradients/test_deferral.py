"""``Deferral`` and other threads, on one rank in this process."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lockstep_worker.gradients import guards, plain
from lockstep_worker.gradients.deferral import Deferral
from lockstep_worker.gradients.reducer import Reducer
from lockstep_worker.gradients.tcp import TcpTransport
from support.gradients.threads import Base


def plain_update(groups: list[dict[str, Any]]) -> None:
    with torch.no_grad():
        for group in groups:
            for one in group["params"]:
                one.sub_(group["lr"] * one.grad)


def test_a_thread_that_uses_what_is_guarded_first_waits_until_all_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would complete the whole update, and what is guarded after that would have nothing to wait for."""
    model: Any = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    inputs = torch.ones(3, 4)
    expected = copy.deepcopy(model)
    expected(inputs).sum().backward()
    plain_update([{"params": list(expected.parameters()), "lr": 0.1}])

    reducer = Reducer(
        list(model.named_parameters()), TcpTransport(Base(1).of(0)), name="sealed", piece_bytes=1024, credit=2,
        passes=1, defer=True, before_backward=lambda: None,
    )  # fmt: skip
    deferral = Deferral(reducer, plain_update)
    seen: list[Tensor] = []
    reader = threading.Thread(target=lambda: seen.append(model[0].weight.detach().clone()), daemon=True)
    plain_guard = guards.guard

    def guard(tensor: Tensor, touched: Callable[[Tensor], None], *alone: Any) -> None:
        plain_guard(tensor, touched, *alone)
        if tensor is model[0].weight and reader.ident is None:
            reader.start()
            reader.join(0.3)  # where it does not have to wait it is through by then

    model(inputs).sum().backward()
    reducer.flush()
    reducer.wait()
    monkeypatch.setattr(guards, "guard", guard)
    deferral.seal([{"params": list(model.parameters()), "lr": 0.1}])
    reader.join(60)
    assert torch.equal(seen[0], expected[0].weight)
    assert torch.equal(model(inputs), expected(inputs))
    deferral.complete()
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        assert type(one) is nn.Parameter
        assert torch.equal(one, other)
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=0)
    assert reducer.close(60)


def test_the_end_of_a_process_waits_no_longer_than_it_may_for_a_thread_that_waits() -> None:
    """Which has the lock, and may wait for a gradient of a rank that hangs."""
    model: Any = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    reducer = Reducer(
        list(model.named_parameters()), TcpTransport(Base(1).of(0)), name="late", piece_bytes=1024, credit=2,
        passes=1, defer=True, before_backward=lambda: None,
    )  # fmt: skip
    begun, arrives = threading.Event(), threading.Event()

    def late_update(groups: list[dict[str, Any]]) -> None:
        begun.set()
        assert arrives.wait(60)
        plain_update(groups)

    deferral = Deferral(reducer, late_update)
    model(torch.ones(3, 4)).sum().backward()
    reducer.flush()
    deferral.seal([{"params": list(model.parameters()), "lr": 0.1}])
    reader = threading.Thread(target=model[0].weight.sum, daemon=True)
    reader.start()
    assert begun.wait(60)
    with pytest.raises(TimeoutError, match="another thread waits for a gradient"):
        deferral.complete(0.05)
    arrives.set()
    reader.join(60)
    deferral.complete(60)
    assert not deferral.pending
    assert reducer.close(60)


def test_an_optimizer_is_made_where_torch_has_no_torchscript() -> None:
    """``PYTORCH_JIT=0``: its classes are there, and have no methods that save."""
    code = (
        "from lockstep_worker.gradients import endings; import torch; endings._complete_before_saving(); "
        "assert not hasattr(torch.jit._script.RecursiveScriptModule, 'save')"
    )
    environment = {**os.environ, "PYTORCH_JIT": "0"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_what_a_step_assigns_to_its_optimizer_is_kept_but_for_the_groups_it_was_given() -> None:
    class Counting(torch.optim.SGD):
        steps = 0

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            self.steps += 1
            self.param_groups = [dict(group) for group in self.param_groups]
            plain_update(self.param_groups)

    one, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = Counting([one, other], lr=0.5)
    groups, one.grad = optimizer.param_groups, torch.ones(2)
    plain.update(optimizer, [{"params": [one], "lr": 0.25}], Counting.step)
    assert (one.tolist(), other.tolist(), optimizer.steps) == ([0.75, 0.75], [1.0, 1.0], 1)
    assert optimizer.param_groups is groups
