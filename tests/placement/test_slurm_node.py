"""A machine by Slurm's node record, and Slurm's CPU ids as Linux's and back."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import Any

import pytest
from hypothesis import given

from lockstep_slurm.cluster import ClusterInfo
from lockstep_slurm.placement import Topology, TopologyError, abstract_ids, from_slurm, linux_ids
from support.topologies import topologies

RECORD: dict[str, Any] = {
    "name": "n1", "boards": 1, "sockets": 2, "cores": 28, "threads": 2, "real_memory": 192_000, "cpus": 112,
}  # fmt: skip


def test_a_record_is_a_machine_numbered_as_linux_most_often_does() -> None:
    topology = from_slurm(RECORD)
    assert topology.name == "n1"
    assert topology.cores[0].cpus == (0, 56)
    assert topology.cores[28].cpus == (28, 84)
    assert [core.socket for core in topology.cores] == [0] * 28 + [1] * 28
    assert [(domain.number, domain.memory >> 20) for domain in topology.numa] == [(0, 96_000), (1, 96_000)]


def test_sockets_are_counted_by_board() -> None:
    assert len({core.socket for core in from_slurm({**RECORD, "boards": 2}).cores}) == 4


@pytest.mark.parametrize("key", ["boards", "sockets", "cores", "threads"])
@pytest.mark.parametrize("value", [0, -1, None, "2", True, 1.5])
def test_a_record_that_says_no_number_is_refused_with_it(key: str, value: object) -> None:
    with pytest.raises(TopologyError, match=f"'{key}' is {re.escape(repr(value))}"):
        from_slurm({**RECORD, key: value})


def test_a_machine_larger_than_any_is_refused() -> None:
    with pytest.raises(TopologyError, match="no Linux has more"):
        from_slurm({**RECORD, "cores": 1 << 20})


@given(topology=topologies())
def test_ids_come_back_and_follow_the_tree_and_not_the_numbers(topology: Topology) -> None:
    everything = range(len(topology.cpus))
    assert linux_ids(topology, everything) == topology.cpus
    assert abstract_ids(topology, linux_ids(topology, everything)) == tuple(everything)
    with pytest.raises(TopologyError, match="has 0 to"):
        linux_ids(topology, [len(topology.cpus)])
    with pytest.raises(TopologyError, match="no such CPU"):
        abstract_ids(topology, [max((*topology.cpus, *topology.offline)) + 1])


def test_a_real_slurms_record_is_read(cluster: ClusterInfo) -> None:
    argv = ["sinfo", "--json"]
    said = subprocess.check_output(argv, env={**os.environ, "SLURM_CONF": str(cluster.slurm_conf)}, text=True)
    record = next(node for node in json.loads(said)["nodes"] if node["name"] == cluster.nodes[0])
    assert len(from_slurm(record).cpus) == record["boards"] * record["sockets"] * record["cores"] * record["threads"]
