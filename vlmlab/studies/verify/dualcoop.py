"""DualCoOp learns several labels from few known ones (arXiv 2206.09541, table 1)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import over_seeds, results

claim = "two learned prompts and a look at every region beat zero-shot, and mean average precision rises with the known labels"
cause = (
    "its two prompts begin with the same words, so that their difference begins as no opinion and learning must first"
    " win back what zero-shot prediction knows (chapter 6.1c)"
)


def measure() -> Verdict:
    """tableau, two seeds; holds if mAP rises with 10, 50 and 90 % known labels and ends above zero-shot by more
    than its deviation over the seeds.

    The setup is supervised, so the training set is large: 16 images per class, where few-shot checks have four.
    """
    measured: dict[str, float] = {}
    means = []
    for known in (0.1, 0.5, 0.9):
        rows = results("dualcoop", "tableau", 16, seeds=(1, 2), known=known)
        mean, deviation = over_seeds(rows, "map")
        means.append(mean)
        measured |= {f"known_{known}": mean, f"known_{known}_sd": deviation}
    measured["zero_shot"] = over_seeds(rows, "map", "zero_shot")[0]
    return Verdict("dualcoop", claim, measured, means == sorted(means) and mean - deviation > measured["zero_shot"])
