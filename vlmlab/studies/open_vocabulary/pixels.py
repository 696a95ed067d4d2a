"""One segmenter, opened: what its names and its places are worth apart, and how much base classes are preferred.

Everything here is mean IoU in percent on the same test images. A system that learned from masks of base classes prefers their
names; what is taken from the scores of base classes before the largest one wins (calibrated stacking, arXiv 1605.04253; ZegFormer
takes 0.1) is therefore a choice that is told in three columns: none, the one that is best on validation images, and the best on the
scored images themselves.

Dimensions: C classes, H x W an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from vlmlab.datasets import Task
from vlmlab.errors import VlmlabError
from vlmlab.features.bank import as_read
from vlmlab.learning.dense import AT_ONCE, asked, confusion, harmonic_mean
from vlmlab.learning.mistakes import iou_by_group, pixel_mistakes
from vlmlab.methods.dense.segmenter import Segmenter
from vlmlab.methods.method import Batch
from vlmlab.studies.open_vocabulary.boxes import telling

STEPS = 21  # choices of what is taken from base classes
MAP_SIDE = 96  # pixels of a map in the record
SAMPLED = 4096  # pixels of a validation image that are looked at


def look_at_pixels(method: Segmenter, task: Task, images, absent: Sequence[str] = ()) -> dict[str, Any]:
    """What a report says of a segmenter beside its metrics; plain numbers, for a record.

    {"restricted": mIoU of new pixels when only the names of new classes are asked for, "true_names" and "true_masks": {"all",
    "base", "new"} mIoU when the names of each image, or its masks, are given, "kinds": percent of the pixels by mistake,
    "offsets": {rule: {"at", "harmonic_mean"}} for the rules "fixed", "validation" and "oracle", "absent": {"words", "share": percent of
    the pixels that absent words take, "miou": of the classes meanwhile} or None, "examples": [{"image", "map"}], the class of every
    pixel of a few test images (rows, at most 96 pixels a side), "refused": why the system cannot be asked for
    other words, or ""}.
    """
    classes, base, new = len(task.classes), torch.tensor(task.base), torch.tensor(task.new)
    both = len(base) > 0 and len(new) > 0
    choices = _choices(method, task.tuning, base, new) if both else torch.zeros(1)
    counts, named, masked = (torch.zeros(classes, classes) for _ in range(3))
    shifted, tuned = (torch.zeros(len(choices), classes, classes) for _ in range(2))
    for scores, truth in _scored(method, images, classes):
        counts += confusion(scores.argmax(0), truth, classes)
        there = torch.zeros(classes, dtype=torch.bool)
        there[truth.unique()] = True
        named += confusion(scores.masked_fill(~there[:, None], -torch.inf).argmax(0), truth, classes)
        masked += confusion(_named_as_a_whole(scores, truth), truth, classes)
        if both:
            shifted += _shifted(scores, truth, base, new, choices)
    offsets: dict[str, dict[str, float]] = {}
    if both:
        for scores, truth in _scored(method, task.tuning, classes):
            tuned += _shifted(scores, truth, base, new, choices)
        test, validation = (_balance(own, task.new) for own in (shifted, tuned))
        at = {
            "fixed": int(choices.abs().argmin()),
            "validation": int(validation.argmax()),
            "oracle": int(test.argmax()),
        }
        offsets = {rule: {"at": float(choices[k]), "harmonic_mean": float(test[k])} for rule, k in at.items()}
    seen: dict[str, Any] = {
        "true_names": iou_by_group(named, task.new),
        "true_masks": iou_by_group(masked, task.new),
        "kinds": pixel_mistakes(counts, task.new),
        "offsets": offsets,
        "examples": _examples(method, images, telling([images.truth(i) for i in range(len(images))], task.new)),
        "restricted": None,
        "absent": None,
        "refused": "",
    }
    try:
        if len(new):
            seen["restricted"] = _restricted(method, task, images, new)
        if absent:
            seen["absent"] = _with_absent(method, task, images, absent)
    except VlmlabError as error:
        seen["refused"] = str(error)
    return seen


@torch.no_grad()
def _scored(method: Segmenter, pictures, classes: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Scores [C, P] and true classes [P] of the P pixels of every image whose class is one of the first `classes`."""
    for positions, raw in as_read(pictures, AT_ONCE, f"{method.info.key}: looking at pixels"):
        images, frames = method.framed(raw)
        for i, own, frame in zip(
            positions, method.logits(Batch(images=images, index=torch.tensor(positions))), frames, strict=True
        ):
            truth = pictures.truth(i).semantic.long().flatten()
            known = (truth >= 0) & (truth < classes)
            yield frame.map_back(own.float().cpu()).flatten(1)[:, known], truth[known]


