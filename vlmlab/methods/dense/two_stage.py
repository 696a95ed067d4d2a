"""What the detectors that name proposals share: where regions come from, and how scores become detections.

Dimensions: B images, P proposals an image, C classes, n boxes of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlmlab.methods.dense.boxes import class_nms, side_by_side
from vlmlab.methods.dense.crops import crop_embeddings
from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.dense.detector import Detector
from vlmlab.methods.dense.regions import RegionBank
from vlmlab.methods.dense.text_bank import text_bank
from vlmlab.methods.method import Batch


class TwoStage(Detector):
    """A detector over the frozen proposer. Its Config has `test_proposals`, `crop_shape`, `crop_scales` and `nms`.

    All names share the box of a proposal, which the proposer has refined once.
    """

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        self.text = text_bank(self.backbone, classes, templates)  # [C, e]

    def bank_of(self, count: int) -> RegionBank:
        """Regions by this system's recipe, `count` an image."""
        scales = [float(scale) for scale in self.config.crop_scales.split()]
        return RegionBank(self.backbone, count, scales, self.config.crop_shape)

    @property
    def tested(self) -> RegionBank:
        """Regions of images that are predicted."""
        if "_tested" not in self.__dict__:
            object.__setattr__(self, "_tested", self.bank_of(self.config.test_proposals))
        return self._tested

    def proposals(self, batch: Batch) -> list[Tensor]:
        found = self.tested.find(batch.images)
        return [boxes[there] for boxes, there in zip(found.boxes, found.there, strict=True)]

    @torch.no_grad()
    def teacher_scores(self, batch: Batch, boxes: Sequence[Tensor]) -> list[Tensor]:
        """Cosines [n, C] of CLIP's embedding of the crops of these boxes with the words."""
        padded = side_by_side(boxes)
        tested = self.tested
        embeddings = crop_embeddings(self.backbone, batch.images, padded, tested.scales, tested.shape)
        return [own[: len(box)] @ self.text.T for own, box in zip(embeddings, boxes, strict=True)]

    def named(self, boxes: Tensor, scores: Tensor, there: Tensor) -> list[Detections]:
        """Boxes [B, P, 4] with scores [B, P, C], of which `there` [B, P] are some -> detections after the suppression of
        doubles, per class. No score is too small."""
        kept = class_nms(boxes, scores, self.config.nms) & there[..., None]
        found = []
        for own_boxes, own_scores, own in zip(boxes, scores, kept, strict=True):
            row, label = own.nonzero(as_tuple=True)
            one = Detections(own_boxes[row], own_scores[row, label], label)
            found.append(one.surest(self.config.most_detections))
        return found
