"""ZSSeg: segments of a MaskFormer, named by CLIP where classes were not taught (arXiv 2112.14757)."""

from __future__ import annotations

from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import run_experiment
from vlmlab.studies.verify import Verdict, judged
from vlmlab.studies.verify._masks import PICTURES, ceilings, figures, fitted, gains, naming_ceilings, rounded
from vlmlab.studies.verify._measure import BACKBONE, SEEDS

claim = "on classes without a mask, segments that CLIP names beat the segmenter's own names, and MaskCLIP"


def measure() -> Verdict:
    """tableau with its stuff, three seeds, about 200 test images; mean intersection over union in percent.

    Holds if both gains on new classes are larger in the mean than their deviations over the seeds. `alone` is the same
    segmenter without CLIP; `maskclip` has no training. `recall` and `teacher` are the ceilings (see `_masks.ceilings`).
    """

    runs = [fitted("zsseg", seed) for seed in SEEDS]
    both, alone = [figures(run) for run in runs], [figures(run, ensemble=False) for run in runs]
    maskclip = run_experiment(Experiment("maskclip", "tableau", BACKBONE, 0, 0, test_pictures=PICTURES))["metrics"]
    found = rounded(both) | rounded(alone, "alone_") | rounded([ceilings(run) for run in runs])
    found |= {"maskclip_new": round(maskclip["miou_new"], 2)}
    differences = {
        "new": gains(both, alone, "new"),
        "over_maskclip": [row["new"] - maskclip["miou_new"] for row in both],
    }
    return judged("zsseg", claim, found, differences, naming_ceilings(found))
