"""ViLD: distillation brings in what no box was given of (arXiv 2104.13921)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._boxes import detected, gains, verdict

claim = "regions that learn from CLIP's crops find new classes better than words alone, and a second head wins base classes back"


def measure() -> Verdict:
    """tableau, three seeds, 235 test images, all 47 names at once; AP50 in percent.

    Holds if on new classes one head with distillation gains on the head that learned base words alone, and the ensemble of
    two heads gains on one head on base classes, both by more than the deviation over the seeds.
    """
    rows, text, two = (detected("vild", head=head) for head in ("vild", "text", "ensemble"))
    differences = {"new": gains(rows, text), "base_of_two_heads": gains(two, rows, "ap50_base")}
    return verdict("vild", claim, rows, {"text": text, "ensemble": two}, differences)
