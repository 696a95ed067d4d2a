"""KgCoOp wins back new classes that CoOp loses (arXiv 2303.13283, table 1)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import against_coop

claim = "held near the hand-written prompt, KgCoOp is better on new classes than CoOp from the same words"


def measure() -> Verdict:
    """aerial and textures, 16 shots of the base half; holds if the mean on new classes over three seeds is higher."""
    measured = against_coop("kgcoop")
    return Verdict("kgcoop", claim, measured, measured["new"] > measured["coop_new"])
