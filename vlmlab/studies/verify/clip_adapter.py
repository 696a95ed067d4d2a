"""CLIP-Adapter: the further a dataset is from pretraining, the more of the adapted feature helps (arXiv 2110.04544, figure 5)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import gain

claim = (
    "the best share of the adapted feature is larger on handwriting, which is far from pretraining, than on vehicles"
)
RATIOS = (0.1, 0.3, 0.5, 0.7, 0.9)


def measure() -> Verdict:
    """digits and vehicles, 8 shots, five ratios, three seeds; holds if the ratio with the best mean is larger on digits."""
    measured: dict = {}
    best = {}
    for name in ("digits", "vehicles"):
        scores = {ratio: gain("clip_adapter", name, shots=8, ratio=ratio)[0] for ratio in RATIOS}
        measured |= {f"{name}_at_{ratio}": score for ratio, score in scores.items()}
        best[name] = measured[f"{name}_best_ratio"] = max(scores, key=scores.get)
    return Verdict("clip_adapter", claim, measured, best["digits"] > best["vehicles"])
