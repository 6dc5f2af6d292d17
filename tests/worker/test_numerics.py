"""How a batch is computed: parts and channels last change nothing but rounding, bfloat16 little more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lockstep_worker import numerics
from lockstep_worker.recipe import Recipe


def gradients(model: nn.Module, inputs: Tensor, targets: Tensor, recipe: Recipe) -> tuple[float, Tensor]:
    """A step's loss and all its gradients, as the recipe computes them."""
    model.zero_grad()
    losses = [numerics.loss_of(model, *part, recipe) for part in numerics.parts(inputs, targets, recipe)]
    for loss in losses:
        loss.backward()  # type: ignore[no-untyped-call]
    found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(gradient.is_contiguous() and gradient.dtype == torch.float32 for gradient in found), "Horovod needs that"
    return sum(loss.item() for loss in losses), torch.cat([gradient.flatten() for gradient in found])


@pytest.fixture
def batch() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 5))
    return model, torch.randn(12, 3, 8, 8), torch.arange(12) % 5


@pytest.mark.parametrize("said", [{"accumulate": 4}, {"channels_last": True}, {"accumulate": 2, "channels_last": True}])
def test_parts_and_channels_last_compute_the_same(
    batch: tuple[nn.Module, Tensor, Tensor], said: dict[str, int]
) -> None:
    loss, expected = gradients(*batch, Recipe("any", "images"))
    other, found = gradients(*batch, Recipe("any", "images", **said))  # type: ignore[arg-type]
    assert other == pytest.approx(loss, rel=1e-5)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_channels_last_reach_the_layers_and_texts_stay_as_they_are(batch: tuple[nn.Module, Tensor, Tensor]) -> None:
    recipe = Recipe("any", "images", channels_last=True)
    _, images, _ = batch
    laid_out = numerics.laid_out(images, recipe)
    assert laid_out.stride() == (3 * 64, 1, 3 * 8, 3)
    assert nn.Conv2d(3, 8, 3)(laid_out).is_contiguous(memory_format=torch.channels_last)
    texts = torch.zeros(2, 7, dtype=torch.int64)
    assert numerics.laid_out(texts, recipe) is texts


def test_bfloat16_is_near_and_is_really_used(batch: tuple[nn.Module, Tensor, Tensor]) -> None:
    loss, expected = gradients(*batch, Recipe("any", "images"))
    other, found = gradients(*batch, Recipe("any", "images", precision="bf16"))
    assert other == pytest.approx(loss, rel=0.02)
    assert 0 < (found - expected).norm() < 0.05 * expected.norm()
    scores, _ = numerics.scored(*batch, Recipe("any", "images", precision="bf16"))
    assert scores.dtype == torch.float32


def test_a_text_has_an_answer_at_each_position() -> None:
    scores, targets = numerics.scored(
        nn.Embedding(7, 7), torch.zeros(2, 5, dtype=torch.int64), torch.ones(2, 5, dtype=torch.int64), Recipe("a", "b")
    )
    assert (scores.shape, targets.shape) == ((10, 7), (10,))
