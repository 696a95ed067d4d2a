"""ZegFormer: CLIP ranks the classes that the segmenter was not taught (arXiv 2112.07910)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._masks import ceilings, figures, fitted, gain, rounded
from vlmlab.studies.verify._measure import SEEDS

claim = "CLIP's scores of segments raise the IoU of classes without a mask and the harmonic mean with the taught ones"


def measure() -> Verdict:
    """tableau with its stuff, three seeds, about 200 test images; mean intersection over union in percent.

    Holds if the gains on new classes and in the harmonic mean are larger in the mean than their deviations over the seeds.
    `alone` is the same segmenter without CLIP. `recall` and `teacher` are the ceilings (see `_masks.ceilings`).
    """
    runs = [fitted("zegformer", seed) for seed in SEEDS]
    both, alone = [figures(run) for run in runs], [figures(run, ensemble=False) for run in runs]
    gains = {name: gain(both, alone, name) for name in ("new", "harmonic_mean")}
    found = rounded(both) | rounded(alone, "alone_") | rounded([ceilings(run) for run in runs])
    for name, (mean, deviation) in gains.items():
        found |= {f"gain_{name}": round(mean, 2), f"gain_{name}_sd": round(deviation, 2)}
    return Verdict("zegformer", claim, found, all(mean > deviation for mean, deviation in gains.values()))
