"""The configurations that are measured, fixed: the model, the batch, the images or the vocabulary, the link. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

PLAIN = "no communication"
STOCK = "Horovod"
DDP = "DDP over Gloo"
OURS = "ours over Horovod"
OURS_GLOO = "ours over Gloo"
OURS_TCP = "ours over TCP"
CARRIED = {OURS: "horovod", OURS_GLOO: "gloo", OURS_TCP: "tcp"}
"""Ours, and the transport of each."""
EVERY = (PLAIN, STOCK, DDP, *CARRIED)
BY_HOROVOD = (STOCK, OURS)
"""Whom Horovod's threads serve; in the others' turns these threads have no part."""

LINKS = (0.75, 1.0, 1.25)
"""Communication alone, as so many times computing alone."""


@dataclass(frozen=True)
class Case:
    """One training on two ranks, each with one CPU and one thread. SGD; images are noise, and so are tokens."""

    name: str
    model: str
    batch: int
    """Samples of each rank."""
    side: int = 0
    """Height and width of the images in pixels; 1,000 classes."""
    momentum: float = 0.9
    gpt: tuple[tuple[str, Any], ...] = ()
    """The sizes of a GPT: vocabulary, context (the tokens of a sample), layers, heads, width, tied."""
    contenders: tuple[str, ...] = EVERY
    links: tuple[float | None, ...] = (*LINKS, None)
    """None: a link without a limit."""
    ratio_wanted: bool = False
    """Whether the ratio of the exposed communication has a target, at communication = computing."""
    timed: int = 1
    """Steps of a turn that are timed, behind one that is not."""

    def document(self) -> dict[str, Any]:
        """In plain values, for a rank's command line."""
        return asdict(self)


GPT = (("vocabulary", 4000), ("context", 128), ("layers", 4), ("heads", 4), ("width", 256))
CASES = (
    Case("resnet50", "resnet50", batch=8, side=144, ratio_wanted=True),
    Case("googlenet", "googlenet", batch=16, side=96, ratio_wanted=True, timed=2),
    # Without momentum: six contenders on two ranks are to fit into 24 GiB.
    Case("vgg16", "vgg16", batch=8, side=128, momentum=0.0, ratio_wanted=True),
    Case("alexnet", "alexnet", batch=32, side=224),
    Case("gpt", "gpt", batch=8, gpt=(*GPT, ("tied", False)), timed=2),
    Case("gpt-tied", "gpt", batch=8, gpt=(*GPT, ("tied", True)), timed=2),
    Case("weak-scaling", "resnet50", batch=16, side=224, contenders=(PLAIN, *CARRIED), links=(None,)),
)  # fmt: skip


def case_of(name: str) -> Case:
    """The case of this name."""
    return next(case for case in CASES if case.name == name)


@dataclass(frozen=True)
class Form:
    """How much is measured."""

    rounds: int
    seconds: float
    """Of one piece, after which no further round is begun."""
    links: Sequence[float | None] | None = None
    """Only these; None: the case's own."""
    timed: int | None = None
    """Steps of a turn; None: the case's own."""

    def compared(self, case: Case) -> int:
        """Steps after which the contenders are compared.

        Ours has made them before it is tuned, the others after the last round.
        """
        return max(COMPARED, SETTLED + self.rounds * (1 + self.steps(case)))

    def steps(self, case: Case) -> int:
        """Timed, in a turn."""
        return self.timed or case.timed


SETTLED = 2
"""Steps of every contender before the first round, for memory and caches."""
COMPARED = 23
"""Steps after which ours has used every plan that it tries (docs/gradients.md, Tuning). The pause of the comparison
falls into a step of the default, before the plan that looks best is confirmed in further ones: it decides nothing."""
TUNED = 90
"""Steps after which ours has kept one, 87 at most, and used it: so many it makes before the first round."""
FULL = Form(rounds=7, seconds=inf)
QUICK = Form(rounds=4, seconds=420, links=(1.0,), timed=1)
