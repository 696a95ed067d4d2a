"""ZSD-YOLO: boxes that a detector finds and nobody names keep new classes from becoming background (arXiv 2109.12066)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._boxes import detected, gains, verdict

claim = (
    "a one-stage detector that labels its own training images finds new classes that it otherwise takes for background"
)


def measure() -> Verdict:
    """tableau, three seeds, 235 test images, all 47 names at once; AP50 in percent.

    Holds if self-labels gain on new classes more than the deviation over the seeds.
    """
    rows, without = detected("zsd_yolo"), detected("zsd_yolo", self_labels=False)
    return verdict("zsd_yolo", claim, rows, {"without": without}, {"new": gains(rows, without)})
