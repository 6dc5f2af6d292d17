"""``up``, ``status``, ``down`` and ``link`` of a one-machine Slurm."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lockstep_slurm.cluster import daemons, network, processes
from lockstep_slurm.cluster.configuration import cgroup_conf, slurm_conf
from lockstep_slurm.cluster.cores import NodeCores, read_machine, share_out
from lockstep_slurm.cluster.hosts import bits_per_second
from lockstep_slurm.cluster.info import (
    ClusterError,
    ClusterInfo,
    ClusterInputError,
    ClusterStatus,
    Host,
    LinkStatus,
    Network,
    NodeStatus,
)
from lockstep_slurm.cluster.layout import Layout

READY_WITHIN = 40.0  # seconds; about 1 s on a quiet machine with 6 nodes
GONE_AFTER = 1.0  # seconds without a daemon, until it counts as ended
MOST_NODES = 64
PORT_TROUBLE = "Address already in use"


def up(
    name: str,
    nodes: int,
    folder: Path,
    *,
    min_job_age: int = 300,
    overrides: Mapping[str, str] | None = None,
    hosts: bool = False,
    link: str | None = None,
) -> ClusterInfo:
    """Brings up a cluster of ``nodes`` nodes, named node1, node2, ..., and returns when all of them are idle.

    With ``hosts`` each node is a host with an address of its own (a network namespace), and they are named h1, h2, ...;
    ``link`` limits each one's link, in both directions, to so many bits per second (tc's form, ``1gbit``).

    A cluster that runs already is left as it is; one of which only a part runs is ended and brought up again. Job ids,
    queued jobs and completion records go on from the last ``up`` in the same folder.

    ``folder`` is the cluster's own, usually ``cluster_folder(name, home)``; ``min_job_age`` is how long Slurm
    remembers an ended job, in seconds; ``overrides`` are further lines of slurm.conf.
    Raises ``ClusterError`` where it cannot be done, with the failing daemon's last words, and ``ClusterInputError``
    for a number of nodes or a link that no cluster has.
    """
    if not 1 <= nodes <= MOST_NODES:
        raise ClusterInputError(f"--nodes {nodes}: a one-machine cluster has 1 to {MOST_NODES} nodes.")
    if link is not None:
        if not hosts:
            raise ClusterInputError("--link limits the links between hosts: say --hosts as well.")
        bits_per_second(link)
    layout = Layout.of(folder.absolute())
    names = tuple(f"{'h' if hosts else 'node'}{number}" for number in range(1, nodes + 1))
    check_machine()
    if hosts:
        network.check()
    layout.make(names)
    with _alone(layout):
        notes = layout.read_notes()
        if notes is not None and processes.daemons(layout):
            info = _info(layout, notes)
            if not _problems(layout, info)[0]:
                if info.nodes == names and (info.network is None or info.network.rate == link):
                    return replace(info, already_running=True)
                raise ClusterError(
                    f"Cluster {name!r} runs with {_described(info)}, not {nodes}{_kind(hosts=hosts, link=link)}. "
                    f"End it first: lockstep cluster down --name {name}"
                )
            _bring_down(layout, info.cluster_name)
        network.remove(layout.folder)
        return _bring_up(layout, name, names, min_job_age, overrides or {}, hosts=hosts, link=link)


def status(folder: Path) -> ClusterStatus:
    """What of the cluster runs. Raises ``ClusterError`` where none was ever brought up in this folder."""
    layout = Layout.of(folder.absolute())
    notes = layout.read_notes()
    if notes is None:
        raise ClusterError(f"There is no cluster in {folder}. Bring it up: lockstep cluster up --name {folder.name}")
    info = _info(layout, notes)
    problems, states = _problems(layout, info)
    running = processes.daemons(layout)
    rows = tuple(
        NodeStatus(cores.node, states.get(cores.node, "unknown"), cores.cpus, daemon=cores.node in running)
        for cores in info.cores
    )
    links = network.links(info.network) if info.network is not None and running else ()
    return ClusterStatus(info.name, layout.folder, layout.slurm_conf, rows, problems, info.warnings, links)


def link(folder: Path, node: str, *, on: bool | None = None, rate: str | None = None) -> LinkStatus:
    """Cuts (``on=False``) or mends the link of a host, gives it another rate (tc's form), or both; says how it is then.

    Raises ``ClusterError`` where the cluster does not run, has no hosts or no such one.
    """
    layout = Layout.of(folder.absolute())
    notes = layout.read_notes()
    info = _info(layout, notes) if notes is not None and processes.daemons(layout) else None
    if info is None:
        raise ClusterError(
            f"No cluster runs in {folder}. Bring it up: lockstep cluster up --hosts --name {folder.name}"
        )
    if info.network is None:
        raise ClusterError(
            f"The nodes of cluster {info.name!r} are no hosts and have no links. Bring it up anew with --hosts."
        )
    return network.set_link(info.network.host(node), on=on, rate=rate)


def down(folder: Path) -> bool:
    """Ends the cluster: cancels its jobs, then ends its daemons and whatever its jobs left behind, and nothing else.

    Its logs, job ids and completion records stay in its folder. Returns False where nothing of it was running.
    """
    layout = Layout.of(folder.absolute())
    if not layout.folder.is_dir():
        return network.remove(layout.folder)
    with _alone(layout):
        notes = layout.read_notes()
        ran = _bring_down(layout, str(notes["cluster_name"]) if notes else None)
        return network.remove(layout.folder) or ran


def check_machine() -> None:
    """Raises ``ClusterError`` where this machine cannot run a cluster: not root, no Slurm, no name resolution."""
    if os.geteuid() != 0:
        raise ClusterError(
            "A one-machine Slurm needs root: its daemons bind jobs to cores and run them as their users. "
            "Run it as root (sudo), or work without Slurm: lockstep serve --client local"
        )
    for name in ("munged", "slurmctld", "slurmd", "sinfo", "scancel"):
        daemons.program(name)
    try:
        # As slurmd asks (22.05): IPv4, and only where some address of this machine is not 127.0.0.1.
        flags = socket.AI_ADDRCONFIG | socket.AI_PASSIVE
        socket.getaddrinfo(None, 1, family=socket.AF_INET, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror as error:
        raise ClusterError(
            f"Slurm could not listen here ({error.strerror}): this machine has no IPv4 address but the loopback's. "
            "Any other will do: ip addr add 192.0.2.1/32 dev lo"
        ) from error


@contextlib.contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    """One ``up`` or ``down`` of a cluster at a time: a second one waits."""
    with layout.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _info(layout: Layout, notes: Mapping[str, Any]) -> ClusterInfo:
    """The cluster as its notes tell it."""
    cores = tuple(NodeCores(row["node"], tuple(row["cpus"]), tuple(row["reserved"])) for row in notes["cores"])
    return ClusterInfo(
        name=notes["name"],
        folder=layout.folder,
        slurm_conf=layout.slurm_conf,
        cluster_name=notes["cluster_name"],
        nodes=tuple(row.node for row in cores),
        cores=cores,
        warnings=tuple(notes["warnings"]),
        network=_network(notes.get("network")),
    )


def _network(notes: Mapping[str, Any] | None) -> Network | None:
    if notes is None:
        return None
    return Network(**(dict(notes) | {"hosts": tuple(Host(**row) for row in notes["hosts"])}))


def _described(info: ClusterInfo) -> str:
    rate = info.network.rate if info.network is not None else None
    return f"{len(info.nodes)}{_kind(hosts=info.network is not None, link=rate)}"


def _kind(*, hosts: bool, link: str | None) -> str:
    return (" hosts" + (f" on links of {link}" if link else "")) if hosts else " nodes"


def _problems(layout: Layout, info: ClusterInfo) -> tuple[tuple[str, ...], dict[str, str]]:
    """What keeps the cluster from being whole, in words, and the nodes' states where the controller answers."""
    running = processes.daemons(layout)
    if not running:
        return ("The cluster is down.",), {}
    problems = [f"{name} does not run." for name in ("munged", "slurmctld") if name not in running]
    problems += [f"The slurmd of {node} does not run." for node in info.nodes if node not in running]
    links = network.links(info.network) if info.network is not None else ()
    problems += [f"The link of {link.node} is gone." for link in links if link.state == "missing"]
    states = daemons.node_states(layout) if {"munged", "slurmctld"} <= running.keys() else None
    if states is None and not problems:
        problems.append("slurmctld runs but does not answer.")
    return tuple(problems), states or {}


def _bring_up(
    layout: Layout,
    name: str,
    names: tuple[str, ...],
    min_job_age: int,
    overrides: Mapping[str, str],
    *,
    hosts: bool,
    link: str | None,
) -> ClusterInfo:
    """Starts everything, with other ports where another program took one meanwhile."""
    version, machine, hostname = daemons.version(), read_machine(), socket.gethostname().partition(".")[0]
    cores, warning = share_out(machine, names, sorted(os.sched_getaffinity(0)))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20 // len(names)
    digest = hashlib.sha256(str(layout.folder).encode()).hexdigest()[:6]
    cluster_name = f"lockstep-{name}-{digest}"
    notes: dict[str, Any] = {
        "name": name,
        "cluster_name": cluster_name,
        "cores": [asdict(row) for row in cores],
        "warnings": [warning] if warning else [],
    }
    net = network.create(layout.folder, len(names), link) if hosts else None
    if net is not None:
        notes["network"] = asdict(net)
    layout.cgroup_conf.write_text(cgroup_conf(version))
    layout.write_notes(notes)
    for last in (False, False, True):
        layout.slurm_conf.write_text(
            slurm_conf(
                layout,
                cluster_name=cluster_name,
                hostname=hostname,
                ports=daemons.free_ports(len(names)),
                machine=machine,
                nodes=cores,
                memory=memory,
                min_job_age=min_job_age,
                overrides=overrides,
                network=net,
            )
        )
        try:
            _start_all(layout, names, net)
        except BaseException as error:
            _bring_down(layout, cluster_name, cancel=False)
            if last or PORT_TROUBLE not in str(error):
                network.remove(layout.folder)
                raise
        else:
            break
    return _info(layout, notes)


def _start_all(layout: Layout, names: tuple[str, ...], net: Network | None) -> None:
    """Starts every daemon and returns when all nodes are idle or at work."""
    for log in layout.munge_log.parent.glob("*.log"):
        log.replace(log.with_suffix(".log.before"))
    daemons.start_munged(layout)
    daemons.start_controller(layout)
    for node in names:
        daemons.start_node(layout, node, net.host(node).inside if net is not None else ())
    logs = {"slurmctld": layout.controller_log} | {node: layout.node_log(node) for node in names}
    pid_files = [layout.controller_pid, *(layout.node_pid(node) for node in names)]
    deadline = time.monotonic() + READY_WITHIN
    seen = dict.fromkeys(logs, time.monotonic())
    states: dict[str, str] | None = None
    while time.monotonic() < deadline:
        running = processes.daemons(layout)
        for daemon, log in logs.items():
            if daemon in running:
                seen[daemon] = time.monotonic()
            # A look at /proc can miss a process that is just forking itself into the background.
            elif time.monotonic() - seen[daemon] > GONE_AFTER:
                called = daemon if daemon == "slurmctld" else f"The slurmd of {daemon}"
                raise ClusterError(f"{called} ended right after its start. {daemons.last_lines(log)}")
        # sinfo retries for 10 s where nothing listens yet; the pid files say when it is worth asking.
        if all(file.exists() for file in pid_files):
            states = daemons.node_states(layout)
            if (
                states
                and set(states) == set(names)
                and set(states.values()) <= {"idle", "mixed", "allocated", "completing"}
            ):
                return
        time.sleep(0.05)
    raise ClusterError(
        f"Not all nodes were idle after {READY_WITHIN:.0f} s; {states or 'the controller does not answer'}. "
        + daemons.last_lines(*logs.values(), count=5)
    )


def _bring_down(layout: Layout, cluster_name: str | None, *, cancel: bool = True) -> bool:
    """Ends what runs of the cluster; True if anything did."""
    running = processes.daemons(layout)
    if cancel and {"munged", "slurmctld"} <= running.keys() and running.keys() - {"munged", "slurmctld"}:
        _cancel_jobs(layout)
    left = processes.jobs(cluster_name) if cluster_name else []
    for _ in range(3):  # a daemon that was just forking itself into the background is seen at the next look
        found = processes.daemons(layout)
        # The nodes first: a slurmd that ends while its controller lives says so, and leaves no job half told.
        nodes = [process for name, process in found.items() if name not in {"munged", "slurmctld"}]
        processes.end(nodes, patience=10.0)
        processes.end([process for name, process in found.items() if name == "slurmctld"], patience=10.0)
        processes.end([process for name, process in found.items() if name == "munged"], patience=5.0)
        if not found:
            break
    else:
        pids = ", ".join(f"{name} ({process.pid})" for name, process in found.items())
        raise ClusterError(f"These did not end, not even when killed: {pids}. The machine may have to be started anew.")
    # Under proctrack/linuxproc a process that made a session of its own outlives its job.
    left += processes.jobs(cluster_name) if cluster_name else []
    processes.end(left, patience=5.0)
    layout.remove_sockets()
    return bool(running or left)


def _cancel_jobs(layout: Layout) -> None:
    """Cancels every job, so that each has a completion record, and waits (bounded) until none is left.

    scancel is given states, not ids: one call whatever the number of jobs.
    """
    if not daemons.ask(layout, "squeue", "--noheader", "--format=%i"):
        return
    for state in ("PENDING", "RUNNING", "SUSPENDED"):
        daemons.ask(layout, "scancel", f"--state={state}")
    deadline = time.monotonic() + 15.0
    while time.monotonic() < deadline and daemons.ask(layout, "squeue", "--noheader", "--format=%i"):
        time.sleep(0.1)
