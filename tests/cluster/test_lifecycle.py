"""A real one-machine Slurm, brought up, looked at, broken and brought down."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lockstep_slurm.cluster import ClusterError, ClusterInfo, daemons, down, processes, status, up
from lockstep_slurm.cluster.configuration import Ports
from lockstep_slurm.cluster.layout import LONGEST_FOLDER, Layout
from support import slurm as one_machine
from support.slurm import run as slurm


def running(folder: Path) -> dict[str, processes.Process]:
    return processes.daemons(Layout.of(folder))


def test_all_nodes_are_idle_when_up_returns(folder: Path) -> None:
    info = up("one", 3, folder)
    assert info.nodes == ("node1", "node2", "node3")
    assert {node.state for node in status(folder).nodes} == {"idle"}
    assert slurm(info, "scontrol", "show", "config").count(f"ClusterName             = {info.cluster_name}\n") == 1


def test_down_leaves_no_process_and_a_second_one_finds_nothing(folder: Path) -> None:
    up("one", 2, folder)
    assert set(running(folder)) == {"munged", "slurmctld", "node1", "node2"}
    assert down(folder)
    assert running(folder) == {}
    assert not down(folder)
    assert not status(folder).running


def test_a_second_up_leaves_the_running_cluster_as_it_is(folder: Path) -> None:
    first = up("one", 2, folder)
    before = running(folder)
    second = up("one", 2, folder)
    assert (first.already_running, second.already_running) == (False, True)
    assert running(folder) == before
    assert second.cores == first.cores


def test_another_number_of_nodes_is_refused_with_the_cure(folder: Path) -> None:
    up("one", 1, folder)
    with pytest.raises(ClusterError, match=r"runs with 1 nodes, not 2.*lockstep cluster down --name one"):
        up("one", 2, folder)
    assert len(status(folder).nodes) == 1


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core cannot be two nodes' own")
def test_ranks_on_two_nodes_get_different_cpus(cluster: ClusterInfo) -> None:
    said = slurm(
        cluster, "srun", "-N2", "-n2", "sh", "-c", 'echo "$SLURMD_NODENAME $(taskset -cp $$ | sed "s/.*: //")"'
    )
    masks = dict(line.split() for line in said.splitlines())
    assert masks == {row.node: ",".join(map(str, row.cpus)) for row in cluster.cores}
    assert len(set(masks.values())) == 2


def test_more_nodes_than_cores_work_and_say_that_they_share(folder: Path) -> None:
    nodes = len(os.sched_getaffinity(0)) + 1
    info = up("many", nodes, folder)
    assert "share" in info.warnings[0]
    assert status(folder).warnings == info.warnings
    assert len(slurm(info, "srun", f"-N{nodes}", "hostname").splitlines()) == nodes


def test_clusters_side_by_side_do_not_know_each_other(folder: Path) -> None:
    one, two = up("same", 1, folder), up("same", 1, folder.with_name("d"))
    assert one.cluster_name != two.cluster_name
    slurm(one, "sbatch", "--hold", "--job-name=only-in-one", "--wrap=true")
    assert "only-in-one" in slurm(one, "squeue", "--format=%j")
    assert "only-in-one" not in slurm(two, "squeue", "--format=%j")
    down(one.folder)
    assert status(two.folder).running


def test_a_killed_slurmd_is_noticed_and_mended_by_the_next_up(folder: Path) -> None:
    up("one", 2, folder)
    running(folder)["node2"].send(signal.SIGKILL)
    wait_until(lambda: "node2" not in running(folder))
    found = status(folder)
    assert found.problems == ("The slurmd of node2 does not run.",)
    assert [node.daemon for node in found.nodes] == [True, False]
    assert not up("one", 2, folder).already_running
    assert status(folder).running


def test_a_killed_controller_is_noticed(folder: Path) -> None:
    up("one", 1, folder)
    running(folder)["slurmctld"].send(signal.SIGKILL)
    wait_until(lambda: "slurmctld" not in running(folder))
    found = status(folder)
    assert found.problems == ("slurmctld does not run.",)
    assert found.nodes[0].state == "unknown"


def test_down_ends_what_a_job_left_behind_and_records_its_end(folder: Path) -> None:
    info = up("one", 1, folder)
    script = "setsid sleep 1234 & exec sleep 4321"
    slurm(info, "sbatch", "--job-name=left", "--output=/dev/null", f"--wrap={script}")
    wait_until(lambda: {"1234", "4321"} <= {arg for job in processes.jobs(info.cluster_name) for arg in job.command})
    left = processes.jobs(info.cluster_name)
    down(folder)
    assert not any(process.alive() for process in left)
    assert "Name=left JobState=CANCELLED" in (folder / "jobcomp.log").read_text()


def test_down_touches_no_process_of_its_own_side(folder: Path) -> None:
    info = up("one", 1, folder)
    shell = {"PATH": os.environ["PATH"], "SLURM_CONF": str(info.slurm_conf), "SLURM_CLUSTER_NAME": info.cluster_name}
    mine = subprocess.Popen(["sleep", "600"], env=shell)
    try:
        down(folder)
        assert mine.poll() is None
    finally:
        mine.kill()
        mine.wait()


def test_a_stale_pid_file_ends_no_other_process(folder: Path) -> None:
    up("one", 1, folder)
    down(folder)
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        (folder / "pids" / "slurmctld.pid").write_text(f"{bystander.pid}\n")
        assert not down(folder)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_job_ids_and_completion_records_go_on_after_down_and_up(folder: Path) -> None:
    for expected in ("1", "2"):
        info = up("one", 1, folder)
        assert slurm(info, "sbatch", "--parsable", "--wait", "--output=/dev/null", "--wrap=true").strip() == expected
        down(folder)
    assert (folder / "jobcomp.log").read_text().count("JobState=COMPLETED") == 2


def test_a_requeued_job_starts_again(folder: Path) -> None:
    info = up("one", 1, folder)
    job = slurm(info, "sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 300").strip()
    wait_until(lambda: "RUNNING" in slurm(info, "squeue", "--noheader", "--format=%T"))
    slurm(info, "scontrol", "requeue", job)
    wait_until(lambda: "PENDING" in slurm(info, "squeue", "--noheader", "--format=%T"))
    # Started by force in the very second of its requeue it is FAILED, "Job credential revoked" (22.05).
    second = int(time.time())
    wait_until(lambda: time.time() >= second + 2)
    slurm(info, "scontrol", "update", f"jobid={job}", "StartTime=now")
    wait_until(lambda: "RUNNING" in slurm(info, "squeue", "--noheader", "--format=%T"))
    assert "Restarts=1" in slurm(info, "scontrol", "show", "job", job)


def test_a_folder_with_a_long_path_keeps_its_sockets_elsewhere(folder: Path) -> None:
    deep = folder.with_name("d" * LONGEST_FOLDER)
    info = up("deep", 1, deep)
    sockets = Layout.of(deep).sockets
    assert sockets != deep
    assert sockets.stat().st_mode & 0o077 == 0
    assert slurm(info, "srun", "true") == ""
    down(deep)
    assert not sockets.exists()


def test_a_port_that_another_program_takes_meanwhile_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        choose, offered = daemons.free_ports, []

        def taken_at_first(nodes: int) -> Ports:
            ports = choose(nodes)
            offered.append(ports)
            return Ports(other.getsockname()[1], ports.nodes) if len(offered) == 1 else ports

        monkeypatch.setattr(daemons, "free_ports", taken_at_first)
        up("one", 1, folder)
    assert len(offered) == 2


def test_a_failing_munged_is_shown_with_its_own_words(folder: Path) -> None:
    up("one", 1, folder)
    down(folder)
    key = folder / "munge" / "munge.key"
    key.unlink()
    key.write_bytes(b"too short")
    with pytest.raises(ClusterError, match=r"(?s)munged ended at once with exit code .*Keyfile must be"):
        up("one", 1, folder)
    assert running(folder) == {}


def test_a_line_that_slurm_does_not_know_ends_with_the_controllers_words(folder: Path) -> None:
    with pytest.raises(ClusterError, match="NoSuchWord"):
        up("one", 1, folder, overrides={"NoSuchWord": "1"})
    assert running(folder) == {}


def test_state_and_key_are_for_their_owner_alone(folder: Path) -> None:
    up("one", 1, folder)
    assert (folder / "munge" / "munge.key").stat().st_mode & 0o777 == 0o400
    assert {path.stat().st_mode & 0o077 for path in (folder, folder / "munge", folder / "state", folder / "logs")} == {
        0
    }


def test_the_command_tells_as_json_what_runs(lockstep_home: Path) -> None:
    one_machine.needed()
    try:
        told = json.loads(lockstep("cluster", "up", "--nodes", "1", "--json").stdout)
        assert told["nodes"] == ["node1"]
        shown = lockstep("cluster", "status")
        assert f"export SLURM_CONF={lockstep_home}/cluster/default/slurm.conf" in shown.stdout
        assert shown.returncode == 0
    finally:
        ended = json.loads(lockstep("cluster", "down", "--json").stdout)
    assert ended == {"name": "default", "ended": True}
    assert lockstep("cluster", "status").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nodes", "0"], "1 to 64 nodes"),
        (["--name", "Big Cluster"], "lower-case letters"),
        (["--link", "1gbit"], "say --hosts as well"),
        (["--hosts", "--link", "fast"], "'fast' is not a link's rate"),
    ],
)
def test_bad_input_is_told_in_words(lockstep_home: Path, arguments: list[str], said: str) -> None:
    done = lockstep("cluster", "up", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(lockstep_home.iterdir()) == []


def test_without_root_the_command_says_so(lockstep_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ClusterError, match=r"needs root.*--client local"):
        up("one", 1, lockstep_home / "c")


def test_without_slurm_the_packages_are_named(lockstep_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(lockstep_home))
    monkeypatch.setattr(daemons, "SYSTEM_FOLDERS", ())
    with pytest.raises(ClusterError, match=r"munged is not installed.*apt-get install.*slurmctld"):
        up("one", 1, lockstep_home / "c")


def test_a_path_that_slurm_conf_cannot_carry_is_refused(lockstep_home: Path) -> None:
    with pytest.raises(ClusterError, match="cannot carry"):
        up("one", 1, lockstep_home / "with a space")


def lockstep(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The ``lockstep`` command as a person runs it."""
    command = [sys.executable, "-m", "lockstep_slurm.cli.main", *arguments]
    return subprocess.run(command, env=os.environ | {"COLUMNS": "200"}, capture_output=True, text=True, check=False)


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits until ``condition()`` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
