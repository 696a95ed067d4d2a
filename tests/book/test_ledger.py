"""The published figures: their columns, and that unlike ones do not come together unasked."""

import pandas as pd
import pytest

from vlmlab.book.ledger import FIGURES, published
from vlmlab.errors import VlmlabError
from vlmlab.files import data_path


@pytest.mark.parametrize("table", FIGURES)
def test_every_figure_has_a_source_a_metric_and_a_protocol(table):
    rows = published(table, mixed=True)
    for column in ("system", "dataset", "split", "metric", "source", "source_table", "verified", "protocol"):
        assert rows[column].str.strip().ne("").all() and rows[column].notna().all(), column
    assert rows["value"].between(0, 100).all()


def test_every_file_of_figures_is_listed():
    others = {"survey_errors", "open_clip_models"}
    assert {path.stem for path in data_path("reported").glob("*.csv")} == {*FIGURES, *others}


def test_errors_say_how_sure_they_are():
    errors = pd.read_csv(data_path("reported") / "survey_errors.csv", dtype=str)
    assert errors["how_checked"].str.match("sure|likely|suspected").all() and errors["source"].notna().all()


def test_models_of_open_clip():
    models = pd.read_csv(data_path("reported") / "open_clip_models.csv")
    assert models["unit"].eq("fraction").all() and models["ImageNet 1k"].between(0, 1).all()
    assert not models.duplicated(["name", "pretrained"]).any()


def test_protocols_do_not_mix_unasked():
    with pytest.raises(VlmlabError, match=r"mix protocols: cross-dataset .* rows.*mixed=True"):
        published("cross_dataset_and_domain")
    one = published("cross_dataset_and_domain", protocol="domain shift")
    assert set(one["protocol"]) == {"domain shift"}
    assert len(published("cross_dataset_and_domain", mixed=True)) > len(one)