def _examples(method: Segmenter, images, positions: Sequence[int]) -> list[dict[str, Any]]:
    maps = method.maps([images.images(i) for i in positions])
    found = []
    for i, scores in zip(positions, maps, strict=True):
        step = -(-max(scores.shape[1:]) // MAP_SIDE)
        found.append({"image": i, "map": scores.argmax(0)[::step, ::step].tolist()})
    return found


def _named_as_a_whole(scores: Tensor, truth: Tensor) -> Tensor:
    """The name [P] of every pixel if each true mask gets the one that its pixels score highest on average."""
    there, which = truth.unique(return_inverse=True)
    sums = torch.zeros(len(scores), len(there)).index_add(1, which, scores)
    return (sums / which.bincount()).argmax(0)[which]


def _margin(scores: Tensor, base: Tensor, new: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(how much better the best base class is than the best new one, that base class, that new class), [P] each."""
    one, first = scores[base].max(0)
    other, second = scores[new].max(0)
    return one - other, base[first], new[second]


def _choices(method: Segmenter, pictures, base: Tensor, new: Tensor) -> Tensor:
    """What may be taken from base classes: nothing, and quantiles of what is between base and new in validation images."""
    margins = []
    for scores, _ in _scored(method, pictures, len(base) + len(new)):
        step = max(1, scores.shape[1] // SAMPLED)
        margins.append(_margin(scores[:, ::step], base, new)[0])
    return torch.cat([torch.zeros(1), torch.quantile(_thinned(torch.cat(margins)), torch.linspace(0, 1, STEPS - 1))])


def _thinned(values: Tensor, most: int = 1_000_000) -> Tensor:
    return values[:: max(1, len(values) // most)]  # torch.quantile takes no more than sixteen millions


def _shifted(scores: Tensor, truth: Tensor, base: Tensor, new: Tensor, choices: Tensor) -> Tensor:
    """Confusions [K, C, C] when each of the K `choices` is taken from the scores of base classes."""
    margin, first, second = _margin(scores, base, new)
    return torch.stack([confusion(torch.where(margin >= k, first, second), truth, len(scores)) for k in choices])


def _balance(counts: Tensor, new: Sequence[int]) -> Tensor:
    """Harmonic mean of mIoU on base and new classes [K] of confusions [K, C, C]."""
    groups = [iou_by_group(own, new) for own in counts]
    return torch.tensor([harmonic_mean(own.get("base", 0.0), own.get("new", 0.0)) for own in groups])


def _restricted(method: Segmenter, task: Task, images, new: Tensor) -> float:
    """mIoU of new classes on their own pixels, when only their names are asked for."""
    counts = torch.zeros(len(task.classes), len(task.classes))
    with asked(method, [task.classes[c] for c in task.new], task.templates):
        for scores, truth in _scored(method, images, len(counts)):
            own = torch.isin(truth, new)
            counts += confusion(new[scores[:, own].argmax(0)], truth[own], len(counts))
    return iou_by_group(counts, task.new).get("new", 0.0)


def _with_absent(method: Segmenter, task: Task, images, absent: Sequence[str]) -> dict[str, Any]:
    classes, every = len(task.classes), len(task.classes) + len(absent)
    counts = torch.zeros(every, every)
    with asked(method, [*task.classes, *absent], task.templates):
        for scores, truth in _scored(method, images, classes):
            counts += confusion(scores.argmax(0), truth, every)
    taken = float(counts[:, classes:].sum() / counts.sum().clamp_min(1))
    return {"words": list(absent), "share": 100 * taken, "miou": iou_by_group(counts, task.new)["all"]}
