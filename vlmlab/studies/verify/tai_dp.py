"""TaI-DP learns from sentences what it uses on images (arXiv 2211.12739)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import SEEDS, over_seeds, results

claim = "prompts learned on captions alone rank the classes of images better than zero-shot prompts do"


def measure() -> Verdict:
    """tableau, captions of scenes of three seeds; holds if mAP is above zero-shot by more than two deviations over the seeds."""
    rows = results("tai_dp", "tableau", 0, seeds=SEEDS)
    (own, deviation), zero = over_seeds(rows, "map"), over_seeds(rows, "map", "zero_shot")[0]
    return Verdict("tai_dp", claim, {"map": own, "map_sd": deviation, "zero_shot": zero}, own - zero > 2 * deviation)
