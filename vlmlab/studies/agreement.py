"""Does the published order of systems carry over to what was measured here? Side by side, and as a rank correlation.

Backbones and datasets differ, so values are never subtracted. Only orders are compared, inside one protocol: Spearman's
correlation r over n systems, the correlation of ranks, with two measures of chance. The interval repeats it on systems drawn
with replacement (bootstrap), p is the share of shuffled orders that agree or disagree at least as much.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from vlmlab.errors import VlmlabError, unknown
from vlmlab.registry import registry
from vlmlab.studies.published import published

NAMES = {"CLIP": "zero_shot", "Zero-shot CLIP": "zero_shot", "Linear probe": "linear_probe"}
"""Published names of systems that are called otherwise here; the others are the registry's, or their re-runs are left out."""
AMBIGUOUS = ("VPT",)
"""Published names that two systems have: here visual prompt tuning and variational prompt tuning. They are left out."""
FEWEST = 4
"""Systems that a rank correlation needs; with three, even a perfect order has p = 1/3."""
FEWEST_DRAWN = 6
"""Systems from which on an interval is given: the same order of four would be perfect in every draw."""
AVERAGES = ("Average", "OOD average")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A published figure and the measured one that answers the same question."""

    protocol: str
    figure: str
    table: str
    dataset: str | None  # the published mean of that name; None: the mean over the datasets that most systems have
    published_split: str
    shots: int
    measured_split: str
    column: str


COMPARISONS = (
    *(
        Comparison(
            "few-shot all classes",
            f"accuracy, {k} shot{'s' * (k > 1)}",
            "transfer_fewshot",
            None,
            "all",
            k,
            "all",
            "mean",
        )
        for k in (1, 4, 16)
    ),
    Comparison("base-to-new", "base", "base_to_new", "Average-11", "base", 16, "base", "base"),
    Comparison("base-to-new", "new", "base_to_new", "Average-11", "new", 16, "base", "new"),
    Comparison("base-to-new", "harmonic mean", "base_to_new", "Average-11", "H", 16, "base", "harmonic_mean"),
    Comparison(
        "domain shift", "other styles", "cross_dataset_and_domain", "OOD average (4)", "all", 16, "shift", "shift"
    ),
)


def key_of(name: str) -> str | None:
    """The registry's key of a published name; None if it is no system of this package, or a re-run under another name."""
    if name in AMBIGUOUS:
        return None
    titles = {system.title.partition(":")[0].partition(" (")[0]: key for key, system in registry().items()}
    return (NAMES | titles).get(name)


def side_by_side(measured: pd.DataFrame, protocol: str | None = None) -> pd.DataFrame:
    """One line per figure, backbone of the published one, and system: `published` beside `measured`, both in percent.

    `published` is a mean over `sources` papers or repositories; `measured` one over `datasets`, on `measured_backbone`: that of
    most lines. `measured` is a table of results (`vlmlab.studies.table.read_table`).

    Raises `VlmlabError` if no protocol is named and there are several, if nothing of it was published, or measured.
    """
    known = list(dict.fromkeys(one.protocol for one in COMPARISONS))
    if protocol is not None and protocol not in known:
        raise unknown("protocol that was measured here", protocol, known)
    tower = measured["backbone"].value_counts().idxmax()
    rows = [line for one in COMPARISONS if protocol in (None, one.protocol) for line in _lines(one, measured, tower)]
    if not rows:
        raise VlmlabError(f"this table has no system with published figures of {protocol or 'any protocol'}")
    found = pd.DataFrame(rows)
    if found["protocol"].nunique() > 1 and protocol is None:
        which = ", ".join(f"'{name}'" for name in found["protocol"].unique())
        raise VlmlabError(f"published figures of {which} follow different protocols; name one of them (--protocol)")
    return found


