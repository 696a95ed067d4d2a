"""CoOp gains on the classes that it learned and loses on the others (CoCoOp, arXiv 2203.05557, table 1)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import base_to_new

claim = "from noise, 16 shots lift CoOp above zero-shot on the base classes and take it below zero-shot on new ones"


def measure() -> Verdict:
    """aerial and textures, base half learned; holds if both signs agree on the means over datasets and three seeds."""
    m = base_to_new("coop", init="")
    return Verdict("coop", claim, m, m["base"] > m["zero_shot_base"] and m["new"] < m["zero_shot_new"])
