"""The spec's ``training`` section: what is trained, on what, by which optimizer; and what does not go together."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from lockstep_slurm.job import forms
from lockstep_slurm.job.fields import AbsolutePath, Line, LinePattern, Metric, Section, VariableName

BuiltIn = Literal["digits-cnn", "digits-mlp", "resnet50", "vgg16", "googlenet", "alexnet", "gpt"]
Data = Literal["digits", "images", "tokens", "synthetic-imagenet", "synthetic-tokens"]
Optimizer = Literal["sgd", "adamw", "lars", "lamb"]
MODELS: tuple[str, ...] = get_args(BuiltIn)
DATA: tuple[str, ...] = get_args(Data)
OPTIMIZERS: tuple[str, ...] = get_args(Optimizer)


class Kind(NamedTuple):
    """What a built-in model asks for."""

    data: tuple[str, ...]
    smallest: int = 0
    """Height and width of the smallest image that its layers leave something of."""
    normalised: bool = False
    """Whether it needs more than one value per channel and step, for the statistics of batch normalisation."""


IMAGES = ("synthetic-imagenet", "images")
"""Data of images in a size and in classes that the spec may choose."""
TEXTS = ("synthetic-tokens", "tokens")
"""Data of texts, which are as `training.gpt` says."""
STORED = ("images", "tokens")
"""Data that lie in a folder of the user's."""
KINDS = {
    "digits-cnn": Kind(("digits",)),
    "digits-mlp": Kind(("digits",)),
    "resnet50": Kind(IMAGES, 32, normalised=True),
    "vgg16": Kind(IMAGES, 32),
    "googlenet": Kind(IMAGES, 32, normalised=True),
    "alexnet": Kind(IMAGES, 63),
    "gpt": Kind(TEXTS),
}
FOR_A_MODEL = (
    "model_arguments", "model_path", "data_path", "stage", "broken_images", "token_type", "image_size", "classes",
    "gpt", "base_batch", "beta2", "trust_coefficient", "schedule", "decay_epochs", "decay_factor", "accumulate",
    "precision", "channels_last", "on_bad_loss",
)  # fmt: skip
"""Keys that a `script` has no use for."""
_SHOWN = 80
"""Characters of a value that an error shows."""
_LAST_REDUCTION = 32
"""By how much the normalised models shrink an image: up to this size their last layers see one value a channel."""


def _either(names: tuple[str, ...]) -> str:
    return " or ".join(f'"{name}"' for name in names)


def _one_message(words: str) -> WrapValidator:
    """One message for a value that is of none of several kinds, in place of one for each."""

    def checked(value: object, check: ValidatorFunctionWrapHandler) -> object:
        try:
            return check(value)
        except ValidationError:
            shown = repr(value)
            shown = shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."
            raise ValueError(f"is {shown}, but has to be {words}") from None

    return WrapValidator(checked)


Model = Annotated[
    BuiltIn | Annotated[str, Field(pattern=forms.FACTORY, max_length=256)],
    _one_message(
        f"one of {', '.join(map(repr, MODELS))}, or a function that makes one, such as 'mypackage.models:build'"
    ),
]
Plain = Annotated[bool, Field(strict=True)] | int | Annotated[float, Field(allow_inf_nan=False)] | Line
Argument = Annotated[
    Plain | Annotated[list[Plain], Field(max_length=256)],
    _one_message("a number, a text on one line, true or false, or a list of such"),
]
Stage = Annotated[
    Annotated[bool, Field(strict=True)] | AbsolutePath, _one_message("true, false, or the absolute path of a folder")
]


class GPT(Section):
    """The sizes of the model `gpt` and of its texts; the defaults give 5.2 million parameters."""

    vocabulary: int = Field(4000, ge=2, le=1_000_000, description="Different tokens")
    context: int = Field(128, ge=1, le=65_536, description="Tokens of a sample, all of which the model sees")
    layers: int = Field(4, ge=1, le=1000)
    heads: int = Field(4, ge=1, le=1024, description="Of attention, in each layer; they share the width evenly")
    width: int = Field(256, ge=1, le=65_536, description="Values per token between the layers")
    tied: bool = Field(False, description="One matrix for the embedding and the last layer, in place of two")  # noqa: FBT003

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> GPT:
        if self.width % self.heads:
            raise ValueError(
                f"width is {self.width}, which {self.heads} heads do not divide; take a multiple of {self.heads}"
            )
        return self


