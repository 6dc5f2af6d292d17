"""``Recipe``: what a built-in training needs to know of the job's spec (standard library only)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

CHANNELS_LAST = frozenset({"resnet50", "googlenet", "vgg16", "alexnet"})
"""The models that are faster with the channels of a pixel side by side (docs/benchmarks/computing.md)."""


@dataclass(frozen=True)
class GPTSizes:
    """The spec's ``training.gpt`` section; the defaults are the spec's, and give 5.2 million parameters."""

    vocabulary: int = 4000
    context: int = 128
    """Tokens that a sample has, and the model sees."""
    layers: int = 4
    heads: int = 4
    width: int = 256
    tied: bool = False
    """Whether the embedding is also the last layer's matrix."""


@dataclass(frozen=True)
class Recipe:
    """What the spec says of a built-in model's training; the defaults are the spec's (a test holds them equal)."""

    model: str
    """A built-in one, or ``module:function`` of the user's own."""
    data: str
    model_arguments: Mapping[str, Any] = field(default_factory=dict)
    """What the user's own function is called with."""
    model_path: str | None = None
    """A folder in which its module is looked for first."""
    data_path: str | None = None
    """The folder of images or tokens."""
    stage: bool | str | None = None
    """Whether it is copied to the node's own disk first, or where to."""
    broken_images: str = "refuse"
    """Whether a JPEG that cannot be decoded ends the training, or is skipped."""
    token_type: str | None = None
    """Of the files of tokens; by default the smallest that holds the vocabulary."""
    image_size: int = 224
    """Height and width of the images."""
    classes: int | None = None
    """Of synthetic images, 1000 by default; of images in folders there have to be so many, if it is given."""
    gpt: GPTSizes = GPTSizes()
    epochs: int = 1
    steps_per_epoch: int | None = None
    batch_size: int = 32
    """Samples per rank and step."""
    optimizer: str = "sgd"
    learning_rate: float = 0.05
    """For a global batch of ``base_batch``; without it of the whole job, whatever its ranks."""
    base_batch: int | None = None
    """The global batch, in samples, that ``learning_rate`` is for."""
    momentum: float = 0.9
    """How much of the mean of past gradients is kept: of sgd and lars; beta1 of adamw and lamb."""
    beta2: float = 0.999
    """The same for the squares, of adamw and lamb."""
    trust_coefficient: float = 0.001
    """Of lars."""
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: str = "constant"
    """What the learning rate does after warm-up: ``constant``, ``cosine`` or ``step``."""
    decay_epochs: Sequence[int] = ()
    """Of ``step``: the epochs after which it falls by ``decay_factor``."""
    decay_factor: float = 0.1
    accumulate: int = 1
    """Parts in which a rank computes its batch, one after the other."""
    precision: str = "float32"
    """Or ``bf16``: by torch's autocast."""
    channels_last: bool = False
    """Whether images have the channels of a pixel side by side in memory; for ``CHANNELS_LAST`` they do by default."""
    on_bad_loss: str = "fail"
    """What a loss that is no finite number does: end the training, or ``warn``."""
    seed: int = 0
    exchange: str = "lockstep"
    """Who averages the gradients: ``lockstep.DistributedOptimizer``, or ``horovod``'s."""
    defer: bool = True
    """Whether an update is done when its parameters are used next, by lockstep's exchange."""
    transport: str = "auto"
    """What carries lockstep's exchange: ``horovod``, ``gloo``, a process group of torch's, or ``tcp``, of our own.

    ``auto``: ``tcp`` for a few ranks of Horovod's over Gloo, else ``horovod`` (``carrier``).
    """

    @classmethod
    def parse(cls, training: Mapping[str, Any], communication: Mapping[str, Any] = {}) -> Recipe:
        """From the spec's sections ``training`` and ``communication``; what is null there has its default."""
        known = {one.name for one in fields(cls)}
        said = {**communication, **training}
        given = {key: value for key, value in said.items() if key in known and value is not None}
        if "gpt" in given:
            given["gpt"] = GPTSizes(**given["gpt"])
        given.setdefault("channels_last", given.get("model") in CHANNELS_LAST)
        return cls(**given)

    @classmethod
    def of_this_run(cls) -> Recipe:
        """From the ``spec.json`` of the run that this process was started for."""
        spec = json.loads((Path(os.environ["LOCKSTEP_RUN"]) / "spec.json").read_text(encoding="utf-8"))
        return cls.parse(spec["training"], spec.get("communication", {}))

    def peak_learning_rate(self, ranks: int) -> float:
        """After warm-up: ``learning_rate``, times global batch / ``base_batch`` where that is given.

        The linear scaling rule (Goyal et al., arXiv 1706.02677, section 2.1).
        """
        if self.base_batch is None:
            return self.learning_rate
        return self.learning_rate * (self.batch_size * ranks / self.base_batch)

    def learning_rate_at(self, step: int, ranks: int = 1, passed: float = 0.0) -> float:
        """The learning rate of ``step`` (0 for the first), when so many epochs have ``passed`` (1.5: one and a half).

        It grows linearly over ``warmup_steps``, from 0, where Goyal et al. begin at the unscaled rate (section 2.2).
        All the while it is times what the schedule says, which goes by epochs and not by steps: so it is the same
        for any number of ranks.
        """
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        return self.peak_learning_rate(ranks) * warm * self._share_at(passed)

    def _share_at(self, passed: float) -> float:
        """Of the peak rate. The cosine's is arXiv 1608.03983, equation 5, without restarts."""
        if self.schedule == "cosine":
            return (1 + math.cos(math.pi * min(1.0, passed / self.epochs))) / 2
        if self.schedule == "step":
            return self.decay_factor ** sum(passed >= epoch for epoch in self.decay_epochs)
        return 1.0
