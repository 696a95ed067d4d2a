"""Tip-Adapter gains without training, and more with more shots (arXiv 2207.09519, figure 4)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import over_seeds, results

claim = "a cache of the shots, without any training, lifts zero-shot accuracy, and the more so the more shots it holds"


def measure() -> Verdict:
    """digits at 1, 4 and 16 shots, three seeds; holds if the curve rises and ends above zero-shot."""
    measured: dict[str, float] = {}
    means = []
    for shots in (1, 4, 16):
        rows = results("tip_adapter", "digits", shots)
        mean, deviation = over_seeds(rows)
        measured |= {f"shots_{shots}": mean, f"shots_{shots}_sd": deviation}
        means.append(mean)
    measured["zero_shot"] = over_seeds(rows, of="zero_shot")[0]
    return Verdict("tip_adapter", claim, measured, means == sorted(means) and means[-1] > measured["zero_shot"])
