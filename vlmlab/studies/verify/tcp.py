"""TCP: prompt tokens made from a class's hand-written prompt keep new classes (arXiv 2311.18231)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import base_to_new

claim = "class-aware prompt tokens gain on base classes like CoOp and lose less than CoOp on new ones"


def measure() -> Verdict:
    """Against CoOp from the words "a photo of a"; holds if base is above zero-shot and new is above CoOp's."""
    measured, coop = base_to_new("tcp"), base_to_new("coop", init="a photo of a")
    measured |= {f"coop_{part}": coop[part] for part in ("base", "new", "new_sd")}
    holds = measured["base"] > measured["zero_shot_base"] and measured["new"] > coop["new"]
    return Verdict("tcp", claim, measured, holds)
