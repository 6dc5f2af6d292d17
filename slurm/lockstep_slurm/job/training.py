"""The spec's ``training`` section: what is trained, on what, by which optimizer; and what does not go together."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from pydantic import Field, model_validator

from lockstep_slurm.job.fields import AbsolutePath, Line, LinePattern, Metric, Section

Model = Literal["digits-cnn", "digits-mlp", "resnet50", "vgg16", "googlenet", "alexnet", "gpt"]
Data = Literal["digits", "synthetic-imagenet", "synthetic-tokens"]
Optimizer = Literal["sgd", "adamw", "lars", "lamb"]
MODELS: tuple[str, ...] = get_args(Model)
DATA: tuple[str, ...] = get_args(Data)
OPTIMIZERS: tuple[str, ...] = get_args(Optimizer)


class Kind(NamedTuple):
    """What a built-in model asks for."""

    data: str
    smallest: int = 0
    """Height and width of the smallest image that its layers leave something of."""
    normalised: bool = False
    """Whether it needs more than one value per channel and step, for the statistics of batch normalisation."""


KINDS = {
    "digits-cnn": Kind("digits"),
    "digits-mlp": Kind("digits"),
    "resnet50": Kind("synthetic-imagenet", 32, normalised=True),
    "vgg16": Kind("synthetic-imagenet", 32),
    "googlenet": Kind("synthetic-imagenet", 32, normalised=True),
    "alexnet": Kind("synthetic-imagenet", 63),
    "gpt": Kind("synthetic-tokens"),
}
_LAST_REDUCTION = 32
"""By how much the normalised models shrink an image: up to this size their last layers see one value a channel."""


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

    model: Model | None = Field(None, description="A built-in model")
    data: Data | None = Field(None, description="What the built-in model learns from")
    image_size: int | None = Field(
        None, ge=32, le=4096, description="Height and width of synthetic-imagenet's images; 224 by default"
    )
    classes: int | None = Field(
        None, ge=2, le=1_000_000, description="Classes of synthetic-imagenet's images; 1000 by default"
    )
    gpt: GPT | None = Field(None, description="Sizes of the model gpt, where they are not the defaults")
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
    seed: int = Field(0, ge=0, lt=2**31, description="Of the model's first parameters and the data's order")

    @model_validator(mode="after")
    def _recipe_or_script(self) -> Training:
        if self.script is None and self.model is None:
            raise ValueError(f"needs `model` (one of {', '.join(MODELS)}) or `script` (an absolute path)")
        if self.script is not None and (self.model or self.data):
            raise ValueError("has both `script` and `model`/`data`; keep one")
        if self.script is None and self.arguments:
            raise ValueError("`arguments` are for a `script`; a built-in model has none")
        if self.script is None and self.patterns:
            raise ValueError("`patterns` are for a `script`; a built-in model reports by itself")
        if self.script is not None:
            options = ("image_size", "classes", "gpt", "base_batch", "beta2", "trust_coefficient")
            given = [name for name in options if getattr(self, name) is not None]
            if self.optimizer != "sgd":
                given.append("optimizer")
            if given:
                raise ValueError(f"`{given[0]}` is for a built-in model; tell a `script` by its `arguments`")
        return self

    @model_validator(mode="after")
    def _data_fits_the_model(self) -> Training:
        if self.model is None:
            return self
        fits = KINDS[self.model].data
        if self.data is None:
            raise ValueError(f'model {self.model!r} needs `data`; it learns from "{fits}"')
        if self.data != fits:
            raise ValueError(f'model {self.model!r} does not fit data {self.data!r}; it learns from "{fits}"')
        for name in ("image_size", "classes"):
            if getattr(self, name) is not None and fits != "synthetic-imagenet":
                raise ValueError(f"`{name}` is for data synthetic-imagenet; model {self.model!r} has none")
        if self.gpt is not None and self.model != "gpt":
            raise ValueError(f"`gpt` has the sizes of the model gpt; model {self.model!r} has none")
        return self

    @model_validator(mode="after")
    def _images_are_large_enough(self) -> Training:
        if self.model is None or self.image_size is None:
            return self
        kind = KINDS[self.model]
        if self.image_size < kind.smallest:
            raise ValueError(
                f"image_size is {self.image_size}, of which the layers of {self.model} leave nothing; "
                f"take at least {kind.smallest}"
            )
        if kind.normalised and self.batch_size == 1 and self.image_size <= _LAST_REDUCTION:
            raise ValueError(
                f"batch_size 1 with image_size {self.image_size} leaves the batch normalisation of {self.model} one "
                f"value to take a mean of; take a larger batch, or images of at least {_LAST_REDUCTION + 1}"
            )
        return self

    @model_validator(mode="after")
    def _options_fit_the_optimizer(self) -> Training:
        if self.beta2 is not None and self.optimizer not in {"adamw", "lamb"}:
            raise ValueError(f"`beta2` is for adamw and lamb; optimizer {self.optimizer!r} has none")
        if self.trust_coefficient is not None and self.optimizer != "lars":
            raise ValueError(f"`trust_coefficient` is for lars; optimizer {self.optimizer!r} has none")
        if self.optimizer != "sgd" and "learning_rate" not in self.model_fields_set:
            raise ValueError(f"optimizer {self.optimizer!r} needs a `learning_rate`; the default is sgd's")
        return self
