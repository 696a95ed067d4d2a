"""From a folder of results to a small table: one line per system, dataset, backbone, shots and split, over the seeds.

A store holds thousands of files and belongs to the machine that made it; the table is a few hundred lines of CSV that
can be committed, read by a chapter, and compared with the next one. `data/measured/section6.csv` is such a table.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from vlmlab.datasets.catalog import DATASETS
from vlmlab.errors import VlmlabError
from vlmlab.files import data_path, write_atomically
from vlmlab.learning.metrics import main_metric, of_group
from vlmlab.registry import registry
from vlmlab.studies.splits import SPLITS

SPREAD = ("base", "new", "harmonic_mean", "shift")
"""Metrics beside the main one that a split, or a dense task, may have; each has its standard deviation in the column NAME_sd."""

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
"""`seeds`: how many; `metric`: what `mean` and `sd` are of, on the split (accuracy, map, miou or ap50, in percent); `zero_shot`:
the same metric of zero-shot prediction; `seconds`: of the processor, for adaptation and evaluation, their mean (seconds
by the clock would depend on what else the machine did during the sweep); `peak_mb`: the largest."""

TEXTS = ("system", "dataset", "backbone", "split", "metric")
"""The columns that hold words; the others hold numbers, or nothing."""


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (of the sample, 0 for a single value) over seeds."""
    numbers = np.asarray(values, float)
    return float(numbers.mean()), float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0


def measured(values: Sequence[float], digits: int = 1, sign: bool = False) -> str:
    """The mean of one number per seed with its standard deviation, "71.3 ± 0.4"; of a single value only the value.

    With `sign`, a mean above zero has a plus in front: the numbers are differences.
    """
    mean, deviation = spread(values)
    text = f"{mean:{'+' if sign else ''}.{digits}f}"
    return f"{text} ± {deviation:.{digits}f}" if len(values) > 1 else text


def table(results: Sequence[dict], validation: bool = False) -> list[dict]:
    """The lines of the table, as column -> value, of results as `vlmlab run --json` prints them.

    A dataset that is a folder is called by the folder's name, because its path means nothing on another machine; only two
    folders of one name keep their paths. `validation`: the results are on validation images, and none may be on test images.

    Raises `VlmlabError` if two results differ in nothing but settings, since their mean would mean nothing, and for results on
    other images than `validation` says.
    """
    groups: dict[tuple, dict[int, dict]] = {}
    for result in results:
        if bool(result.get("validation")) != validation:
            raise VlmlabError(
                "the store has results on validation images, from which settings are chosen (vlmlab tune); a table is of test "
                "images, so give each a store of its own"
                if not validation
                else "the store has results on validation and on test images; give each a store of its own"
            )
        names = tuple(result[name] for name in ("system", "dataset", "backbone", "shots", "split"))
        group = groups.setdefault(names, {})
        if result["seed"] in group or not all(_alike(result, other) for other in group.values()):
            system, dataset, backbone, shots, split = names
            raise VlmlabError(
                f"the store has {system} on {dataset} with {backbone}, {shots} shots, seed {result['seed']}, split {split} "
                "with more than one setting; a table has one line for them, so keep each setting in a store of its own, "
                "or leave out all but the defaults (--defaults)"
            )
        group[result["seed"]] = result
    called = _short({dataset for _, dataset, *_ in groups})
    return sorted((_line(names, list(rows.values()), called) for names, rows in groups.items()), key=_order)


def _alike(one: dict, other: dict) -> bool:
    """Whether a mean over seeds may have both: the same settings (those that both know: an older vlmlab has fewer), measured
    on the same and in the same way."""
    here, there = one.get("config", {}), other.get("config", {})
    if any(here[name] != there[name] for name in here.keys() & there.keys()):
        return False
    return all(
        (one.get(name) or None) == (other.get(name) or None)
        for name in ("views", "noise", "test_pictures", "targets", "zero_shot_templates")
    )


def _short(datasets: Collection[str]) -> dict[str, str]:
    """What each dataset is called in a table: itself, or the last part of its path where no other ends so."""
    ends = [Path(dataset).name for dataset in datasets]
    return {dataset: end if ends.count(end) == 1 else dataset for dataset, end in zip(datasets, ends, strict=True)}


