"""LARS and LAMB against their papers' formulas, written out; which parameters they leave alone; saved and gone on."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from lockstep_worker import data, models, optimizers
from lockstep_worker.optimizers import parameter_groups
from lockstep_worker.optimizers.lamb import LAMB
from lockstep_worker.optimizers.lars import LARS
from lockstep_worker.optimizers.trust import norm
from lockstep_worker.recipe import GPTSizes, Recipe

Row = list[float]
FIGURES = st.floats(-10, 10).map(lambda figure: round(figure, 3))
ROWS = st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(FIGURES, min_size=n, max_size=n), min_size=4, max_size=4))
"""Weights, then the gradients of three steps: some of them 0, none so small that its square is."""
RATES = st.lists(st.floats(1e-4, 1), min_size=3, max_size=3)
SHARES = st.floats(0, 0.99)
DECAYS = st.floats(0, 0.1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors are quickest on one thread, and on a busy machine a second one is waited for."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def length(row: Row) -> float:
    return math.sqrt(sum(x * x for x in row))


def trained(make: Callable[[list[nn.Parameter]], Optimizer], weights: Row, gradients: list[Row], rates: Row) -> Row:
    """The weights after a step for each gradient, by the real optimizer, in float64."""
    parameter = nn.Parameter(torch.tensor(weights, dtype=torch.float64))
    optimizer = make([parameter])
    for gradient, rate in zip(gradients, rates, strict=True):
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    return [float(x) for x in parameter.detach()]


@given(ROWS, RATES, SHARES, DECAYS, st.floats(1e-4, 1), st.booleans())
def test_lars_makes_the_steps_of_its_paper(
    rows: list[Row], rates: Row, momentum: float, decay: float, trust: float, adapt: bool
) -> None:
    weights, *gradients = rows
    found = trained(
        lambda p: LARS(p, momentum=momentum, weight_decay=decay, trust_coefficient=trust, adapt=adapt),
        weights, gradients, rates,
    )  # fmt: skip
    velocity = [0.0] * len(weights)
    for gradient, rate in zip(gradients, rates, strict=True):
        divisor = length(gradient) + decay * length(weights)
        ratio = trust * length(weights) / divisor if adapt and length(weights) > 0 and divisor > 0 else 1.0
        velocity = [
            momentum * v + rate * ratio * (g + decay * w) for v, g, w in zip(velocity, gradient, weights, strict=True)
        ]
        weights = [w - v for w, v in zip(weights, velocity, strict=True)]
    assert found == pytest.approx(weights, rel=1e-9, abs=1e-9)


@given(ROWS, RATES, SHARES, SHARES, DECAYS, st.booleans())
def test_lamb_makes_the_steps_of_its_paper(
    rows: list[Row], rates: Row, beta1: float, beta2: float, decay: float, adapt: bool
) -> None:
    weights, *gradients = rows
    found = trained(lambda p: LAMB(p, betas=(beta1, beta2), weight_decay=decay, adapt=adapt), weights, gradients, rates)
    mean, squares = [0.0] * len(weights), [0.0] * len(weights)
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        mean = [beta1 * m + (1 - beta1) * g for m, g in zip(mean, gradient, strict=True)]
        squares = [beta2 * v + (1 - beta2) * g * g for v, g in zip(squares, gradient, strict=True)]
        update = [
            (m / (1 - beta1**t)) / (math.sqrt(v / (1 - beta2**t)) + 1e-6) + decay * w
            for m, v, w in zip(mean, squares, weights, strict=True)
        ]
        both = length(weights) > 0 and length(update) > 0
        ratio = length(weights) / length(update) if adapt and both else 1.0
        weights = [w - rate * ratio * u for w, u in zip(weights, update, strict=True)]
    assert found == pytest.approx(weights, rel=1e-7, abs=1e-7)


def tiny_gpt(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return models.build("gpt", gpt=GPTSizes(vocabulary=7, context=5, layers=1, heads=1, width=4))


def recipe(name: str, **training: Any) -> Recipe:
    return Recipe("gpt", "synthetic-tokens", optimizer=name, learning_rate=0.01, weight_decay=0.1, **training)


def step(model: nn.Module, optimizer: Optimizer, number: int) -> float:
    tokens = torch.randint(7, (3, 5), generator=torch.Generator().manual_seed(number))
    optimizer.zero_grad()
    loss = cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_saved_and_loaded_it_goes_on_bit_for_bit(name: str) -> None:
    through, resumed = tiny_gpt(), tiny_gpt(seed=9)
    optimizer, other = optimizers.build(recipe(name), through), optimizers.build(recipe(name), resumed)
    for number in range(3):
        step(through, optimizer, number)
    file = io.BytesIO()
    torch.save({"model": through.state_dict(), "optimizer": optimizer.state_dict()}, file)
    step(resumed, other, 99)  # what it had is replaced
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed.load_state_dict(saved["model"])
    other.load_state_dict(saved["optimizer"])
    for number in range(3, 6):
        assert step(through, optimizer, number) == step(resumed, other, number)
    for one, two in zip(through.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(("name", "rate"), [("sgd", 0.05), ("adamw", 0.01), ("lars", 5.0), ("lamb", 0.02)])
def test_it_learns_real_digits(name: str, rate: float) -> None:
    torch.manual_seed(0)
    said = Recipe("digits-mlp", "digits", optimizer=name, learning_rate=rate, weight_decay=0.0005)
    model = models.build(said.model)
    images, classes = data.load(said, 1).train_batch(torch.arange(256))
    optimizer = optimizers.build(said, model)
    for _ in range(60):
        optimizer.zero_grad()
        loss = cross_entropy(model(images), classes)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    print(name, loss.item())
    assert loss.item() < 0.3


def test_biases_and_normalisation_are_neither_decayed_nor_adapted() -> None:
    model = tiny_gpt()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    adapted, plain = parameter_groups(model, 0.1)
    assert (adapted["weight_decay"], adapted["adapt"]) == (0.1, True)
    assert (plain["weight_decay"], plain["adapt"]) == (0.0, False)
    assert len(adapted["params"]) + len(plain["params"]) == len(names)
    assert {names[id(p)] for p in plain["params"]} == {
        "norm.weight", "norm.bias", "blocks.0.attention.0.weight", "blocks.0.attention.0.bias",
        "blocks.0.attention.1.into.bias", "blocks.0.attention.1.out.bias", "blocks.0.linear.0.weight",
        "blocks.0.linear.0.bias", "blocks.0.linear.1.bias", "blocks.0.linear.3.bias",
    }  # fmt: skip
    assert len(parameter_groups(nn.Linear(2, 2, bias=False), 0.1)) == 1


@pytest.mark.parametrize("name", ["adamw", "lars", "lamb"])
def test_the_recipe_decays_matrices_only(name: str) -> None:
    """A gradient of zero leaves what decay alone does."""
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers.build(recipe(name), model).step()
    changed = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert changed == [True, False, False, False]


def test_the_recipes_figures_reach_the_optimizer() -> None:
    said: dict[str, dict[str, Any]] = {
        "sgd": {"lr": 0.01, "momentum": 0.8, "weight_decay": 0.1},
        "adamw": {"lr": 0.01, "betas": (0.8, 0.95), "weight_decay": 0.1},
        "lars": {"lr": 0.01, "momentum": 0.8, "trust_coefficient": 0.02, "weight_decay": 0.1},
        "lamb": {"lr": 0.01, "betas": (0.8, 0.95), "weight_decay": 0.1},
    }
    for name, expected in said.items():
        figures = recipe(name, momentum=0.8, beta2=0.95, trust_coefficient=0.02)
        group = optimizers.build(figures, tiny_gpt()).param_groups[0]
        assert group.items() >= expected.items(), name


@pytest.mark.parametrize("make", [torch.randn, torch.ones])
def test_norms_of_large_tensors_are_right(make: Callable[[int], Tensor]) -> None:
    """Sizes around a row, and one at which torch's own float32 norm is off by more than allowed here."""
    torch.manual_seed(0)
    for size in (0, 1, 1023, 1024, 1025, 5_000_000):
        tensor = make(size)
        assert norm(tensor) == pytest.approx(tensor.double().square().sum().sqrt().item(), rel=2e-6)
    assert norm(make(12).view(3, 4).t()) > 0


def test_parameters_without_a_gradient_are_left_alone_and_a_closure_is_asked() -> None:
    for kind in (LARS, LAMB):
        used, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
        optimizer = kind([used, unused])

        def closure(used: nn.Parameter = used) -> float:
            loss = used.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.item()

        assert optimizer.step(closure) == 4.0
        assert not torch.equal(used, torch.ones(2, 2))
        assert torch.equal(unused, torch.ones(2, 2))
        assert list(optimizer.state) == [used]


def test_bad_figures_and_sparse_gradients_are_refused() -> None:
    parameter = nn.Parameter(torch.ones(2))
    for kind in (LARS, LAMB):
        with pytest.raises(ValueError, match=r"lr is -1\.0; it has to be 0 or more"):
            kind([parameter], lr=-1.0)
        with pytest.raises(ValueError, match="weight_decay is nan"):
            kind([parameter], weight_decay=math.nan)
        embedding = nn.Embedding(3, 2, sparse=True)
        embedding(torch.tensor([1])).sum().backward()
        with pytest.raises(RuntimeError, match=f"{kind.__name__} needs dense gradients"):
            kind(embedding.parameters()).step()
    with pytest.raises(ValueError, match="betas are"):
        LAMB([parameter], betas=(0.9, 1.0))
