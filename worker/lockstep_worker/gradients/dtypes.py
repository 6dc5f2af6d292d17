"""Which dtypes gradients may have, and what a dtype is called."""

from __future__ import annotations

import torch

from lockstep_worker.gradients.errors import GradientError

AVERAGED = (torch.float32, torch.float64, torch.float16)
"""What Horovod 0.28.1 sums and NumPy adds and scales: bfloat16 is neither's."""


def dtype_name(dtype: torch.dtype) -> str:
    """``float32``."""
    return str(dtype).removeprefix("torch.")


def check_averaged(dtype: torch.dtype, over: str) -> None:
    """Raises ``GradientError`` for gradients that are not averaged ``over`` this."""
    if dtype not in AVERAGED:
        raise GradientError(f"gradients of {dtype} are not averaged over {over}; keep the parameters in float32")