def _line(names: tuple, rows: Sequence[dict], called: Mapping[str, str]) -> dict:
    system, dataset, backbone, shots, split = names
    metric = main_metric(rows[0]["metrics"])
    mean, deviation = spread([row["metrics"][metric] for row in rows])
    line = {
        "system": system,
        "dataset": called[dataset],
        "backbone": backbone,
        "shots": shots,
        "split": split,
        "seeds": len(rows),
        "metric": metric,
        "mean": round(mean, 2),
        "sd": round(deviation, 2),
        "zero_shot": _zero_shot([row["zero_shot"].get(metric) for row in rows]),
    }
    for name in SPREAD:
        own = [value for row in rows if (value := of_group(row["metrics"], name)) is not None]
        both = [round(value, 2) for value in spread(own)] if own else ["", ""]
        line |= dict(zip((name, f"{name}_sd"), both, strict=True))
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
    return line["backbone"], *places, line["dataset"], line["system"], list(SPLITS).index(line["split"]), line["shots"]


def write_table(lines: Sequence[dict], path: Path | str) -> Path:
    """Write the lines as CSV; raises `VlmlabError` if there is none, or if the folder cannot be written."""
    if not lines:
        raise VlmlabError("there is no result to make a table of; run `vlmlab sweep` into this store first")
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return write_atomically(path, text.getvalue())


GAIN_IN = {"all": "mean", "base": "new", "shift": "shift"}
"""The metric of each split that is compared with zero-shot prediction: all classes, new classes, other styles."""


def gains(found: pd.DataFrame, split: str = "all") -> pd.DataFrame:
    """The lines of a split with a column `gain`, of every system but zero-shot prediction itself.

    A gain is the accuracy above zero-shot prediction on the same images, in points: of split "base" on the classes that were
    not learned, of "shift" on the other styles; these two have one line per system and dataset, that of the most shots.
    """
    rows = found[(found.metric == "accuracy") & (found.split == split) & found[GAIN_IN[split]].notna()]
    without = rows.zero_shot
    if split != "all":
        rows = rows.sort_values("shots").drop_duplicates(["system", "dataset"], keep="last")
        own = rows[rows.system == "zero_shot"].set_index("dataset")[GAIN_IN[split]]
        without = rows.dataset.map(own)
    rows = rows.assign(gain=rows[GAIN_IN[split]] - without)
    return rows[(rows.system != "zero_shot") & rows.gain.notna()]


def mean_gains(rows: pd.DataFrame) -> tuple[pd.Series, list[str]]:
    """Mean gain by system, and the datasets that it is the mean over: those that most systems were measured on.

    A system that lacks one of them has NaN, so that nobody is compared on easier ones. `rows` are of `gains`, of one number
    of shots.
    """
    met = rows.groupby("dataset").system.nunique()
    shared = list(met.index[met >= 0.75 * met.max()])
    return rows.pivot(index="system", columns="dataset", values="gain")[shared].mean(axis=1, skipna=False), shared


def as_markdown(found: pd.DataFrame) -> str:
    """A table of results, summed up for notebooks/SYSTEMS.md: one line per system that classifies, gains in points.

    There is a column of `mean_gains` per number of shots, for new classes, and for other styles; its title says over how many
    datasets. Parameters and seconds of the processor are those of the most shots on all classes.
    """
    every = gains(found)
    columns = {{0: "no shots", 1: "1 shot"}.get(k, f"{k} shots"): rows for k, rows in every.groupby("shots")}
    columns |= {"new classes": gains(found, "base"), "other styles": gains(found, "shift")}
    summed = {title: mean_gains(rows) for title, rows in columns.items() if len(rows)}
    titles = [f"{title}, {len(on)} dataset{'s' * (len(on) > 1)}" for title, (_, on) in summed.items()]
    lines = [f"| system | {' | '.join(titles)} | parameters | seconds |", "|---" * (len(titles) + 3) + "|"]
    for key in [key for key in registry() if key in set(every.system)]:
        own = every[every.system == key]
        most = own[own.shots == own.shots.max()]
        found_here = [means.get(key, float("nan")) for means, _ in summed.values()]
        cells = [f"{gain:+.1f}" if gain == gain else "" for gain in found_here]
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
            f"{path} is no table of results: it has no column {missing[0]}; make it again by `vlmlab table`"
        )
    return found


if __name__ == "__main__":
    print(as_markdown(read_table()))
