"""Tip-Adapter-F: twenty epochs on the keys add to what the cache gives untouched (arXiv 2207.09519, table 1)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import over_seeds, results

claim = "learning the keys of the cache adds to the training-free cache at 16 shots"


def measure() -> Verdict:
    """digits, 16 shots, three seeds; holds if the mean is higher."""
    tuned, free = (results(system, "digits", 16) for system in ("tip_adapter_f", "tip_adapter"))
    (a, a_sd), (b, b_sd) = over_seeds(tuned), over_seeds(free)
    measured = {"tuned": a, "tuned_sd": a_sd, "training_free": b, "training_free_sd": b_sd}
    return Verdict("tip_adapter_f", claim, measured, a > b)
