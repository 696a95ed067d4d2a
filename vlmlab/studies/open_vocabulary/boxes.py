"""One detector, opened: what its names and its boxes are worth apart, at which threshold, and what it finds that is not there.

Everything here is AP50 or F1 in percent on the same test images. Dimensions: n detections of an image, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from vlmlab.datasets import Task
from vlmlab.errors import VlmlabError
from vlmlab.learning.dense import AT_ONCE, MOST, asked, new_only
from vlmlab.learning.mistakes import best_threshold, box_mistakes, f1_at, with_true_boxes, with_true_names
from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.dense.detector import Detector
from vlmlab.methods.dense.two_stage import TwoStage
from vlmlab.methods.method import Batch
from vlmlab.studies.few_scenes import ap50, found

EXAMPLES = 4  # test images that a report shows
FIXED = 0.5
"""The threshold of who looks at no image: half of the largest score that there could be."""


def look_at_boxes(method: Detector, task: Task, images, absent: Sequence[str] = ()) -> dict[str, Any]:
    """What a report says of a detector beside its metrics; plain numbers, for a record.

    {"restricted": AP50 of new objects when only the names of new classes are asked for, in the images that show one, "true_names" and "true_boxes":
    {"all", "base", "new"} AP50 with the names or the boxes of its detections put right, "given_boxes": the same when the true
    boxes are its proposals (None for a system that names no proposals), "thresholds": {rule: {"at", "f1"}} for the rules
    "fixed", "validation" and "oracle", "kinds": mistakes at the threshold of validation, "objects": how many there are,
    "absent": {"words", "alarms": boxes of absent words per 100 images at that threshold, "ap50": of the classes meanwhile} or None,
    "examples": [{"image", "boxes", "labels", "scores"}] of a few test images, above that threshold, "refused": why the system
    cannot be asked for other words, or ""}.
    """
    truths = [images.truth(i) for i in range(len(images))]
    known = found(method, images)
    tuning = task.tuning
    chosen = best_threshold(found(method, tuning), [tuning.truth(i) for i in range(len(tuning))])
    at = {"fixed": FIXED, "validation": chosen, "oracle": best_threshold(known, truths)}
    seen: dict[str, Any] = {
        "true_names": ap50(with_true_names(known, truths), images, task),
        "true_boxes": ap50(with_true_boxes(known, truths), images, task),
        "given_boxes": _given_boxes(method, images, task),
        "thresholds": {rule: {"at": value, "f1": f1_at(known, truths, value)} for rule, value in at.items()},
        "kinds": box_mistakes(known, truths, chosen),
        "objects": sum(len(truth) for truth in truths),
        "examples": [_example(i, known[i], chosen) for i in telling(truths, task.new)],
        "restricted": None,
        "absent": None,
        "refused": "",
    }
    try:
        if task.new:
            seen["restricted"] = new_only(method, images, task.new).get("ap50_new_only")
        if absent:
            with asked(method, [*task.classes, *absent], task.templates):
                seen["absent"] = _with_absent(found(method, images), len(task.classes), absent, chosen, images, task)
    except VlmlabError as error:
        seen["refused"] = str(error)
    return seen


def telling(truths: Sequence, new: Sequence[int]) -> list[int]:
    """A few images that show new classes, the ones with the most of them and base classes too first."""
    kinds = [set(truth.labels.tolist()) for truth in truths]
    worth = [(len(own & set(new)) > 0) + (len(own - set(new)) > 0) + len(own) / 100 for own in kinds]
    return sorted(range(len(worth)), key=lambda i: -worth[i])[:EXAMPLES]


def _example(image: int, one: Detections, threshold: float) -> dict[str, Any]:
    one = one[one.scores >= threshold]
    return {
        "image": image,
        "boxes": one.boxes.round(decimals=2).tolist(),
        "labels": one.labels.tolist(),
        "scores": one.scores.round(decimals=4).tolist(),
    }


def _with_absent(
    known: Sequence[Detections], classes: int, absent: Sequence[str], threshold: float, images, task: Task
) -> dict[str, Any]:
    alarms = sum(int(((one.labels >= classes) & (one.scores >= threshold)).sum()) for one in known)
    there = [one[one.labels < classes] for one in known]
    return {"words": list(absent), "alarms": 100 * alarms / len(images), "ap50": ap50(there, images, task)}


@torch.no_grad()
def _given_boxes(method: Detector, images, task: Task) -> dict[str, float] | None:
    """AP50 when the proposals are the true boxes: what the names alone are worth."""
    if not isinstance(method, TwoStage):
        return None
    rows = []
    for start in range(0, len(images), AT_ONCE):
        at = range(start, min(start + AT_ONCE, len(images)))
        pixels, frames = method.framed([images.images(i) for i in at])
        boxes = [frame.truth(images.truth(i)).boxes for i, frame in zip(at, frames, strict=True)]
        if not any(len(own) for own in boxes):
            rows += [Detections.none() for _ in at]
            continue
        method.tested.give(pixels, boxes)
        detected = method.detect(Batch(images=pixels, index=torch.tensor(at)))
        rows += [one.cpu().back(frame).surest(MOST) for one, frame in zip(detected, frames, strict=True)]
    return ap50(rows, images, task)
