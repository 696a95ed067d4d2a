"""CoCoOp wins back new classes that CoOp loses (arXiv 2203.05557, table 1)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import against_coop

claim = "with a context that depends on the image, CoCoOp is better on new classes than CoOp from the same words"
cause = (
    "the shift that its network adds is nearly the same for every image here (chapter 6.1b), so CoCoOp is a"
    " CoOp that goes farther from its words: better on the base classes, worse on new ones"
)


def measure() -> Verdict:
    """aerial and textures, 16 shots of the base half; holds if the mean on new classes over three seeds is higher."""
    measured = against_coop("cocoop")
    return Verdict("cocoop", claim, measured, measured["new"] > measured["coop_new"])