def agreement(measured: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """One line per protocol, figure and published backbone with at least four systems: the rank correlation of the two orders.

    Columns `spearman`, `low` and `high` (95 percent, bootstrap over systems; nan for fewer than six), `p` (two-sided),
    `systems`, `datasets`, `of` (keys in the published order).
    """
    lines = []
    for protocol in dict.fromkeys(one.protocol for one in COMPARISONS):
        try:
            found = side_by_side(measured, protocol)
        except VlmlabError:  # nothing of this protocol was measured
            continue
        for (figure, backbone), rows in found.groupby(["figure", "backbone"], sort=False):
            if len(rows) < FEWEST:
                continue
            a, b = rows["published"].to_numpy(), rows["measured"].to_numpy()
            low, high = interval(a, b, seed) if len(rows) >= FEWEST_DRAWN else (float("nan"), float("nan"))
            lines.append(
                {
                    "protocol": protocol,
                    "figure": figure,
                    "published on": backbone,
                    "measured on": rows["measured_backbone"].iloc[0],
                    "systems": len(rows),
                    "datasets": int(rows["datasets"].iloc[0]),
                    "spearman": round(spearman(a, b), 2),
                    "low": round(low, 2),
                    "high": round(high, 2),
                    "p": round(chance(a, b, seed), 3),
                    "of": ", ".join(rows.sort_values("published", ascending=False)["system"]),
                }
            )
    return pd.DataFrame(lines)


def _lines(one: Comparison, measured: pd.DataFrame, tower: str) -> list[dict]:
    theirs = published(one.table, protocol=one.protocol, split=one.published_split)
    theirs = theirs.assign(key=theirs["system"].map(key_of))
    theirs = theirs[theirs["key"].notna() & theirs["shots"].isin(["0", str(one.shots)])]
    ours = measured[(measured.backbone == tower) & (measured.split == one.measured_split)]
    ours = ours[ours.shots.isin([0, one.shots]) & ours[one.column].notna() & (ours.metric == "accuracy")]
    lines = []
    for backbone, rows in theirs.groupby("backbone"):
        values, sources = _means(rows, one.dataset)
        shared = [key for key in registry() if key in values and key in set(ours.system)]
        grid = ours[ours.system.isin(shared)].pivot_table(index="system", columns="dataset", values=one.column)
        grid = grid.dropna(axis=1)
        if grid.shape[1]:
            lines += [
                {
                    "protocol": one.protocol,
                    "figure": one.figure,
                    "backbone": backbone,
                    "system": key,
                    "published": round(values[key], 2),
                    "sources": sources[key],
                    "measured": round(float(grid.loc[key].mean()), 2),
                    "measured_backbone": tower,
                    "datasets": grid.shape[1],
                }
                for key in shared
            ]
    return lines


def _means(rows: pd.DataFrame, dataset: str | None) -> tuple[dict[str, float], dict[str, int]]:
    """Key -> published mean, and key -> number of sources; of a printed mean, or over the datasets that most have."""
    if dataset is not None:
        rows = rows[rows["dataset"] == dataset]
        grid = rows.groupby("key")["value"].mean()
    else:
        rows = rows[~rows["dataset"].str.startswith(AVERAGES)]
        table = rows.pivot_table(index="key", columns="dataset", values="value")
        met = table.notna().sum()
        grid = table[met.index[met >= 0.75 * met.max()]].dropna().mean(axis=1)
    sources = rows.groupby("key")["source"].nunique()
    return {str(key): mean for key, mean in grid.items()}, {str(key): n for key, n in sources.items()}


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation of two lists of n numbers, equal ones sharing their mean rank; nan if all are equal."""
    return float(_correlation(rankdata(a), rankdata(b)))


def _correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlation [...] of the rows of x and y [..., n]; nan where all numbers of a row are equal."""
    x, y = (values - values.mean(-1, keepdims=True) for values in (x, y))
    scale = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    return np.where(scale > 0, (x * y).sum(-1) / np.where(scale > 0, scale, 1), np.nan)


def interval(a: np.ndarray, b: np.ndarray, seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """The middle 95 percent of the rank correlation over systems [n] drawn with replacement."""
    picks = np.random.default_rng(seed).integers(len(a), size=(draws, len(a)))
    low, high = np.nanquantile(_correlation(rankdata(a[picks], axis=-1), rankdata(b[picks], axis=-1)), [0.025, 0.975])
    return float(low), float(high)


def chance(a: np.ndarray, b: np.ndarray, seed: int = 0, draws: int = 5000) -> float:
    """The share of orders of b [n] whose rank correlation with a is at least as far from zero; all of them up to n = 7."""
    x, y = rankdata(a), rankdata(b)
    here = abs(_correlation(x, y)) - 1e-9
    if len(x) <= 7:
        return float((abs(_correlation(x, np.array(list(itertools.permutations(y))))) >= here).mean())
    generator = np.random.default_rng(seed)
    orders = np.stack([generator.permutation(y) for _ in range(draws)])
    more = int((abs(_correlation(x, orders)) >= here).sum())
    return (more + 1) / (draws + 1)
