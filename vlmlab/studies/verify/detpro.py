"""DetPro: contexts learned on regions (arXiv 2203.14940)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict, judged
from vlmlab.studies.verify._boxes import arms, detected, gains

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
    rows = {
        "learned": detected("detpro"),
        "hand": detected("detpro", hand=HAND),
        "plain": detected("detpro", hand="a photo of a {}.", seeds=(1,)),
    }
    found = arms(rows, ("ap50_base", "ap50_new", "teacher_base", "teacher_new"))
    recall = {"recall of new objects": rows["learned"][0]["recall_new"]}
    return judged("detpro", claim, found, gains(rows["learned"], rows["hand"]), recall)
