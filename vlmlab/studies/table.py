"""From a folder of results to a small table: one line per system, dataset, backbone, shots and split, over the seeds.

A store holds thousands of files and belongs to the machine that made it; the table is a few hundred lines of CSV that
can be committed, read by a chapter, and compared with the next one. `data/measured/section6.csv` is such a table.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from vlmlab.datasets.catalog import DATASETS
from vlmlab.errors import VlmlabError
from vlmlab.files import data_path, write_atomically
from vlmlab.registry import registry
from vlmlab.studies.experiment import SPLITS

SPREAD = ("base", "new", "harmonic_mean", "shift")
"""Figures beside the main one that a split may have; each has its standard deviation in the column NAME_sd."""

COLUMNS = (
    "system",
    "dataset",
    "backbone",
    "shots",
    "split",
    "seeds",
    "metric",
    "mean",
    "sd",
    "zero_shot",
    *(column for name in SPREAD for column in (name, f"{name}_sd")),
    "trainable_parameters",
    "seconds",
    "peak_mb",
)
"""`seeds`: how many; `metric`: what `mean` and `sd` are of, on the split (accuracy, map or miou, in percent); `zero_shot`:
the same figure of zero-shot prediction; `seconds`: of the processor, for adaptation and evaluation, their mean (seconds
by the clock would depend on what else the machine did during the sweep); `peak_mb`: the largest."""


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (of the sample, 0 for a single value) over seeds."""
    values = np.asarray(values, float)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0


def table(results: Sequence[dict]) -> list[dict]:
    """The lines of the table, as column -> value, of results as `vlmlab run --json` prints them.

    Raises `VlmlabError` if two results differ in nothing but settings: their mean would mean nothing.
    """
    groups: dict[tuple, dict[int, dict]] = {}
    for result in results:
        names = tuple(result[name] for name in ("system", "dataset", "backbone", "shots", "split"))
        if result["seed"] in groups.setdefault(names, {}):
            system, dataset, backbone, shots, split = names
            raise VlmlabError(
                f"the store has {system} on {dataset} with {backbone}, {shots} shots, seed {result['seed']}, split {split} "
                "with more than one setting; a table has one line for them, so keep each setting in a store of its own"
            )
        groups[names][result["seed"]] = result
    return sorted((_line(names, list(rows.values())) for names, rows in groups.items()), key=_order)


def _line(names: tuple, rows: Sequence[dict]) -> dict:
    system, dataset, backbone, shots, split = names
    metric = next(iter(rows[0]["metrics"]))
    mean, deviation = spread([row["metrics"][metric] for row in rows])
    line = {
        "system": system,
        "dataset": dataset,
        "backbone": backbone,
        "shots": shots,
        "split": split,
        "seeds": len(rows),
        "metric": metric,
        "mean": round(mean, 2),
        "sd": round(deviation, 2),
        "zero_shot": _zero_shot([next(iter(row["zero_shot"].values()), None) for row in rows]),
    }
    for name in SPREAD:
        own = [row["metrics"][name] for row in rows if name in row["metrics"]]
        figures = [round(value, 2) for value in spread(own)] if own else ["", ""]
        line |= dict(zip((name, f"{name}_sd"), figures, strict=True))
    return line | {
        "trainable_parameters": rows[0]["trainable_parameters"],
        "seconds": round(spread([row["cpu_seconds"] for row in rows])[0], 2),
        "peak_mb": round(max(row["peak_mb"] for row in rows)),
    }


def _zero_shot(figures: Sequence[float | None]) -> float | str:
    known = [figure for figure in figures if figure is not None]
    return round(spread(known)[0], 2) if known else ""


def _order(line: dict) -> tuple:
    """The survey's order of systems, the catalogue's of datasets; whatever is not known there comes last, by name."""
    systems, datasets = list(registry()), [info.name for info in DATASETS]
    places = (
        names.index(line[key]) if line[key] in names else len(names)
        for key, names in (("dataset", datasets), ("system", systems))
    )
    return line["backbone"], *places, line["dataset"], line["system"], SPLITS.index(line["split"]), line["shots"]


def write_table(lines: Sequence[dict], path: Path | str) -> Path:
    """Write the lines as CSV; raises `VlmlabError` if there is none, or if the folder cannot be written."""
    if not lines:
        raise VlmlabError("there is no result to make a table of; run `vlmlab sweep` into this store first")
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return write_atomically(path, text.getvalue())


def as_markdown(found: pd.DataFrame) -> str:
    """A table of results, summed up for the README: one line per system that classifies, gains in points.

    A gain is the accuracy above zero-shot prediction on the same pictures: those of all classes, by labelled pictures per class;
    those of classes that were not learned (split base, most shots); those in other styles (split shift, most shots). Those
    of one column are means over the same datasets, as many as its title says: the ones that most systems were measured on; a
    system that lacks one of them has no entry there. Learned numbers and seconds of the processor are those of the most
    shots on all classes.
    """
    accuracy = found[found.metric == "accuracy"]
    every = accuracy[(accuracy.split == "all") & (accuracy.system != "zero_shot")]
    every = every.assign(gain=every["mean"] - every.zero_shot)
    gains, titles = [], []

    def column(title: str, rows: pd.DataFrame) -> None:
        met = rows.groupby("dataset").system.nunique()
        shared = met.index[met >= 0.75 * met.max()]
        gains.append(rows.pivot(index="system", columns="dataset", values="gain")[shared].mean(axis=1, skipna=False))
        titles.append(f"{title}, {len(shared)} dataset{'s' * (len(shared) > 1)}")

    for shots, rows in every.groupby("shots"):
        column({0: "no shots", 1: "1 shot"}.get(shots, f"{shots} shots"), rows)
    for split, figure, title in (("base", "new", "new classes"), ("shift", "shift", "other styles")):
        rows = accuracy[(accuracy.split == split) & accuracy[figure].notna()]
        rows = rows.sort_values("shots").drop_duplicates(["system", "dataset"], keep="last")
        without = rows[rows.system == "zero_shot"].set_index("dataset")[figure]
        rows = rows.assign(gain=rows[figure] - rows.dataset.map(without))
        rows = rows[(rows.system != "zero_shot") & rows.gain.notna()]
        if len(rows):
            column(title, rows)
    lines = [f"| system | {' | '.join(titles)} | learned numbers | seconds |", "|---" * (len(titles) + 3) + "|"]
    for key in [key for key in registry() if key in set(every.system)]:
        own = every[every.system == key]
        most = own[own.shots == own.shots.max()]
        cells = [f"{gain[key]:+.1f}" if key in gain and gain[key] == gain[key] else "" for gain in gains]
        if any(cells):
            cells += [f"{most.trainable_parameters.median():,.0f}", f"{most.seconds.mean():.1f}"]
            lines.append(f"| `{key}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def read_table(path: Path | str | None = None) -> pd.DataFrame:
    """A table that `write_table` wrote; that of survey section 6, measured with this package, if no path is given.

    Raises `VlmlabError` if there is no such file, or if it is another kind of table.
    """
    path = Path(path) if path is not None else data_path("measured", "section6.csv")
    try:
        found = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise VlmlabError(
            f"{path} cannot be read as a table of results; make one by `vlmlab table STORE --out {path}`"
        ) from error
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        raise VlmlabError(
            f"{path} is no table of results: it has no column {missing[0]}; make it anew by `vlmlab table`"
        )
    return found


if __name__ == "__main__":
    print(as_markdown(read_table()))
