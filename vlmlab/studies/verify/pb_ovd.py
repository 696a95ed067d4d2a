"""PB-OVD: boxes for the words of captions (arXiv 2111.09452)."""

from __future__ import annotations

from vlmlab.methods.detection.pb_ovd import PBOVD
from vlmlab.studies.verify import Verdict, judged
from vlmlab.studies.verify._boxes import arms, detected, gains
from vlmlab.studies.verify._regions import detector, pseudo_quality

claim = (
    "an activation map puts the words of captions on the right proposal more often than chance or size does, and pretraining "
    "on these boxes finds new objects that base boxes alone do not teach"
)


def measure() -> Verdict:
    """tableau, three seeds; AP50 of base and new classes, and the share of right pseudo boxes (in percent) of all classes.

    Holds if more boxes are right than of random and of largest proposals, and if the gain on new classes over ViLD-text is
    larger in the mean than its own deviation over the seeds.
    """
    found: dict[str, float | int | str | list] = {}
    right = {}
    for maps in ("attention", "patches", "random", "largest"):
        method, task = detector("pb_ovd", 1, prepare_only=True, maps=maps)
        for group, classes in (("base", task.base), ("new", task.new)):
            found[f"right_{maps}_{group}"] = pseudo_quality(method, task, method.pseudo, classes)["precision"]
        right[maps] = pseudo_quality(method, task, method.pseudo, range(len(task.classes)))["precision"]
    own, text = detected("pb_ovd"), detected("vild", head="text")
    found |= arms({"pretrained": own, "text": text})
    better = right[PBOVD.configure(method.backbone).maps] > max(right["random"], right["largest"])
    recall = {"recall of new objects": own[0]["recall_new"]}
    return judged("pb_ovd", claim, found, gains(own, text), recall, besides=better)
