"""VP gains where images are far from pretraining, and little elsewhere (arXiv 2203.17274, figure 3)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import gain

claim = "a frame of pixels gains more on handwriting, far from pretraining, than on vehicles, near to it"


def measure() -> Verdict:
    """digits and vehicles, 16 shots, two seeds; holds if the gain on digits is positive and the larger one."""
    far, far_gain = gain("vp", "digits", seeds=(1, 2))
    near, near_gain = gain("vp", "vehicles", seeds=(1, 2))
    measured = {"digits": far, "digits_gain": far_gain, "vehicles": near, "vehicles_gain": near_gain}
    return Verdict("vp", claim, measured, far_gain > 0 and far_gain > near_gain)
