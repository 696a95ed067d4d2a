"""PromptKD: unlabelled images of all classes, with a teacher's predictions, are worth learning from (arXiv 2403.02781)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import base_to_new

claim = "a student taught on unlabelled images of all classes gains on base classes, and keeps more of the new ones than on base images alone"
cause = (
    "the teacher, PromptSRC on the student's own backbone, is worse than zero-shot prediction on textures (on new classes of the test images "
    "40.8 against 76.0 %, on aerial 75.6 against 59.3), and the student learns what it says; neither the steps nor the projection are short: on "
    "frozen features a projection that begins at random follows its teacher within sixty steps, and true names in the teacher's place "
    "bring it above zero-shot prediction on the new classes of both datasets"
)
SEEDS = (1, 2)
"""Each run trains a teacher and a student: half a minute."""


def measure() -> Verdict:
    """Holds if base is above zero-shot, and new is above that of the student that was shown the base classes alone."""
    measured, own = base_to_new("promptkd", SEEDS), base_to_new("promptkd", SEEDS, unlabelled="own")
    teacher = base_to_new("promptsrc", SEEDS)  # the first stage alone
    measured |= {f"own_{part}": own[part] for part in ("base", "new", "new_sd")}
    measured |= {f"teacher_{part}": teacher[part] for part in ("base", "new", "new_sd")}
    holds = measured["base"] > measured["zero_shot_base"] and measured["new"] > own["new"]
    return Verdict("promptkd", claim, measured, holds)
