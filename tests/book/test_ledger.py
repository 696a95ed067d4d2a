"""The published figures: their columns, and that unlike ones do not come together unasked."""

import pandas as pd
import pytest

from vlmlab.errors import VlmlabError
from vlmlab.files import data_path
from vlmlab.studies.published import FIGURES, PROTOCOLS, all_published, published, survey_errors, task_of


@pytest.mark.parametrize("table", FIGURES)
def test_every_figure_has_a_source_a_metric_and_a_protocol(table):
    rows = published(table, mixed=True)
    for column in ("system", "dataset", "split", "metric", "source", "source_table", "verified", "protocol"):
        assert rows[column].str.strip().ne("").all() and rows[column].notna().all(), column
    assert rows["value"].between(0, 100).all() and set(rows["unit"]) == {"percent"}
    assert set(rows["protocol"]) <= set(PROTOCOLS)


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


def test_chapters_take_it_from_the_book():
    from vlmlab import book

    assert book.published is published


def test_every_protocol_is_explained_and_occurs():
    assert set(all_published()["protocol"]) == set(PROTOCOLS)


def test_new_classes_alone_are_another_protocol():
    alone = published("detection", protocol="OV-COCO (novel alone)")
    assert alone[["system", "split", "value"]].values.tolist() == [["HierKD", "novel", 27.3]]
    with pytest.raises(VlmlabError, match="mix protocols: OV-COCO"):
        published("detection", system="HierKD", dataset="OV-COCO")


def test_a_survey_table_is_mixed_in_itself():
    assert len(published("survey_tables", system="CoOp", dataset="EuroSAT")) == 1
    with pytest.raises(VlmlabError, match="follow several protocols"):
        published("survey_tables", dataset="EuroSAT", source_table="Table 9")


def test_tasks_do_not_mix_unasked():
    with pytest.raises(VlmlabError, match="mix tasks: classification"):
        published("pretraining", protocol="zero-shot")
    assert {task_of(metric) for metric in published("segmentation", mixed=True)["metric"]} == {"segmentation"}


def test_parts_and_whole_find_four_rows_of_table_10():
    """AP50 of OV-COCO is the mean over 48 base and 17 new classes; four complete rows of the survey break it."""
    rows = published("survey_tables", mixed=True, source_table="Table 10", dataset="OV-COCO")
    rows = rows.pivot(index="system", columns="metric", values="value").dropna()
    miss = (48 * rows["AP_base"] + 17 * rows["AP_novel"]) / 65 - rows["AP"]
    assert len(rows) == 12 and set(miss.index[miss.abs() > 0.15]) == {"RKD", "CondHead", "OV-DETR", "Detic"}


def test_how_sure_the_errors_are():
    assert survey_errors()["sure"].value_counts().to_dict() == {"sure": 45, "likely": 15, "suspected": 14}