class Training(Section):
    """What is trained: one of the built-in recipes (`model` and `data`), or a `script` of the user's own."""

    model: Model | None = Field(
        None, description="A built-in model, or `module:function` of the user's own, imported in the job alone"
    )
    model_arguments: dict[VariableName, Argument] | None = Field(
        None, max_length=64, description="What the user's own function is called with, by name"
    )
    model_path: AbsolutePath | None = Field(
        None, description="A folder in which the user's own module is looked for first"
    )
    data: Data | None = Field(None, description="What the model learns from")
    data_path: AbsolutePath | None = Field(
        None, description="The folder of images (train/<class>/*.jpg, validation/...) or of tokens (train.bin, ...)"
    )
    stage: Stage | None = Field(
        None,
        description="Copy the data to each node's own disk first: true (to SLURM_TMPDIR, TMPDIR or /tmp), or a folder",
    )
    broken_images: Literal["refuse", "skip"] | None = Field(
        None, description="What a JPEG that cannot be decoded does: end the training (the default), or be left out"
    )
    token_type: Literal["uint16", "uint32"] | None = Field(
        None, description="What each token of the files is; by default uint16 where that holds the vocabulary"
    )
    image_size: int | None = Field(
        None, ge=32, le=4096, description="Height and width of the images that are trained on; 224 by default"
    )
    classes: int | None = Field(
        None,
        ge=2,
        le=1_000_000,
        description="Of synthetic-imagenet, 1000 by default; of images it is the number of folders, and checked",
    )
    gpt: GPT | None = Field(None, description="Sizes of the model gpt and of its texts, where not the defaults")
    script: AbsolutePath | None = Field(
        None, description="A Python file of the user's own, in place of `model` and `data`"
    )
    arguments: list[Line] = Field(
        default_factory=list, max_length=256, description="The script's arguments, one by one"
    )
    patterns: dict[Metric, LinePattern] = Field(
        default_factory=dict,
        max_length=16,
        description="Figures to read from what a `script` prints, by metric: "
        'throughput = "images/sec: ([0-9.]+)" (samples per second and rank), loss = "loss=([0-9.]+)"',
    )
    epochs: int = Field(1, ge=1, le=100_000, description="Passes over the data")
    steps_per_epoch: int | None = Field(
        None, ge=1, description="Steps in an epoch of synthetic data, or a cap for real data"
    )
    batch_size: int = Field(32, ge=1, le=1_000_000, description="Samples per rank and step")
    optimizer: Optimizer = Field("sgd", description="What makes updates of gradients: sgd is with momentum")
    learning_rate: float = Field(
        0.05,
        gt=0,
        le=1e3,
        allow_inf_nan=False,
        description="Of the whole job, not scaled by ranks, unless `base_batch` is given; the default is sgd's",
    )
    base_batch: int | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="The global batch that `learning_rate` is for: the job's is scaled by its own global batch "
        "(batch_size times ranks) over this one",
    )
    momentum: float = Field(
        0.9, ge=0, lt=1, allow_inf_nan=False, description="Of sgd and lars; of adamw and lamb it is beta1"
    )
    beta2: float | None = Field(
        None, ge=0, lt=1, allow_inf_nan=False, description="Of adamw and lamb; 0.999 by default"
    )
    trust_coefficient: float | None = Field(
        None, gt=0, le=1e3, allow_inf_nan=False, description="Of lars; 0.001 by default"
    )
    weight_decay: float = Field(0.0, ge=0, le=1, allow_inf_nan=False)
    warmup_steps: int = Field(0, ge=0, description="Steps over which the learning rate grows from 0")
    schedule: Literal["constant", "cosine", "step"] | None = Field(
        None, description="What the learning rate does after warm-up: stay (the default), fall to 0, or fall at epochs"
    )
    decay_epochs: list[Annotated[int, Field(ge=1)]] | None = Field(
        None, min_length=1, max_length=64, description="Of schedule step: epochs after which the rate falls, ascending"
    )
    decay_factor: float | None = Field(
        None, gt=0, lt=1, allow_inf_nan=False, description="Of schedule step: by which the rate falls; 0.1 by default"
    )
    accumulate: int | None = Field(
        None,
        ge=2,
        le=4096,
        description="Equal parts in which each rank computes its batch, one after the other, for less memory",
    )
    precision: Literal["float32", "bf16"] | None = Field(
        None, description="bf16: the forward and backward passes in bfloat16 where torch's autocast does so"
    )
    channels_last: bool | None = Field(
        None,
        description="Whether images have the channels of a pixel side by side in memory; by default they do for "
        "resnet50, googlenet, vgg16 and alexnet, which are faster so",
    )
    on_bad_loss: Literal["fail", "warn"] | None = Field(
        None,
        description="A loss that is NaN or infinite: end the training and name the last good checkpoint (the default), "
        "or say so and go on",
    )
    hang_minutes: float | None = Field(
        None,
        ge=0,
        le=100_000,
        allow_inf_nan=False,
        description="So long after the last step of any rank the job ends, with the stacks of the rank that the others "
        "wait for; 15 for a built-in model, and 0, never, for a `script`, of which nobody knows how long it evaluates",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Of the model's first parameters and the data's order")

    @model_validator(mode="after")
    def _recipe_or_script(self) -> Training:
        if self.script is None and self.model is None:
            raise ValueError(f"needs `model` (one of {', '.join(MODELS)}, or your own) or `script` (an absolute path)")
        if self.script is not None and (self.model or self.data):
            raise ValueError("has both `script` and `model`/`data`; keep one")
        if self.script is None and self.arguments:
            raise ValueError("`arguments` are for a `script`; a built-in model has none")
        if self.script is None and self.patterns:
            raise ValueError("`patterns` are for a `script`; a built-in model reports by itself")
        if self.script is not None:
            given = [name for name in FOR_A_MODEL if getattr(self, name) is not None]
            if self.optimizer != "sgd":
                given.append("optimizer")
            if given:
                raise ValueError(f"`{given[0]}` is for a built-in model; tell a `script` by its `arguments`")
        return self

    @model_validator(mode="after")
    def _data_fits_the_model(self) -> Training:
        if self.model is None:
            return self
        fits = KINDS[self.model].data if self.model in KINDS else DATA
        if self.data is None:
            raise ValueError(f"model {self.model!r} needs `data`; it learns from {_either(fits)}")
        if self.data not in fits:
            raise ValueError(f"model {self.model!r} does not fit data {self.data!r}; it learns from {_either(fits)}")
        for name in ("image_size", "classes"):
            if getattr(self, name) is not None and self.data not in IMAGES:
                raise ValueError(f"`{name}` is for data {' and '.join(IMAGES)}; {self._without()}")
        if self.gpt is not None and self.data not in TEXTS:
            raise ValueError(f"`gpt` has the sizes of the model gpt and its texts; {self._without()}")
        return self

    @model_validator(mode="after")
    def _data_lie_somewhere(self) -> Training:
        if self.data in STORED and self.data_path is None:
            raise ValueError(f"data {self.data!r} needs `data_path`, the folder that it lies in")
        for name, data in (
            ("data_path", STORED),
            ("stage", STORED),
            ("broken_images", ("images",)),
            ("token_type", ("tokens",)),
        ):
            if self.model is not None and getattr(self, name) is not None and self.data not in data:
                raise ValueError(f"`{name}` is for data {' and '.join(data)}; data {self.data!r} has none")
        return self

    @model_validator(mode="after")
    def _a_function_has_arguments(self) -> Training:
        for name in ("model_arguments", "model_path"):
            if self.model in KINDS and getattr(self, name) is not None:
                raise ValueError(f"`{name}` is for a model of your own (module:function), not for {self.model!r}")
        return self

    def _without(self) -> str:
        return f"model {self.model!r} has none" if self.model in KINDS else f"data {self.data!r} has none"

    @model_validator(mode="after")
    def _images_are_large_enough(self) -> Training:
        kind = KINDS.get(self.model or "")
        if kind is None or self.image_size is None:
            return self
        if self.image_size < kind.smallest:
            raise ValueError(
                f"image_size is {self.image_size}, of which the layers of {self.model} leave nothing; "
                f"take at least {kind.smallest}"
            )
        if kind.normalised and self.batch_size == 1 and self._is_small():
            raise ValueError(
                f"batch_size 1 with image_size {self.image_size} leaves the batch normalisation of {self.model} one "
                f"value to take a mean of; take a larger batch, or images of at least {_LAST_REDUCTION + 1}"
            )
        return self

    @model_validator(mode="after")
    def _numerics_go_together(self) -> Training:
        if self.schedule == "step" and self.decay_epochs is None:
            raise ValueError('schedule "step" needs `decay_epochs`, such as [30, 60, 80]')
        for name in ("decay_epochs", "decay_factor"):
            if getattr(self, name) is not None and self.schedule != "step":
                raise ValueError(f'`{name}` is for schedule "step"; say so, or leave it out')
        if (at := self.decay_epochs) is not None:
            if at != sorted(set(at)):
                raise ValueError(f"decay_epochs is {at}; give each epoch once, in ascending order")
            if at[-1] >= self.epochs:
                raise ValueError(
                    f"decay_epochs has {at[-1]}, but there are {self.epochs} epochs; the last one is over then"
                )
        if self.accumulate is not None and self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size is {self.batch_size}, which accumulate {self.accumulate} does not divide; take a multiple"
            )
        kind = KINDS.get(self.model or "")
        if kind is not None and kind.normalised and self.batch_size == self.accumulate and self._is_small():
            raise ValueError(
                f"accumulate {self.accumulate} leaves the batch normalisation of {self.model} one value to take a mean "
                "of; take a larger batch, fewer parts or larger images"
            )
        if self.channels_last and self.data in TEXTS:
            raise ValueError(f"`channels_last` is for images; data {self.data!r} has no channels")
        return self

    def _is_small(self) -> bool:
        return self.image_size is not None and self.image_size <= _LAST_REDUCTION

    @model_validator(mode="after")
    def _options_fit_the_optimizer(self) -> Training:
        if self.beta2 is not None and self.optimizer not in {"adamw", "lamb"}:
            raise ValueError(f"`beta2` is for adamw and lamb; optimizer {self.optimizer!r} has none")
        if self.trust_coefficient is not None and self.optimizer != "lars":
            raise ValueError(f"`trust_coefficient` is for lars; optimizer {self.optimizer!r} has none")
        if self.optimizer != "sgd" and "learning_rate" not in self.model_fields_set:
            raise ValueError(f"optimizer {self.optimizer!r} needs a `learning_rate`; the default is sgd's")
        return self
