"""BARON: a neighbourhood of regions teaches what comes together (arXiv 2302.13996)."""

from __future__ import annotations

import dataclasses

from vlmlab.studies.table import spread
from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._boxes import arms, detected, gains, verdict

claim = "bags of regions find new classes that single regions do not, where things always come with a companion"


def measure() -> Verdict:
    """tableau-paired, where six new classes have a companion that always stands beside them, and tableau, where casts are independent;
    three seeds, 235 test images, all 47 names at once; AP50 in percent.

    Both arms have single regions against CLIP's patches; `single` has no bags. Holds if on tableau-paired the gain of the bags on
    new classes is larger than its deviation over the seeds. The gain in independent scenes is told beside it.
    """
    rows, single = (detected("baron", dataset="tableau-paired", **arm) for arm in ({}, {"bag": 0.0}))
    apart, single_apart = (detected("baron", **arm) for arm in ({}, {"bag": 0.0}))
    found = verdict("baron", claim, rows, {"single": single}, {"new": gains(rows, single)})
    beside = arms({"independent": apart, "independent_single": single_apart})
    mean, deviation = spread(gains(apart, single_apart))
    beside |= {"difference_independent": round(mean, 2), "difference_independent_sd": round(deviation, 2)}
    return dataclasses.replace(found, measured=found.measured | beside)
