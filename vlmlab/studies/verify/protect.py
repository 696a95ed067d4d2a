"""ProTeCt's answers at the levels of a tree agree where CoOp's do not (arXiv 2306.02240)."""

from __future__ import annotations

from vlmlab.registry import load_system
from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import over_seeds, results

claim = "at about CoOp's accuracy among the leaves, ProTeCt is more consistent along the tree and more accurate on cuts of it"
DATASETS, SHOTS, SIMILAR = ("vehicles", "scenes"), 16, 3.0  # points of leaf accuracy


def measure() -> Verdict:
    """Two datasets, 16 shots, two seeds; means over both; CoOp with as many epochs. Holds if leaf accuracy is within three
    points below CoOp's (or above it) and both hierarchical measures are higher."""
    found = {}
    passes = load_system("protect").embedded["epochs"]
    for system, config in (("coop", {"epochs": passes}), ("protect", {})):
        runs = [results(system, name, SHOTS, "hierarchy", (1, 2), **config) for name in DATASETS]
        for metric in ("accuracy", "hca", "mta"):
            found[f"{system}_{metric}"] = round(sum(over_seeds(rows, metric)[0] for rows in runs) / len(runs), 2)
            zero = sum(over_seeds(rows, metric, "zero_shot")[0] for rows in runs) / len(runs)
            found[f"zero_shot_{metric}"] = round(zero, 2)
    alike = found["protect_accuracy"] > found["coop_accuracy"] - SIMILAR
    better = all(found[f"protect_{m}"] > found[f"coop_{m}"] for m in ("hca", "mta"))
    return Verdict("protect", claim, found, alike and better)
