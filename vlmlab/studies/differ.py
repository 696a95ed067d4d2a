"""The survey's tables 6 to 11 as printed, and what is known of each of their cells.

`survey_errors.csv` names a place by words (row, column); `cells` finds the cells of the printed tables that these words mean. A
suspected error stays a question: it marks a cell and is never put right.
"""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from vlmlab.errors import unknown
from vlmlab.studies.published import all_published, published, survey_errors

TABLES = ("Table 6", "Table 7", "Table 8", "Table 9", "Table 10", "Table 11")
STATUS = {
    "differs": "differs from a source (sure or likely)",
    "protocol": "measured by another protocol than its neighbours",
    "question": "a question: suspected only",
    "equal": "equal to a figure of another source",
    "unchecked": "no other source here",
}
"""What may be known of a printed cell; the first that applies counts."""

PROTOCOL_KINDS = (
    "protocol",
    "mixed metrics",
    "setup",
    "more supervision than other rows",
    "baseline not comparable",
)
WHOLE_ROW = ("setup", "shots")
"""Labels of a row that, wrong, say something of all its cells."""
COLUMNS_10 = {
    "COCO base": [("OV-COCO", "AP_base")],
    "COCO novel": [("OV-COCO", "AP_novel")],
    "COCO AP": [("OV-COCO", "AP")],
    "COCO": [("OV-COCO", "AP_novel"), ("OV-COCO", "AP_base")],
    "LVIS AP": [("OV-LVIS", "AP")],
    "LVIS APr / AP": [("OV-LVIS", "APr"), ("OV-LVIS", "AP")],
    "LVIS": [("OV-LVIS", metric) for metric in ("APr", "APc", "APf", "AP")],
}
"""Table 10 has several metrics of one dataset; the words of survey_errors.csv for them."""
SAME_NAME = {
    "DetCLIP": "DetCLIP", "LaCLIP": "LA-CLIP", "VT-Clip": "VT-Clip", "K-lite": "K-lite", "Baseline ViT-B/16": "Baseline (ViT-B/16)",
    "Baseline ViT-L/14": "Baseline (ViT-L/14)", "Baseline ResNet-50": "Baseline (ResNet-50)",
}  # fmt: skip


def printed(table: str) -> pd.DataFrame:
    """A table of the survey as printed: one row per cell with `row`, `column` and `value`.

    `row` is the system, with its backbone where the table has the system twice; `column` the dataset, with its metric in table 10.
    Raises `VlmlabError` for a table that it is not.
    """
    if table not in TABLES:
        raise unknown("table of the survey", table, TABLES)
    rows = published("survey_tables", mixed=True, source_table=table)
    twice = rows.groupby("system")["backbone"].nunique()
    several = rows["system"].map(twice) > 1
    row = rows["system"].where(~several, rows["system"] + " (" + rows["backbone"] + ")")
    column = rows["dataset"] + (" " + rows["metric"] if table == "Table 10" else "")
    return rows.assign(row=row, column=column)


def cells(table: str) -> pd.DataFrame:
    """`printed` with what is known: `status` (of `STATUS`), `original` (a number where one is known), `sure`, `kind`, `source_of`."""
    found = printed(table)
    status = pd.Series("unchecked", found.index).mask(_elsewhere(found, table), "equal")
    found = found.assign(status=status, original=float("nan"), sure="", kind="", source_of="")
    errors = survey_errors()
    for error in errors[errors["table"] == table.removeprefix("Table ")].itertuples():
        places = _places(found, table, error.row, error.column)
        known = "protocol" if error.kind in PROTOCOL_KINDS else "differs"
        word = "question" if error.sure == "suspected" else known
        order = list(STATUS)
        for place in found.index[places]:
            if order.index(word) > order.index(found.at[place, "status"]):
                continue
            said: dict[str, Any] = {"status": word, "sure": error.sure, "kind": error.kind, "source_of": error.source}
            for name, value in said.items():
                found.at[place, name] = value
            if word == "differs" and re.fullmatch(r"\d+(\.\d+)?", str(error.original)) and places.sum() == 1:
                found.at[place, "original"] = float(error.original)
    return found


def put_right(found: pd.DataFrame) -> pd.DataFrame:
    """`cells` with every value replaced for which a source says another; suspected ones stay as printed."""
    known = found["original"].notna() & (found["status"] == "differs")
    return found.assign(value=found["value"].where(~known, found["original"]))


def ranking(found: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows of a column, best first: `row`, `value`, `place` (equal values share the better one), `status`."""
    rows = found[found["column"] == column].sort_values("value", ascending=False)
    return rows.assign(place=rows["value"].rank(ascending=False, method="min").astype(int))[
        ["row", "value", "place", "status"]
    ]


def _places(found: pd.DataFrame, table: str, row: str, column: str) -> pd.Series:
    """Which cells a line of survey_errors.csv means; none if it is about a label, a text, or a cell that is not printed."""
    names = {SAME_NAME.get(name.strip(), name.strip()) for name in re.split(r", | / ", row)}
    rows = found["row"].isin(names)
    if column.startswith("all") or column in WHOLE_ROW:
        return rows
    if table == "Table 10":
        wanted = {f"{dataset} {metric}" for dataset, metric in COLUMNS_10.get(column, ())}
    else:
        wanted = set(re.split(r", | / ", column)) | ({"LVIS Mini."} if column == "LVIS minival" else set())
        wanted |= {f"PASCAL {name}" for name in wanted & {"VOC", "Context"}}
    return rows & found["column"].isin(wanted)


def _elsewhere(found: pd.DataFrame, table: str) -> pd.Series:
    """Whether another source than the survey has the same system, dataset and value (to 0.1)."""
    others = all_published()
    others = others[~others["source"].str.contains("Survey") & ~others["setting"].str.contains("via the survey")]
    known: dict[tuple[str, str], list[float]] = {}
    for one in others.itertuples():
        known.setdefault((one.system, one.dataset), []).append(one.value)
    names = {"Baseline": ("CLIP", "Zero-shot CLIP"), "MaPLE": ("MaPLe",), "CLIP": ("OpenAI CLIP", "CLIP")}

    def equal(cell) -> bool:
        values = [v for name in names.get(cell.system, (cell.system,)) for v in known.get((name, cell.dataset), ())]
        return any(abs(value - cell.value) < 0.1 for value in values)

    return pd.Series([equal(cell) for cell in found.itertuples()], found.index)
