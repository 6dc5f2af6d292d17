"""Which rank this is, from Slurm's variables."""

from __future__ import annotations

import pytest
from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet
from hypothesis import given
from hypothesis import strategies as st

from lockstep_worker.errors import WorldError
from lockstep_worker.nodelist import expand_nodes, expand_tasks
from lockstep_worker.world import from_mpi, from_slurm, local
from support.ranks import task


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node1", ["node1"]),
        ("node[1-2]", ["node1", "node2"]),
        ("n[08-11,20],login", ["n08", "n09", "n10", "n11", "n20", "login"]),
        ("r[1-2]n[1,3]", ["r1n1", "r1n3", "r2n1", "r2n3"]),
        ("a-b[1-2].site.org", ["a-b1.site.org", "a-b2.site.org"]),
    ],
)
def test_a_node_list_is_spelled_out_in_slurms_order(text: str, names: list[str]) -> None:
    assert list(expand_nodes(text)) == names


@given(
    st.lists(
        st.tuples(st.sampled_from(["n", "gpu-", "rack1x"]), st.integers(0, 200), st.integers(0, 30), st.integers(1, 4)),
        min_size=1,
        max_size=4,
    )
)
def test_a_node_list_is_spelled_out_as_a_library_does(parts: list[tuple[str, int, int, int]]) -> None:
    # Slurm pads both ends of a range alike.
    text = ",".join(f"{name}[{first:0{width}d}-{first + more:0{width}d}]" for name, first, more, width in parts)
    assert set(expand_nodes(text)) == set(NodeSet(text, resolver=RESOLVER_NOGROUP))


def test_tasks_per_node_are_spelled_out() -> None:
    assert expand_tasks("2(x3),1") == (2, 2, 2, 1)
    with pytest.raises(ValueError, match=r"2\(x3\),1"):
        expand_tasks("two")


def test_a_rank_of_an_uneven_step() -> None:
    variables = task(4) | {
        "SLURM_STEP_NODELIST": "n[1-3]",
        "SLURM_STEP_TASKS_PER_NODE": "1,2(x2)",
        "SLURM_STEP_NUM_TASKS": "5",
        "SLURM_PROCID": "4",
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "2",
        "SLURMD_NODENAME": "n3",
    }
    world = from_slurm(variables)
    assert (world.rank, world.size, world.local_rank, world.local_size) == (4, 5, 1, 2)
    # Only n2 and n3 have a second rank.
    assert (world.cross_rank, world.cross_size) == (1, 2)


def test_without_slurm_the_error_says_how_to_start_ranks() -> None:
    with pytest.raises(WorldError, match="--local-ranks N"):
        from_slurm({})


def test_a_contradiction_is_an_error() -> None:
    with pytest.raises(WorldError, match="this is node other"):
        from_slurm(task(0) | {"SLURMD_NODENAME": "other"})
    with pytest.raises(WorldError, match="contradict"):
        from_slurm(task(0) | {"SLURM_STEP_NUM_TASKS": "3"})


def test_local_ranks_share_one_node() -> None:
    worlds = [local(rank, 3, "id", 0) for rank in range(3)]
    assert [(one.local_rank, one.local_size, one.cross_rank, one.cross_size) for one in worlds] == [
        (0, 3, 0, 1),
        (1, 3, 0, 1),
        (2, 3, 0, 1),
    ]


def under_mpirun(rank: int, changed: dict[str, str] | None = None) -> dict[str, str]:
    """The variables of a rank that mpirun (Open MPI 4.1) started: of its node's daemon in Slurm, and its own."""
    nodes = per_node = 2
    return task(rank // per_node * per_node, nodes=nodes, per_node=per_node, step=rank // per_node) | {
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": str(nodes * per_node),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank % per_node),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(per_node),
    } | (changed or {})  # fmt: skip


def test_mpiruns_ranks_are_one_execution_whatever_steps_their_daemons_are() -> None:
    worlds = [from_mpi(under_mpirun(rank)) for rank in range(4)]
    assert [(one.rank, one.local_rank, one.node) for one in worlds] == [
        (0, 0, "node1"), (1, 1, "node1"), (2, 0, "node2"), (3, 1, "node2"),
    ]  # fmt: skip
    assert {(one.size, one.local_size, one.shares_cpus, one.labelled) for one in worlds} == {(4, 2, True, False)}
    assert len({one.execution for one in worlds}) == 1


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"OMPI_COMM_WORLD_RANK": "1"}, "equally many ranks on each node, in Slurm's order"),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "3"}, "equally many ranks"),
        ({"SLURMD_NODENAME": "node9"}, "cannot be read"),
        ({"OMPI_COMM_WORLD_SIZE": "many"}, "cannot be read"),
    ],
)
def test_ranks_that_mpirun_put_elsewhere_are_refused(changed: dict[str, str], says: str) -> None:
    with pytest.raises(WorldError, match=says):
        from_mpi(under_mpirun(2, changed))


def test_mpirun_without_slurm_is_refused() -> None:
    with pytest.raises(WorldError, match="SLURM_JOB_NODELIST is not set: mpirun has to start the ranks within a Slurm"):
        from_mpi({"OMPI_COMM_WORLD_RANK": "0"})
