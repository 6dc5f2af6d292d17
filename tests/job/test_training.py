"""What a spec may ask of a built-in training, and what does not go together: told before anything is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lockstep_slurm.job.file import SpecError, check, read
from lockstep_slurm.job.spec import JobSpec
from lockstep_slurm.job.training import DATA, KINDS, MODELS, OPTIMIZERS, STORED, Training

GPT: dict[str, Any] = {"model": "gpt", "data": "synthetic-tokens"}
TOKENS: dict[str, Any] = {"data": "tokens", "data_path": "/data"}
STEP: dict[str, Any] = {"schedule": "step", "epochs": 9}
OWN_MODEL: dict[str, Any] = {"model": "mine.models:build", "data": "digits"}
IMAGES: dict[str, Any] = {"data": "synthetic-imagenet"}


@pytest.mark.parametrize(
    ("training", "where", "words"),
    [
        (GPT | {"data": "digits"}, "training", "model 'gpt' does not fit data 'digits'; it learns from \"synth"),
        ({"model": "gpt"}, "training", 'needs `data`; it learns from "synthetic-tokens"'),
        (GPT | {"gpt": {"width": 100, "heads": 3}}, "training.gpt", "width is 100, which 3 heads do not divide"),
        (GPT | {"gpt": {"vocabulary": 1}}, "training.gpt.vocabulary", "is 1, but has to be at least 2"),
        (GPT | {"gpt": {"depth": 3}}, "training.gpt.depth", "there are: context, heads, layers, tied, vocabulary"),
        (
            GPT | {"image_size": 64},
            "training",
            "`image_size` is for data synthetic-imagenet and images; model 'gpt' has none",
        ),
        (
            GPT | {"classes": 10},
            "training",
            "`classes` is for data synthetic-imagenet and images; model 'gpt' has none",
        ),
        ({"model": "digits-cnn", "data": "digits", "image_size": 64}, "training", "model 'digits-cnn' has none"),
        (
            IMAGES | {"model": "vgg16", "gpt": {}},
            "training",
            "`gpt` has the sizes of the model gpt and its texts; model 'vgg16'",
        ),
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
        ({"script": "/a.py", "data_path": "/d"}, "training", "`data_path` is for a built-in model; tell a `script`"),
        ({"model": "vgg16", "data": "images"}, "training", "data 'images' needs `data_path`, the folder that it lies"),
        (GPT | {"data": "tokens"}, "training", "data 'tokens' needs `data_path`"),
        (GPT | {"data_path": "/d"}, "training", "`data_path` is for data images and tokens; data 'synthetic-tokens'"),
        (GPT | {"stage": True}, "training", "`stage` is for data images and tokens; data 'synthetic-tokens' has none"),
        (GPT | TOKENS | {"stage": "scratch"}, "training.stage", "is 'scratch', but has to be true, false, or the abs"),
        (GPT | TOKENS | {"broken_images": "skip"}, "training", "`broken_images` is for data images; data 'tokens' has"),
        (GPT | TOKENS | {"token_type": "int8"}, "training.token_type", "is 'int8', but has to be one of 'uint16', 'ui"),
        (GPT | {"model": "gpt2"}, "training.model", "is 'gpt2', but has to be one of 'digits-cnn', 'digits-mlp',"),
        (GPT | {"model": "a/b:c"}, "training.model", "or a function that makes one, such as 'mypackage.models:build'"),
        (GPT | {"model_arguments": {"depth": 2}}, "training", "`model_arguments` is for a model of your own (module:f"),
        (GPT | {"model_path": "/home/me"}, "training", "`model_path` is for a model of your own (module:function), no"),
        (
            OWN_MODEL | {"model_arguments": {"a": {}}},
            "training.model_arguments.a",
            "is {}, but has to be a number, a te",
        ),
        (GPT | {"schedule": "step"}, "training", 'schedule "step" needs `decay_epochs`, such as [30, 60, 80]'),
        (GPT | {"decay_epochs": [1]}, "training", '`decay_epochs` is for schedule "step"; say so, or leave it out'),
        (
            GPT | STEP | {"decay_epochs": [3, 2]},
            "training",
            "decay_epochs is [3, 2]; give each epoch once, in ascending",
        ),
        (GPT | STEP | {"decay_epochs": [2, 9]}, "training", "decay_epochs has 9, but there are 9 epochs; the last one"),
        (GPT | STEP | {"decay_epochs": [0]}, "training.decay_epochs.0", "is 0, but has to be at least 1"),
        (GPT | {"batch_size": 8, "accumulate": 3}, "training", "batch_size is 8, which accumulate 3 does not divide"),
        (GPT | {"channels_last": True}, "training", "`channels_last` is for images; data 'synthetic-tokens' has no"),
        (
            IMAGES | {"model": "resnet50", "image_size": 32, "batch_size": 4, "accumulate": 4},
            "training",
            "accumulate 4 leaves the batch normalisation of resnet50 one value to take a mean of",
        ),
        (GPT | {"precision": "fp16"}, "training.precision", "is 'fp16', but has to be one of 'float32', 'bf16'"),
        ({"script": "/a.py", "channels_last": True}, "training", "`channels_last` is for a built-in model; tell a"),
        (OWN_MODEL | {"model_arguments": {"a b": 1}}, "training.model_arguments.a b.[key]", "no digit first"),
        (
            OWN_MODEL | {"image_size": 64},
            "training",
            "`image_size` is for data synthetic-imagenet and images; data 'di",
        ),
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
        ({"communication": {"transport": "mpi"}}, "communication.transport", "is 'mpi', but has to be one of"),
        (
            {"communication": {"exchange": "horovod", "transport": "gloo"}},
            "communication",
            'whose optimizer knows no other than Horovod; take exchange "lockstep", or leave `transport` out',
        ),
        (
            {"communication": {"exchange": "horovod", "transport": "tcp"}},
            "communication",
            '`transport` is "tcp", but exchange is "horovod", whose optimizer knows no other than Horovod; take',
        ),
        (
            {"training": {"script": "/a.py"}, "communication": {"transport": "gloo"}},
            "",
            "says it itself, `lockstep.DistributedOptimizer(..., transport=...)`",
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
            for data in kind.data:
                Training.model_validate(
                    {"model": model, "data": data, "optimizer": optimizer, "learning_rate": 0.1, "base_batch": 256}
                    | ({"data_path": "/data"} if data in STORED else {})
                )
        for data in set(DATA) - set(kind.data):
            with pytest.raises(ValidationError, match="does not fit"):
                Training.model_validate({"model": model, "data": data})


def test_a_spec_that_was_stored_is_valid_again_and_the_same() -> None:
    """Stored specs have every default in them, and leave out what has no value."""
    for training in (
        GPT | {"optimizer": "adamw", "learning_rate": 0.05, "gpt": {"tied": True}},
        IMAGES | {"model": "alexnet", "image_size": 63, "classes": 7, "optimizer": "lars", "learning_rate": 1.0},
        {"script": "/a.py"},
        GPT | STEP | {"decay_epochs": [3, 6], "decay_factor": 0.5, "accumulate": 2, "precision": "bf16"},
        GPT | TOKENS | {"stage": True, "token_type": "uint32"},
        {"model": "vgg16", "data": "images", "data_path": "/d", "stage": "/local", "broken_images": "skip"},
        OWN_MODEL | {"model_path": "/m", "model_arguments": {"a": 1, "b": 1.0, "c": True, "d": "x", "e": [1, "y"]}},
    ):
        spec = JobSpec.model_validate({"training": training})
        assert JobSpec.model_validate_json(spec.model_dump_json(exclude_none=True)) == spec


def test_a_section_of_gpts_sizes_can_be_written_in_toml_and_set(tmp_path: Path) -> None:
    file = tmp_path / "gpt.toml"
    file.write_text('[training]\nmodel = "gpt"\ndata = "synthetic-tokens"\n[training.gpt]\nlayers = 2\n')
    spec = read(file, ["training.gpt.tied=true"])
    assert spec.training.gpt is not None
    assert (spec.training.gpt.layers, spec.training.gpt.tied, spec.training.gpt.width) == (2, True, 256)
