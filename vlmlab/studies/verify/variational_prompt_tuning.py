"""VPT (variational) wins back new classes that CoOp loses (arXiv 2210.02390, section 4)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import against_coop

claim = "with a distribution of prompts instead of one, VPT is better on new classes than CoOp from the same words"
cause = (
    "above CoOp on aerial and below it on textures, where 'a photo of a' is a poor start for a text tower "
    "that has read 'a ... texture'"
)


def measure() -> Verdict:
    """aerial and textures, 16 shots of the base half; holds if the mean on new classes over three seeds is higher."""
    measured = against_coop("variational_prompt_tuning")
    return Verdict("variational_prompt_tuning", claim, measured, measured["new"] > measured["coop_new"])
