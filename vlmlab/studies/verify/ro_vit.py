"""RO-ViT: pretraining on cropped positions names regions better than pretraining on the whole grid (arXiv 2305.07011)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict, judged
from vlmlab.studies.verify._boxes import detected, mean_of

claim = "after the same pretraining, a tower that saw cropped positions names regions better than one that saw the whole grid"


def measure() -> Verdict:
    """tableau, three seeds, 235 test images; percent of true boxes named right by tokens pooled in them, all 47 names at once.

    Both arms have the same images, captions, steps and focal contrast. Holds if, over base and new classes alike, cropped
    positions gain more than the deviation over the seeds. AP50 of the detectors is told beside it.
    """
    rows, whole, before = (
        detected("ro_vit", **settings) for settings in ({}, {"positions": "whole"}, {"pretrain_epochs": 0})
    )
    names = ("teacher_base", "teacher_new", "ap50_base", "ap50_new", "recall_new")
    found = mean_of(rows, "", names) | mean_of(whole, "whole_", names[:-1]) | mean_of(before, "before_", names[:-1])
    differences = [_named(one) - _named(other) for one, other in zip(rows, whole, strict=True)]
    return judged("ro_vit", claim, found, differences, {"recall of new objects": rows[0]["recall_new"]})


def _named(row: dict[str, float]) -> float:
    """The mean over both groups of what is named right."""
    return (row["teacher_base"] + row["teacher_new"]) / 2
