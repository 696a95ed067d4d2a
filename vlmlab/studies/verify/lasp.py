"""LASP wins back new classes that CoOp loses (arXiv 2210.01115, table 1)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import against_coop

claim = "reminded of language by sentences, LASP is better on new classes than CoOp from the same words"
cause = (
    "its prompts recognise the sentences of new classes, but in so small a joint space what is learned for "
    "texts does not carry over to images (chapter 6.1b)"
)


def measure() -> Verdict:
    """aerial and textures, 16 shots of the base half; holds if the mean on new classes over three seeds is higher."""
    measured = against_coop("lasp")
    return Verdict("lasp", claim, measured, measured["new"] > measured["coop_new"])
