"""``malloc_variables``: what a step frees stays with its rank for the next step (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEEP = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "-1",
}
"""Of glibc's malloc: how many blocks may be asked of the kernel one by one, which are given back when they are freed;
and from how many bytes on what is free at the end of the heap is given back, here never (a large number would be cut to
32 bits before glibc 2.26).

A threshold for blocks of their own (``MALLOC_MMAP_THRESHOLD_``) would not do: glibc takes no more than 32 MiB, and what
the first layers of a ResNet-50 compute of 16 images of 224 x 224 is 49 MiB (docs/benchmarks/computing.md)."""


def malloc_variables(spec: Mapping[str, Any]) -> dict[str, str]:
    """What a rank's environment has for this, unless the set-up or the spec's variables say otherwise.

    ``spec`` is as spec.json holds it; what it leaves out has the spec's own default. Another malloc (jemalloc,
    tcmalloc, musl's) does not read them. Source: mallopt(3), "Environment variables".
    """
    return {} if spec.get("environment", {}).get("malloc", "keep") == "system" else dict(KEEP)
