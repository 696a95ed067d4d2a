"""ZegFormer: CLIP ranks the classes that the segmenter was not taught (arXiv 2112.07910)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict, judged
from vlmlab.studies.verify._masks import ceilings, figures, fitted, gains, naming_ceilings, rounded
from vlmlab.studies.verify._measure import SEEDS

claim = "CLIP's scores of segments raise the IoU of classes without a mask and the harmonic mean with the taught ones"


def measure() -> Verdict:
    """tableau with its stuff, three seeds, about 200 test images; mean intersection over union in percent.

    Holds if the gains on new classes and in the harmonic mean are larger in the mean than their deviations over the seeds.
    `alone` is the same segmenter without CLIP. `recall` and `teacher` are the ceilings (see `_masks.ceilings`).
    """
    runs = [fitted("zegformer", seed) for seed in SEEDS]
    both, alone = [figures(run) for run in runs], [figures(run, ensemble=False) for run in runs]
    found = rounded(both) | rounded(alone, "alone_") | rounded([ceilings(run) for run in runs])
    differences = {name: gains(both, alone, name) for name in ("new", "harmonic_mean")}
    return judged("zegformer", claim, found, differences, naming_ceilings(found))
