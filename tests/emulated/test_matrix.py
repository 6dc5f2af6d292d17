"""Ranks on a machine with two sockets: with every policy, each thread sits where it was planned, says the kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from two_sockets import WITHOUT_SMT

from support.emulated import Case, Result

POLICIES = ("last", "first", "sibling", "nic", "none")


def job(ranks: int, policy: str, *, whole: bool, **placement: object) -> dict[str, Any]:
    """A spec: whole nodes, or just what the ranks ask for."""
    asked = {} if whole else {"cpus_per_rank": 2, "communication_cpus": 1}
    return {
        "resources": {"exclusive": whole, "mem": "1000", "time": "10"},
        "placement": {"ranks_per_node": ranks, "policy": policy, **asked, **placement},
    }


def name(whole: bool) -> str:
    return "a whole node" if whole else "a shared node"


AS_PLANNED = [
    *(
        Case(f"2 ranks, {policy}, {name(whole)}", job(2, policy, whole=whole), together=not whole)
        for whole in (True, False)
        for policy in POLICIES
    ),
    *(Case(f"4 ranks, sibling, {name(whole)}", job(4, "sibling", whole=whole)) for whole in (True, False)),
    *(
        Case(f"2 ranks, {policy}, a whole node without SMT", job(2, policy, whole=True), shape=WITHOUT_SMT)
        for policy in ("last", "first")
    ),
    Case("2 ranks, one CPU for each thread, a whole node", job(2, "sibling", whole=True, threads="cpu")),
]
DEGRADED = [
    Case(
        f"4 ranks, sibling, {name(whole)} without SMT",
        job(4, "sibling", whole=whole, on_shortage="degrade", communication_cpus=1),
        shape=WITHOUT_SMT,
    )
    for whole in (True, False)
]


def ids(case: Case) -> str:
    return case.id


def seen(result: Result, ranks: int) -> list[dict[str, Any]]:
    """The verdicts of all ranks at both moments, once the job has ended well."""
    assert result.exit == "COMPLETED 0:0", result.log
    verdicts = [*result.verdicts("init"), *result.verdicts("steps")]
    assert [(one["when"], one["rank"]) for one in verdicts] == [
        *(("init", rank) for rank in range(ranks)),
        *(("steps", rank) for rank in range(ranks)),
    ], result.log
    return verdicts


@pytest.mark.parametrize("case", AS_PLANNED, ids=ids)
def test_every_thread_of_every_rank_sits_as_planned(case: Case, run: Callable[[Case], Result]) -> None:
    result = run(case)
    ranks = case.spec["placement"]["ranks_per_node"]
    for verdict in seen(result, ranks):
        assert (verdict["result"], verdict["deviations"]) == ("as planned", []), result.log
        check(verdict, result)
    placement = result.placement["emulated"]["placement"]
    assert placement["policy"] == case.spec["placement"]["policy"]
    if case.together:
        # It was given a part of the machine, two cores for two ranks, and no more.
        assert len({cpu for rank in result.placement["emulated"]["ranks"] for cpu in rank["granted"]}) == 4


@pytest.mark.parametrize("case", DEGRADED, ids=ids)
def test_what_the_machine_cannot_give_is_named_and_the_rest_is_as_planned(
    case: Case, run: Callable[[Case], Result]
) -> None:
    result = run(case)
    for verdict in seen(result, 4):
        assert (verdict["result"], verdict["deviations"]) == ("degraded", []), result.log
        (sentence,) = verdict["degradations"]
        assert 'policy "last" in place of "sibling"' in sentence
        check(verdict, result)


def check(verdict: dict[str, Any], result: Result) -> None:
    """The verdict against the plan's own document, without ``verify``: the threads, their roles and their CPUs."""
    plan = result.placement["emulated"]["placement"]["ranks"][verdict["local_rank"]]
    roles: dict[str, list[list[int]]] = {}
    for thread in verdict["threads"]:
        roles.setdefault(thread["role"], []).append(sorted(thread["observed"]))
    assert len(roles["main"]) == 1
    assert len(roles.get("compute", [])) == len(plan["compute"]) - 1
    assert len(roles["horovod"]) == len(roles["gloo"]) == len(roles["imported"]) == 1
    assert "unclassified" not in roles
    compute = sorted(plan["compute"])
    apart = "OMP_PLACES" in result.log or len(roles["main"][0]) < len(compute)
    if not apart:
        assert roles["main"] == [compute]
        assert all(cpus == compute for cpus in roles.get("compute", []))
    for role in ("horovod", "gloo"):
        assert roles[role] == [sorted(plan["communication"][role]) or compute]
