"""Tables of chapters: what stands in their cells, and what does not break them."""

import pytest

from vlmlab.book import measured, table
from vlmlab.errors import VlmlabError


def test_a_table_is_markdown_and_text():
    shown = table(["system", "better", "note"], [["CoOp", True, None], ["a|b", False, 3]], note="Two *seeds*.")
    bundle = shown._repr_mimebundle_()
    assert bundle["text/markdown"].splitlines() == [
        "| system | better | note |",
        "| --- | --- | --- |",
        "| CoOp | yes |  |",
        "| a\\|b | no | 3 |",
        "",
        "Two *seeds*.",
    ]
    assert bundle["text/plain"].splitlines() == [
        "system | better | note",
        "CoOp | yes | ",
        "a|b | no | 3",
        "Two *seeds*.",
    ]


def test_a_row_that_does_not_fit_the_head_is_told():
    with pytest.raises(VlmlabError, match="row 2 of the table has 1 cells, its head has 2"):
        table(["a", "b"], [[1, 2], [3]])


def test_a_mean_comes_with_its_deviation_where_there_is_one():
    assert measured([70.0, 72.0]) == "71.0 ± 1.4"
    assert measured([70.04]) == "70.0"
    assert measured([0.25, 0.5], digits=2, sign=True) == "+0.38 ± 0.18"
    assert measured([-1.0, -3.0], digits=0, sign=True) == "-2 ± 1"
