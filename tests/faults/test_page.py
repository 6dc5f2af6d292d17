"""The page of figures: only what is between its marks is written anew, and it has them."""

from __future__ import annotations

import pytest

from faults.page import BEGIN, END, PAGE, with_figures
from faults.table import Row


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
