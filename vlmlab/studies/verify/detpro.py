"""DetPro: contexts learned on regions (arXiv 2203.14940)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._regions import gain, mean, measured

HAND = "a photo of a {} in the scene."
claim = (
    "a detector whose words speak contexts learned on regions finds more new objects than the same detector with the "
    "hand-written prompt of detection papers, 'a photo of a {} in the scene.'"
)


def measure() -> Verdict:
    """tableau, three seeds; AP50 of base and new classes in percent, and how often the words name the crops of true boxes right.

    Holds if the gain on new classes is larger in the mean than its own deviation over the seeds. `plain` is "a photo of a {}.",
    the sentence that the embedded tower was pretrained with: learned contexts do not reach it.
    """
    arms = {
        "learned": measured("detpro"),
        "hand": measured("detpro", hand=HAND),
        "plain": measured("detpro", hand="a photo of a {}.", seeds=(1,)),
    }
    difference, deviation = gain(arms["learned"], arms["hand"])
    found = {
        f"{name}_{metric}": mean(rows, metric)
        for name, rows in arms.items()
        for metric in ("ap50_base", "ap50_new", "teacher_base", "teacher_new")
    }
    found |= {"gain_new": difference, "gain_new_sd": deviation}
    return Verdict("detpro", claim, found, difference > deviation)
