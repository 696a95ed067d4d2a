"""PromptDet: regional prompts and self-training on retrieved images (arXiv 2203.16513)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._regions import gain, mean, measured

claim = (
    "self-training on images that a noisy web gives for a name finds more new objects than the detector it began with"
)


def measure() -> Verdict:
    """tableau, three seeds; AP50 of base and new classes in percent of three arms: the task's hand-written prompts, learned
    prompts, and learned prompts with self-training.

    Holds if the gain of self-training on new classes is larger in the mean than its own deviation over the seeds.
    """
    arms = {
        "manual": measured("promptdet", prompt="manual", self_epochs=0),
        "prompts": measured("promptdet", self_epochs=0, epochs=9),
        "self": measured("promptdet"),
    }
    difference, deviation = gain(arms["self"], arms["prompts"])
    found = {
        f"{name}_{metric}": mean(rows, metric) for name, rows in arms.items() for metric in ("ap50_base", "ap50_new")
    }
    found |= {"gain_new": difference, "gain_new_sd": deviation, "teacher_new": mean(arms["self"], "teacher_new")}
    return Verdict("promptdet", claim, found, difference > deviation)
