"""What the doctor says of slurm.conf: each setting with a value that is well, and one that is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lockstep_slurm.doctor import slurm_checks
from lockstep_slurm.doctor.cluster import Cluster
from lockstep_slurm.doctor.finding import Level

GOOD = {
    "TaskPlugin": "task/cgroup,task/affinity",
    "ConstrainCores": "yes",
    "ProctrackType": "proctrack/cgroup",
    "JobRequeue": "1",
    "KillWait": "30 sec",
    "MinJobAge": "300 sec",
    "AccountingStorageType": "accounting_storage/slurmdbd",
    "JobCompType": "jobcomp/none",
    "MessageTimeout": "10 sec",
    "SchedulerParameters": "bf_interval=30",
    "SlurmctldParameters": "(null)",
    "EnforcePartLimits": "ALL",
    "ReturnToService": "1",
    "PrivateData": "none",
    "JobSubmitPlugins": "(null)",
}


def cluster(**settings: str) -> Cluster:
    return Cluster(
        settings=GOOD | settings,
        user="ada",
        privileged=False,
        runs=Path("/home/ada/runs"),
        runs_filesystem="nfs4",
        own_names=frozenset({"login1"}),
    )


def levels(facts: Cluster) -> dict[str, Level]:
    """The level of every check that has something to say, well or not."""
    answers = {check.name: check.judge(facts) for check in slurm_checks.CHECKS}
    return {name: answer.level for name, answer in answers.items() if answer is not None}


def test_a_cluster_that_is_set_well_has_nothing_to_mend() -> None:
    assert set(levels(cluster()).values()) == {Level.OK}
    assert len(levels(cluster())) == len(slurm_checks.CHECKS)


@pytest.mark.parametrize(
    ("settings", "check", "level"),
    [
        ({"TaskPlugin": "task/none"}, "task-plugin", Level.PROBLEM),
        ({"TaskPlugin": "(null)"}, "task-plugin", Level.PROBLEM),
        ({"TaskPlugin": "task/cgroup"}, "task-plugin", Level.PROBLEM),
        ({"ConstrainCores": "no"}, "constrain-cores", Level.WARNING),
        ({"TaskPlugin": "task/affinity"}, "constrain-cores", Level.NOTE),
        ({"ProctrackType": "proctrack/linuxproc"}, "process-tracking", Level.NOTE),
        ({"JobRequeue": "0"}, "requeue", Level.NOTE),
        ({"KillWait": "5 sec"}, "kill-wait", Level.NOTE),
        ({"KillWait": "1 sec"}, "kill-wait", Level.WARNING),
        ({"MinJobAge": "29 sec"}, "min-job-age", Level.WARNING),
        ({"AccountingStorageType": "(null)"}, "completion-records", Level.WARNING),
        ({"SchedulerParameters": "bf_interval=30,defer"}, "scheduler-defer", Level.NOTE),
        ({"SchedulerParameters": "defer_batch"}, "scheduler-defer", Level.NOTE),
        ({"SlurmctldParameters": "idle_on_node_suspend,rl_enable,rl_bucket_size=40"}, "rate-limit", Level.NOTE),
        ({"EnforcePartLimits": "NO"}, "partition-limits", Level.NOTE),
        ({"ReturnToService": "0"}, "return-to-service", Level.NOTE),
        ({"PrivateData": "jobs"}, "private-data", Level.NOTE),
        ({"PrivateData": "jobs,nodes"}, "private-data", Level.WARNING),
        ({"JobSubmitPlugins": "lua"}, "submit-plugins", Level.NOTE),
    ],
)
def test_one_setting_raises_one_check_with_its_value_and_a_cure(
    settings: dict[str, str], check: str, level: Level
) -> None:
    facts = cluster(**settings)
    assert levels(facts)[check] == level
    answer = {one.name: one.judge(facts) for one in slurm_checks.CHECKS}[check]
    assert answer is not None
    assert answer.cure
    (value,) = settings.values()
    shown = value.removesuffix(" sec").replace("(null)", "none").split(",")
    assert any(part in answer.found for part in shown)
    # TaskPlugin is the business of two checks, and no other setting of more than one.
    others = {name for name, found in levels(facts).items() if found != Level.OK} - {check}
    assert others <= ({"task-plugin", "constrain-cores"} if "TaskPlugin" in settings else set())


@pytest.mark.parametrize(("setting", "check"), [("MinJobAge", "min-job-age"), ("KillWait", "kill-wait")])
def test_a_time_that_cannot_be_read_is_not_judged(setting: str, check: str) -> None:
    assert check not in levels(cluster(**{setting: "(null)"}))


def test_jobs_that_are_never_forgotten_are_well() -> None:
    assert levels(cluster(MinJobAge="0 sec"))["min-job-age"] == Level.OK


def test_a_service_that_looks_more_often_is_content_with_a_shorter_memory() -> None:
    facts = cluster(MinJobAge="29 sec")
    assert levels(replace(facts, reconcile_seconds=5.0))["min-job-age"] == Level.OK


def test_a_service_waits_long_enough_for_a_slow_controller_unless_it_is_told_not_to() -> None:
    facts = cluster(MessageTimeout="60 sec")
    assert levels(facts)["message-timeout"] == Level.OK
    assert levels(replace(facts, lookup_seconds=120.0))["message-timeout"] == Level.OK
    answer = slurm_checks.message_timeout(replace(facts, lookup_seconds=119.0))
    assert answer is not None
    assert (answer.level, "60 s" in answer.found, "119 s" in answer.found) == (Level.WARNING, True, True)
    assert "120" in (answer.cure or "")


def test_completion_records_in_a_file_will_do() -> None:
    facts = cluster(AccountingStorageType="accounting_storage/none", JobCompType="jobcomp/filetxt", JobCompLoc="/j")
    assert levels(facts)["completion-records"] == Level.OK


def test_who_sees_everything_is_told_that_others_do_not() -> None:
    facts = replace(cluster(PrivateData="nodes"), privileged=True)
    assert levels(facts)["private-data"] == Level.NOTE


def test_without_the_cgroup_plugin_its_file_is_not_judged() -> None:
    facts = cluster(TaskPlugin="task/affinity", ConstrainCores="no")
    assert levels(facts)["constrain-cores"] == Level.NOTE
    assert "constrain-cores" not in levels(cluster(ConstrainCores="(null)"))
