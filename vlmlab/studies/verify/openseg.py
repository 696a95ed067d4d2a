"""OpenSeg: words of captions find their segments (arXiv 2112.12143)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict, judged
from vlmlab.studies.verify._masks import figures, fitted, gains, proposed, rounded
from vlmlab.studies.verify._measure import SEEDS

claim = "words of captions that look for their segments raise the IoU of classes without a mask, against the same system without captions"

cause = (
    "captions here say 1.8 of the 3.6 names that an image shows, where the paper also learns from narratives that say nearly all "
    "(python -m vlmlab.studies.caption_names compares the two). On validation images of seed 11 with the masks fixed, captions "
    "take the mean IoU from 31.2 to 28.9 % on base and from 6.3 to 5.4 % on new classes; all names of each image in their place "
    "give 30.0 and 12.3 %. With true segments in place of proposals it is the same order on new ones: 26.6 % named right without "
    "captions, 28.4 with, 32.1 with all names. Base classes lose in every case: words of an image say less of a segment than "
    "CLIP's places know"
)


def measure() -> Verdict:
    """tableau with its stuff, three seeds, about 200 test images; mean intersection over union in percent.

    Judged by the gain on new classes. `silent` is fitted without captions: its segments are named by what CLIP sees under them. The
    masks of the two differ a little, because the gradient of the captions reaches them, too.
    `recall` is the share of true segments that a proposal meets.
    """
    runs, others = ([fitted("openseg", s, c) for s in SEEDS] for c in ((), (("ground_weight", 0.0),)))
    told, silent = [figures(run) for run in runs], [figures(run) for run in others]
    met = rounded([proposed(run) for run in runs])
    found = rounded(told) | rounded(silent, "silent_") | met
    return judged("openseg", claim, found, gains(told, silent, "new"), {"recall of new things": met["recall_new"]})
