"""What every Slurm client says of a script that it is only asked about."""

from __future__ import annotations

import time

import pytest

from clients.desk import Desk
from lockstep_slurm.client.protocol import SlurmRefusedError
from lockstep_slurm.job.identity import new_job_id, slurm_name


class TestTesting:
    def test_a_script_is_told_when_and_where_it_would_start_and_nothing_is_submitted(self, desk: Desk) -> None:
        script, name = _script(desk, "touch started"), slurm_name("test", new_job_id())
        before = desk.client.queue()
        told = desk.client.test(script, name)
        assert told.start is not None
        assert abs(told.start.timestamp() - time.time()) < 60
        assert set(told.nodes) <= {node.name for node in desk.client.nodes()}
        assert (len(told.nodes), told.partition) == (1, desk.client.partitions()[0].name)
        assert told.processors is not None
        assert told.processors >= 1
        assert told.words
        assert desk.client.find(name) == []
        assert {job.id for job in desk.client.queue()} <= {job.id for job in before}
        assert not (desk.folder / "started").exists()

    def test_what_is_no_script_is_refused(self, desk: Desk) -> None:
        with pytest.raises(SlurmRefusedError, match="#!"):
            desk.client.test("echo no interpreter\n", "x")

    @pytest.mark.parametrize(
        ("header", "word"),
        [
            ("#SBATCH --partition=nowhere", "partition"),
            ("#SBATCH --nodes=1000 --ntasks=1000", "ode"),
            ("#SBATCH --time=soon", "time"),
        ],
    )
    def test_slurm_refuses_what_it_would_not_take(self, slurm_desk: Desk, header: str, word: str) -> None:
        name = slurm_name("test", new_job_id())
        with pytest.raises(SlurmRefusedError, match=word):
            slurm_desk.client.test(_script(slurm_desk, header=header), name)
        assert slurm_desk.client.find(name) == []

    def test_slurm_tells_a_start_that_is_later(self, slurm_desk: Desk) -> None:
        told = slurm_desk.client.test(_script(slurm_desk, header="#SBATCH --begin=now+1hour"), "x")
        assert told.start is not None
        assert 3000 < told.start.timestamp() - time.time() < 4000

    def test_behind_a_job_that_has_the_only_slot_a_local_one_would_wait(self, local_desk: Desk) -> None:
        local_desk.in_state(local_desk.run("sleep 300"), "RUNNING")
        told = local_desk.client.test(_script(local_desk), "x")
        assert told.start is None
        assert "wait" in told.words


def _script(desk: Desk, body: str = "true", header: str = "") -> str:
    return desk.submission(body, header=header).script.read_text()
