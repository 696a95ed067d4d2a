"""MTA: the densest place among the views, without tuning anything (arXiv 2405.02266)."""

from __future__ import annotations

from typing import Any

from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import run_experiment
from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import BACKBONE, over_seeds

claim = "the densest place among the views of an image is right more often than the plain image alone, and no prompt is tuned"
DATASETS = ("objects-v2", "objects-sketch", "aerial")
SEEDS = (1, 2)
IMAGES = 200


def measure() -> Verdict:
    """The mean gain over zero-shot prediction with the same sentences; holds if it is above zero for every seed."""
    return gain_of_views("mta", claim)


def gain_of_views(system: str, claim: str) -> Verdict:
    """The gain of a system that looks at many views, on 200 test images of three sets; a seed draws the views."""
    measured: dict[str, Any] = {}
    gains = []
    for name in DATASETS:
        rows = [run_experiment(Experiment(system, name, BACKBONE, 0, s, test_pictures=IMAGES)) for s in SEEDS]
        gains.append([row["metrics"]["accuracy"] - row["zero_shot"]["accuracy"] for row in rows])
        measured[f"{name}_gain"] = round(over_seeds(rows)[0] - over_seeds(rows, of="zero_shot")[0], 2)
    per_seed = [round(sum(gain[s] for gain in gains) / len(gains), 2) for s in range(len(SEEDS))]
    measured["mean_gain_by_seed"] = per_seed
    return Verdict(system, claim, measured, min(per_seed) > 0)
