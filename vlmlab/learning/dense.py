"""How good a system is at boxes and at pixels: COCO's average precision, mean intersection over union and panoptic quality, by
torchmetrics.

Both are *generalised*: all names compete at once, and a metric per group of classes (base, new) is a mean over the classes
of the group, not another competition. Every metric is in percent, 0 to 100.

Dimensions: B images, C classes, H x W an image, n boxes, K classes that occur.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torchvision
from torch import Tensor

from vlmlab.datasets.truth import Truth
from vlmlab.errors import VlmlabError
from vlmlab.features.bank import as_read
from vlmlab.geometry import Frame
from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.dense.detector import Detector
from vlmlab.methods.dense.segmenter import Segmenter
from vlmlab.methods.method import Batch, Method

if TYPE_CHECKING:  # it takes seconds to import, so that only who detects or tells objects apart does
    from torchmetrics.detection import MeanAveragePrecision, PanopticQuality

AT_ONCE = 64  # images per call of `logits` or `detect`: bounds the memory
MOST = 100  # detections of an image that count, as in COCO
HIT = 0.5  # intersection over union from which a proposal has found an object

Groups = Mapping[str, Sequence[int]]
"""Name of a group of classes ("base", "new") -> their indices."""


def harmonic_mean(base: float, new: float) -> float:
    """H = 2 base new / (base + new), in percent like its arguments; 0 if both are (CoCoOp, arXiv 2203.05557)."""
    return 2 * base * new / (base + new) if base + new else 0.0


def confusion(said: Tensor, labels: Tensor, classes: int) -> Tensor:
    """How often [C true, C predicted] each class was taken for each, int64; `said` and `labels` [N] are class indices."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    return multiclass_confusion_matrix(said, labels, classes, validate_args=False)


def iou_by_class(counts: Tensor) -> tuple[Tensor, Tensor]:
    """(intersection over union in percent [C], which classes the ground truth shows [C] bool) of confusions [C true, C
    predicted]."""
    counts = counts.double()
    right, true, said = counts.diag(), counts.sum(1), counts.sum(0)
    return 100 * right / (true + said - right).clamp_min(1), true > 0


@torch.no_grad()
def segmentation(method: Segmenter, pictures, groups: Groups) -> dict[str, Any]:
    """{"miou", "miou_<group>", "harmonic_mean", "pixel_accuracy", "per_class": {class: IoU}} at the size of the images.

    Only pixels whose class is known and among the method's count. The mean is over the classes that the ground truth shows;
    one that is predicted without being there costs the classes that its pixels are taken from (mmsegmentation counts its IoU as
    0).

    Of a system that gives segments and objects (`Segmenter.panoptic`, `Segmenter.instances`), where the images have instances,
    also "pq" (panoptic quality, arXiv 1801.00868) and "mask_ap50", "mask_ap" (COCO's of masks), each also "_<group>"; the means are
    over the classes that the ground truth shows.

    Raises `VlmlabError` if the images have no masks, or if no pixel has a known class.
    """
    classes = len(method.classes)
    matrix = torch.zeros(classes, classes, dtype=torch.long)
    single = _Single(classes)
    for positions, raw in as_read(pictures, AT_ONCE, f"{method.info.key}: evaluating"):
        images, frames = method.framed(raw)
        batch = Batch(images=images, index=torch.tensor(positions))
        scores = method.logits(batch).float().cpu()
        single.update(method, batch, [pictures.truth(i) for i in positions], frames)
        for i, own, frame in zip(positions, scores, frames, strict=True):
            semantic = pictures.truth(i).semantic
            if semantic is None:
                raise VlmlabError("these images have boxes but no masks; segmentation needs masks, as tableau has them")
            if not own.isfinite().all():
                raise VlmlabError(f"{method.info.key} gives scores that are not numbers; try a smaller learning rate")
            truth = semantic.long()
            known = (truth >= 0) & (truth < classes)
            if known.any():
                matrix += confusion(frame.map_back(own).argmax(0)[known], truth[known], classes)
    iou, shown = iou_by_class(matrix)
    if not shown.any():
        raise VlmlabError("no pixel of these images has a known class; choose a dataset with masks, such as tableau")
    found: dict[str, Any] = {"miou": float(iou[shown].mean())}
    found |= _by_group("miou", iou, shown, groups)
    found["pixel_accuracy"] = 100 * float(matrix.diag().sum() / matrix.sum())
    found |= single.metrics(groups)
    found["per_class"] = {method.classes[c]: float(iou[c]) for c in shown.nonzero().flatten().tolist()}
    return found


