"""DualCoOp learns several labels from few known ones (arXiv 2206.09541, table 1)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import over_seeds, results

claim = "two learned prompts and a look at every region beat zero-shot, and mean average precision rises with the known labels"


def measure() -> Verdict:
    """tableau, 4 pictures per class, one seed; holds if mAP rises with 10, 50 and 90 % known labels and ends above zero-shot."""
    measured, means = {}, []
    for known in (0.1, 0.5, 0.9):
        rows = results("dualcoop", "tableau", 4, seeds=(1,), known=known)
        means.append(over_seeds(rows, "map")[0])
        measured[f"known_{known}"] = means[-1]
    measured["zero_shot"] = over_seeds(rows, "map", "zero_shot")[0]
    return Verdict("dualcoop", claim, measured, means == sorted(means) and means[-1] > measured["zero_shot"])
