"""XPM: pseudo masks that may be doubted (arXiv 2111.12698)."""

from __future__ import annotations

import torch

from vlmlab.datasets.task import Task
from vlmlab.methods.detection.xpm import pasted
from vlmlab.studies.table import spread
from vlmlab.studies.verify import Verdict, judged
from vlmlab.studies.verify._measure import SEEDS
from vlmlab.studies.verify._regions import detector

DAMAGE = 0.5
claim = (
    "where half of the pseudo masks are spoilt, a student that doubts them draws better masks of new objects than one that "
    "takes them as they are"
)


def measure() -> Verdict:
    """tableau, three seeds; mean intersection over union of predicted and true masks in the true boxes of test objects, in
    percent.

    Half of the pseudo masks are shifted by half of their box. Holds if the gain of doubt on new classes is larger in the
    mean than its own deviation over the seeds. `teacher` has learned from base masks alone.
    """
    arms = {
        "doubting": {"damage": DAMAGE},
        "trusting": {"damage": DAMAGE, "noise": False},
        "teacher": {"student_epochs": 0},
    }
    ious: dict[str, list[dict[str, float]]] = {}
    for name, settings in arms.items():
        ious[name] = []
        for seed in SEEDS:
            method, task = detector("xpm", seed, **settings)
            ious[name].append({group: mask_iou(method, task, getattr(task, group)) for group in ("base", "new")})
    differences = [a["new"] - b["new"] for a, b in zip(ious["doubting"], ious["trusting"], strict=True)]
    found = {
        f"{name}_{group}": round(spread([row[group] for row in rows])[0], 2)
        for name, rows in ious.items()
        for group in ("base", "new")
    }
    return judged("xpm", claim, found, differences)


@torch.no_grad()
def mask_iou(method, task: Task, classes: list[int]) -> float:
    """Mean intersection over union, in percent, of the masks that XPM draws in the true boxes of test objects of these classes."""
    total, count = 0.0, 0
    for i in range(len(task.test)):
        images, frames = method.framed([task.test.images(i)])
        truth = frames[0].truth(task.test.truth(i)).of_classes(classes)
        if not len(truth):
            continue
        maps = method.tested.find(images).maps
        logits, _ = method.mask_head(method.mask_features(maps, truth.boxes[None]))
        drawn = pasted(logits[0].sigmoid(), truth.boxes, images.shape[-1])
        both, either = (drawn & truth.instances).sum((1, 2)), (drawn | truth.instances).sum((1, 2))
        total, count = total + 100 * float((both / either.clamp_min(1)).sum()), count + len(truth)
    return total / max(1, count)