class _Single:
    """Panoptic quality, and average precision of masks, of a system that tells objects apart."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.quality: PanopticQuality | None = None
        self.masks = _Masks(classes)
        self.shown = torch.zeros(classes, dtype=torch.bool)  # which classes are there among segments

    def update(self, method: Segmenter, batch: Batch, truths: Sequence[Truth], frames: Sequence[Frame]) -> None:
        """`truths` are in pixels of the images, what the method says of `batch` in those of the network's input."""
        if any(truth.instances is None or truth.semantic is None for truth in truths):
            return
        panoptic, objects = method.panoptic(batch), method.instances(batch)
        if panoptic is not None:
            if self.quality is None:
                from torchmetrics.detection import PanopticQuality

                # Nothing depends on which classes are things: a ground has one segment in the ground truth.
                every = range(self.classes)
                self.quality = PanopticQuality(every, [], allow_unknown_preds_category=True, return_per_class=True)
            for own, truth, frame in zip(panoptic.cpu(), truths, frames, strict=True):
                found, true = frame.masks_back(own.movedim(-1, 0), -1), _panoptic(truth)
                there = true[..., 0].unique()
                self.shown[there[there >= 0]] = True
                self.quality.update(found.movedim(0, -1)[None], true[None])
        if objects is not None:
            found = [own.cpu().back(frame).surest(MOST) for own, frame in zip(objects, frames, strict=True)]
            self.masks.update(found, truths)

    def metrics(self, groups: Groups) -> dict[str, float]:
        found = {}
        if self.quality is not None:
            found |= _mean_and_groups("pq", 100 * self.quality.compute().reshape(-1).float(), self.shown, groups)
        return found | self.masks.metrics(groups)


class _Masks:
    """Average precision of the masks of objects, over the images in which both what was found and the ground truth have masks."""

    def __init__(self, classes: int) -> None:
        self.precision: MeanAveragePrecision | None = None
        self.shown = torch.zeros(classes, dtype=torch.bool)

    def update(self, found: Sequence[Detections], truths: Sequence[Truth]) -> None:
        """Both are in pixels of the images."""
        both = [(f, t) for f, t in zip(found, truths, strict=True) if f.masks is not None and t.instances is not None]
        if not both:
            return
        if self.precision is None:
            # With boxes beside the masks: of masks alone, torchmetrics forgets images that show no object.
            self.precision = _average_precision(("bbox", "segm"))
        self.precision.update(
            [{"boxes": f.boxes, "masks": f.masks, "scores": f.scores, "labels": f.labels} for f, _ in both],
            [{"boxes": t.boxes, "masks": t.instances, "labels": t.labels} for _, t in both],
        )
        self.shown[torch.cat([t.labels for _, t in both])] = True

    def metrics(self, groups: Groups) -> dict[str, float]:
        """{"mask_ap50", "mask_ap"} in percent, and of every group; none where no object of a class with a mask was seen."""
        found: dict[str, float] = {}
        if self.precision is not None and self.shown.any():
            values = _by_class(self.precision, len(self.shown), "segm_")
            for name, own in zip(("mask_ap50", "mask_ap"), values, strict=True):
                found |= _mean_and_groups(name, own, self.shown, groups)
        return found


def _panoptic(truth: Truth) -> Tensor:
    """Class and segment of every pixel, int64 [H, W, 2]; the class is negative where none is known."""
    kind, number = truth.semantic.long(), torch.zeros(truth.semantic.shape, dtype=torch.long)
    for n, mask in enumerate(truth.instances, 1):
        number[mask] = n
    return torch.stack([kind, number], -1)


