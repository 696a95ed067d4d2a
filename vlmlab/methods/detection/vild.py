"""ViLD: a detector whose classifier is words, and whose regions learn from CLIP's crops.

Gu et al., "Open-vocabulary Object Detection via Vision and Language Knowledge Distillation", arXiv 2104.13921; code:
tensorflow/tpu, models/official/detection/projects/vild.

    z_r  = head(RoIAlign(map, r))                                      [R, e]
    text   L_text  = CE( s [cos(z_r, t_1), ..., cos(z_r, t_C), cos(z_r, b)], y_r ),  logits of new classes times 0
    image  L_image = 1/R sum_r || n(z_r) - v_r ||_1                    v_r: CLIP's embedding of the crop, all proposals
    loss   L = L_text + w L_image

    head   = text:     L_text alone
             image:    L_image alone
             vild:     one head receives both
             ensemble: a second head receives L_image alone;
                       score = p^(2/3) q^(1/3) on base and p^(1/3) q^(2/3) on new classes

Only base classes have boxes; a proposal that meets none of them is background to L_text, whatever it shows. L_image does not
ask what a proposal shows, and that is where new classes come from. b is learned; the words never are. At test all names
compete, p = softmax with background and q = softmax without it.

What differs from the release: see `dense.region_learner`, and one named setting more, `soften` (factor on the logits of p in
the ensemble; at this size the softmax is too sure of itself to be a factor of a product).

Dimensions: B images, P proposals an image, R regions, C classes, F features of a region, e joint width.
"""

from __future__ import annotations

import dataclasses
import typing

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.dense.distillation import l1
from vlmlab.methods.dense.fusion import geometric
from vlmlab.methods.dense.region_learner import EMBEDDED, RegionLearner, RegionRecipe, text_loss
from vlmlab.methods.dense.roi_head import TextClassifier
from vlmlab.methods.method import Batch, option
from vlmlab.registry import register

HEADS = ("vild", "text", "image", "ensemble")


@register(
    "vild",
    title="ViLD: Open-vocabulary Object Detection via Vision and Language Knowledge Distillation",
    paper="arXiv:2104.13921",
    year=2022,
    section="7.1.1",
    family="detection",
    setup="open-vocabulary",
    learns="heads on regions",
    tasks=("detection",),
)
class ViLD(RegionLearner):
    """The head on regions, its words and its teacher."""

    @dataclasses.dataclass
    class Config(RegionRecipe):
        scale: float = option(100.0, "factor of the cosines; 0: the backbone's own", 0.0, 1000.0)
        head: str = option("vild", "what the head learns from", choices=HEADS)
        distill: float = option(0.5, "w, weight of the distance to CLIP's crops", 0.0, 1000.0)
        soften: float = option(1.0, "factor on the logits of p in the ensemble", 0.0, 1.0)
        epochs: int = option(460, "epochs over the training images", 1, 10000)
        batch_size: int = option(256, "images a step", 1, 4096)
        lr: float = option(0.32, "learning rate after the warm-up", 0.0, 10.0)
        momentum: float = option(0.9, "momentum of SGD", 0.0, 1.0)
        weight_decay: float = option(4e-5, "weight decay", 0.0, 1.0)

    embedded: typing.ClassVar[dict] = EMBEDDED | {"scale": 0.0, "distill": 2.0, "soften": 0.3}

    @property
    def distils(self) -> bool:
        return self.config.head != "text"

    def prepare(self, task) -> None:
        super().prepare(task)
        if self.config.head != "image":
            self.text_head = self.head()
            self.classifier = TextClassifier(self.text.shape[1], self.scale).to(self.backbone.device)
        if self.config.head in ("image", "ensemble"):
            self.image_head = self.head()

    def loss(self, batch: Batch) -> Tensor:
        config, regions = self.config, self.regions_of(batch)
        total = torch.zeros((), device=self.backbone.device)
        if config.head != "image":
            own = self.labelled(batch, regions)
            embeddings = self.text_head(self.features(regions.maps, own.boxes)[own.there], learning=True)
            logits = self.classifier(embeddings, self.base_text)
            total = total + text_loss(logits, own.labels[own.there], self.unnamed)
        if config.head != "text":
            head = self.text_head if config.head == "vild" else self.image_head
            students = head(self.features(regions.maps, regions.boxes), learning=True)
            total = total + config.distill * l1(students, regions.embeddings, regions.there)
        return total

    @torch.no_grad()
    def detect(self, batch: Batch) -> list[Detections]:
        found = self.tested.find(batch.images)
        return self.named(found.boxes, self.scores(self.features(found.maps, found.boxes)), found.there)

    def scores(self, features: Tensor) -> Tensor:
        """[..., C] of the features of regions [..., F], by the heads that there are."""
        p = q = None
        if self.config.head != "image":
            soften = self.config.soften if self.config.head == "ensemble" else 1.0
            p = (soften * self.classifier(self.text_head(features), self.text)).softmax(-1)[..., :-1]
        if self.config.head in ("image", "ensemble"):
            q = (self.scale * F.normalize(self.image_head(features), dim=-1) @ self.text.T).softmax(-1)
        if p is None or q is None:
            return q if p is None else p
        return geometric(p, q, self.is_new)
