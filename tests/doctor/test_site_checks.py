"""What the doctor says of a cluster as it runs: nodes, clocks, limits, folders, and a controller that is silent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lockstep_slurm.doctor import site_checks
from lockstep_slurm.doctor.cluster import Cluster, Limit, Node, Silence
from lockstep_slurm.doctor.finding import Answer, Level

NOW = 1_800_000_000
CLUSTER = Cluster(
    settings={"ClusterName": "site", "SLURM_VERSION": "23.11.4", "MpiDefault": "none", "GetEnvTimeout": "2 sec"},
    user="ada",
    privileged=False,
    runs=Path("/home/ada/runs"),
    runs_filesystem="nfs4",
    own_names=frozenset({"login1", "10.0.0.1"}),
    nodes=tuple(Node(f"n{i}", "IDLE", (), None, f"n{i}", f"n{i}", NOW - 3600) for i in (1, 2)),
    client_version="slurm 23.11.4",
    mpi=("none", "pmi2", "pmix"),
    controller_ahead=(-0.4, 0.7),
    controller_time=NOW,
    accounts=("physics",),
    login_seconds=0.3,
)


def judged(facts: Cluster, name: str) -> Answer | None:
    (check,) = [check for check in site_checks.CHECKS if check.name == name]
    return check.judge(facts)


def level(facts: Cluster, name: str) -> Level:
    answer = judged(facts, name)
    assert answer is not None
    assert (answer.cure == "") == (answer.level == Level.OK)
    return answer.level


def with_node(**changes: object) -> Cluster:
    """The second node changed."""
    assert CLUSTER.nodes is not None
    return replace(CLUSTER, nodes=(CLUSTER.nodes[0], replace(CLUSTER.nodes[1], **changes)))  # type: ignore[arg-type]


def test_a_site_that_is_well_has_nothing_to_mend() -> None:
    assert {level(CLUSTER, check.name) for check in site_checks.CHECKS} == {Level.OK}


def test_what_was_not_answered_is_said_and_not_judged() -> None:
    facts = replace(
        CLUSTER, nodes=None, mpi=None, controller_ahead=None, controller_time=None, accounts=None, client_version=None,
        unanswered={"sdiag": "access denied"},
    )  # fmt: skip
    assert level(facts, "answers") == Level.NOTE
    assert [
        name
        for name in ("nodes", "mpi-types", "clock", "node-clocks", "job-limits", "shared-runs")
        if judged(facts, name)
    ] == []


def test_commands_newer_than_the_controller_are_a_warning() -> None:
    assert level(replace(CLUSTER, client_version="slurm 24.05.1"), "slurm-version") == Level.WARNING
    assert level(replace(CLUSTER, client_version="slurm 23.02.1"), "slurm-version") == Level.OK


def test_a_slurm_older_than_those_tried_is_a_warning() -> None:
    facts = replace(CLUSTER, settings={"SLURM_VERSION": "20.11.9"}, client_version="slurm 20.11.9")
    assert level(facts, "slurm-version") == Level.WARNING


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"state": "DOWN", "reason": "no power"}, "no power"),
        ({"flags": ("DRAIN",)}, "n2"),
        ({"flags": ("NOT_RESPONDING",)}, "n2"),
    ],
)
def test_a_node_that_takes_no_jobs_is_named(changes: dict[str, object], word: str) -> None:
    facts = with_node(**changes)
    answer = judged(facts, "nodes")
    assert answer is not None
    assert answer.level == Level.NOTE
    assert "1 of 2 nodes" in answer.found
    assert word in answer.found


def test_no_node_that_takes_jobs_is_a_problem() -> None:
    assert CLUSTER.nodes is not None
    facts = replace(CLUSTER, nodes=tuple(replace(node, state="DOWN") for node in CLUSTER.nodes))
    assert level(facts, "nodes") == Level.PROBLEM
    assert level(replace(CLUSTER, nodes=()), "nodes") == Level.WARNING


def test_without_pmi_mpi_cannot_be_started() -> None:
    assert level(replace(CLUSTER, mpi=("none", "cray_shasta")), "mpi-types") == Level.NOTE


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        ((-0.9, 0.9), Level.OK),
        ((-30.0, 30.0), Level.OK),  # a slow answer: nothing is known
        ((5.2, 6.3), Level.WARNING),
        ((-7.3, -6.1), Level.WARNING),
        ((299.0, 300.1), Level.PROBLEM),
    ],
)
def test_only_a_skew_that_is_certain_counts(ahead: tuple[float, float], expected: Level) -> None:
    assert level(replace(CLUSTER, controller_ahead=ahead), "clock") == expected


def test_a_slurmd_that_started_in_the_future_has_a_clock_that_is_ahead() -> None:
    answer = judged(with_node(started=NOW + 40), "node-clocks")
    assert answer is not None
    assert answer.level == Level.WARNING
    assert "n2" in answer.found
    assert "40 s" in answer.found


def test_run_folders_on_this_machines_own_disk_are_not_seen_by_others() -> None:
    local = replace(CLUSTER, runs_filesystem="ext4")
    assert level(local, "shared-runs") == Level.WARNING
    own = replace(local, own_names=frozenset({"n1", "n2"}))
    assert level(own, "shared-runs") == Level.OK


def test_limits_are_told_and_few_jobs_are_a_warning() -> None:
    limit = Limit("account physics", "MaxSubmit", 50)
    assert level(replace(CLUSTER, limits=(limit,)), "job-limits") == Level.NOTE
    assert level(replace(CLUSTER, limits=(limit, replace(limit, jobs=2))), "job-limits") == Level.WARNING
    assert level(replace(CLUSTER, limits=(limit, replace(limit, jobs=0))), "job-limits") == Level.PROBLEM


def test_no_account_matters_where_one_is_asked_for() -> None:
    facts = replace(CLUSTER, accounts=())
    assert level(facts, "job-limits") == Level.OK
    strict = replace(facts, settings={**CLUSTER.settings, "AccountingStorageEnforce": "associations,limits"})
    assert level(strict, "job-limits") == Level.PROBLEM


def test_a_slow_login_shell_is_a_warning() -> None:
    assert level(replace(CLUSTER, login_seconds=1.4), "login-shell") == Level.WARNING
    assert level(replace(CLUSTER, login_seconds=None), "login-shell") == Level.WARNING


@pytest.mark.parametrize(
    ("silence", "cure"),
    [
        (Silence("scontrol gave no answer within 3.5 s"), "is slurmctld up"),
        (Silence("scontrol: error: Munge decode failed: Expired credential"), "chrony"),
        (
            Silence("there is no slurm.conf at /x; check SLURM_CONF or start the cluster", "no socket"),
            "SLURM_CONF=/path",
        ),
        (Silence("scontrol: Unable to contact slurm controller", "no socket"), "munged"),
    ],
)
def test_a_silent_controller_is_a_problem_with_the_cure_that_fits(silence: Silence, cure: str) -> None:
    answer = site_checks.controller(silence)
    assert answer.level == Level.PROBLEM
    assert answer.found == silence.words
    assert cure in answer.cure
