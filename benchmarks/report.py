"""What every benchmark has in common: paired ratios with their spread, the table, and the JSON object."""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """One comparison; ``ratio`` is such that larger is better for us."""

    case: str
    metric: str
    unit: str
    ours: float
    peer: float
    peer_name: str
    ratio: float
    ratio_low: float
    ratio_high: float
    target: float | None
    simulated: bool
    valid: bool


def paired(
    *, case: str, metric: str, unit: str, ours: Sequence[float], peer: Sequence[float], peer_name: str, valid: bool
) -> Row:
    """A row from paired costs (smaller is better), measured in turn: medians, and the median of peer/ours per pair.

    ``ratio_low`` and ``ratio_high`` are the bootstrap 95 % interval of that median.
    """
    ratios = [theirs / own for own, theirs in zip(ours, peer, strict=True)]
    dice = random.Random(0)  # noqa: S311 - resampling, the same on every run
    medians = sorted(statistics.median(dice.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    return Row(
        case=case,
        metric=metric,
        unit=unit,
        ours=statistics.median(ours),
        peer=statistics.median(peer),
        peer_name=peer_name,
        ratio=statistics.median(ratios),
        ratio_low=medians[int(0.025 * RESAMPLES)],
        ratio_high=medians[int(0.975 * RESAMPLES)],
        target=None,
        simulated=False,
        valid=valid,
    )


def publish(name: str, rows: Sequence[Row], *, as_json: bool) -> None:
    """Prints the rows; exits 0 whatever the figures, since a benchmark measures and does not judge."""
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, Python {platform.python_version()}"
    if as_json:
        json.dump({"name": name, "machine": machine, "rows": [asdict(row) for row in rows]}, sys.stdout, indent=2)
        print()
        return
    table = Table(title=f"{name} ({machine})")
    for heading in ("case", "metric", "ours", "peer", "ratio (95 %)", "valid"):
        table.add_column(heading)
    for row in rows:
        table.add_row(
            row.case,
            f"{row.metric}, {row.unit}",
            f"{row.ours:.3g}",
            f"{row.peer:.3g} ({row.peer_name})",
            f"{row.ratio:.2f} ({row.ratio_low:.2f} to {row.ratio_high:.2f})",
            "yes" if row.valid else "NO",
        )
    Console().print(table)
