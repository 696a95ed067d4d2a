"""LP++ keeps the names where a linear probe throws them away (arXiv 2404.02285, figure 1)."""

from __future__ import annotations

from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import adapt
from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import BACKBONE, over_seeds, results

claim = "at one and two shots a plain linear probe falls far below zero-shot, and LP++ does not fall below it"
SEEDS = (1, 2, 3, 4, 5)


def measure() -> Verdict:
    """objects-v2, five seeds; holds if the probe's mean gain is negative at both, and that of LP++ not below zero by more
    than two standard errors. What the weight of the names becomes is measured beside it."""
    measured: dict = {}
    holds = True
    for shots in (1, 2):
        for system in ("linear_probe", "lp_plus_plus"):
            rows = results(system, "objects-v2", shots, seeds=SEEDS)
            mean, deviation = over_seeds(rows)
            gain = round(mean - over_seeds(rows, of="zero_shot")[0], 2)
            measured |= {f"{system}_gain_{shots}": gain, f"{system}_sd_{shots}": deviation}
            error = deviation / len(SEEDS) ** 0.5
            holds &= gain < 0 if system == "linear_probe" else gain > -2 * error
    for shots in (1, 16):
        method = adapt(Experiment("lp_plus_plus", "objects-v2", BACKBONE, shots, 1)).method
        measured[f"alpha_{shots}"] = round(float(method.alpha.detach().mean()), 2)
    return Verdict("lp_plus_plus", claim, measured, bool(holds))
