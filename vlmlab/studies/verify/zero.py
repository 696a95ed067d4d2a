"""ZERO: counting votes instead of minimising the entropy (arXiv 2405.18330)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify.mta import gain_of_views

claim = "the vote of the views that the model is sure of is right more often than the plain image alone, and nothing is optimised"


def measure() -> Verdict:
    """The mean gain over zero-shot prediction with the same sentences; holds if it is above zero for every seed."""
    return gain_of_views("zero", claim)
