"""How good a system is at boxes and at pixels: COCO's average precision and mean intersection over union, by torchmetrics.

Both are *generalised*: all names compete at once, and a metric per group of classes (base, new) is a mean over the classes
of the group, not another competition. Every metric is in percent, 0 to 100.

Dimensions: B images, C classes, H x W an image, n boxes, K classes that occur.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix
from torchmetrics.detection import MeanAveragePrecision

from vlmlab.datasets.truth import Truth
from vlmlab.errors import VlmlabError
from vlmlab.features.bank import as_read
from vlmlab.methods.dense.detector import Detector
from vlmlab.methods.dense.segmenter import Segmenter
from vlmlab.methods.method import Batch

AT_ONCE = 64  # images per call of `logits` or `detect`: bounds the memory
MOST = 100  # detections of an image that count, as in COCO
HIT = 0.5  # intersection over union from which a proposal has found an object

Groups = Mapping[str, Sequence[int]]
"""Name of a group of classes ("base", "new") -> their indices."""


def harmonic_mean(base: float, new: float) -> float:
    """H = 2 base new / (base + new), in percent like its arguments; 0 if both are (CoCoOp, arXiv 2203.05557)."""
    return 2 * base * new / (base + new) if base + new else 0.0


@torch.no_grad()
def segmentation(method: Segmenter, pictures, groups: Groups) -> dict[str, Any]:
    """{"miou", "miou_<group>", "harmonic_mean", "pixel_accuracy", "per_class": {class: IoU}} at the size of the images.

    Only pixels whose class is known and among the method's count. The mean is over the classes that the ground truth shows;
    one that is predicted without being there costs the classes that its pixels are taken from (mmsegmentation counts its IoU as
    0).

    Raises `VlmlabError` if the images have no masks, or if no pixel has a known class.
    """
    classes = len(method.classes)
    matrix = MulticlassConfusionMatrix(classes, ignore_index=-1)
    for positions, raw in as_read(pictures, AT_ONCE, f"{method.info.key}: evaluating"):
        images, frames = method.framed(raw)
        scores = method.logits(Batch(images=images, index=torch.tensor(positions))).float().cpu()
        for i, own, frame in zip(positions, scores, frames, strict=True):
            semantic = pictures.truth(i).semantic
            if semantic is None:
                raise VlmlabError("these images have boxes but no masks; segmentation needs masks, as tableau has them")
            if not own.isfinite().all():
                raise VlmlabError(f"{method.info.key} gives scores that are not numbers; try a smaller learning rate")
            truth = semantic.long()
            truth[(truth < 0) | (truth >= classes)] = -1
            if (truth >= 0).any():
                matrix.update(frame.map_back(own).argmax(0).flatten(), truth.flatten())
    counts = matrix.confmat.double()  # [C true, C predicted]
    shown = counts.sum(1)
    if not shown.sum():
        raise VlmlabError("no pixel of these images has a known class; choose a dataset with masks, such as tableau")
    iou = 100 * counts.diag() / (shown + counts.sum(0) - counts.diag()).clamp_min(1)
    found: dict[str, Any] = {"miou": float(iou[shown > 0].mean())}
    found |= _by_group("miou", iou, shown > 0, groups)
    found["pixel_accuracy"] = 100 * float(counts.diag().sum() / shown.sum())
    found["per_class"] = {method.classes[c]: float(iou[c]) for c in shown.nonzero().flatten().tolist()}
    return found


@torch.no_grad()
def detection(method: Detector, pictures, groups: Groups) -> dict[str, Any]:
    """{"ap50", "ap50_<group>", "ap", "ap_<group>", "harmonic_mean" (of AP50), "per_class": {class: AP50}}.

    AP is COCO's, the mean over intersections over union from 0.5 to 0.95, with at most 100 detections of an image. Beside it
    stand the two ceilings of a system that has them: "recall_<group>", the share of true objects that a proposal meets with
    an IoU of 0.5 or more, and "teacher_<group>", how often the teacher names the true boxes right among all classes.

    Raises `VlmlabError` if the images have no boxes.
    """
    average = MeanAveragePrecision(iou_type="bbox", extended_summary=True, class_metrics=True)
    average.warn_on_many_detections = False
    ceilings = _Ceilings(len(method.classes))
    for positions, raw in as_read(pictures, AT_ONCE, f"{method.info.key}: evaluating"):
        images, frames = method.framed(raw)
        truths = [pictures.truth(i) for i in positions]
        batch = Batch(images=images, index=torch.tensor(positions))
        found = [one.cpu().back(frame).surest(MOST) for one, frame in zip(method.detect(batch), frames, strict=True)]
        average.update(
            [{"boxes": one.boxes, "scores": one.scores, "labels": one.labels} for one in found],
            [{"boxes": truth.boxes, "labels": truth.labels} for truth in truths],
        )
        ceilings.update(method, batch, [frame.truth(truth) for frame, truth in zip(frames, truths, strict=True)])
    if not ceilings.objects.sum():
        raise VlmlabError("these images show no object of the classes; choose a dataset with boxes, such as tableau")
    # precision [10 thresholds, 101 recalls, K classes, 4 areas, 3 limits of detections]; -1 for a class without an object
    result = average.compute()
    precision = result["precision"][:, :, :, 0, -1].mean(1)  # [10, K]
    classes = result["classes"].reshape(-1).long()
    ap = torch.full((2, len(method.classes)), torch.nan)
    ap[:, classes] = 100 * torch.stack([precision[0], precision.mean(0)]).float()
    there = ceilings.objects > 0
    numbers: dict[str, Any] = {}
    for name, values in (("ap50", ap[0]), ("ap", ap[1])):
        numbers[name] = float(values[there].mean())
        by_group = _by_group(name, values, there, groups)
        if name == "ap":
            by_group.pop("harmonic_mean", None)
        numbers |= by_group
    numbers |= ceilings.metrics(groups)
    numbers["per_class"] = {method.classes[c]: float(ap[0, c]) for c in there.nonzero().flatten().tolist()}
    return numbers


class _Ceilings:
    """Counts per class: objects, those that a proposal met, those that the teacher named right."""

    def __init__(self, classes: int) -> None:
        self.objects = torch.zeros(classes)
        self.met: Tensor | None = None
        self.named: Tensor | None = None

    def update(self, method: Detector, batch: Batch, truths: Sequence[Truth]) -> None:
        """`truths` are in pixels of the batch's images."""
        labels = torch.cat([truth.labels for truth in truths])
        self.objects += labels.bincount(minlength=len(self.objects))[: len(self.objects)]
        boxes = [truth.boxes.to(method.backbone.device) for truth in truths]
        proposals = method.proposals(batch)
        if proposals is not None:
            met = [_met(own, near) for own, near in zip(boxes, proposals, strict=True)]
            self.met = self._added(self.met, labels, torch.cat(met).cpu())
        scores = method.teacher_scores(batch, boxes)
        if scores is not None:
            self.named = self._added(self.named, labels, torch.cat([s.argmax(-1) for s in scores]).cpu() == labels)

    def metrics(self, groups: Groups) -> dict[str, float]:
        found = {}
        for name, counts in (("recall", self.met), ("teacher", self.named)):
            if counts is not None:
                for group, members in groups.items():
                    members = list(members)
                    if self.objects[members].sum():
                        found[f"{name}_{group}"] = 100 * float(counts[members].sum() / self.objects[members].sum())
        return found

    def _added(self, counts: Tensor | None, labels: Tensor, right: Tensor) -> Tensor:
        counts = torch.zeros_like(self.objects) if counts is None else counts
        return counts.index_add(0, labels, right.float())


def _met(objects: Tensor, proposals: Tensor) -> Tensor:
    """Whether each object [n, 4] is met by one of the proposals [m, 4]: bool [n]."""
    if not len(objects) or not len(proposals):
        return torch.zeros(len(objects), dtype=torch.bool, device=objects.device)
    return (torchvision.ops.box_iou(objects, proposals) >= HIT).any(1)


def _by_group(name: str, values: Tensor, there: Tensor, groups: Groups) -> dict[str, float]:
    """ "<name>_<group>" for every group of which a class is there, and the harmonic mean where both base and new are."""
    found = {}
    for group, members in groups.items():
        chosen = [c for c in members if there[c]]
        if chosen:
            found[f"{name}_{group}"] = float(values[chosen].mean())
    if {f"{name}_base", f"{name}_new"} <= set(found):
        found["harmonic_mean"] = harmonic_mean(found[f"{name}_base"], found[f"{name}_new"])
    return found
