"""HierKD: captions tell a one-stage detector of what no box was given of (arXiv 2203.10593)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._boxes import detected, gains, verdict

claim = "captions teach a one-stage detector new classes, and they must say their names"


def measure() -> Verdict:
    """tableau, three seeds, 235 test images, all 47 names at once; AP50 in percent.

    Holds if on new classes the detector with captions gains on one that learns from boxes and CLIP's crops of them alone, and
    on one whose captions say 'object' wherever a new class is meant, both by more than the deviation over the seeds.
    """
    rows, without, silent = (
        detected("hierkd", **settings) for settings in ({}, {"captions": 0.0}, {"new_nouns": False})
    )
    differences = {"new": gains(rows, without), "new_by_names": gains(rows, silent)}
    return verdict("hierkd", claim, rows, {"without_captions": without, "without_new_nouns": silent}, differences)
