"""The real torch and Horovod on a machine with two sockets: births, masks and memory as planned."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from support.emulated import Case, Result

TRAINING = Case(
    "the real Horovod",
    {
        "resources": {"exclusive": True, "time": "10"},
        "placement": {"ranks_per_node": 2, "memory": "bind"},
    },
    real=True,
)


@pytest.mark.parametrize("case", [TRAINING], ids=lambda case: case.id)
def test_a_training_has_its_threads_and_its_memory_where_they_were_planned(
    case: Case, run: Callable[[Case], Result]
) -> None:
    result = run(case)
    assert result.exit == "COMPLETED 0:0", result.log
    verdicts = [*result.verdicts("init"), *result.verdicts("steps")]
    assert [(one["when"], one["rank"], one["result"]) for one in verdicts] == [
        ("init", 0, "as planned"),
        ("init", 1, "as planned"),
        ("steps", 0, "as planned"),
        ("steps", 1, "as planned"),
    ], result.log
    plans = result.placement["emulated"]["placement"]["ranks"]
    for verdict in verdicts:
        plan = plans[verdict["local_rank"]]
        observed = {
            role: {tuple(sorted(one["observed"])) for one in verdict["threads"] if one["role"] == role}
            for role in ("main", "compute", "horovod", "gloo")
        }
        compute = tuple(sorted(plan["compute"]))
        assert observed["main"] == observed["compute"] == {compute}
        for role in ("horovod", "gloo"):
            assert observed[role] == {tuple(plan["communication"][role])}
            assert set(plan["communication"][role]).isdisjoint(compute)
    # What the ranks read of their own pages, on the domains that the plan bound them to.
    said = [json.loads(line.partition(": ")[2]) for line in result.log.splitlines() if '"pages"' in line]
    assert sorted(one["rank"] for one in said) == [0, 1]
    for one in said:
        assert one["policy"] == f"bind:{one['rank']}"
        anonymous = one["pages"]
        assert anonymous[str(one["rank"])] > 0.99 * sum(anonymous.values()), one
