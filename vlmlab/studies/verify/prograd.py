"""ProGrad keeps what zero-shot knows at one shot (arXiv 2205.14865, figure 1)."""

from __future__ import annotations

from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import adapt
from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import BACKBONE, over_seeds, results

claim = "at one shot some gradients oppose zero-shot; without them accuracy is higher than CoOp's"


def measure() -> Verdict:
    """objects-v2, one shot, three seeds; holds if both parts do."""
    own, coop = results("prograd", "objects-v2", 1), results("coop", "objects-v2", 1)
    adapted = adapt(Experiment("prograd", "objects-v2", BACKBONE, 1, 1))
    share = adapted.method.opposed / adapted.record.steps
    measured = {
        "prograd": over_seeds(own)[0],
        "coop": over_seeds(coop)[0],
        "zero_shot": over_seeds(own, of="zero_shot")[0],
        "opposed_steps_percent": round(100 * share, 1),
    }
    return Verdict("prograd", claim, measured, measured["prograd"] > measured["coop"] and share > 0)
