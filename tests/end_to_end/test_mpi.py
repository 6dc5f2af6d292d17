"""Horovod over Open MPI on two hosts, started by Slurm's PMIx and by mpirun, placed and recorded as every training."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockstep_slurm.cluster import ClusterInfo
from support.lockstep import Json, Lockstep, spool
from support.ranks import ROOT

OPEN_MPI = ROOT / ".setup" / "horovod-openmpi"
"""Horovod built with Open MPI, as the set-up for the tests makes it."""
OVER_MPI = ("communication.backend=mpi", f"environment.variables.PYTHONPATH={OPEN_MPI}")
SAYS_WHAT_IT_SEES = """
import json, os
import horovod.torch as hvd
import torch
hvd.init()
total = hvd.allreduce(torch.full((1 << 20,), float(hvd.rank() + 1)), op=hvd.Sum)
seen = {
    "rank": hvd.rank(), "size": hvd.size(), "controller": [hvd.mpi_enabled(), hvd.gloo_enabled()],
    "total": [total.min().item(), total.max().item()],
    "slurm": sorted(name for name in os.environ if name.startswith(("SLURM", "SBATCH_"))),
    "cpus": sorted(os.sched_getaffinity(0)), "interface": os.environ["OMPI_MCA_btl_tcp_if_include"],
}
print("seen", json.dumps(seen), flush=True)
"""


@pytest.fixture(scope="module")
def lockstep(hosts: ClusterInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lockstep]:
    """A Lockstep over two hosts, on a machine with Open MPI."""
    if not (OPEN_MPI / "horovod").is_dir() or shutil.which("mpirun.openmpi") is None:
        pytest.skip(f"Open MPI, or Horovod with it in {OPEN_MPI}, is missing; the set-up for the tests makes both")
    ours = Lockstep(tmp_path_factory.mktemp("home"), hosts.slurm_conf)
    ours.start()
    try:
        yield ours
    finally:
        ours.kill(signal.SIGTERM)


@pytest.fixture(params=["pmix", "mpirun"])
def started_by(request: pytest.FixtureRequest) -> str:
    """How MPI's processes are started."""
    return str(request.param)


def ended(lockstep: Lockstep, job: str) -> Json:
    return lockstep.until(job, {"ended well", "ended badly", "unknown"}, 240)


def test_digits_trains_alike_on_both_ranks(lockstep: Lockstep, started_by: str) -> None:
    job = lockstep.submit(*OVER_MPI, f"communication.mpi={started_by}", "training.epochs=8")
    found = ended(lockstep, job)
    assert found["phase"] == "ended well", lockstep.run("logs", job).stdout
    assert found["last"]["accuracy"] > 0.9
    (attempt,) = found["attempts"]
    assert (attempt["exit_code"], attempt["ranks"]) == (0, 2)
    assert len(set(attempt["nodes"])) == 2
    records = spool(Path(found["run_dir"]))
    ends = [record for record in records if record["kind"] == "end"]
    assert sorted(record["rank"] for record in ends) == [0, 1]
    assert len({record["values"]["parameters_sha256"] for record in ends}) == 1
    assert {record["values"]["node"] for record in records if record["kind"] == "start"} == set(attempt["nodes"])
    verdicts = [json.loads(record["values"]["document"]) for record in records if record["kind"] == "verdict"]
    assert {(verdict["rank"], verdict["when"]) for verdict in verdicts} == {
        (rank, when) for rank in range(2) for when in ("init", "steps")
    }
    assert {verdict["result"] for verdict in verdicts} == {"as planned"}, verdicts
    # Horovod's own thread, whatever MPI starts beside it.
    assert all([thread["role"] for thread in one["threads"]].count("horovod") == 1 for one in verdicts)


