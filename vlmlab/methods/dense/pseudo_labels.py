"""Pseudo labels of a detector: boxes that nobody drew, each with a name and a weight, and how good they are.

A system makes them in its own way and hands them on as `PseudoLabels`, padded so that all images of a set are one tensor.
What is shared is here: the choice by score and suppression, the matching of proposals with boxes, and a report.

Dimensions: N images, P proposals of an image, Q boxes of an image at most, n boxes of one image, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import batched_nms

from vlmlab.datasets.truth import Truth
from vlmlab.methods.dense.boxes import iou


@dataclass
class PseudoLabels:
    """Boxes of images with names.

    Attributes:
        boxes: [N, Q, 4] in pixels of the network's input; zeros where there is none.
        labels: [N, Q] class indices.
        weights: [N, Q] how much each counts in a loss, usually its score in 0 to 1; 1 for ground truth.
        there: [N, Q] bool, which of the Q there are.
    """

    boxes: Tensor
    labels: Tensor
    weights: Tensor
    there: Tensor

    def at(self, index: Tensor) -> PseudoLabels:
        """Those of the images at these positions."""
        return PseudoLabels(self.boxes[index], self.labels[index], self.weights[index], self.there[index])

    def beside(self, others: PseudoLabels) -> PseudoLabels:
        """These and others of the same images."""
        pairs = ((getattr(self, name), getattr(others, name)) for name in ("boxes", "labels", "weights", "there"))
        return PseudoLabels(*(torch.cat(pair, 1) for pair in pairs))

    def off(self, truths: PseudoLabels, most: float) -> PseudoLabels:
        """Those that overlap none of the `truths` by an intersection over union of `most` or more."""
        near = (iou(self.boxes, truths.boxes) * truths.there[:, None]).flatten(2)
        free = near.amax(-1) < most if near.shape[-1] else torch.ones_like(self.there)
        return PseudoLabels(self.boxes, self.labels, self.weights, self.there & free)


def as_labels(truths: Sequence[Truth], device: torch.device | str) -> PseudoLabels:
    """Ground truth of N images in the same form, with weights of 1."""
    boxes = pad_sequence([truth.boxes.cpu() for truth in truths], batch_first=True).to(device)
    labels = pad_sequence([truth.labels.cpu() for truth in truths], batch_first=True).to(device)
    counts = torch.tensor([len(truth) for truth in truths])
    there = (torch.arange(boxes.shape[1]) < counts[:, None]).to(device)
    return PseudoLabels(boxes, labels, there.float(), there)


def chosen(boxes: Tensor, scores: Tensor, labels: Tensor, there: Tensor, threshold: float, near: float) -> PseudoLabels:
    """Proposals whose score is above the threshold, without doubles of a class in an image.

    Args:
        boxes: [N, P, 4]. scores: [N, P] in 0 to 1. labels: [N, P] one name for each. there: [N, P] bool.
        threshold: a score must be larger.
        near: intersection over union above which the lower score of the same class is dropped.
    """
    able = there & (scores > threshold)
    image, place = able.nonzero(as_tuple=True)
    group = image * (int(labels.max()) + 1 if labels.numel() else 1) + labels[image, place]
    left = batched_nms(boxes[image, place].float(), scores[image, place].float(), group, near)
    kept = torch.zeros_like(there)
    kept[image[left], place[left]] = True
    return PseudoLabels(boxes * kept[..., None], labels, scores * kept, kept)


def matched(
    proposals: Tensor, targets: PseudoLabels, background: int, least: float = 0.5
) -> tuple[Tensor, Tensor, Tensor]:
    """What proposals [N, P, 4] are called by the boxes that they meet.

    Returns: labels [N, P], `background` where the best intersection over union is below `least`; weights [N, P], that of the
    box that is met best, and 1 for background; that best intersection over union [N, P].
    """
    if not targets.boxes.shape[1]:
        shape = proposals.shape[:2]
        return (
            torch.full(shape, background, device=proposals.device),
            proposals.new_ones(shape),
            proposals.new_zeros(shape),
        )
    best, which = (iou(proposals, targets.boxes) * targets.there[:, None]).max(-1)
    met = best >= least
    labels = torch.where(met, targets.labels.gather(1, which), background)
    weights = torch.where(met, targets.weights.gather(1, which), 1.0)
    return labels, weights, best


def quality(pseudo: PseudoLabels, truths: Sequence[Truth], classes: Sequence[int]) -> dict[str, float]:
    """How good pseudo labels are, against the ground truth of the same N images in the same pixels.

    {"boxes": how many there are; "precision": percent of them that meet an object of their name by 0.5 or more; "located":
    percent that meet any object of the `classes` so; "recall": percent of the objects of these classes that are met with
    their name; "iou": mean intersection over union in percent with the nearest such object of any name}.
    """
    known = as_labels(truths, pseudo.boxes.device)
    known.there = known.there & torch.isin(known.labels, torch.tensor(list(classes), device=known.labels.device))
    boxes, objects = int(pseudo.there.sum()), int(known.there.sum())
    if not boxes or not objects:
        return {"boxes": boxes, "precision": 0.0, "located": 0.0, "recall": 0.0, "iou": 0.0}
    overlap = iou(pseudo.boxes, known.boxes) * known.there[:, None] * pseudo.there[..., None]  # [N, Q, G]
    hit = overlap >= 0.5
    named = hit & (pseudo.labels[..., None] == known.labels[:, None])
    return {
        "boxes": boxes,
        "precision": 100 * int(named.any(2).sum()) / boxes,
        "located": 100 * int(hit.any(2).sum()) / boxes,
        "recall": 100 * int(named.any(1).sum()) / objects,
        "iou": 100 * float(overlap.amax(2).sum()) / boxes,
    }
