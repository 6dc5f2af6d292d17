"""``lockstep plan``: the same answer as a picture and as data, for this machine and for others."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.placement import Card, Core, NumaDomain, Topology
from support.lockstep import EXAMPLES, Lockstep
from support.machine_xml import xml_of

GIB = 1 << 30
XEON = Topology(
    tuple(Core((core, core + 56), core // 28, core // 28, core // 28) for core in range(56)),
    (NumaDomain(0, 64 * GIB), NumaDomain(1, 64 * GIB)),
    (Card("ib0", 1),),
)
LARGE = Topology(
    tuple(
        Core(tuple(core + 256 * thread for thread in range(4)), core // 64, core // 16, core // 8)
        for core in range(256)
    ),
    tuple(NumaDomain(number, 64 * GIB) for number in range(16)),
)
SPEC = EXAMPLES / "resnet50-synthetic.toml"


@pytest.fixture
def ours(tmp_path: Path) -> Lockstep:
    return Lockstep(tmp_path, None)


@pytest.fixture
def xeon(tmp_path: Path) -> Path:
    file = tmp_path / "xeon.xml"
    file.write_text(xml_of(XEON, 2))
    return file


def answer(ours: Lockstep, *arguments: str | Path) -> Any:
    done = ours.run("plan", SPEC, *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def communication(rank: Any) -> set[int]:
    return {cpu for cpus in rank["comm"].values() for cpu in cpus}


def test_the_data_is_what_programs_were_promised(ours: Lockstep, xeon: Path) -> None:
    found = answer(ours, "--topology", xeon, "--set", "placement.ranks_per_node=4", "--set", "resources.exclusive=true")
    assert [rank["local_rank"] for rank in found["ranks"]] == [0, 1, 2, 3]
    for rank in found["ranks"]:
        assert set(rank) == {"local_rank", "compute", "comm", "loader", "numa_nodes", "memory", "environment"}
        assert set(rank["comm"]) == {"horovod", "gloo", "exchange", "ccl"}
        (numa,) = rank["numa_nodes"]
        own = {cpu for core in XEON.cores if core.numa == numa for cpu in core.cpus}
        assert {*rank["compute"], *rank["comm"]["horovod"], *rank["comm"]["gloo"]} <= own
        assert len(rank["comm"]["horovod"]) == len(rank["comm"]["gloo"]) == 1
        assert rank["memory"] == {"policy": "preferred", "domains": [numa]}
        assert rank["environment"]["OMP_NUM_THREADS"] == str(len(rank["compute"]))
    used = [cpu for rank in found["ranks"] for cpu in (*rank["compute"], *communication(rank))]
    assert sorted([*used, *found["spare"]]) == list(range(112)), "every CPU once"
    assert found["environment"]["HOROVOD_THREAD_AFFINITY"] == ",".join(
        str(rank["comm"]["horovod"][0]) for rank in found["ranks"]
    )
    assert "--cpus-per-task=28" in found["srun"]
    assert "--cpu-bind=cores" in found["srun"]
    assert found["warnings"] == []
    assert found["policy"] == "last"
    assert Topology.parse(found["topology"]).cores == XEON.cores


def test_both_forms_of_hwloc_have_the_same_answer_and_standard_input_serves_too(ours: Lockstep, xeon: Path) -> None:
    old = xeon.with_name("old.xml")
    old.write_text(xml_of(XEON, 1))
    first, second = answer(ours, "--topology", xeon), answer(ours, "--topology", old)
    assert first["ranks"] == second["ranks"]
    done = subprocess.run(
        ["lockstep", "plan", SPEC, "--topology", "-", "--json"],
        input=xml_of(XEON, 2), env=ours.environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert json.loads(done.stdout)["ranks"] == first["ranks"]


def test_this_machine_is_planned_inside_what_this_process_may_use(ours: Lockstep) -> None:
    found = answer(ours)
    mine = os.sched_getaffinity(0)
    assert set(found["granted"]) == mine
    assert set(found["ranks"][0]["compute"]) <= mine
    one = str(min(mine))
    assert answer(ours, "--cpus", one)["ranks"][0]["compute"] == [int(one)]


def test_the_cpus_that_a_job_was_given_are_all_that_it_gets(ours: Lockstep, xeon: Path) -> None:
    found = answer(ours, "--topology", xeon, "--cpus", "28-31,84-87")
    assert {cpu for core in XEON.cores[28:32] for cpu in core.cpus} == set(found["granted"])
    used = {*found["ranks"][0]["compute"], *found["spare"], *communication(found["ranks"][0])}
    assert used == set(found["granted"])
    assert found["ranks"][0]["numa_nodes"] == [1]


def test_what_slurm_would_really_give_is_said(ours: Lockstep, xeon: Path) -> None:
    assert any("Slurm gives each rank 1 CPU" in said for said in answer(ours, "--topology", xeon)["warnings"])
    shared = answer(ours, "--topology", xeon, "--set", "placement.cpus_per_rank=8")
    assert any("this one gets 8 CPUs" in said for said in shared["warnings"])
    assert len([cpu for rank in shared["ranks"] for cpu in rank["compute"]]) <= 8


def test_the_picture_fits_80_columns_and_has_everything(ours: Lockstep, xeon: Path) -> None:
    done = ours.run(
        "plan", SPEC, "--topology", xeon, "--set", "placement.ranks_per_node=2", "--set", "resources.exclusive=true"
    )
    assert (done.returncode, done.stderr) == (0, "")
    drawing, _, after = done.stdout.partition("\n\n")
    assert drawing.startswith("2 sockets, 2 NUMA domains, 56 cores, 112 hardware threads\nsocket 0\n  NUMA 0, 64 GiB\n")
    assert "  NUMA 1, 64 GiB, ib0\n" in drawing
    assert all(len(line) <= 80 for line in drawing.splitlines())
    assert drawing.count("1c") > 20
    assert "c compute" in drawing
    assert "rank  compute" in after
    assert "\nOMP_NUM_THREADS=" in after
    assert after.splitlines()[-1].startswith("srun --export=ALL ")
    assert "--cpus-per-task=56" in after.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [("{}", "machine.xml: "), ("", "machine.xml: "), ("<a>", "machine.xml: "), ("\udcff", "is not UTF-8: byte 0xff")],
)
def test_what_is_no_machine_is_bad_input(ours: Lockstep, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "machine.xml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    done = ours.run("plan", SPEC, "--topology", file, "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("lockstep: ")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--topology", "/nowhere.xml"), "lockstep: /nowhere.xml: cannot be read: No such file"),
        (("--cpus", "0-"), "lockstep: --cpus: '0-' is no list of CPUs"),
        (("--cpus", ","), "--cpus: names no CPU"),
        (("--cpus", "0,4096-4099"), "--cpus: 4096-4099 not on this machine, which has "),
        (("--set", "placement.ranks_per_node=1024"), "resnet50-synthetic.toml: placement: 1024 ranks on"),
        (("--set", "placement.plicy='last'"), "placement.plicy"),
    ],
)
def test_what_cannot_be_planned_is_bad_input_with_the_value(
    ours: Lockstep, arguments: tuple[str, ...], words: str
) -> None:
    done = ours.run("plan", SPEC, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_the_largest_machine_is_answered_in_half_a_second(ours: Lockstep, tmp_path: Path) -> None:
    file = tmp_path / "large.xml"
    file.write_text(xml_of(LARGE, 2))
    arguments = ["plan", str(SPEC), "--topology", str(file), "--set", "placement.ranks_per_node=8", "--json"]
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert ours.run(*arguments).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Processor time: what a quiet machine takes; this one may be busy.
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.5, times