@torch.no_grad()
def detection(method: Detector, pictures, groups: Groups) -> dict[str, Any]:
    """{"ap50", "ap50_<group>", "ap", "ap_<group>", "harmonic_mean" (of AP50), "per_class": {class: AP50}}.

    AP is COCO's, the mean over intersections over union from 0.5 to 0.95, with at most 100 detections of an image. Beside it
    stand the two ceilings of a system that has them: "recall_<group>", the share of true objects that a proposal meets with
    an IoU of 0.5 or more, and "teacher_<group>", how often the teacher names the true boxes right among all classes. A system
    that gives masks is also measured by "mask_ap50" and "mask_ap", over the images whose masks are known.

    Where a system's paper also reports new classes when no other name competes (`Detector.also_new_only`), "ap50_new_only" and
    "ap_new_only" are that: only new names can be said, on the images with an object of theirs.

    Raises `VlmlabError` if the images have no boxes.
    """
    average = _average_precision("bbox")
    ceilings, masks = _Ceilings(len(method.classes)), _Masks(len(method.classes))
    for positions, raw in as_read(pictures, AT_ONCE, f"{method.info.key}: evaluating"):
        images, frames = method.framed(raw)
        truths = [pictures.truth(i) for i in positions]
        batch = Batch(images=images, index=torch.tensor(positions))
        found = [one.cpu().back(frame).surest(MOST) for one, frame in zip(method.detect(batch), frames, strict=True)]
        average.update(
            [{"boxes": one.boxes, "scores": one.scores, "labels": one.labels} for one in found],
            [{"boxes": truth.boxes, "labels": truth.labels} for truth in truths],
        )
        masks.update(found, truths)
        ceilings.update(method, batch, [frame.truth(truth) for frame, truth in zip(frames, truths, strict=True)])
    if not ceilings.objects.sum():
        raise VlmlabError("these images show no object of the classes; choose a dataset with boxes, such as tableau")
    ap = _by_class(average, len(method.classes))
    there = ceilings.objects > 0
    numbers: dict[str, Any] = {}
    numbers |= _mean_and_groups("ap", ap[1], there, groups)
    numbers["ap50"] = float(ap[0][there].mean())
    numbers |= _by_group("ap50", ap[0], there, groups)
    numbers |= masks.metrics(groups) | ceilings.metrics(groups)
    if method.also_new_only and groups.get("new"):
        numbers |= new_only(method, pictures, list(groups["new"]))
    numbers["per_class"] = {method.classes[c]: float(ap[0, c]) for c in there.nonzero().flatten().tolist()}
    return numbers


@torch.no_grad()
def new_only(method: Detector, pictures, new: Sequence[int]) -> dict[str, float]:
    """{"ap50_new_only", "ap_new_only"} when only the names of the classes `new` are asked for, in the images that show one of
    them; nothing if there is none. The method is left on the classes that it had.

    Raises `VlmlabError` if the method cannot be asked for other names.
    """
    shown = [i for i in range(len(pictures)) if torch.isin(pictures.truth(i).labels, torch.tensor(new)).any()]
    if not shown:
        return {}
    pictures, average = pictures.subset(shown), _average_precision("bbox")
    with asked(method, [method.classes[c] for c in new], method.templates):
        for positions, raw in as_read(pictures, AT_ONCE, f"{method.info.key}: evaluating new names alone"):
            images, frames = method.framed(raw)
            truths = [pictures.truth(i).of_classes(new) for i in positions]
            batch = Batch(images=images, index=torch.tensor(positions))
            found = [
                one.cpu().back(frame).surest(MOST) for one, frame in zip(method.detect(batch), frames, strict=True)
            ]
            average.update(
                [{"boxes": one.boxes, "scores": one.scores, "labels": one.labels} for one in found],
                [{"boxes": truth.boxes, "labels": truth.labels} for truth in truths],
            )
    ap = _by_class(average, len(new))
    there = torch.cat([pictures.truth(i).of_classes(new).labels for i in range(len(pictures))]).unique()
    return {"ap50_new_only": float(ap[0, there].mean()), "ap_new_only": float(ap[1, there].mean())}


@contextlib.contextmanager
def asked(method: Method, words: Sequence[str], templates: Sequence[str]) -> Iterator[None]:
    """The system asked for other words meanwhile. Raises `VlmlabError` if it cannot be."""
    before = list(method.classes), list(method.templates)
    try:
        method.set_classes(list(words), list(templates))
        yield
    finally:
        method.set_classes(*before)


def _average_precision(kinds: str | tuple[str, ...]) -> MeanAveragePrecision:
    """COCO's average precision of boxes ("bbox"), masks ("segm") or both."""
    from torchmetrics.detection import MeanAveragePrecision

    average = MeanAveragePrecision(iou_type=kinds, extended_summary=True)
    average.warn_on_many_detections = False
    return average


def _by_class(average: MeanAveragePrecision, classes: int, prefix: str = "") -> Tensor:
    """AP50 and AP in percent, [2, C]; not a number for a class that neither is there nor is found. `prefix` says of what, if the
    average is of boxes and masks."""
    # precision [10 thresholds, 101 recalls, K classes, 4 areas, 3 limits of detections]; -1 for a class without an object
    result = average.compute()
    precision = result[f"{prefix}precision"][:, :, :, 0, -1].mean(1)  # [10, K]
    ap = torch.full((2, classes), torch.nan)
    ap[:, result["classes"].reshape(-1).long()] = 100 * torch.stack([precision[0], precision.mean(0)]).float()
    return ap


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


def _mean_and_groups(name: str, values: Tensor, there: Tensor, groups: Groups) -> dict[str, float]:
    """The mean over the classes that are there, and `_by_group` without the harmonic mean, which is that of the main metric."""
    found = {name: float(values[there].mean())} | _by_group(name, values, there, groups)
    found.pop("harmonic_mean", None)
    return found


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
