"""What a benchmark must show before an order of systems on it means something.

Three counts stand beside the rank correlations of `studies.agreement`:

- datasets that *discriminate*: zero-shot prediction leaves room on both sides, between 25 and 85 percent, and 16 labelled
  images per class move the median system by 3 points or more. On others, most columns show zeros and the order is luck. A dataset is
  chosen by this on validation images, never on test images;
- claims of `vlmlab verify` that hold, of those that were measured;
- systems on classes that they did not learn, beside zero-shot prediction: the papers have CoOp below it, the four that came after
  within about two points of it, or above.
"""

from __future__ import annotations

import csv
from collections import Counter

import pandas as pd

from vlmlab.errors import VlmlabError
from vlmlab.files import data_path
from vlmlab.registry import registry
from vlmlab.studies.verify import VERDICTS, claims

ROOM = (25.0, 85.0)
"""Percent: zero-shot prediction in between leaves room above and is no guess."""
MOVES = 3.0
"""Points above zero-shot prediction that the median system must gain."""
SHOTS = 16
CHOSEN = "discriminating.csv"
"""The file of data/measured with `discriminating` of the composed datasets on validation images."""
COLUMNS = ("dataset", "backbone", "zero_shot", "systems", "median_gain", "seeds", "discriminates")
"""What `discriminating` says of a dataset."""
CARRIED = ("maple", "promptsrc", "kgcoop", "cocoop", "coop")
"""Systems whose papers argue about new classes, those that came after CoOp first."""


def discriminating(measured: pd.DataFrame) -> pd.DataFrame:
    """One line per dataset and backbone with zero-shot accuracy and gains at 16 shots on all classes, as the table has them.

    Args:
        measured: a table of results (`studies.table.table`, or `read_table`); systems that take shots count.

    Returns the `COLUMNS`: `zero_shot` in percent, `systems` the keys with a gain, `median_gain` in points, `seeds` the fewest of
    these systems. No lines if nothing was measured with 16 shots.
    """
    learning = [key for key, info in registry().items() if info.takes_shots]
    rows = measured[(measured.split == "all") & (measured.metric == "accuracy") & (measured.shots == SHOTS)]
    rows = rows[rows.system.isin(learning)]
    lines = []
    for (dataset, backbone), own in rows.groupby(["dataset", "backbone"], sort=False):
        zero, gain = (
            float(own.zero_shot.astype(float).median()),
            float((own["mean"] - own.zero_shot.astype(float)).median()),
        )
        lines.append(
            {
                "dataset": dataset,
                "backbone": backbone,
                "zero_shot": round(zero, 1),
                "systems": ", ".join(own.system),
                "median_gain": round(gain, 1),
                "seeds": int(own.seeds.min()),
                "discriminates": ROOM[0] <= zero <= ROOM[1] and gain >= MOVES,
            }
        )
    return pd.DataFrame(lines, columns=list(COLUMNS))


def on_new_classes(measured: pd.DataFrame) -> pd.DataFrame:
    """`CARRIED` on the classes that they did not learn, with the most shots: `new` and its difference to zero-shot prediction.

    Means over the datasets that all of these systems and zero-shot prediction have, whose names are `datasets`; a system that was
    not measured with any other has no line. Empty if nothing was measured on new classes, or zero-shot prediction was not.
    """
    rows = measured[(measured.split == "base") & (measured.metric == "accuracy") & measured.new.notna()]
    rows = rows[rows.system.isin((*CARRIED, "zero_shot"))].sort_values("shots")
    rows = rows.drop_duplicates(["system", "dataset", "backbone"], keep="last")
    grid = rows.pivot_table(index="system", columns=["backbone", "dataset"], values="new").dropna(axis=1)
    if "zero_shot" not in grid.index or grid.empty:
        return pd.DataFrame()
    means = grid.mean(axis=1)
    lines = [
        {
            "system": key,
            "new": round(float(means[key]), 2),
            "above_zero_shot": round(float(means[key] - means["zero_shot"]), 2),
            "datasets": ", ".join(str(column[1]) for column in grid.columns),
        }
        for key in ("zero_shot", *CARRIED)
        if key in means
    ]
    return pd.DataFrame(lines)


def verdicts() -> dict[str, int]:
    """How many claims there are, and the latest outcomes of data/measured: "claims", "measured", "holds", "inconclusive",
    "not reproduced". A line about a claim that reads otherwise now is of another claim, and not counted."""
    known = claims()
    path = data_path("measured", VERDICTS)
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if known.get(row["system"]) == row["claim"]]
    outcomes = Counter(row["outcome"] for row in rows)
    return {"claims": len(known), "measured": len(rows)} | {
        outcome: outcomes[outcome] for outcome in ("holds", "inconclusive", "not reproduced")
    }


def chosen() -> pd.DataFrame:
    """`discriminating` of the composed datasets on validation images, as it was measured with this package.

    Raises `VlmlabError` if the file is not there.
    """
    path = data_path("measured", CHOSEN)
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise VlmlabError(
            f"{path} cannot be read; make it by `vlmlab table STORE --discriminating --out {path}`"
        ) from error
