"""A linear probe begins from nothing: below zero-shot at one shot, above it at sixteen (arXiv 2103.00020, figure 6)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import gain

claim = "a linear probe is below zero-shot at one shot per class and above it at sixteen"


def measure() -> Verdict:
    """objects-v2, three seeds; holds if both signs agree on the means."""
    one, gain_one = gain("linear_probe", "objects-v2", shots=1)
    many, gain_many = gain("linear_probe", "objects-v2", shots=16)
    measured = {"one_shot": one, "one_shot_gain": gain_one, "sixteen_shots": many, "sixteen_shots_gain": gain_many}
    return Verdict("linear_probe", claim, measured, gain_one < 0 < gain_many)
