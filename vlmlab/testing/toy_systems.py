"""A toy system that detects and one that segments: each learns one matrix, and shows what the interfaces ask for.

Both name colours: a matrix W [e, 3] maps a colour, in the backbone's normalised channels, to the joint space, and the name
whose embedding points the same way wins. The detector's boxes are those of what is bright in either half of an image.

Dimensions: B images, S image side, C classes, e joint width, n boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.dense.detector import Detector
from vlmlab.methods.dense.segmenter import Segmenter
from vlmlab.methods.method import Batch, Recipe, option
from vlmlab.registry import SystemInfo

SCALE = 20.0  # of cosines, before the softmax


@dataclass
class ColourRecipe(Recipe):
    epochs: int = option(20, "epochs", 1, 1000)
    batch_size: int = option(4, "training images a step", 1, 64)
    lr: float = option(0.05, "learning rate", 0.0, 10.0)
    warmup_epochs: int = option(0, "warm-up", 0, 10)


class ToyDetector(Detector):
    """p(c | box) = softmax_c(SCALE cos(W colour(box), t_c)); learned from the true boxes that the setup grants."""

    info = SystemInfo(
        "toy_detector", "Toy detector", "", 2026, "7.2", "detection", "open-vocabulary", "a matrix", ("detection",)
    )
    Config = ColourRecipe  # type: ignore[assignment]  # both toys have the same

    def prepare(self, task) -> None:
        self.weight = nn.Parameter(_start(self.backbone.embed_dim))
        self.set_classes(task.classes, task.templates)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        self.names = self.backbone.class_embeddings(list(classes), list(templates))  # unit, [C, e]

    def proposals(self, batch: Batch) -> list[Tensor]:
        return [_bright(image) for image in batch.images]

    def teacher_scores(self, batch: Batch, boxes: Sequence[Tensor]) -> list[Tensor]:
        return [self._scores(image, own) for image, own in zip(batch.images, boxes, strict=True)]

    def detect(self, batch: Batch) -> list[Detections]:
        found = []
        for image, boxes in zip(batch.images, self.proposals(batch), strict=True):
            scores, labels = self._scores(image, boxes).softmax(-1).max(-1)
            found.append(Detections(boxes, scores, labels).surest(len(boxes)))
        return found

    def loss(self, batch: Batch) -> Tensor:
        scores = [self._scores(image, truth.boxes) for image, truth in zip(batch.images, batch.truths, strict=True)]
        labels = torch.cat([truth.labels for truth in batch.truths])
        # A batch whose objects are all of new classes has no box: its loss is 0, with a gradient of 0.
        return F.cross_entropy(torch.cat(scores), labels, reduction="sum") / max(1, len(labels))

    def _scores(self, image: Tensor, boxes: Tensor) -> Tensor:
        """[n, C] of the mean colours of boxes [n, 4] in an image [3, S, S]."""
        colours = [image[:, y0:y1, x0:x1].mean((1, 2)) for x0, y0, x1, y1 in _whole(boxes, image.shape[-1])]
        return (
            SCALE * F.normalize(torch.stack(colours) @ self.weight.T, dim=-1) @ self.names.T
            if colours
            else (self.names.new_zeros(0, len(self.names)) + 0 * self.weight.sum())
        )


class ToySegmenter(Segmenter):
    """logits_c(pixel) = SCALE cos(W colour(pixel), t_c); learned from the pixels that the setup grants."""

    info = SystemInfo(
        "toy_segmenter",
        "Toy segmenter",
        "",
        2026,
        "7.3",
        "segmentation",
        "open-vocabulary",
        "a matrix",
        ("segmentation",),
    )
    Config = ColourRecipe  # type: ignore[assignment]  # both toys have the same

    def prepare(self, task) -> None:
        self.weight = nn.Parameter(_start(self.backbone.embed_dim))
        self.set_classes(task.classes, task.templates)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        self.names = self.backbone.class_embeddings(list(classes), list(templates))  # unit, [C, e]

    def logits(self, batch: Batch) -> Tensor:
        z = F.normalize(torch.einsum("ed,bdhw->behw", self.weight, batch.images), dim=1)
        return SCALE * torch.einsum("ce,behw->bchw", self.names, z)

    def loss(self, batch: Batch) -> Tensor:
        return F.cross_entropy(self.logits(batch), batch.masks.clamp_min(-1), ignore_index=-1)


def _start(e: int) -> Tensor:
    """W at its start, [e, 3]."""
    return torch.randn(e, 3, generator=torch.Generator().manual_seed(0))


def _bright(image: Tensor) -> Tensor:
    """The box of what is bright in the upper and in the lower half of an image [3, S, S]: [n, 4], n <= 2."""
    light = image.amax(0)
    bright, half = light > (light.max() + light.min()) / 2, len(light) // 2
    boxes = []
    for top, part in ((0, bright[:half]), (half, bright[half:])):
        ys, xs = part.nonzero().unbind(1)
        if len(ys):
            boxes.append(torch.stack([xs.min(), top + ys.min(), xs.max() + 1, top + ys.max() + 1]).float())
    return torch.stack(boxes) if boxes else image.new_zeros(0, 4)


def _whole(boxes: Tensor, side: int) -> list[list[int]]:
    """Boxes in whole pixels of an image, each with at least one."""
    lower = boxes[:, :2].floor().clamp(0, side - 1)
    upper = torch.maximum(boxes[:, 2:].ceil().clamp_max(side), lower + 1)
    return torch.cat([lower, upper], 1).long().tolist()
