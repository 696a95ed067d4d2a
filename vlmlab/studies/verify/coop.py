"""CoOp gains on the classes that it learned and loses on the others (CoCoOp, arXiv 2203.05557, table 1)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import over_seeds, results

claim = "16 shots lift CoOp above zero-shot on the base classes and take it below zero-shot on new ones"


def measure() -> Verdict:
    """objects-silhouette, base half learned; holds if both signs agree on the means over three seeds."""
    rows = results("coop", "objects-silhouette", shots=16, split="base")
    base, base_sd = over_seeds(rows, "base")
    new, new_sd = over_seeds(rows, "new")
    zero_base, zero_new = (over_seeds(rows, s, "zero_shot")[0] for s in ("base", "new"))
    measured = {
        "base": base, "base_sd": base_sd, "zero_shot_base": zero_base,
        "new": new, "new_sd": new_sd, "zero_shot_new": zero_new,
    }  # fmt: skip
    return Verdict("coop", claim, measured, base > zero_base and new < zero_new)
