"""How Slurm's answers are read: recorded ones, and words that this build has never heard."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_slurm.client import jobcomp, sacct, sbatch, scontrol, squeue, values
from lockstep_slurm.client.protocol import SlurmRefusedError, SlurmUnavailableError, SlurmUnknownJobError
from lockstep_slurm.client.runner import Answer, failure, words
from lockstep_slurm.client.squeue import RECORD, UNIT


def _record(**changes: str) -> str:
    """A record of squeue 22.05: a running job, with these fields changed."""
    fields = {
        "JobID": "17",
        "State": "RUNNING",
        "RestartCnt": "0",
        "exit_code": "0",
        "SubmitTime": "1795415597",
        "StartTime": "1795415598",
        "EndTime": "1826951669",
        "NodeList": "node1",
        "Reason": "None",
        "Name": "digits.0193",
    }
    return UNIT.join((fields | changes)[name] for name in squeue.FIELDS) + RECORD + "\n"


class TestForecast:
    @pytest.mark.parametrize("stray", ["", " a"], ids=["22.05", "25.11"])
    def test_both_forms_of_it_are_read_whatever_a_plugin_says_beside_it(self, stray: str) -> None:
        line = f"Job 17 to start at 1795415598{stray} using 4 processors on nodes node[1-2] in partition main"
        told = sbatch.forecast(f"sbatch: error: your quota is nearly used up\nsbatch: {line}\nsbatch:   Preempts: 3\n")
        assert told.start == datetime(2026, 11, 23, 6, 33, 18, tzinfo=UTC)
        assert (told.nodes, told.processors, told.partition) == (("node1", "node2"), 4, "main")
        assert told.words == line

    @pytest.mark.parametrize("said", ["", "sbatch: all is well\n", "sbatch: Job 17 to start using 4 processors\n"])
    def test_what_is_none_is_no_answer(self, said: str) -> None:
        with pytest.raises(SlurmUnavailableError, match="could not be read"):
            sbatch.forecast(said)


class TestSqueue:
    def test_a_running_job_has_no_end_although_squeue_prints_its_limits(self) -> None:
        (job,) = squeue.parse(_record())
        assert (job.id, job.name, job.state, job.flags, job.reason) == (17, "digits.0193", "RUNNING", (), None)
        assert job.started == datetime(2026, 11, 23, 6, 33, 18, tzinfo=UTC)
        assert (job.ended, job.exit_code, job.exit_signal) == (None, None, None)

    def test_a_pending_job_may_have_neither_start_nor_nodes(self) -> None:
        (job,) = squeue.parse(_record(State="PENDING", StartTime="N/A", EndTime="N/A", NodeList="", Reason="Resources"))
        assert (job.started, job.nodes, job.reason) == (None, (), "Resources")

    @pytest.mark.parametrize(
        ("status", "code", "number"), [("768", 3, None), ("65280", 255, None), ("9", None, 9), ("0", 0, None)]
    )
    def test_an_exit_status_is_a_wait_status(self, status: str, code: int | None, number: int | None) -> None:
        (job,) = squeue.parse(_record(State="FAILED", exit_code=status, EndTime="1795415600"))
        assert (job.exit_code, job.exit_signal) == (code, number)
        assert job.ended == datetime(2026, 11, 23, 6, 33, 20, tzinfo=UTC)

    def test_several_nodes_are_expanded(self) -> None:
        (job,) = squeue.parse(_record(NodeList="cpu[08-10,12],gpu1"))
        assert job.nodes == ("cpu08", "cpu09", "cpu10", "cpu12", "gpu1")

    @pytest.mark.parametrize(
        ("word", "state", "flags"),
        [
            ("COMPLETING", "COMPLETING", ("COMPLETING",)),
            ("STAGE_OUT", "STAGE_OUT", ("STAGE_OUT",)),
            ("REVOKED", "REVOKED", ("REVOKED",)),
            ("CONFIGURING", "RUNNING", ("CONFIGURING",)),
            ("STOPPED", "RUNNING", ("STOPPED",)),
            ("REQUEUE_HOLD", "PENDING", ("REQUEUE_HOLD",)),
            ("SPECIAL_EXIT", "PENDING", ("SPECIAL_EXIT",)),
            ("SUSPENDED", "SUSPENDED", ()),
            ("OUT_OF_MEMORY", "OUT_OF_MEMORY", ()),
            ("FAILED+COMPLETING", "FAILED", ("COMPLETING",)),
            ("COMPLETING,CANCELLED", "CANCELLED", ("COMPLETING",)),
            ("HIBERNATING", "HIBERNATING", ()),
            ("HIBERNATING+COMPLETING", "HIBERNATING", ("COMPLETING",)),
        ],
    )
    def test_state_words_become_base_and_flags_and_an_unknown_one_stays(
        self, word: str, state: str, flags: tuple[str, ...]
    ) -> None:
        (job,) = squeue.parse(_record(State=word))
        assert (job.state, job.flags) == (state, flags)

    def test_a_job_of_an_unknown_state_has_not_ended(self) -> None:
        (job,) = squeue.parse(_record(State="HIBERNATING"))
        assert (job.ended, job.exit_code) == (None, None)

    def test_an_empty_queue_has_no_jobs(self) -> None:
        assert squeue.parse("") == []
        assert squeue.parse("\n") == []

    @given(st.lists(st.text(st.characters(blacklist_characters=RECORD, blacklist_categories=["Cs"])), max_size=4))
    def test_whatever_names_hold_every_job_comes_back(self, names: list[str]) -> None:
        out = "".join(_record(JobID=str(index), Name=name) for index, name in enumerate(names))
        assert [(job.id, job.name) for job in squeue.parse(out)] == list(enumerate(names))

    def test_a_record_separator_in_a_name_costs_only_that_name(self) -> None:
        jobs = squeue.parse(_record(Name=f"x{RECORD}y") + _record(JobID="18"))
        assert [job.id for job in jobs] == [17, 18]

    @pytest.mark.parametrize("field", ["SubmitTime", "exit_code", "NodeList"])
    def test_what_cannot_be_read_is_no_answer(self, field: str) -> None:
        with pytest.raises(SlurmUnavailableError, match=r"node\[3-1\]"):
            squeue.parse(_record(State="FAILED", **{field: "node[3-1]"}))


# Recorded on 22.05.8; the second job was requeued once and cancelled afterwards, the fourth line is cut short.
_COMPLETIONS = """\
JobId=9 UserId=root(0) GroupId=root(0) Name=digits.a JobState=FAILED Partition=main TimeLimit=525600 \
StartTime=2026-11-23T06:34:29 EndTime=2026-11-23T06:34:30 NodeList=node[1-2] NodeCnt=2 ProcCnt=2 WorkDir=/tmp/a b \
ReservationName= Tres=cpu=1,mem=2000M,node=1,billing=1 Account= QOS= WcKey= Cluster=unknown \
SubmitTime=2026-11-23T06:34:28 EligibleTime=2026-11-23T06:34:28 DerivedExitCode=0:0 ExitCode=0:9 \n\
JobId=3 UserId=root(0) GroupId=root(0) Name=two words JobState=PENDING Partition=main TimeLimit=5 \
StartTime=2026-11-23T06:33:18 EndTime=2026-11-23T06:33:18 NodeList=node2 NodeCnt=1 ProcCnt=1 WorkDir=/tmp \
ReservationName= Tres=cpu=1,mem=2000M,node=1,billing=1 Account= QOS= WcKey= Cluster=unknown \
SubmitTime=2026-11-23T06:33:17 EligibleTime=2026-11-23T06:33:17 DerivedExitCode=0:0 ExitCode=0:0 \n\
JobId=3 UserId=root(0) GroupId=root(0) Name=two words JobState=CANCELLED Partition=main TimeLimit=5 \
StartTime=2026-11-23T06:33:18 EndTime=2026-11-23T06:33:18 NodeList=(null) NodeCnt=0 ProcCnt=0 WorkDir=/tmp \
ReservationName= Tres=cpu=1,mem=2000M,node=1,billing=1 Account= QOS= WcKey= Cluster=unknown \
SubmitTime=2026-11-23T06:33:18 EligibleTime=unknown DerivedExitCode=0:0 ExitCode=0:0 \n\
JobId=5 UserId=root(0) GroupId=root(0) Name=cut JobState=FAI
"""


class TestCompletionFile:
    def test_lines_are_read_in_order_and_restarts_counted(self) -> None:
        jobs = jobcomp.parse(_COMPLETIONS.splitlines(keepends=True), "0")
        assert [(job.id, job.name, job.state, job.restarts) for job in jobs] == [
            (9, "digits.a", "FAILED", 0),
            (3, "two words", "PENDING", 0),
            (3, "two words", "CANCELLED", 1),
        ]
        assert [(job.exit_code, job.exit_signal) for job in jobs] == [(None, 9), (None, None), (0, None)]
        assert [job.nodes for job in jobs] == [("node1", "node2"), ("node2",), ()]

    def test_times_are_this_machines(self) -> None:
        job = jobcomp.parse(_COMPLETIONS.splitlines(keepends=True), "root")[0]
        assert job.ended == datetime(2026, 11, 23, 6, 34, 30).astimezone(UTC)

    def test_other_peoples_jobs_are_left_out(self) -> None:
        assert jobcomp.parse(_COMPLETIONS.splitlines(keepends=True), "alice") == []


class TestSacct:
    @staticmethod
    def _row(job: str, state: str, code: str, submit: str, end: str, name: str = "digits.a") -> str:
        return UNIT.join((job, state, code, submit, submit, end, "node[1-2]", name)) + "\n"

    def test_restarts_are_told_apart_oldest_first(self) -> None:
        out = self._row("7", "CANCELLED by 1000", "0:15", "1795415700", "1795415710")
        out += self._row("7", "NODE_FAIL", "0:0", "1795415600", "1795415610")
        first, second = sacct.parse(out)
        assert (first.state, first.restarts, first.exit_code) == ("NODE_FAIL", 0, 0)
        assert (second.state, second.restarts, second.exit_signal) == ("CANCELLED", 1, 15)
        assert second.nodes == ("node1", "node2")

    def test_a_job_of_a_reused_id_is_no_restart(self) -> None:
        out = self._row("7", "COMPLETED", "0:0", "1795415600", "1795415610")
        out += self._row("7", "FAILED", "1:0", "1795415700", "1795415710", name="another")
        assert [job.restarts for job in sacct.parse(out)] == [0, 0]

    def test_a_job_that_runs_has_no_end(self) -> None:
        (job,) = sacct.parse(self._row("7", "RUNNING", "0:0", "1795415600", "Unknown"))
        assert (job.ended, job.exit_code) == (None, None)


# Recorded on 22.05.8, shortened.
_NODES = """\
NodeName=node1 Arch=x86_64 CoresPerSocket=2  CPUAlloc=0 CPUEfctv=1 CPUTot=2 CPULoad=0.31 AvailableFeatures=(null) \
OS=Linux 6.1 State=x #1 SMP  RealMemory=2000 AllocMem=0 Sockets=1 Boards=1 CoreSpecCount=1 CPUSpecList=1  \
State=IDLE+DRAIN+NOT_RESPONDING ThreadsPerCore=1 TmpDisk=0 Partitions=main,small  CfgTRES=cpu=1,mem=2000M \
Reason=disk State=DOWN [x] [root@2026-11-23T06:31:35]
NodeName=node2 Arch=x86_64 CoresPerSocket=4  CPUAlloc=0 CPUTot=16 RealMemory=64000 Sockets=2 State=DOWN* \
ThreadsPerCore=2 Partitions=main
"""


class TestScontrol:
    def test_nodes_have_the_cpus_that_jobs_can_have(self) -> None:
        first, second = scontrol.parse_nodes(_NODES)
        assert (first.name, first.cpus, first.cores_per_socket, first.memory) == ("node1", 1, 2, 2000)
        assert first.partitions == ("main", "small")
        assert (second.cpus, second.sockets, second.threads_per_core) == (16, 2, 2)

    @pytest.mark.parametrize("index", [0, 1])
    def test_a_nodes_state_is_base_and_flags(self, index: int) -> None:
        node = scontrol.parse_nodes(_NODES)[index]
        assert (node.state, node.flags) == [("x", ()), ("DOWN", ("NOT_RESPONDING",))][index]

    def test_a_reason_is_without_who_and_when(self) -> None:
        first, second = scontrol.parse_nodes(_NODES)
        assert (first.reason, second.reason) == ("disk State=DOWN [x]", None)

    def test_a_node_without_figures_is_no_answer(self) -> None:
        with pytest.raises(SlurmUnavailableError, match="RealMemory"):
            scontrol.parse_nodes("NodeName=node1 CPUTot=2 State=IDLE\n")

    def test_partitions(self) -> None:
        out = (
            "PartitionName=main AllowGroups=ALL Default=YES MaxTime=UNLIMITED Nodes=node[1-2] State=UP TotalCPUs=4\n"
            "PartitionName=small AllowGroups=ALL Default=NO MaxTime=1-00:00:00 Nodes=(null) State=DOWN TotalCPUs=0\n"
        )
        main, small = scontrol.parse_partitions(out)
        assert (main.name, main.default, main.time_limit, main.nodes) == ("main", True, None, ("node1", "node2"))
        assert (small.default, small.time_limit, small.nodes, small.state) == (False, "1-00:00:00", (), "DOWN")


class TestFailures:
    @pytest.mark.parametrize("out", ["3x", "", "1:2:3x"])
    def test_an_exit_code_that_is_none_is_no_answer(self, out: str) -> None:
        with pytest.raises(SlurmUnavailableError):
            values.code_and_signal(out)

    def test_the_words_of_a_refusal_are_slurms(self) -> None:
        answer = Answer(1, "", "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job failed\n")
        said = failure("sbatch", answer)
        assert isinstance(said, SlurmRefusedError)
        assert "invalid partition specified: x; sbatch: error: Batch job failed" in str(said)

    def test_an_invalid_job_id_is_an_unknown_job(self) -> None:
        assert isinstance(failure("scontrol", Answer(1, "", "Invalid job id specified")), SlurmUnknownJobError)

    @pytest.mark.parametrize(
        ("code", "said"), [(-9, ""), (-9, "error: no"), (137, "error: no"), (-40, ""), (1, ""), (225, "")]
    )
    def test_of_a_command_that_died_or_says_nothing_nothing_is_known(self, code: int, said: str) -> None:
        assert isinstance(failure("scancel", Answer(code, "", said)), SlurmUnavailableError)

    def test_an_exit_code_that_is_no_signals_is_a_no_where_words_say_it(self) -> None:
        # scancel ends with what is left of Slurm's error number (22.05).
        assert isinstance(failure("scancel", Answer(225, "", "error: no")), SlurmRefusedError)

    def test_a_failure_without_a_word_says_its_exit_code(self) -> None:
        assert words(Answer(3, "", "")) == "exit code 3, without a word"
