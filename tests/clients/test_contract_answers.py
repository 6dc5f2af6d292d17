"""How a client reads Slurm: the same as Slurm's own JSON in either shape, and words that nobody has heard of yet."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from clients import slurm_json
from clients.conftest import Wrap
from clients.desk import Desk, until
from lockstep_slurm.client.protocol import SlurmJob

Said = dict[str, tuple[SlurmJob, SlurmJob]]

# Recorded, and shortened to the fields that are read: a job that failed, one that a signal ended, one that was
# requeued and whose first run was not over yet.
_OLD: dict[str, dict[str, object]] = {
    "failed": {"job_state": "FAILED", "exit_code": 1792, "nodes": "node1", "end_time": 1795603287, "restart_cnt": 0},
    "killed": {"job_state": "FAILED", "exit_code": 9, "nodes": "node2", "end_time": 1795603287, "restart_cnt": 0},
    "again": {"job_state": "COMPLETING", "exit_code": 0, "nodes": "node2", "end_time": 6090570528, "restart_cnt": 1},
}
_NONE = {"set": False, "infinite": False, "number": 0}


def _set(number: int) -> dict[str, object]:
    return {"set": True, "infinite": False, "number": number}


_NEW: dict[str, dict[str, object]] = {
    "failed": {
        "job_state": ["FAILED"],
        "nodes": "node1",
        "end_time": _set(1795603287),
        "restart_cnt": 0,
        "exit_code": {"status": ["ERROR"], "return_code": _set(7), "signal": {"id": _NONE, "name": ""}},
    },
    "killed": {
        "job_state": ["FAILED"],
        "nodes": "node2",
        "end_time": _set(1795603287),
        "restart_cnt": 0,
        "exit_code": {"status": ["SIGNALED"], "return_code": _NONE, "signal": {"id": _set(9), "name": "KILL"}},
    },
    "again": {
        "job_state": ["PENDING", "COMPLETING"],
        "nodes": "node2",
        "end_time": _set(6090570528),
        "restart_cnt": 1,
        "exit_code": {"status": ["SUCCESS"], "return_code": _set(0), "signal": {"id": _NONE, "name": ""}},
    },
}


def _recorded(jobs: dict[str, dict[str, object]]) -> str:
    new = not isinstance(jobs["failed"]["end_time"], int)
    rest = {"job_id": 4, "state_reason": "None"} | {
        key: _set(1795603280) if new else 1795603280 for key in ("submit_time", "start_time")
    }
    return json.dumps({"jobs": [{"name": name} | rest | job for name, job in jobs.items()]})


class TestJson:
    @pytest.mark.parametrize("jobs", [_OLD, _NEW], ids=["22.05", "24.11"])
    def test_recorded_answers_of_both_shapes_say_the_same(self, jobs: dict[str, dict[str, object]]) -> None:
        failed, killed, again = slurm_json.read(_recorded(jobs))
        assert (failed.state, failed.exit_code, failed.exit_signal) == ("FAILED", 7, None)
        assert (killed.state, killed.exit_code, killed.exit_signal) == ("FAILED", None, 9)
        assert failed.ended is not None
        # Only the newer shape tells the state under the flag.
        assert again.state == ("COMPLETING" if jobs is _OLD else "PENDING")
        assert (again.flags, again.restarts, again.ended, again.exit_code) == (("COMPLETING",), 1, None, None)

    def test_what_slurm_says_as_json_is_what_the_client_says(self, slurm_desk: Desk) -> None:
        again = slurm_desk.run("sleep 300", header="#SBATCH --requeue")
        slurm_desk.in_state(again, "RUNNING")
        slurm_desk.client.requeue(again)
        jobs = {
            "ended well": slurm_desk.run(),
            "ended badly": slurm_desk.run("exit 7"),
            "killed": slurm_desk.run("kill -KILL $$"),
            "held": slurm_desk.run(hold=True),
            "later": slurm_desk.run(header="#SBATCH --begin=now+1hour"),
            "cancelled": slurm_desk.run(hold=True),
        }
        for name in ("ended well", "ended badly", "killed"):
            slurm_desk.ended(jobs[name])
        slurm_desk.client.cancel(jobs["cancelled"])
        slurm_desk.ended(jobs["cancelled"])
        jobs |= {"requeued": again, "running": slurm_desk.run("sleep 300")}
        slurm_desk.in_state(jobs["running"], "RUNNING")
        slurm_desk.in_state(again, "PENDING")

        def said() -> Said:
            ours = {job.id: _plain(job) for job in slurm_desk.client.queue()}
            as_json = slurm_desk.slurm("squeue", "--json", "--states=all")
            theirs = {job.id: _plain(job) for job in slurm_json.read(as_json)}
            return {name: (ours[number], theirs[number]) for name, number in jobs.items()}

        def said_alike() -> Said | None:
            both = said()
            return both if all(one == other for one, other in both.values()) else None

        # Between the two looks Slurm may change its estimate of a start.
        both = until(said_alike, f"the same from both: {said()}")
        ours = {name: job for name, (job, _) in both.items()}
        assert {name: job.state for name, job in ours.items()} == {
            "ended well": "COMPLETED", "ended badly": "FAILED", "killed": "FAILED", "held": "PENDING",
            "later": "PENDING", "cancelled": "CANCELLED", "requeued": "PENDING", "running": "RUNNING",
        }  # fmt: skip
        assert (ours["ended badly"].exit_code, ours["killed"].exit_signal) == (7, 9)
        assert ours["requeued"].restarts == 1


def _plain(job: SlurmJob) -> SlurmJob:
    """Without what Slurm adds to a reason in one of its two answers only: RaisedSignal:9(Killed)."""
    return replace(job, reason=job.reason.partition(":")[0] if job.reason else None)


class TestUnknownWords:
    def test_a_state_nobody_has_heard_of_is_kept_and_is_no_end(self, command_desk: Desk, wrap: Wrap) -> None:
        number = command_desk.run("exit 7")
        command_desk.ended(number)
        wrap("squeue", '"$REAL" "$@" | sed "s/FAILED/HIBERNATING/g"; exit "${PIPESTATUS[0]}"')
        job = command_desk.job(number)
        assert job is not None
        assert (job.state, job.flags) == ("HIBERNATING", ())
        assert (job.ended, job.exit_code, job.exit_signal) == (None, None, None)

    def test_a_flag_nobody_has_heard_of_is_kept_beside_the_state(self, command_desk: Desk, wrap: Wrap) -> None:
        number = command_desk.run(hold=True)
        wrap("squeue", '"$REAL" "$@" | sed "s/PENDING/PENDING+MOONSTRUCK/g"; exit "${PIPESTATUS[0]}"')
        job = command_desk.job(number)
        assert job is not None
        assert (job.state, job.flags) == ("PENDING", ("MOONSTRUCK",))

    def test_a_nodes_state_nobody_has_heard_of_is_kept(self, command_desk: Desk, wrap: Wrap) -> None:
        wrap("scontrol", '"$REAL" "$@" | sed "s/State=[A-Z]*/State=DREAMING+MOONSTRUCK/"; exit "${PIPESTATUS[0]}"')
        assert {(node.state, node.flags) for node in command_desk.client.nodes()} == {("DREAMING", ("MOONSTRUCK",))}

    @pytest.mark.parametrize("words", ["HIBERNATING", ["HIBERNATING"]], ids=["22.05", "24.11"])
    def test_json_of_either_shape_keeps_it_too(self, words: object) -> None:
        shape = _OLD if isinstance(words, str) else _NEW
        (job,) = slurm_json.read(_recorded({"failed": shape["failed"] | {"job_state": words}}))
        assert (job.state, job.ended, job.exit_code) == ("HIBERNATING", None, None)
