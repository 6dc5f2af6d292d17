"""``lockstep show``: whether the threads of a job sit where they were planned, in words."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.cli.verdict import MOST_SENTENCES, line, sentences
from support.lockstep import Lockstep
from support.placements import RunOnNodes, machine


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lockstep]:
    """A service for runs that were made by hand."""
    found = Lockstep(tmp_path_factory.mktemp("home"), None)
    found.start("local")
    try:
        yield found
    finally:
        found.kill(signal.SIGTERM)


def test_an_imported_run_shows_its_verdict_and_what_deviates(ours: Lockstep, tmp_path: Path) -> None:
    made = RunOnNodes(tmp_path / "runs", machine())
    for node in (0, 1):
        made.tell_plan(node, grant=["Slurm bound nothing: TaskPlugin has no affinity"] if node else [])
    for rank in (0, 1, 2):
        made.tell_verdict(rank)
    (sentence,) = made.tell_verdict(3, moved={"horovod": (0, 1)}).deviations
    made.end()
    ours.run("import", made.run)
    shown = ours.run("show", made.run.name).stdout
    assert "deviates: 1 of 4 ranks" in shown
    assert f"node2, rank 3: {sentence}" in shown
    assert "node2, what Slurm gave: Slurm bound nothing" in shown
    found = ours.json("show", made.run.name)
    assert (found["verdict"], found["placement"]["result"]) == ("deviates", "deviates")
    assert found["placement"]["nodes"][1]["ranks"][1]["verdict"]["deviations"] == [sentence]


def test_a_run_that_told_nothing_has_no_verdict(ours: Lockstep, tmp_path: Path) -> None:
    made = RunOnNodes(tmp_path / "runs", machine())
    made.end()
    ours.run("import", made.run)
    assert ours.json("show", made.run.name)["placement"] is None
    assert ours.run("show", made.run.name).returncode == 0


def _job(verdict: str | None, **counts: int) -> dict[str, Any]:
    return {"verdict": verdict, "verdicts": {"as_planned": 0, "degraded": 0, "deviates": 0, "ranks": 4} | counts}


@pytest.mark.parametrize(
    ("job", "says"),
    [
        ({"verdict": None, "verdicts": None}, "-"),
        (_job(None), "-"),
        (_job(None, as_planned=2), "2 of 4 ranks have said where their threads sit"),
        (_job(None, as_planned=1, deviates=1), "2 of 4 ranks have said where their threads sit, 1 of them deviate"),
        (_job("as planned", as_planned=4), "as planned: 4 of 4 ranks"),
        (_job("degraded", as_planned=3, degraded=1), "degraded: 1 of 4 ranks"),
        (_job("deviates", degraded=1, deviates=3), "deviates: 3 of 4 ranks"),
    ],
)
def test_the_line(job: dict[str, Any], says: str) -> None:
    assert line(job).plain == says


def _placement(*deviations: list[str]) -> dict[str, Any]:
    ranks = [
        {"rank": rank, "verdict": {"deviations": found, "degradations": ["one core for everything"]}}
        for rank, found in enumerate(deviations)
    ]
    return {"nodes": [{"node": "node1", "grant": [], "ranks": [*ranks, {"rank": len(ranks), "verdict": None}]}]}


def test_a_sentence_that_many_ranks_say_is_said_once() -> None:
    assert list(sentences(_placement(["a"], [], ["a"]))) == [
        "node1, ranks 0, 2: a",
        "node1, ranks 0, 1, 2: one core for everything",
    ]


def test_whose_a_sentence_is_is_said_once() -> None:
    own = [[f"rank {rank} on node1: 5 threads compute on 2 compute CPUs"] for rank in range(2)]
    assert next(sentences(_placement(*own))) == "node1, ranks 0, 1: 5 threads compute on 2 compute CPUs"


def test_what_slurm_gave_is_said_once_where_ranks_say_it_too() -> None:
    placement = _placement(["nothing was bound"])
    placement["nodes"][0]["grant"] = ["nothing was bound", "another thing"]
    said = list(sentences(placement))
    assert said[:2] == ["node1, rank 0: nothing was bound", "node1, what Slurm gave: another thing"]
    assert len(said) == 3


def test_many_sentences_are_cut_and_counted() -> None:
    said = list(sentences(_placement([f"thread {number}" for number in range(50)])))
    assert len(said) == MOST_SENTENCES + 1
    assert said[-1].startswith("... and 31 more")


def test_a_threads_name_cannot_steer_the_terminal() -> None:
    assert next(sentences(_placement(["\x1b[2Jname"]))) == "node1, rank 0: [2Jname"
