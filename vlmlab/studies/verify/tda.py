"""TDA: images that were predicted with confidence help those that follow, where the style is new (arXiv 2403.18293)."""

from __future__ import annotations

from typing import Any

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import over_seeds, results

claim = "two caches of the test stream gain over zero-shot prediction on sets in a new style, whatever the order of the images"
SHIFTED = ("objects-sketch", "objects-v2", "objects-silhouette", "objects-mosaic")


def measure() -> Verdict:
    """The mean gain over the shifted versions of objects; a seed is an order of the stream. Holds if it is above zero for
    every seed."""
    measured: dict[str, Any] = {}
    gains = []
    for name in SHIFTED:
        rows = results("tda", name, 0)
        gains.append([row["metrics"]["accuracy"] - row["zero_shot"]["accuracy"] for row in rows])
        measured[f"{name}_gain"] = round(over_seeds(rows)[0] - over_seeds(rows, of="zero_shot")[0], 2)
    per_order = [round(sum(gain[s] for gain in gains) / len(gains), 2) for s in range(len(gains[0]))]
    measured["mean_gain_by_order"] = per_order
    return Verdict("tda", claim, measured, min(per_order) > 0)
