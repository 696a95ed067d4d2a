"""Accuracy against a logarithm: what published models say about data, compute and size, and which comparisons are controlled.

    y = a + b log10 x                                       b: points per decade, by least squares over models (x, y)

The error of b comes from drawing the models with replacement. A comparison is controlled where two models share all that is
listed here but one thing; a cloud of models is not.
"""

from __future__ import annotations

import itertools
import re

import numpy as np
import pandas as pd

from vlmlab.errors import VlmlabError
from vlmlab.studies.published import open_clip_models, published

SIZES = {"k": 1e3, "M": 1e6, "B": 1e9, "m": 1e6, "b": 1e9}
EPOCH_OF = {"laion400m": 4.0e8, "laion2b": 2.0e9}
"""Pairs of an epoch, for models whose name counts epochs (e32)."""


def size_of(text: str) -> float:
    """A number of pairs such as "400M" or "1.8B"; raises `VlmlabError` for another text."""
    match = re.fullmatch(r"([\d.]+)\s*([kMB])", text.strip())
    if match is None:
        raise VlmlabError(f"'{text}' is no number of pairs such as 400M")
    return float(match[1]) * SIZES[match[2]]


def pairs_of_table_6() -> pd.DataFrame:
    """ImageNet accuracy over the pretraining pairs that the survey's table 6 prints: system, backbone, pairs, accuracy (%)."""
    rows = published("survey_tables", source_table="Table 6", dataset="ImageNet", mixed=True)
    pairs = rows["setting"].str.extract(r"pre-training data=(\S+)", expand=False).map(size_of)
    return pd.DataFrame(
        {"system": rows["system"], "backbone": rows["backbone"], "pairs": pairs, "accuracy": rows["value"]}
    )


def models() -> pd.DataFrame:
    """open_clip's models: name, data, set (laion2b, ...), distinct (its pairs, for LAION), seen (images), parameters, flops, imagenet, average.

    Accuracies are in percent; what is not known is nan. `seen` is read from the name of the weights (s34b is 34 billion). Weights that were
    tuned further, and those of the last epoch but one, are left out.
    """
    rows = open_clip_models()
    rows = rows[~rows["pretrained"].str.contains("finetuned|_ft|_e31$")]
    return pd.DataFrame(
        {
            "name": rows["name"],
            "data": rows["pretrained"],
            "set": rows["pretrained"].map(_set_of),
            "distinct": rows["pretrained"].map(_set_of).map(EPOCH_OF),
            "seen": rows["pretrained"].map(_seen),
            "parameters": 1e6 * rows["params (M)"],
            "flops": 1e9 * rows["FLOPs (B)"],
            "imagenet": rows["ImageNet 1k"],
            "average": rows["Average perf. on 38 datasets"],
        }
    ).reset_index(drop=True)


def _set_of(weights: str) -> str:
    return re.sub(r"(_s\d+[mb]_b\d+k.*|_e\d+.*|_augreg.*)$", "", weights)


def _seen(weights: str) -> float:
    if match := re.search(r"_s(\d+)([mb])(?:_|$)", weights):
        return float(match[1]) * SIZES[match[2]]
    match = re.search(r"^(\w+?)_e(\d+)$", weights)
    return EPOCH_OF[match[1]] * int(match[2]) if match and match[1] in EPOCH_OF else float("nan")


def line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Least squares of y [n] on log10 of x [n]: intercept and slope (y's unit per decade).

    Raises `VlmlabError` for fewer than two different x.
    """
    x, y = np.log10(np.asarray(x, float)), np.asarray(y, float)
    if len(set(x)) < 2:
        raise VlmlabError("a line needs points at two different places")
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    return float(y.mean() - slope * x.mean()), float(slope)


def bootstrap(x: np.ndarray, y: np.ndarray, seed: int = 0, draws: int = 1000) -> np.ndarray:
    """Lines (intercept, slope) [draws, 2] of the points [n] drawn with replacement; draws with a single x are left out."""
    x, y, generator = np.asarray(x, float), np.asarray(y, float), np.random.default_rng(seed)
    picks = generator.integers(len(x), size=(draws, len(x)))
    return np.array([line(x[pick], y[pick]) for pick in picks if len(set(x[pick])) > 1])


def controlled(rows: pd.DataFrame, varied: str, fixed: tuple[str, ...]) -> list[tuple[int, int]]:
    """Index pairs (less, more of `varied`) of rows that share all of `fixed` and differ in `varied`; none where one is unknown."""
    known = rows[rows[[varied, *fixed]].notna().all(axis=1)]
    pairs = []
    for _, own in known.groupby(list(fixed)):
        for i, j in itertools.combinations(own.index, 2):
            if own.at[i, varied] != own.at[j, varied]:
                pairs.append((i, j) if own.at[i, varied] < own.at[j, varied] else (j, i))
    return pairs
