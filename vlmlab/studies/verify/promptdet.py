"""PromptDet: regional prompts and self-training on retrieved images (arXiv 2203.16513)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict, judged
from vlmlab.studies.verify._boxes import arms, ceilings, detected, gains

claim = (
    "self-training on images that a noisy web gives for a name finds more new objects than the detector it began with"
)


def measure() -> Verdict:
    """tableau, three seeds; AP50 of base and new classes in percent of three arms: the task's hand-written prompts, learned
    prompts, and learned prompts with self-training.

    Holds if the gain of self-training on new classes is larger in the mean than its own deviation over the seeds.
    """
    rows = {
        "manual": detected("promptdet", prompt="manual", self_epochs=0),
        "prompts": detected("promptdet", self_epochs=0, epochs=9),
        "self": detected("promptdet"),
    }
    found = arms(rows, ("ap50_base", "ap50_new", "teacher_new"))
    return judged("promptdet", claim, found, gains(rows["self"], rows["prompts"]), ceilings(rows["self"]))
