"""OVSeg: CLIP practises on masked crops (arXiv 2210.04150)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict, judged
from vlmlab.studies.verify._masks import ceilings, figures, fitted, gains, rounded
from vlmlab.studies.verify._measure import SEEDS

claim = "of stuff, which masks leave in pieces, CLIP names more true segments right with mask prompts than without"

cause = (
    "mask prompts that learn from the captions of this world make naming worse. The learning rate and the number of steps are not "
    "the reason: three rates and two lengths end alike on a seed of their own. Not tried: the share of right pairs among the "
    "mined ones, and cross-entropy over all words in place of the loss within a batch"
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
