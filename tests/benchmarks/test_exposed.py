"""Exposed communication: the bound that no order beats, the ratios, and when a row counts."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.exposed_communication import fingerprint, measured, show, two_cpus
from benchmarks.exposing.bound import Layer, least_exposed
from benchmarks.exposing.cases import (
    CASES,
    COMPARED,
    DDP,
    EVERY,
    FULL,
    OURS,
    OURS_GLOO,
    OURS_TCP,
    PLAIN,
    QUICK,
    SETTLED,
    STOCK,
    TUNED,
    Case,
    Form,
    case_of,
)
from benchmarks.exposing.figures import Piece, exposed_ratio, notes_of, recovered, rows_of
from benchmarks.exposing.hosts import as_rate
from benchmarks.kept import Kept
from benchmarks.report import interval
from lockstep_slurm.cluster.hosts import bits_per_second
from lockstep_worker.gradients.order import Timing, schedule
from support.gradients.lateness import lateness

BACKWARD = 2.0
"""Seconds of the backward pass in what is drawn."""
drawn_layers = st.lists(
    st.builds(
        Layer, size=st.integers(1, 100), released=st.floats(0, BACKWARD), used=st.floats(0, 1), update=st.just(0.0)
    ),
    min_size=1,
    max_size=6,
)


def test_the_first_layer_is_exposed_where_its_gradient_comes_last() -> None:
    # It has the link when the backward pass ends, and is used at once; the other one hides behind it and the forward.
    first, last = Layer(10, released=0.0, used=0.0), Layer(10, released=1.0, used=0.5)
    assert least_exposed([first, last], per_byte=0.01) == pytest.approx(0.1)
    # On a slow link both are late: 2 s on the link from 1 s before the end, and 0.5 s until the last one is used.
    assert least_exposed([last, first], per_byte=0.1) == pytest.approx(1.0)
    # The update of the first gives the last one time, too.
    assert least_exposed([replace(first, size=1, update=0.2), last], per_byte=0.15) == pytest.approx(0.15)


def test_what_the_backward_pass_hides_is_not_exposed() -> None:
    assert least_exposed([Layer(10, released=1.0, used=0.0)], per_byte=0.05) == 0


@given(drawn_layers, st.floats(0.001, 0.1), st.randoms(use_true_random=False))
def test_no_order_exposes_less_than_the_bound(layers: list[Layer], per_byte: float, dice: Any) -> None:
    timings = [Timing(BACKWARD - one.released, BACKWARD + one.used, one.size * per_byte) for one in layers]
    any_order = list(range(len(layers)))
    dice.shuffle(any_order)
    for order in (any_order, schedule(timings)):
        assert max(0.0, lateness(timings, order)) >= least_exposed(layers, per_byte) - 1e-9


def test_exposed_is_what_a_step_takes_beyond_the_one_without_communication() -> None:
    assert exposed_ratio([3.0, 5.0, 4.0], [2.0, 4.0, 3.0], [1.5, 3.5, 2.5]) == pytest.approx(3.0)


def test_nothing_is_divided_by_less_than_a_hundredth_of_a_step() -> None:
    assert exposed_ratio([3.0] * 3, [1.9] * 3, [2.0] * 3) == pytest.approx(1.0 / 0.019)


def test_all_is_recovered_at_the_floor_and_nothing_at_stock() -> None:
    stock, plain = [3.0] * 3, [2.0] * 3
    assert recovered(stock, [2.2] * 3, plain, 0.2) == pytest.approx(1.0)
    assert recovered(stock, stock, plain, 0.2) == 0
    assert recovered(stock, [2.4] * 3, plain, 0.2) == pytest.approx(0.75)
    assert recovered(stock, [2.4] * 3, plain, 1.0) == pytest.approx(0.6 / 0.03), "divided by a hundredth of a step"


def test_an_interval_has_what_the_rounds_differ_by() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    middle, low, high = interval(5, lambda rounds: sorted(values[one] for one in rounds)[2])
    assert middle == 3
    assert 1 <= low < 3 < high <= 5
    assert interval(5, lambda rounds: float(len(rounds))) == (5, 5, 5)


def states(*, losses: tuple[float, float] = (2.0, 1.0), digest: str = "abc") -> dict[str, list[dict[str, Any]]]:
    """Of all contenders the same, but for our second rank."""
    usual = {"losses": [2.0, 1.0], "digest": "abc", "tuning": None}
    other = {"losses": list(losses), "digest": digest, "tuning": None}
    return {kind: [usual, other if kind == OURS else usual] for kind in EVERY}


def document(**changed: Any) -> dict[str, Any]:
    """A piece as it is kept."""
    seconds = {PLAIN: 1.0, STOCK: 1.4, DDP: 1.3, OURS: 1.1, OURS_GLOO: 1.2, OURS_TCP: 1.15}
    cpu = {"training": 1.0, "exchange": 0.01, "horovod": 0.02, "others": 0.03}
    made: dict[str, Any] = {
        "link": 1.0,
        "rate": "100mbit",
        "alone": {"seconds": 1.0, "cpu": cpu, "bytes": 1000},
        "layers": [{"size": 1000, "released": 0.5, "used": 0.46, "update": 0.0}],
        "turns": {kind: [{"seconds": seconds[kind], "cpu": cpu, "foreign": 0.01}] * 3 for kind in EVERY},
        "states": states(),
        "ends": states(),
    }
    return made | changed


def piece(**changed: Any) -> Piece:
    return Piece.parse(case_of("resnet50"), document(**changed))


def rows(one: Piece) -> dict[tuple[str, str, str], Any]:
    return {(row.case.partition("; ")[2], row.metric.partition(",")[0], row.peer_name): row for row in rows_of(one)}


def test_a_piece_has_a_row_for_each_comparison() -> None:
    found = rows(piece())
    assert len(found) == 12
    assert all(row.valid and not row.simulated for row in found.values())
    assert found[OURS, "step", STOCK].ratio == pytest.approx(1.4 / 1.1)
    assert found[OURS, "step", STOCK].target == pytest.approx(1 / 1.01)
    assert found[OURS, "step", DDP].target == pytest.approx(1 / 1.02)
    exposed = found[OURS, "exposed communication", STOCK]
    assert (exposed.ratio, exposed.target) == (pytest.approx(4.0), 2.2)
    # The floor is 1 s of computing, 0.04 s that no order hides, and 0.06 s of CPU.
    floor = found[OURS, "recovered", "floor"]
    assert (floor.peer, floor.ratio, floor.target) == (pytest.approx(1100), pytest.approx(1.0), 0.8)
    assert found[OURS_GLOO, "recovered", "floor"].ratio == pytest.approx(2 / 3)
    assert "computing alone 1000 ms a step" in notes_of(piece())[0]


def test_without_a_limit_there_is_no_floor_to_reach_and_ddp_has_more_room() -> None:
    found = rows(piece(link=None, rate=None))
    assert (OURS, "recovered", "floor") not in found
    assert found[OURS, "step", DDP].target == pytest.approx(1 / 1.05)
    assert found[OURS, "exposed communication", STOCK].target is None


def test_where_stock_is_near_the_floor_nothing_is_asked_for() -> None:
    cpu = piece().turns[PLAIN][0]["cpu"]
    turns = {
        kind: [{"seconds": 1.0 if kind == PLAIN else 1.12, "cpu": cpu, "foreign": 0.0}] * 3 for kind in EVERY
    }  # fmt: skip
    assert (OURS, "recovered", "floor") not in rows(piece(turns=turns))


@pytest.mark.parametrize(
    "changed",
    [
        {"states": states(losses=(2.0, 1.0 + 1e-7))},
        {"states": states(digest="abd")},
        {"ends": states(digest="abd")},
        {"states": states(losses=(2.0, float("nan")))},
    ],
)
def test_a_row_is_void_where_ours_has_not_trained_the_same(changed: dict[str, Any]) -> None:
    found = rows(piece(**changed))
    assert not any(row.valid for (ours, _, _), row in found.items() if ours == OURS)
    assert all(row.valid for (ours, _, _), row in found.items() if ours == OURS_GLOO)


def test_no_row_counts_where_the_timed_steps_differ_between_transports() -> None:
    assert not any(row.valid for row in rows_of(piece(ends=states(losses=(2.0, 1.0 + 1e-7)))))
    # Ours have made as many steps as each needed to be tuned: those that all have made are compared.
    one = states()
    one[OURS] = [{**rank, "losses": [2.0, 1.0, 0.5]} for rank in one[OURS]]
    assert all(row.valid for row in rows_of(piece(ends=one)))


def test_no_row_counts_on_another_link_than_the_case_says() -> None:
    cpu = piece().turns[PLAIN][0]["cpu"]
    for seconds, counts in ((0.91, True), (1.09, True), (0.89, False), (1.11, False)):
        found = rows_of(piece(alone={"seconds": seconds, "cpu": cpu, "bytes": 1000}))
        assert all(row.valid is counts for row in found), seconds


@pytest.mark.parametrize("bits", [1.0e6, 123456789.0, 998.9e6, 999e6, 2.5e10])
def test_a_rate_is_one_that_the_hosts_take(bits: float) -> None:
    assert bits_per_second(as_rate(bits)) == pytest.approx(bits, rel=0.001)


def test_no_row_counts_where_others_had_the_cpu() -> None:
    turns = {kind: [{**turn, "foreign": 0.2} for turn in made] for kind, made in piece().turns.items()}
    assert not any(row.valid for row in rows_of(piece(turns=turns)))
    assert "programs of others had 20.0% of a CPU" in notes_of(piece(turns=turns))[0]


def test_without_a_model_what_is_finished_is_printed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.exposed_communication", "--json", "--kept", str(tmp_path / "kept.jsonl")],
        capture_output=True, text=True, check=True, timeout=60, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert json.loads(done.stdout)["rows"] == []


def test_a_finished_piece_is_printed_and_not_measured_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "kept.jsonl"
    Kept(file, fingerprint(FULL)).add(piece().name, document())
    asked: dict[str, Any] = {"quick": False, "json": True, "again": False, "rounds": None, "link": None, "kept": file}
    for model in (None, ["resnet50"]):
        if model is not None:
            asked["link"] = [1.0]  # the others would be measured
        show(argparse.Namespace(**asked, model=model))
        assert len(json.loads(capsys.readouterr().out)["rows"]) == len(rows_of(piece()))


@pytest.mark.parametrize("form", [FULL, QUICK])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_all_are_compared_after_as_many_steps_and_settled_before_the_first_round(case: Case, form: Form) -> None:
    assert form.rounds >= (7 if form is FULL else 3)
    assert COMPARED <= form.compared(case) < TUNED
    assert form.compared(case) - form.rounds * (1 + form.steps(case)) >= SETTLED


def test_contenders_on_two_hosts_train_the_same() -> None:
    """As small as it can be: what is measured says nothing, but every part of it is real."""
    if os.geteuid() != 0 or shutil.which("tc") is None or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two hosts on one machine need root, iproute2 and two CPUs")
    sizes = (("vocabulary", 64), ("context", 16), ("layers", 1), ("heads", 2), ("width", 32), ("tied", True))
    case = replace(case_of("gpt-tied"), batch=2, gpt=sizes, timed=1)
    found = json.loads(json.dumps(measured(case, 1.0, Form(rounds=1, seconds=60), two_cpus())))
    one = Piece.parse(case, found)
    assert set(one.turns) == set(EVERY)
    alone = {kind: [{**turn, "foreign": 0.0} for turn in made] for kind, made in one.turns.items()}
    quiet = replace(one, turns=alone, alone={**one.alone, "seconds": one.median(PLAIN)})
    assert all(row.valid for row in rows_of(quiet)), "whatever else runs on this machine now"
    assert len(one.states[STOCK][0]["losses"]) == len(one.states[OURS][1]["losses"]) == COMPARED
    assert COMPARED + SETTLED + 2 <= one.ends[OURS][0]["steps"] == one.ends[OURS][1]["steps"] <= TUNED + SETTLED + 2
    assert one.rate is not None
    assert one.alone["bytes"] == sum(layer.size for layer in one.layers)
    assert one.cost > 0
