"""What kind of mistakes a dense system makes: places apart from names.

Of boxes, the kinds are those of TIDE (arXiv 2008.08115), counted among the detections that are sure enough; in the same order, a
detection is
    right        it is the first to meet an object of its name, with an IoU of 0.5 or more;
    misplaced    it lies on an object of its name with an IoU of 0.1 to 0.5;
    misnamed     it meets an object of another name with an IoU of 0.5 or more;
    double       it meets an object of its name that a surer detection has met;
    background   it lies on no object (IoU below 0.1);
    both         whatever is left: another name, and badly placed.
An object that no detection of these meets, nor is misplaced or misnamed at, is *missed*.

Dimensions: n detections and m objects of an image, H x W an image, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torchvision
from torch import Tensor

from vlmlab.datasets.truth import Truth
from vlmlab.learning.dense import HIT, iou_by_class
from vlmlab.methods.dense.detections import Detections

NEAR = 0.1
"""IoU from which a detection has to do with an object (TIDE's background threshold)."""
BOX_KINDS = ("right", "misplaced", "misnamed", "double", "background", "both", "missed")
PIXEL_KINDS = ("right", "base for base", "new for base", "base for new", "new for new")
"""What a pixel is called by mistake, and what it is: "base for new" is a new class that is called by the name of a base class."""


def first_hits(one: Detections, truth: Truth) -> Tensor:
    """Which detections [n], the surest first, are the first to meet an object of their name: bool."""
    hits = torch.zeros(len(one), dtype=torch.bool)
    overlap = torchvision.ops.box_iou(one.boxes, truth.boxes)
    overlap = overlap * (one.labels[:, None] == truth.labels)
    for k in (overlap >= HIT).any(1).nonzero().flatten().tolist():
        best, which = overlap[k].max(0)
        hits[k] = best >= HIT
        if hits[k]:
            overlap[:, which] = 0.0  # an object counts once
    return hits


def box_mistakes(found: Sequence[Detections], truths: Sequence[Truth], threshold: float) -> dict[str, int]:
    """How many detections with a score of at least `threshold` are of which of `BOX_KINDS`, and how many objects are missed."""
    counts = dict.fromkeys(BOX_KINDS, 0)
    for every, truth in zip(found, truths, strict=True):
        one = every[every.scores >= threshold]
        if not len(truth):
            counts["background"] += len(one)
            continue
        overlap = torchvision.ops.box_iou(one.boxes, truth.boxes)  # [n, m]
        same = one.labels[:, None] == truth.labels
        own, other = (torch.where(which, overlap, 0.0).amax(1) for which in (same, ~same))
        right = first_hits(one, truth)
        misplaced = ~right & (own >= NEAR) & (own < HIT)
        misnamed = ~right & ~misplaced & (other >= HIT)
        double = ~right & ~misplaced & ~misnamed & (own >= HIT)
        background = ~right & (overlap.amax(1) < NEAR)
        kinds = {
            "right": right, "misplaced": misplaced, "misnamed": misnamed, "double": double, "background": background
        }  # fmt: skip
        for name, which in kinds.items():
            counts[name] += int(which.sum())
        counts["both"] += len(one) - int(torch.stack(list(kinds.values())).sum())
        explained = (same & (overlap >= HIT)) | (misplaced[:, None] & same & (overlap >= NEAR))
        explained |= misnamed[:, None] & ~same & (overlap >= HIT)
        counts["missed"] += int((~explained.any(0)).sum())
    return counts


def with_true_names(found: Sequence[Detections], truths: Sequence[Truth]) -> list[Detections]:
    """The same boxes, each with the name of the object that it meets best, where it meets one (IoU of 0.5 or more)."""
    mended = []
    for one, truth in zip(found, truths, strict=True):
        if len(one) and len(truth):
            best, which = torchvision.ops.box_iou(one.boxes, truth.boxes).max(1)
            one = replace(one, labels=torch.where(best >= HIT, truth.labels[which], one.labels))
        mended.append(one)
    return mended


def with_true_boxes(found: Sequence[Detections], truths: Sequence[Truth]) -> list[Detections]:
    """The same names, each in the box of the object of this name that it lies on best, where it lies on one (IoU of 0.1)."""
    mended = []
    for one, truth in zip(found, truths, strict=True):
        if len(one) and len(truth):
            overlap = torchvision.ops.box_iou(one.boxes, truth.boxes) * (one.labels[:, None] == truth.labels)
            best, which = overlap.max(1)
            one = replace(one, boxes=torch.where((best >= NEAR)[:, None], truth.boxes[which], one.boxes))
        mended.append(one)
    return mended


def f1_by_threshold(found: Sequence[Detections], truths: Sequence[Truth]) -> tuple[Tensor, Tensor]:
    """(scores [N] of all detections, descending; F1 [N] in percent of those that are at least as sure).

    F1 = 2 right / (detections + objects): what is found held against false alarms.
    """
    scores = torch.cat([one.scores for one in found])
    hits = torch.cat([first_hits(one, truth) for one, truth in zip(found, truths, strict=True)])
    order = scores.argsort(descending=True, stable=True)
    objects = sum(len(truth) for truth in truths)
    shown = torch.arange(1, len(order) + 1)
    return scores[order], 200 * hits[order].cumsum(0) / (shown + objects)


def best_threshold(found: Sequence[Detections], truths: Sequence[Truth]) -> float:
    """The score from which on F1 is highest; 1 if nothing was found."""
    scores, f1 = f1_by_threshold(found, truths)
    return float(scores[f1.argmax()]) if len(scores) else 1.0


def f1_at(found: Sequence[Detections], truths: Sequence[Truth], threshold: float) -> float:
    """F1 in percent of the detections with a score of at least `threshold`; 0 if there is none."""
    scores, f1 = f1_by_threshold(found, truths)
    shown = int((scores >= threshold).sum())
    return float(f1[shown - 1]) if shown else 0.0


def pixel_mistakes(counts: Tensor, new: Sequence[int]) -> dict[str, float]:
    """Percent of the pixels that are of which of `PIXEL_KINDS`.

    Args:
        counts: [C true, C predicted]. new: indices of the new classes.
    """
    is_new = torch.zeros(len(counts), dtype=torch.bool)
    is_new[list(new)] = True
    wrong = counts - torch.diag(counts.diag())
    kinds = {
        "right": counts.diag().sum(),
        "base for base": wrong[~is_new][:, ~is_new].sum(),
        "new for base": wrong[~is_new][:, is_new].sum(),
        "base for new": wrong[is_new][:, ~is_new].sum(),
        "new for new": wrong[is_new][:, is_new].sum(),
    }
    return {name: 100 * float(value / counts.sum().clamp_min(1)) for name, value in kinds.items()}


def iou_by_group(counts: Tensor, new: Sequence[int]) -> dict[str, float]:
    """{"all", "base", "new"}: mean IoU in percent over the classes that the ground truth shows; without a group that it does not.

    Args:
        counts: [C true, C predicted]. new: indices of the new classes.
    """
    iou, shown = iou_by_class(counts)
    is_new = torch.zeros(len(counts), dtype=torch.bool)
    is_new[list(new)] = True
    groups = {"all": shown, "base": shown & ~is_new, "new": shown & is_new}
    return {name: float(iou[which].mean()) for name, which in groups.items() if which.any()}
