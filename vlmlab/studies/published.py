"""Published figures: the rows of `data/reported/`, and a refusal to put together what was measured in unlike ways.

One row is one figure with its source. Its column `protocol` says how it was measured; `unit` says that it is in percent.
"""

from __future__ import annotations

import pandas as pd

from vlmlab.errors import VlmlabError, unknown
from vlmlab.files import data_path

FIGURES = (
    "base_to_new",
    "cross_dataset_and_domain",
    "detection",
    "pretraining",
    "segmentation",
    "survey_tables",
    "transfer_fewshot",
    "unsupervised",
    "weakly_supervised",
)
"""The files of `data/reported/` that hold one published figure per row, all with the same columns."""

MIXED = "survey table (mixed)"
"""The protocol of the survey's tables 9 to 11, whose columns hold figures of several protocols."""

PROTOCOLS = {
    "zero-shot": "no labelled example of the dataset; the classes are given by their names",
    "few-shot all classes": "a few labelled images of every class; tested on all classes",
    "base-to-new": "labelled images of half of the classes; accuracy on each half, and their harmonic mean",
    "cross-dataset": "learned on one dataset, tested on others with other classes",
    "domain shift": "learned on ImageNet, tested on ImageNet's classes in other images",
    "test-time": "adapted to each test image, or to their stream, without labels",
    "unsupervised": "learned without labels: unlabelled images, class names or descriptions",
    "linear probe": "a linear classifier on frozen features, all training labels",
    "supervised": "all training labels, every weight may change",
    "OV-COCO": "boxes of 48 base classes; AP50 over all 65 classes, which compete with each other",
    "OV-COCO (novel alone)": "the same, but only the 17 new classes compete",
    "OV-COCO mask": "OV-COCO, AP50 of masks instead of boxes",
    "OV-LVIS box": "rare classes of LVIS are new; AP of boxes",
    "OV-LVIS mask": "rare classes of LVIS are new; AP of masks",
    "OV-LVIS (as printed)": "OV-LVIS, where the source does not say whether of boxes or of masks",
    "zero-shot segmentation (seen/unseen)": "masks of the seen classes; IoU on seen and unseen ones",
    "weakly supervised": "segmentation learned from image labels",
    MIXED: "rows of the survey's tables 9 to 11: several protocols in one column",
}
"""Every protocol of the published figures, and what it means."""


def task_of(metric: str) -> str:
    """What a metric judges: "detection" (AP...), "segmentation" (IoU, pixel accuracy) or "classification"."""
    if "AP" in metric:
        return "detection"
    return "segmentation" if "IoU" in metric or metric == "pixel accuracy" else "classification"


def published(table: str, mixed: bool = False, **wanted: str | int) -> pd.DataFrame:
    """The published figures of a file of `data/reported/` (without .csv) whose columns equal `wanted`.

    Rows of different protocols or tasks are not comparable: they come together only with `mixed=True`. So do rows of
    several systems out of the survey's tables 9 to 11.

    Raises `VlmlabError` for an unknown table or column, if no figure fits, and if the figures are unlike; it says in what.
    """
    if table not in FIGURES:
        raise unknown("table of published figures", table, FIGURES)
    rows = pd.read_csv(data_path("reported", f"{table}.csv"), dtype=str)
    for column, value in wanted.items():
        if column not in rows:
            raise unknown("column", column, rows.columns)
        rows = rows[rows[column] == str(value)]
    if rows.empty:
        raise VlmlabError(f"no published figure in {table} has {wanted}; look at the file in data/reported")
    if not mixed and (why := unlike(rows)):
        raise VlmlabError(f"these figures of {table} {why}; ask for less, or for mixed=True")
    return rows.assign(value=rows["value"].astype(float)).reset_index(drop=True)


def unlike(rows: pd.DataFrame) -> str:
    """Why these published figures should not be compared, in words; empty if nothing speaks against it."""
    counts = rows["protocol"].value_counts()
    if len(counts) > 1:
        return "mix protocols: " + ", ".join(f"{name} ({count} rows)" for name, count in counts.items())
    if counts.index[0] == MIXED and rows["system"].nunique() > 1:
        return "are of a survey table whose rows follow several protocols"
    counts = rows["metric"].map(task_of).value_counts()
    if len(counts) > 1:
        return "mix tasks: " + ", ".join(f"{name} ({count} rows)" for name, count in counts.items())
    return ""


def all_published() -> pd.DataFrame:
    """Every published figure, with the name of its file in the column `file`; `value` is a number, in percent."""
    files = [pd.read_csv(data_path("reported", f"{name}.csv"), dtype=str).assign(file=name) for name in FIGURES]
    rows = pd.concat(files, ignore_index=True)
    return rows.assign(value=rows["value"].astype(float))


def survey_errors() -> pd.DataFrame:
    """Where the survey's tables 6 to 11 differ, or seem to, from a source; one line per place.

    The column `sure` has "sure", "likely" or "suspected"; what is suspected is a question and no error.
    """
    rows = pd.read_csv(data_path("reported", "survey_errors.csv"), dtype=str)
    return rows.assign(sure=rows["how_checked"].str.extract(r"^(sure|likely|suspected)", expand=False))


def open_clip_models() -> pd.DataFrame:
    """Zero-shot results of 121 open_clip models, one per row; accuracies in percent, `params (M)` and `FLOPs (B)` as named."""
    rows = pd.read_csv(data_path("reported", "open_clip_models.csv"))
    scores = list(rows.columns[rows.columns.get_loc("Average perf. on 38 datasets") : rows.columns.get_loc("source")])
    return rows.assign(**{name: 100 * rows[name] for name in scores}, unit="percent")
