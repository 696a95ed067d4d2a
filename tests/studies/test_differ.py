"""The survey's tables cell by cell, and slopes over scale, by hand."""

import numpy as np
import pandas as pd
import pytest

from vlmlab.errors import VlmlabError
from vlmlab.studies.differ import STATUS, TABLES, cells, printed, put_right, ranking
from vlmlab.studies.scale import bootstrap, controlled, line, models, pairs_of_table_6, size_of


@pytest.mark.parametrize("table", TABLES)
def test_every_cell_has_a_status_and_only_sources_put_right(table):
    found = cells(table)
    assert len(found) == len(printed(table)) and set(found["status"]) <= set(STATUS)
    assert not found.duplicated(["row", "column"]).any()
    changed = found[put_right(found)["value"] != found["value"]]
    assert set(changed["status"]) <= {"differs"} and set(changed["sure"]) <= {"sure", "likely"}


def test_cells_that_are_known():
    found = cells("Table 9").set_index(["row", "column"])
    assert found.loc[("CALIP", "OxfordPets"), ["status", "original"]].tolist() == ["differs", 86.21]
    assert found.loc[("CoOp", "EuroSAT"), "status"] == "protocol"
    assert found.loc[("SuS-X", "UCF101"), "status"] == "question" and np.isnan(
        found.loc[("SuS-X", "UCF101"), "original"]
    )
    assert found.loc[("TPT", "ImageNet"), "status"] == "equal"


def test_ranking_gives_equal_values_the_better_place():
    rows = pd.DataFrame({"row": list("abc"), "column": "x", "value": [2.0, 3.0, 2.0], "status": "equal"})
    assert ranking(rows, "x")[["row", "place"]].values.tolist() == [["b", 1], ["a", 2], ["c", 2]]


def test_line_and_bootstrap():
    x = np.array([1e6, 1e7, 1e8, 1e9])
    assert line(x, 5 + 7 * np.log10(x)) == pytest.approx((5, 7))
    np.testing.assert_allclose(bootstrap(x, 5 + 7 * np.log10(x), draws=50), [[5, 7]] * len(bootstrap(x, x, draws=50)))
    with pytest.raises(VlmlabError, match="two different places"):
        line([1e6, 1e6], [1, 2])


def test_numbers_of_pairs():
    assert size_of("400M") == 4e8 and size_of("1.8B") == 1.8e9 and size_of("118k") == 118e3
    with pytest.raises(VlmlabError):
        size_of("many")
    rows = pairs_of_table_6().set_index("system")
    assert len(rows) == 23 and rows.loc["CLIP", "pairs"] == 4e8
    assert round(line(rows["pairs"], rows["accuracy"])[1], 1) == 11.2


def test_images_seen_are_read_from_the_name():
    found = models().set_index(["name", "data"])
    assert found.loc[("ViT-B-16", "laion2b_s34b_b88k"), "seen"] == 34e9
    assert found.loc[("ViT-B-32", "datacomp_m_s128m_b4k"), "seen"] == 128e6
    assert found.loc[("ViT-B-16", "laion400m_e32"), "seen"] == 32 * 4e8
    assert np.isnan(found.loc[("ViT-B-16", "openai"), "seen"])


def test_controlled_pairs():
    rows = pd.DataFrame({"arch": list("aab"), "data": list("xxx"), "seen": [3.0, 1.0, 9.0]})
    assert controlled(rows, "seen", ("arch", "data")) == [(1, 0)]
