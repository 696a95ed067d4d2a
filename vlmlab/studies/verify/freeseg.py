"""FreeSeg: one model for semantic, instance and panoptic segmentation (arXiv 2303.17225)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict, judged
from vlmlab.studies.verify._masks import ceilings, fitted, gains, naming_ceilings, rounded, segment_figures
from vlmlab.studies.verify._measure import SEEDS

claim = "one model that is told the task gives better panoptic segments than one that was taught semantic segmentation alone"


def measure() -> Verdict:
    """tableau with its stuff, three seeds, about 200 test images; percent.

    Judged by the gain in panoptic quality over `single`, which learned from what an image shows of each class, in as many steps.
    Both answer all three tasks: `miou`, `pq` and `mask_ap50` of all classes, and `_new` of those without a mask.
    """
    runs, others = ([fitted("freeseg", s, c) for s in SEEDS] for c in ((), (("tasks", "semantic"),)))
    three, single = [segment_figures(run) for run in runs], [segment_figures(run) for run in others]
    found = rounded(three) | rounded(single, "single_") | rounded([ceilings(run) for run in runs])
    return judged("freeseg", claim, found, gains(three, single, "pq"), naming_ceilings(found))
