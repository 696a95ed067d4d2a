"""VL-PLM: pseudo boxes of new classes from proposals and CLIP, and a student of them (arXiv 2207.08954)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict, judged
from vlmlab.studies.verify._boxes import arms, ceilings, detected, gains
from vlmlab.studies.verify._regions import detector, pseudo_quality

claim = (
    "objectness beside CLIP's score makes pseudo boxes of new classes right more often, and a student of them finds new "
    "objects that a text classifier of base names does not"
)


def measure() -> Verdict:
    """tableau, three seeds; AP50 of base and new classes, and the share of right pseudo labels (in percent).

    Pseudo labels do not depend on the seed. Holds if more are right with objectness than by CLIP's score alone at the same
    threshold, and if the gain of the student on new classes over ViLD-text is larger in the mean than its own deviation.
    """
    found: dict[str, float | int | str | list] = {}
    for name, settings in (
        ("labels", {}),
        ("labels_clip_only", {"objectness": 0.0}),
        ("labels_unrefined", {"rounds": 0}),
    ):
        method, task = detector("vl_plm", 1, prepare_only=True, **settings)
        quality = pseudo_quality(method, task, method.pseudo, task.new)
        found |= {f"{name}_{metric}": quality[metric] for metric in ("boxes", "precision", "recall", "iou")}
    student, text = detected("vl_plm"), detected("vild", head="text")
    found |= arms({"student": student, "text": text})
    better = found["labels_precision"] > found["labels_clip_only_precision"]
    return judged("vl_plm", claim, found, gains(student, text), ceilings(student), besides=better)
