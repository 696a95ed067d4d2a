"""PromptKD: unlabelled images of all classes, with a teacher's predictions, are worth learning from (arXiv 2403.02781)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import base_to_new

claim = "a student taught on unlabelled images of all classes gains on base classes, and keeps more of the new ones than on base images alone"
cause = (
    "the student's projection begins at random, and some fifty steps on 240 images bring it no further on base classes than zero-shot "
    "prediction is; that images of new classes matter to the new ones is borne out"
)
SEEDS = (1, 2)
"""Each run trains a teacher and a student: half a minute."""


def measure() -> Verdict:
    """Holds if base is above zero-shot, and new is above that of the student that was shown the base classes alone."""
    measured, own = base_to_new("promptkd", SEEDS), base_to_new("promptkd", SEEDS, unlabelled="own")
    measured |= {f"own_{part}": own[part] for part in ("base", "new", "new_sd")}
    holds = measured["base"] > measured["zero_shot_base"] and measured["new"] > own["new"]
    return Verdict("promptkd", claim, measured, holds)
