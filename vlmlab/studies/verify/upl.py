"""UPL gains without a single label (arXiv 2204.03649)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import gain

claim = "prompts learned from pseudo-labels alone are better than the zero-shot prediction that made these labels"
DATASETS = ("vehicles", "textures", "aerial", "actions")


def measure() -> Verdict:
    """Four datasets, two seeds each; holds if the mean gain over zero-shot is above zero."""
    measured: dict = {}
    for name in DATASETS:
        measured[name], measured[f"{name}_gain"] = gain("upl", name, shots=0, seeds=(1, 2))
    mean = round(sum(measured[f"{name}_gain"] for name in DATASETS) / len(DATASETS), 2)
    return Verdict("upl", claim, measured | {"mean_gain": mean}, mean > 0)
