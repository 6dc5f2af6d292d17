"""What every Slurm client says of the cluster: its nodes, its partitions, and that it is there."""

from __future__ import annotations

import os
import re
from pathlib import Path

from clients import columns
from clients.desk import Desk
from lockstep_slurm.cluster import ClusterInfo


class TestTheCluster:
    def test_it_is_the_slurm_that_the_columns_name_says(self, slurm_desk: Desk, column: str) -> None:
        said = re.search(r"SLURM_VERSION\s*=\s*(\d+\.\d+)\.", slurm_desk.scontrol("show", "config"))
        assert said is not None
        assert said[1] == columns.version(column)

    def test_ping_is_answered(self, desk: Desk) -> None:
        desk.client.ping()

    def test_partitions_hold_the_nodes_and_one_is_the_default(self, desk: Desk) -> None:
        partitions = desk.client.partitions()
        nodes = desk.client.nodes()
        assert [one.default for one in partitions] == [True]
        assert set(partitions[0].nodes) == {node.name for node in nodes}
        assert partitions[0].state == "UP"
        assert partitions[0].time_limit is None
        assert all(node.partitions == (partitions[0].name,) for node in nodes)

    def test_a_slurm_nodes_figures_are_those_that_jobs_can_have(
        self, slurm_desk: Desk, shared_cluster: ClusterInfo
    ) -> None:
        nodes = {node.name: node for node in slurm_desk.client.nodes()}
        assert tuple(sorted(nodes)) == tuple(sorted(shared_cluster.nodes))
        for cores in shared_cluster.cores:
            node = nodes[cores.node]
            assert node.cpus == len(cores.cpus)
            assert node.sockets * node.cores_per_socket * node.threads_per_core >= node.cpus
            assert node.memory > 0
            assert node.state in {"IDLE", "MIXED", "ALLOCATED"}
            assert node.reason is None

    def test_a_local_node_is_this_machine(self, local_desk: Desk) -> None:
        (node,) = local_desk.client.nodes()
        assert node.name == os.uname().nodename.partition(".")[0]
        assert node.cpus == len(os.sched_getaffinity(0))
        assert node.cpus <= node.sockets * node.cores_per_socket * node.threads_per_core
        total = int(Path("/proc/meminfo").read_text().split()[1]) // 1024
        assert abs(node.memory - total) <= 1
        assert node.state == "IDLE"
        local_desk.in_state(local_desk.run("sleep 60"), "RUNNING")
        assert local_desk.client.nodes()[0].state == "ALLOCATED"
