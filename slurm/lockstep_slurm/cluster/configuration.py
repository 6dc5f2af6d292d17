"""slurm.conf and cgroup.conf of a one-machine cluster, as text: values in, text out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lockstep_slurm.cluster.cores import Machine, NodeCores
from lockstep_slurm.cluster.info import Network
from lockstep_slurm.cluster.layout import Layout

# From here on cgroup.conf knows the word "disabled" (Slurm 23.11's manual does not have it, 24.05's has).
CGROUP_DISABLED_SINCE = (24, 5)


@dataclass(frozen=True)
class Ports:
    """TCP ports: the controller's and one per node, in the nodes' order."""

    controller: int
    nodes: tuple[int, ...]


def slurm_conf(
    layout: Layout,
    *,
    cluster_name: str,
    hostname: str,
    ports: Ports,
    machine: Machine,
    nodes: tuple[NodeCores, ...],
    memory: int,
    min_job_age: int,
    overrides: Mapping[str, str],
    network: Network | None = None,
) -> str:
    """The whole slurm.conf. ``memory``: MiB of a node; ``min_job_age``: seconds; ``overrides``: more of its lines.

    ``network``: where the nodes are hosts of their own, else all of them are at the loopback address.

    Every node declares the whole machine and reserves the other nodes' cores (``CpuSpecList``): with task/affinity each
    slurmd hands out the first core first, so nodes that declared one core each would all bind to the same one.
    """
    addresses = {host.node: host.address for host in network.hosts} if network is not None else {}
    settings = {
        "ClusterName": cluster_name,
        "SlurmctldHost": f"{hostname}({'127.0.0.1' if network is None else network.address})",
        "SlurmctldPort": str(ports.controller),
        # Both root: the folder may lie under a home that only root can enter, and all jobs are this one person's.
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "AuthType": "auth/munge",
        "CredType": "cred/munge",
        "AuthInfo": f"socket={layout.munge_socket}",
        "StateSaveLocation": str(layout.state),
        "SlurmdSpoolDir": f"{layout.spool}/%n",
        # Not one for all nodes: srun --mpi=pmix makes a folder in it whose name has the step but no node (22.05).
        "TmpFS": f"{layout.spool}/%n/tmp",
        "SlurmctldPidFile": str(layout.controller_pid),
        "SlurmdPidFile": str(layout.node_pid("%n")),
        "SlurmctldLogFile": str(layout.controller_log),
        "SlurmdLogFile": str(layout.node_log("%n")),
        "MpiDefault": "none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "TaskPlugin": "task/affinity",
        "ProctrackType": "proctrack/linuxproc",
        "SchedulerParameters": "sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0",
        "SlurmdParameters": "config_overrides",
        "ReturnToService": "2",
        "JobRequeue": "1",
        "MinJobAge": str(min_job_age),
        "MessageTimeout": "10",
        "SlurmctldTimeout": "30",
        "SlurmdTimeout": "30",
        "KillWait": "5",
        "JobAcctGatherType": "jobacct_gather/linux",
        "AccountingStorageType": "accounting_storage/none",
        "JobCompType": "jobcomp/filetxt",
        "JobCompLoc": str(layout.completions),
        # Slurm complains of a missing mailer at every start; a development cluster sends no mail.
        "MailProg": "/bin/true",
    }
    settings |= overrides
    lines = [f"{key}={value}" for key, value in settings.items()]
    for node, port in zip(nodes, ports.nodes, strict=True):
        reserved = ",".join(str(cpu) for cpu in node.reserved)
        lines.append(
            f"NodeName={node.node} NodeHostname={hostname} NodeAddr={addresses.get(node.node, '127.0.0.1')} "
            f"Port={port} Sockets={machine.sockets} "
            f"CoresPerSocket={machine.cores_per_socket} ThreadsPerCore={machine.threads_per_core} RealMemory={memory}"
            + (f" CpuSpecList={reserved}" if reserved else "")
        )
    names = ",".join(node.node for node in nodes)
    lines.append(f"PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE State=UP")
    return "# Written by `lockstep cluster up`, and written anew at the next one.\n" + "\n".join(lines) + "\n"


def cgroup_conf(version: tuple[int, int]) -> str:
    """cgroup.conf for this Slurm (major, minor).

    Nothing here uses cgroups, but slurmd ends at its start where it cannot find them (22.05, in a chroot) unless told
    which plugin to take.
    """
    return f"CgroupPlugin={'disabled' if version >= CGROUP_DISABLED_SINCE else 'cgroup/v1'}\n"
