"""The random states of one rank: torch's, Python's, NumPy's where the training has it, and generators of its own."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from typing import Any

import torch


def states(generators: Mapping[str, torch.Generator]) -> dict[str, Any]:
    """Where each of them stands, in plain values and tensors."""
    found: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "generators": {name: one.get_state() for name, one in generators.items()},
    }
    if (numpy := sys.modules.get("numpy")) is not None:
        kind, keys, position, has_gauss, gauss = numpy.random.get_state()
        found["numpy"] = (kind, [int(key) for key in keys], position, has_gauss, gauss)
    return found


def restore(found: Mapping[str, Any], generators: Mapping[str, torch.Generator]) -> None:
    """Puts them back to where ``states`` saw them."""
    # Cloned: torch 2.13 reads a state from the beginning of its storage, wherever in it a view begins.
    torch.set_rng_state(found["torch"].clone())
    random.setstate(found["python"])
    for name, generator in generators.items():
        if name in found["generators"]:
            generator.set_state(found["generators"][name].clone())
    if "numpy" in found and (numpy := sys.modules.get("numpy")) is not None:
        kind, keys, position, has_gauss, gauss = found["numpy"]
        numpy.random.set_state((kind, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, gauss))
