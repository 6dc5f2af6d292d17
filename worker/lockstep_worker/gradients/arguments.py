"""What ``hvd.DistributedOptimizer`` takes besides (0.28.1): a script that is switched by one line may say all of it.

What Horovod does by default changes nothing here; what is not offered is refused with its reason, and not passed over.
"""

from __future__ import annotations

import sys
from typing import Any

from lockstep_worker.gradients.errors import GradientError


def check_passes(passes: int) -> None:
    """Raises ``GradientError`` for a number of backward passes a step that is none."""
    if passes < 1:
        raise GradientError(f"backward_passes_per_step is {passes}; it is at least 1")


def check(
    *,
    compression: object,
    op: object,
    gradient_predivide_factor: float,
    num_groups: int,
    groups: object,
    sparse_as_dense: bool,
    process_set: object,
) -> None:
    """Raises ``GradientError`` for what the exchange does not do, with what does it; None is the default of each."""
    # Who has one of Horovod's values has imported it; a script over another transport need not have it.
    hvd: Any = sys.modules.get("horovod.torch")
    if compression is not None and (hvd is None or compression is not hvd.Compression.none):
        said = getattr(compression, "__name__", repr(compression))
        raise GradientError(
            f"compression is {said}; gradients are sent as they are: leave it out, or say hvd.Compression.none. Their "
            "transfer lies behind computing here; parameters in float16 are exchanged in 16 bits; for a link that is "
            "too slow for both there is Horovod's own optimizer"
        )
    if op is not None and (hvd is None or op != hvd.Average):
        raise GradientError(f"op is {_name_of(op, hvd)}; {_instead_of(op, hvd)}")
    if gradient_predivide_factor != 1.0:
        raise GradientError(
            f"gradient_predivide_factor is {gradient_predivide_factor}; it is 1.0 here. It divides a part before the "
            "sum: where sums overflow, as those of halves do, keep the parameters in float32"
        )
    if num_groups or groups is not None:
        told, value = ("groups", groups) if groups is not None else ("num_groups", num_groups)
        shown = f"a list of {len(value)}" if isinstance(value, list) else repr(value)
        raise GradientError(
            f"{told} is {shown}; leave it out: gradients are packed by when they are used, in pieces of a size that is "
            "measured, or of piece_bytes="
        )
    if sparse_as_dense:
        raise GradientError(
            "sparse_as_dense is True; sparse gradients are not exchanged: say Embedding(..., sparse=False), whose "
            "gradients are dense from the start"
        )
    if process_set is not None and getattr(process_set, "process_set_id", None) != 0:
        raise GradientError(
            f"process_set is {process_set!r}; all ranks take part here: for a part of them use Horovod's own optimizer"
        )


def _name_of(op: object, hvd: Any) -> str:  # noqa: ANN401 - a module
    found = [name for name in ("Sum", "Adasum", "Min", "Max", "Product") if op == getattr(hvd, name, None)]
    return f"hvd.{found[0]}" if found else repr(op)


def _instead_of(op: object, hvd: Any) -> str:  # noqa: ANN401 - a module
    if op == getattr(hvd, "Sum", None):
        return "gradients are averaged here (hvd.Average): for their sum multiply the loss by hvd.size()"
    return "gradients are averaged here (hvd.Average): for anything else use Horovod's own optimizer"
