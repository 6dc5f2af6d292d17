"""What a spec may ask of a built-in training, and what does not go together: told before anything is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lockstep_slurm.job.file import SpecError, check, read
from lockstep_slurm.job.spec import JobSpec
from lockstep_slurm.job.training import KINDS, MODELS, OPTIMIZERS, Training

GPT: dict[str, Any] = {"model": "gpt", "data": "synthetic-tokens"}
IMAGES: dict[str, Any] = {"data": "synthetic-imagenet"}


@pytest.mark.parametrize(
    ("training", "where", "words"),
    [
        (GPT | {"data": "digits"}, "training", "model 'gpt' does not fit data 'digits'; it learns from \"synth"),
        ({"model": "gpt"}, "training", 'needs `data`; it learns from "synthetic-tokens"'),
        (GPT | {"gpt": {"width": 100, "heads": 3}}, "training.gpt", "width is 100, which 3 heads do not divide"),
        (GPT | {"gpt": {"vocabulary": 1}}, "training.gpt.vocabulary", "is 1, but has to be at least 2"),
        (GPT | {"gpt": {"depth": 3}}, "training.gpt.depth", "there are: context, heads, layers, tied, vocabulary"),
        (GPT | {"image_size": 64}, "training", "`image_size` is for data synthetic-imagenet; model 'gpt' has none"),
        (GPT | {"classes": 10}, "training", "`classes` is for data synthetic-imagenet; model 'gpt' has none"),
        ({"model": "digits-cnn", "data": "digits", "image_size": 64}, "training", "model 'digits-cnn' has none"),
        (IMAGES | {"model": "vgg16", "gpt": {}}, "training", "`gpt` has the sizes of the model gpt; model 'vgg16'"),
        (IMAGES | {"model": "alexnet", "image_size": 62}, "training", "leave nothing; take at least 63"),
        (IMAGES | {"model": "vgg16", "image_size": 31}, "training.image_size", "is 31, but has to be at least 32"),
        (
            IMAGES | {"model": "googlenet", "image_size": 32, "batch_size": 1},
            "training",
            "take a larger batch, or images of at least 33",
        ),
        (GPT | {"optimizer": "adam"}, "training.optimizer", "is 'adam', but has to be one of 'sgd', 'adamw'"),
        (GPT | {"optimizer": "lamb"}, "training", "optimizer 'lamb' needs a `learning_rate`; the default is sgd's"),
        (GPT | {"beta2": 0.9}, "training", "`beta2` is for adamw and lamb; optimizer 'sgd' has none"),
        (
            GPT | {"optimizer": "adamw", "learning_rate": 0.1, "trust_coefficient": 0.1},
            "training",
            "`trust_coefficient` is for lars; optimizer 'adamw' has none",
        ),
        (GPT | {"base_batch": 0}, "training.base_batch", "is 0, but has to be at least 1"),
        ({"script": "/a.py", "optimizer": "lars"}, "training", "`optimizer` is for a built-in model; tell a `script`"),
        ({"script": "/a.py", "base_batch": 256}, "training", "`base_batch` is for a built-in model; tell a `script`"),
        ({"script": "/a.py", "gpt": {}}, "training", "`gpt` is for a built-in model; tell a `script`"),
    ],
)
def test_what_does_not_go_together_is_told_with_the_cure(training: dict[str, Any], where: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        check({"training": training}, "a.toml")
    problems = dict(caught.value.problems)
    assert where in problems
    assert words in problems[where]


@pytest.mark.parametrize(
    ("sections", "where", "words"),
    [
        ({"communication": {"exchange": "mlsl"}}, "communication.exchange", "is 'mlsl', but has to be one of"),
        ({"communication": {"defer": "later"}}, "communication.defer", "is 'later'"),
        ({"communication": {"exchange": "horovod", "defer": True}}, "communication", 'take exchange "lockstep", or'),
        (
            {"training": {"script": "/a.py"}, "communication": {"defer": False}},
            "",
            "communication.defer is for built-in recipes; a training.script says it itself",
        ),
    ],
)  # fmt: skip
def test_an_exchange_that_there_is_not_is_refused(sections: dict[str, Any], where: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        check({"training": GPT, **sections}, "a.toml")
    problems = dict(caught.value.problems)
    assert where in problems
    assert words in problems[where]


def test_every_model_goes_with_its_data_and_every_optimizer() -> None:
    assert set(KINDS) == set(MODELS)
    for model, kind in KINDS.items():
        for optimizer in OPTIMIZERS:
            Training.model_validate(
                {"model": model, "data": kind.data, "optimizer": optimizer, "learning_rate": 0.1, "base_batch": 256}
            )
        for data in {"digits", "synthetic-imagenet", "synthetic-tokens"} - {kind.data}:
            with pytest.raises(ValidationError, match="does not fit"):
                Training.model_validate({"model": model, "data": data})


def test_a_spec_that_was_stored_is_valid_again_and_the_same() -> None:
    """Stored specs have every default in them, and leave out what has no value."""
    for training in (
        GPT | {"optimizer": "adamw", "learning_rate": 0.05, "gpt": {"tied": True}},
        IMAGES | {"model": "alexnet", "image_size": 63, "classes": 7, "optimizer": "lars", "learning_rate": 1.0},
        {"script": "/a.py"},
    ):
        spec = JobSpec.model_validate({"training": training})
        assert JobSpec.model_validate_json(spec.model_dump_json(exclude_none=True)) == spec


def test_a_section_of_gpts_sizes_can_be_written_in_toml_and_set(tmp_path: Path) -> None:
    file = tmp_path / "gpt.toml"
    file.write_text('[training]\nmodel = "gpt"\ndata = "synthetic-tokens"\n[training.gpt]\nlayers = 2\n')
    spec = read(file, ["training.gpt.tied=true"])
    assert spec.training.gpt is not None
    assert (spec.training.gpt.layers, spec.training.gpt.tied, spec.training.gpt.width) == (2, True, 256)
