"""The built-in models are the published ones, parameter by parameter; shapes on torch's meta device, without memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lockstep_slurm.job.training import KINDS
from lockstep_worker import models
from lockstep_worker.models.gpt import GPT

IMAGENET = ("resnet50", "vgg16", "googlenet", "alexnet")
TINY = {"vocabulary": 13, "context": 6, "layers": 2, "heads": 2, "width": 8}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors are quickest on one thread, and on a busy machine a second one is waited for."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def shape_of(model: nn.Module, size: int, batch: int = 2) -> tuple[int, ...]:
    with torch.device("meta"):
        return tuple(model(torch.zeros(batch, 3, size, size)).shape)


@pytest.fixture(params=IMAGENET)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    ("name", "parameters", "tensors", "convolutions"),
    [
        ("resnet50", 25_557_032, 161, 53),
        ("vgg16", 138_357_544, 32, 13),
        ("alexnet", 61_100_840, 16, 5),
        ("googlenet", 7_005_832, 173, 57),
    ],
)
def test_a_model_has_the_published_parameters(name: str, parameters: int, tensors: int, convolutions: int) -> None:
    with torch.device("meta"):
        model = models.build(name)
    assert count(model) == parameters
    assert len(list(model.parameters())) == tensors
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == convolutions


def test_googlenet_is_the_papers_with_a_scale_and_a_shift_in_place_of_each_bias() -> None:
    with torch.device("meta"):
        model = models.build("googlenet")
    channels = sum(module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    assert count(model) - channels == 6_998_552, "the paper's network without its auxiliary heads"


def test_shapes_are_the_published_ones_and_those_of_smaller_images(name: str) -> None:
    with torch.device("meta"):
        whole, ten = models.build(name), models.build(name, classes=10)
    smallest = KINDS[name].smallest
    for size in (224, 96, smallest):
        assert shape_of(whole, size) == (2, 1000)
        assert shape_of(ten, size) == (2, 10)
    assert count(whole) > count(ten)


def test_below_the_smallest_size_that_the_spec_takes_there_is_nothing_left(name: str) -> None:
    kind = KINDS[name]
    with torch.device("meta"):
        model = models.build(name)
    if kind.normalised:
        assert shape_of(model, kind.smallest + 1, batch=1) == (1, 1000)
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            shape_of(model, kind.smallest, batch=1)
    else:
        assert shape_of(model, kind.smallest, batch=1) == (1, 1000)
        with pytest.raises(RuntimeError, match="too small"):
            shape_of(model, kind.smallest - 1)


def test_the_linear_layers_of_vgg_and_alexnet_see_at_224_what_the_convolutions_left() -> None:
    with torch.device("meta"):
        for name, left in (("vgg16", (2, 512, 7, 7)), ("alexnet", (2, 256, 6, 6))):
            model = models.build(name)
            assert isinstance(model, nn.Sequential)
            (pooling,) = (i for i, layer in enumerate(model) if isinstance(layer, nn.AdaptiveAvgPool2d))
            assert model[:pooling](torch.zeros(2, 3, 224, 224)).shape == left


def test_googlenet_learns_a_batch_by_heart_and_uses_every_parameter() -> None:
    torch.manual_seed(0)
    model, images = models.build("googlenet", classes=2), torch.randn(4, 3, 32, 32)
    classes = torch.tensor([0, 1, 0, 1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = cross_entropy(model(images), classes)
        loss.backward()  # type: ignore[no-untyped-call]
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("name", ["vgg16", "alexnet"])
def test_first_parameters_keep_the_size_of_what_passes_through(name: str) -> None:
    """Without normalisation, layer on layer, nothing dies out and nothing grows without end."""
    torch.manual_seed(0)
    size = KINDS[name].smallest
    with torch.no_grad():
        assert 0.1 < models.build(name)(torch.randn(2, 3, size, size)).std() < 3


@pytest.mark.parametrize("name", models.MODELS)
def test_every_parameter_is_used_by_calling_its_own_module(name: str) -> None:
    """So that a hook before a module's forward pass comes before each use of its parameters."""
    shape = {"digits": (2, 1, 8, 8), "synthetic-imagenet": (2, 3, 64, 64), "synthetic-tokens": (2, 9)}[
        KINDS[name].data[0]
    ]
    called: set[nn.Module] = set()
    with torch.device("meta"):
        model = models.build(name)
        for module in model.modules():
            module.register_forward_pre_hook(lambda module, _: called.add(module))
        model(torch.zeros(shape, dtype=torch.int64 if name == "gpt" else torch.float32))
    owners = [module for module in model.modules() if list(module.parameters(recurse=False))]
    assert owners
    assert set(owners) <= called
    assert model not in owners


class TestGPT:
    @pytest.mark.parametrize(("tied", "parameters"), [(True, 124_439_808), (False, 163_037_184)])
    def test_with_gpt2s_sizes_it_has_gpt2s_parameters(self, tied: bool, parameters: int) -> None:
        with torch.device("meta"):
            model = GPT(vocabulary=50_257, context=1024, layers=12, heads=12, width=768, tied=tied)
        assert count(model) == parameters

    def test_by_default_it_is_small(self) -> None:
        with torch.device("meta"):
            model = models.build("gpt")
            assert count(model) == 5_240_320
            assert model(torch.zeros(2, 128, dtype=torch.int64)).shape == (2, 128, 4000)

    def test_no_position_sees_what_comes_after_it(self) -> None:
        torch.manual_seed(1)
        model = GPT(**TINY, tied=False)
        tokens = torch.randint(13, (1, 6))
        before = model(tokens)
        for changed in range(6):
            other = tokens.clone()
            other[0, changed] = (tokens[0, changed] + 1) % 13
            after = model(other)
            assert torch.equal(before[:, :changed], after[:, :changed])
            assert not torch.isclose(before[:, changed:], after[:, changed:]).all(dim=2).any()

    def test_tied_it_has_one_matrix_whose_gradient_is_of_both_uses(self) -> None:
        torch.manual_seed(1)
        tied, untied = GPT(**TINY, tied=True), GPT(**TINY, tied=False)
        assert tied.scores.weight is tied.tokens.weight
        untied.load_state_dict(tied.state_dict())
        tokens = torch.randint(13, (3, 6))
        for model in (tied, untied):
            cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()  # type: ignore[no-untyped-call]
        assert tied.tokens.weight.grad is not None
        assert untied.tokens.weight.grad is not None
        assert untied.scores.weight.grad is not None
        torch.testing.assert_close(tied.tokens.weight.grad, untied.tokens.weight.grad + untied.scores.weight.grad)
        assert len(list(untied.parameters())) == len(list(tied.parameters())) + 1

    def test_bad_sizes_are_told(self) -> None:
        with pytest.raises(ValueError, match="width is 8, which 3 heads do not divide"):
            GPT(**{**TINY, "heads": 3}, tied=False)
        with pytest.raises(ValueError, match="7 tokens are more than the model's context of 6"):
            GPT(**TINY, tied=False)(torch.zeros(1, 7, dtype=torch.int64))
