"""The parts of the built-in recipe: who trains on what, with which rate, on which models and data."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lockstep_slurm.job import training as spec
from lockstep_slurm.job.spec import JobSpec
from lockstep_worker import data, models, optimizers
from lockstep_worker.data.loading import to_evaluate
from lockstep_worker.data.sharding import behind, shard, steps_left
from lockstep_worker.recipe import CHANNELS_LAST, GPTSizes, Recipe
from lockstep_worker.training import totals_of


@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 200), st.integers(0, 3), st.integers(0, 5))
def test_ranks_divide_the_batches_of_one_rank(ranks: int, size: int, samples: int, epoch: int, seed: int) -> None:
    steps = steps_left(samples, 0, batch_size=size, ranks=ranks)
    assert steps == steps_left(samples, 0, batch_size=size * ranks, ranks=1)
    seen = []
    for step in range(steps):
        done = step * size * ranks
        parts = [behind(samples, epoch, done, batch_size=size, rank=rank, seed=seed) for rank in range(ranks)]
        whole = behind(samples, epoch, done, batch_size=size * ranks, rank=0, seed=seed)
        assert torch.cat(parts).tolist() == whole.tolist()
        seen += whole.tolist()
    assert len(seen) == len(set(seen)), "a sample came twice in one epoch"
    assert samples - len(seen) < size * ranks


def test_epochs_have_different_orders_and_leave_out_different_samples() -> None:
    def epoch(number: int) -> list[int]:
        return [i for done in (0, 32, 64) for i in behind(100, number, done, batch_size=32, rank=0, seed=0).tolist()]

    assert epoch(0) == epoch(0)
    assert set(epoch(0)) != set(epoch(1))


@given(st.integers(0, 500), st.integers(1, 9))
def test_every_held_out_sample_is_evaluated_once(samples: int, ranks: int) -> None:
    shares = [shard(samples, rank=rank, ranks=ranks).tolist() for rank in range(ranks)]
    assert sorted(index for share in shares for index in share) == list(range(samples))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def totals(model: nn.Module, recipe: Recipe, rank: int = 0, ranks: int = 1, size: int = 128) -> tuple[float, ...]:
    samples = data.load(recipe, ranks=1)
    requests = to_evaluate(samples, rank=rank, ranks=ranks, size=size)
    return totals_of(model, (request.of(samples) for request in requests), recipe)


def test_totals_add_up_over_any_division_and_a_rank_without_samples_adds_nothing() -> None:
    digits, model = Recipe("any", "digits"), models.build("digits-mlp")
    whole = totals(model, digits)
    parts = [totals(model, digits, rank, 7, 16) for rank in range(7)]
    assert [sum(column) for column in zip(*parts, strict=True)] == pytest.approx(whole)
    assert whole[2:] == (360, 360)
    assert totals(models.build("resnet50"), Recipe("any", "synthetic-imagenet"), 20, 32) == (0, 0, 0, 0)


def test_every_token_of_a_text_is_an_answer() -> None:
    recipe = Recipe("gpt", "synthetic-tokens", gpt=GPTSizes(vocabulary=5, context=7, layers=1, heads=1, width=4))
    correct, loss, answers, count = totals(models.build("gpt", gpt=recipe.gpt), recipe, size=5)
    assert (answers, count) == (16 * 7, 16)
    assert 0 <= correct <= answers
    assert loss / answers == pytest.approx(math.log(5), rel=0.1), "before training, every token is as likely as any"


def test_a_recipes_defaults_are_the_specs() -> None:
    submitted = spec.Training(model="digits-mlp", data="digits")
    assert Recipe.parse(submitted.model_dump()) == Recipe("digits-mlp", "digits")
    assert Recipe.parse(submitted.model_dump(exclude_none=True)) == Recipe("digits-mlp", "digits")
    communication = JobSpec(training=submitted).communication.model_dump()
    assert Recipe.parse(submitted.model_dump(), communication) == Recipe("digits-mlp", "digits")
    asked = communication | {"exchange": "horovod", "defer": False, "transport": "tcp"}
    expected = Recipe("digits-mlp", "digits", exchange="horovod", defer=False, transport="tcp")
    assert Recipe.parse(submitted.model_dump(), asked) == expected
    assert Recipe.parse(spec.Training(model="gpt", data="synthetic-tokens", gpt=spec.GPT()).model_dump()) == Recipe(
        "gpt", "synthetic-tokens"
    )


def test_a_recipe_has_what_the_spec_says() -> None:
    said = {
        "model": "gpt", "data": "synthetic-tokens", "optimizer": "lamb", "learning_rate": 0.01, "base_batch": 64,
        "beta2": 0.99, "gpt": {"vocabulary": 50, "tied": True},
    }  # fmt: skip
    assert Recipe.parse(spec.Training.model_validate(said).model_dump()) == Recipe(
        "gpt", "synthetic-tokens", optimizer="lamb", learning_rate=0.01, base_batch=64, beta2=0.99,
        gpt=GPTSizes(vocabulary=50, tied=True),
    )  # fmt: skip
    said = {"model": "vgg16", "data": "synthetic-imagenet", "image_size": 64, "classes": 10, "optimizer": "lars",
            "learning_rate": 1.0, "trust_coefficient": 0.01}  # fmt: skip
    assert Recipe.parse(spec.Training.model_validate(said).model_dump()) == Recipe(
        "vgg16", "synthetic-imagenet", image_size=64, classes=10, optimizer="lars", learning_rate=1.0,
        trust_coefficient=0.01, channels_last=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"model": "resnet50"}, True),
        ({"model": "resnet50", "channels_last": False}, False),
        ({"model": "mine:build"}, False),
        ({"model": "mine:build", "channels_last": True}, True),
    ],
)
def test_the_built_in_models_of_images_have_their_channels_last_unless_the_spec_says_otherwise(
    said: dict[str, Any], expected: bool
) -> None:
    asked = spec.Training.model_validate({**said, "data": "synthetic-imagenet"})
    assert Recipe.parse(asked.model_dump()).channels_last is expected


def test_the_models_that_have_their_channels_last_are_those_of_images_that_the_spec_names() -> None:
    assert {model for model, kind in spec.KINDS.items() if set(kind.data) <= set(spec.IMAGES)} == CHANNELS_LAST
    said = spec.Training.model_fields["channels_last"].description or ""
    assert all(model in said for model in CHANNELS_LAST)


def test_every_model_data_and_optimizer_of_the_spec_can_be_had() -> None:
    assert (models.MODELS, optimizers.OPTIMIZERS) == (spec.MODELS, spec.OPTIMIZERS)
    for name in set(spec.DATA) - set(spec.STORED):
        assert data.load(Recipe("any", name, steps_per_epoch=2), ranks=2).train > 0
    with pytest.raises(ValueError, match="no model"):
        models.build("other")
    with pytest.raises(ValueError, match="no data"):
        data.load(Recipe("any", "other"), ranks=1)
    with pytest.raises(ValueError, match="no optimizer"):
        optimizers.build(Recipe("any", "any", optimizer="other"), models.build("digits-mlp"))


def test_the_learning_rate_warms_up_linearly() -> None:
    recipe = Recipe("any", "any", learning_rate=0.4, warmup_steps=4)
    assert [recipe.learning_rate_at(step) for step in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    assert Recipe("any", "any", learning_rate=0.4).learning_rate_at(0) == 0.4


def test_the_learning_rate_falls_by_a_cosine_or_at_epochs_whatever_the_number_of_ranks() -> None:
    cosine = Recipe("any", "any", learning_rate=0.4, epochs=8, schedule="cosine")
    rates = [cosine.learning_rate_at(100, passed=passed) for passed in (0, 2, 4, 6, 8)]
    assert rates == pytest.approx([0.4, 0.2 * (1 + math.sqrt(0.5)), 0.2, 0.2 * (1 - math.sqrt(0.5)), 0])
    steps = Recipe("any", "any", learning_rate=0.4, epochs=9, schedule="step", decay_epochs=[3, 6], decay_factor=0.5)
    rates = [steps.learning_rate_at(100, passed=passed) for passed in (0, 2.9, 3, 5.9, 6, 8.9)]
    assert rates == pytest.approx([0.4, 0.4, 0.2, 0.2, 0.1, 0.1])
    warming = dataclasses.replace(cosine, warmup_steps=4, base_batch=32)
    assert warming.learning_rate_at(1, ranks=2, passed=4) == pytest.approx(0.4 * 2 * 0.5 * 0.5)


@given(
    st.floats(1e-6, 10), st.integers(1, 512), st.integers(1, 64), st.integers(1, 4096), st.integers(0, 50),
    st.integers(0, 99),
)  # fmt: skip
def test_with_a_base_batch_the_rate_is_in_proportion_to_the_global_batch(
    rate: float, batch_size: int, ranks: int, base: int, warmup: int, step: int
) -> None:
    def at(ranks: int, base_batch: int | None) -> float:
        recipe = Recipe(
            "any", "any", batch_size=batch_size, learning_rate=rate, base_batch=base_batch, warmup_steps=warmup
        )
        return recipe.learning_rate_at(step, ranks)

    unscaled = at(1, None)
    assert at(ranks, None) == unscaled, "without a base batch it is the whole job's, whatever the ranks"
    assert at(ranks, base) == pytest.approx(unscaled * batch_size * ranks / base)
    assert at(ranks, batch_size * ranks) == unscaled


def test_digits_are_real_split_once_and_disjoint() -> None:
    digits = data.load(Recipe("any", "digits"), ranks=1)
    assert (digits.train, digits.held_out) == (1437, 360)
    train, _ = digits.train_batch(torch.arange(digits.train))
    held_out, classes = digits.held_out_batch(torch.arange(digits.held_out))
    assert train.shape[1:] == held_out.shape[1:] == (1, 8, 8)
    assert -1 <= train.min() < train.max() <= 1
    assert set(classes.tolist()) == set(range(10))
    everything, _ = torch.cat([train, held_out]).flatten(1).sort(dim=0)
    again, _ = (
        torch.cat([data.load(Recipe("any", "digits"), 2).train_batch(torch.arange(1437))[0], held_out])
        .flatten(1)
        .sort(dim=0)
    )
    assert torch.equal(everything, again)


def test_synthetic_images_are_the_same_on_every_rank() -> None:
    one, other = (data.load(Recipe("any", "synthetic-imagenet", steps_per_epoch=3, batch_size=2), 2) for _ in range(2))
    assert one.train == 12
    images, classes = one.train_batch(torch.tensor([3, 11]))
    assert images.shape == (2, 3, 224, 224)
    assert classes.tolist() == [3, 11]
    assert torch.equal(images, other.train_batch(torch.tensor([3, 11]))[0])
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(one.held_out_batch(torch.tensor([0]))[0], one.train_batch(torch.tensor([0]))[0])


def test_synthetic_images_have_the_size_and_the_classes_of_the_recipe() -> None:
    recipe = Recipe("any", "synthetic-imagenet", steps_per_epoch=3, batch_size=8, image_size=40, classes=5)
    images, classes = data.load(recipe, 1).train_batch(torch.arange(24))
    assert images.shape == (24, 3, 40, 40)
    assert set(classes.tolist()) == set(range(5))


def test_synthetic_texts_are_the_same_on_every_rank_and_each_token_is_followed_by_always_the_same() -> None:
    recipe = Recipe("any", "synthetic-tokens", steps_per_epoch=4, batch_size=8, gpt=GPTSizes(vocabulary=11, context=9))
    one, other = (data.load(recipe, 2) for _ in range(2))
    assert (one.train, one.held_out) == (64, 16)
    tokens, following = one.train_batch(torch.arange(64))
    assert tokens.shape == following.shape == (64, 9)
    assert torch.equal(tokens, other.train_batch(torch.arange(64))[0])
    assert torch.equal(tokens[:, 1:], following[:, :-1])
    pairs = set(zip(tokens.flatten().tolist(), following.flatten().tolist(), strict=True))
    assert len(pairs) == len({first for first, _ in pairs}) == len({second for _, second in pairs}) == 11
    held_out, _ = one.held_out_batch(torch.arange(16))
    assert held_out.tolist() == one.train_batch(torch.arange(64, 80))[0].tolist()
    differently = data.load(dataclasses.replace(recipe, seed=1), 2).train_batch(torch.arange(64))[0]
    assert not torch.equal(tokens, differently)
