"""The page of figures: only what is between its marks is written anew, and it has them."""

from __future__ import annotations

import pytest

from faults.page import BEGIN, END, MATRIX_BEGIN, PAGE, with_figures, with_matrix
from faults.table import Row
from faults.worker.evidence import Row as Fault


def test_figures_go_between_the_marks_and_nothing_else_changes() -> None:
    old = f"# Title\n{BEGIN}\nold\n{END}\nafter\n"
    found = with_figures(old, {"1 submission": [Row("trainings", "1 each (1)", "1")]})
    assert "old" not in found
    assert "| trainings | 1 each (1) | 1 |\n" in found
    assert (found.partition(BEGIN)[0], found.partition(END)[2]) == ("# Title\n", "\nafter\n")
    assert with_figures(found, {"1 submission": [Row("trainings", "1 each (1)", "1")]}) == found


def test_the_page_has_its_marks() -> None:
    assert with_figures(PAGE.read_text(), {"x": [Row("a", "b")]}).count(BEGIN) == 1


def test_a_page_without_marks_is_not_written() -> None:
    with pytest.raises(ValueError, match="has no <!-- figures"):
        with_figures("# Title\n", {})


def fault(name: str, outcome: str) -> Fault:
    """A row of the matrix."""
    return Fault(name, f"the {name}", outcome, "2 of 2 equal", "step 2 at the fault", "complete", "nothing", ())


def test_rows_of_the_matrix_take_the_place_of_the_same_faults_alone_and_stand_in_its_order() -> None:
    old = f"# Title\n{BEGIN}\n{END}\n{MATRIX_BEGIN}\nold\n| the gone | x |\n{END}\nafter\n"
    order = ["the rank", "the disk"]
    first = with_matrix(old, [fault("disk", "COMPLETED")], order)
    both = with_matrix(first, [fault("rank", "FAILED")], order)
    rows = [line for line in both.splitlines() if line.startswith("| the ")]
    assert [row.split(" | ")[1] for row in rows] == ["FAILED", "COMPLETED"]
    assert both.partition(MATRIX_BEGIN)[0] == old.partition(MATRIX_BEGIN)[0]
    assert both.endswith(f"{END}\nafter\n")
    assert with_matrix(both, [fault("rank", "CANCELLED")], order).count("| the rank |") == 1


def test_a_page_without_marks_takes_no_matrix() -> None:
    with pytest.raises(ValueError, match="has no <!-- rows"):
        with_matrix("# Title\n", [], [])