def test_it_is_mpi_on_our_cpus_and_our_network_and_little_else_gets_through(
    lockstep: Lockstep, hosts: ClusterInfo, started_by: str, tmp_path: Path
) -> None:
    script = tmp_path / "sees.py"
    script.write_text(SAYS_WHAT_IT_SEES)
    file = tmp_path / "sees.toml"
    file.write_text('[training]\nscript = "sees.py"\n[resources]\nnodes = 2\n')
    options = [word for one in (*OVER_MPI, f"communication.mpi={started_by}") for word in ("--set", one)]
    job = lockstep.json("submit", file, *options)["id"]
    found = ended(lockstep, job)
    log = lockstep.run("logs", job).stdout
    assert found["phase"] == "ended well", log
    seen = sorted(
        (json.loads(one) for one in re.findall(r"(?m)^ ?[01]: seen (\{.*\})$", log)), key=lambda one: int(one["rank"])
    )
    assert [(one["rank"], one["size"], one["total"]) for one in seen] == [(0, 2, [3.0, 3.0]), (1, 2, [3.0, 3.0])]
    assert all(one["controller"] == [True, False] for one in seen)
    assert all(set(one["slurm"]) <= {"SLURM_JOBID", "SLURM_NODELIST", "SLURM_STEP_ID"} for one in seen)
    assert not set(seen[0]["cpus"]) & set(seen[1]["cpus"])
    assert len({one["interface"] for one in seen}) == 2
    # The sum of 4 MiB went over the link: through the interfaces that the hosts have, and in both directions.
    usage = [record for record in spool(Path(found["run_dir"])) if record["kind"] == "usage"]
    newest = {record["rank"]: record["values"] for record in usage}
    assert all(min(values["received_bytes"], values["sent_bytes"]) > 4 << 20 for values in newest.values())


def test_a_rank_that_fails_ends_the_job_with_its_code(lockstep: Lockstep, started_by: str, tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text(
        "import sys, time\nimport horovod.torch as hvd\nhvd.init()\nif hvd.rank() == 1: sys.exit(7)\ntime.sleep(600)\n"
    )
    file = tmp_path / "fails.toml"
    file.write_text('[training]\nscript = "fails.py"\n[resources]\nnodes = 2\n')
    options = [word for one in (*OVER_MPI, f"communication.mpi={started_by}") for word in ("--set", one)]
    found = ended(lockstep, lockstep.json("submit", file, *options)["id"])
    assert found["phase"] == "ended badly"
    assert found["attempts"][0]["exit_code"] == 7, found["reason"]


def test_slurms_pmi_2_answers_the_training_itself(lockstep: Lockstep, tmp_path: Path) -> None:
    # What Intel MPI and MPICH say first, on the descriptor that Slurm gave to the rank's wrapper.
    (tmp_path / "asks.py").write_text(
        "import os, socket, time\n"
        "from pathlib import Path\n"
        "with socket.socket(fileno=int(os.environ['PMI_FD'])) as pmi:\n"
        "    pmi.sendall(b'cmd=init pmi_version=2 pmi_subversion=0\\n')\n"
        "    print('rank', os.environ['PMI_RANK'], 'heard', pmi.recv(200).decode())\n"
        "asked = Path(os.environ['LOCKSTEP_RUN'], 'checkpoints')\n"
        "(asked / os.environ['RANK']).touch()\n"
        "while len(list(asked.iterdir())) < 2:\n"
        "    time.sleep(0.05)\n"
    )
    file = tmp_path / "asks.toml"
    file.write_text('[training]\nscript = "asks.py"\n[resources]\nnodes = 2\n')
    options = ("--set", "communication.backend=mpi", "--set", "communication.mpi=pmi2")
    job = lockstep.json("submit", file, *options)["id"]
    found = ended(lockstep, job)
    log = lockstep.run("logs", job).stdout
    assert found["phase"] == "ended well", log
    for rank in (0, 1):
        assert f"rank {rank} heard cmd=response_to_init rc=0 pmi_version=2" in log


def test_without_a_way_to_start_mpi_no_rank_trains_alone(lockstep: Lockstep) -> None:
    job = lockstep.submit(*OVER_MPI, "communication.mpi=none")
    found = ended(lockstep, job)
    assert found["phase"] == "ended badly"
    assert "name a type of `srun --mpi=list`" in str(found["reason"])
