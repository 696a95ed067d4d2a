"""OVSeg: CLIP practises on masked crops (arXiv 2210.04150)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict, judged
from vlmlab.studies.verify._masks import ceilings, figures, fitted, gains, rounded
from vlmlab.studies.verify._measure import SEEDS

claim = "of stuff, which masks leave in pieces, CLIP names more true segments right with mask prompts than without"

cause = (
    "wrong pairs cost things, and the contrast within a batch costs stuff. On validation images of seed 11, CLIP names 94.7, 88.1 and "
    "37.1 % of true base, new and stuff segments right, and 95.9, 82.6 and 29.5 % with the prompts. Of the mined pairs of things "
    "45 % are a proposal that overlaps what the word means by half; these alone teach 95.3, 85.3 and 28.6 %, and pairs mined among "
    "true segments, of which 97 % are right, 97.5, 89.0 and 34.3 %. Stuff falls even with true segments and their own names (98.7, 89.9, "
    "28.6 %), as a step sees three of seven grounds, each once; cross-entropy over all 54 words, from zero, takes it to 46.7 % in 100 "
    "steps, and with the captions' pairs, one in eight of stuff, to 33.3 %. 105 segments of stuff were named: a point is one segment"
)


def measure() -> Verdict:
    """tableau with its stuff, three seeds, about 200 test images; percent of true segments that CLIP names right.

    Holds if the gain on stuff is larger in the mean than its deviation over the seeds. `plain` is CLIP without prompts on
    the same crops; `base`, `new` are the mean intersection over union of the whole system, `plain_` of it without prompts.
    """
    runs = [fitted("ovseg", seed) for seed in SEEDS]
    with_prompts, plain = [ceilings(run) for run in runs], [ceilings(run, prompts=False) for run in runs]
    found = rounded(with_prompts) | rounded(plain, "plain_") | rounded([figures(run) for run in runs])
    found |= rounded([figures(run, prompts=False) for run in runs], "plain_")
    return judged("ovseg", claim, found, gains(with_prompts, plain, "teacher_stuff"))
