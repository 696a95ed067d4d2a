"""Proposals named by the frozen backbone: what a detector can be without learning anything.

    v_r = n( sum_k f(crop(r, scale_k)) )                  [P, e]
    score_rc = sqrt( o_r * softmax_c( s * <v_r, t_c> ) )  [P, C], o_r objectness

The zero-shot arm of RegionCLIP (Zhong et al., "RegionCLIP: Region-based Language-Image Pretraining", arXiv 2112.09106), with
a plain CLIP in place of theirs: RegionCLIP pools regions from the feature map of a tower that was pretrained on regions, and
here every proposal is cut out and encoded, as in R-CNN. That is slow and strong, and the other systems learn to be as good
without encoding a crop. Its softmax has a background of logit 0 besides, which 100 times the cosines of a large CLIP leave
nothing; here the names are alone. The crops of ViLD's recipe (two scales) are the default; on the embedded backbones the crop is one
square of 1.2 times the longer side, because a tight box stretched to a square shows their towers shapes that they never saw.

Dimensions: P proposals, C classes, e joint width, K scales.
"""

from __future__ import annotations

import dataclasses
import typing

import torch
from torch import Tensor

from vlmlab.methods.dense.crops import SHAPES
from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.dense.two_stage import TwoStage
from vlmlab.methods.method import Batch, option
from vlmlab.registry import register


@register(
    "region_clip",
    title="RegionCLIP (zero-shot): Region-based Language-Image Pretraining",
    paper="arXiv:2112.09106",
    year=2022,
    section="7.1.1",
    family="detection",
    setup="training-free",
    learns="nothing",
    tasks=("detection",),
    status="extra",
)
class RegionCLIP(TwoStage):
    """CLIP names the proposals."""

    eats = "images"

    @dataclasses.dataclass
    class Config:
        test_proposals: int = option(300, "proposals of an image", 1, 1000)
        crop_shape: str = option("stretched", "how a box is cut out", choices=SHAPES)
        crop_scales: str = option("1 1.5", "sizes of the crops, in sizes of the box")
        nms: float = option(0.5, "intersection over union from which the lower score is dropped", 0.0, 1.0)
        most_detections: int = option(300, "detections of an image", 1, 10000)

    embedded: typing.ClassVar[dict] = {"test_proposals": 12, "crop_shape": "square", "crop_scales": "1.2"}

    @torch.no_grad()
    def detect(self, batch: Batch) -> list[Detections]:
        found = self.tested.find(batch.images, crops=True)
        scores = scores_of(found.embeddings, found.objectness, self.text, float(self.backbone.logit_scale))
        return self.named(found.boxes, scores, found.there)


def scores_of(embeddings: Tensor, objectness: Tensor, text: Tensor, scale: float) -> Tensor:
    """[..., C] of unit embeddings [..., e], objectness [...] and unit words [C, e]."""
    return (objectness[..., None] * (scale * embeddings @ text.T).softmax(-1)).sqrt()
