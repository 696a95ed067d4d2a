"""The panels of section 8: unlike figures are refused, questions are never put right, and a cloud is no controlled comparison."""

import pytest

from vlmlab.errors import VlmlabError
from vlmlab.widgets import FiguresBoard, ScaleBoard, TableDiffer


@pytest.fixture(autouse=True)
def strict(monkeypatch):
    monkeypatch.setenv("VLMLAB_STRICT", "1")


def test_unlike_figures_are_not_drawn_together_unless_asked():
    panel = FiguresBoard(dataset="EuroSAT", backbone="ViT-B/16", shots="16")
    assert panel.refused and "protocol" in panel.differs and "Not drawn" in panel.static().alt
    panel.same.value = True
    assert not panel.refused and "They differ in protocol" in panel.static().alt
    panel.same.value = False
    panel.filters["protocol"].value = "few-shot all classes"
    assert not panel.refused and panel.static().spots
    panel.close()


def test_the_table_below_the_figures_has_pages():
    panel = FiguresBoard(protocol="few-shot all classes")
    assert panel.page.max > 50
    first = panel.table.value
    panel.page.value = panel.page.max
    assert panel.table.value != first and f"page {panel.page.max} of" in panel.table.value
    panel.close()


def test_filters_that_leave_nothing_say_so():
    panel = FiguresBoard(protocol="OV-COCO", shots="16")
    assert panel.facts()["figures"] == 0 and "No published figure fits" in panel.static().alt
    panel.close()
    with pytest.raises(VlmlabError, match="did you mean EuroSAT"):
        FiguresBoard(dataset="EuroSat")
    with pytest.raises(VlmlabError, match="unknown filter"):
        FiguresBoard(seed="1")


def test_a_table_put_right_and_split_by_protocol():
    panel = TableDiffer("Table 10", view="ranking", column="OV-COCO AP")
    before, after = panel.rankings()
    assert before["row"].iloc[0] == "OV-DETR" and after["row"].iloc[0] == "VL-PLM" and len(after) == len(before)
    panel.split.value = True
    assert panel.facts()["left out"] == 2 and not {"DetPro", "OWL-ViT"} & set(panel.rankings()[1]["row"])
    panel.right.value = panel.split.value = False
    assert panel.facts()["moved"] == 0
    panel.which.value = "Table 9"
    assert "EuroSAT" in panel.column.options and panel.static().alt.startswith("ranking of")
    panel.close()
    with pytest.raises(VlmlabError, match="unknown table of the survey"):
        TableDiffer("Table 5")


def test_the_cloud_has_a_line_and_pairs_have_none():
    panel = ScaleBoard()
    slope = panel.facts()["slope"]
    panel.without.value = ("AltCLIP", "UniCL")
    assert panel.facts()["slope"] > slope + 2, "two rows of another kind flatten the line"
    panel.x.value, panel.alone.value = "distinct", True
    assert panel.facts()["pairs"] == 4 and "better in 4" in panel.static().alt
    with pytest.raises(VlmlabError, match="no two rows that differ in pairs alone"):
        panel.x.value = "pairs"
    panel.close()
