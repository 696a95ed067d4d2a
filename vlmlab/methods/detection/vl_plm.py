"""VL-PLM: proposals that CLIP is sure of become boxes of new classes, and an ordinary detector learns from them.

Zhao et al., "Exploiting Unlabeled Data with Vision and Language Models for Object Detection", arXiv 2207.08954; code:
xiaofeng94/VL-PLM. The survey lists it and does not discuss it.

CLIP names crops well and places boxes badly: it is as sure of half an object as of the whole. VL-PLM lets the proposer say
where, and CLIP say what:

    r    = proposals, sent through the proposer's second stage `rounds` times: each moves them closer to an object   (1)
    v_r  = n( sum_k n(f(crop(r, scale_k))) ),   q_r = softmax over NEW names of v_r . t_c / tau                      (2)
    c_r, q*_r = argmax, max of q_r;   score_r = w o_r + (1 - w) q*_r,   o_r objectness                               (3)
    pseudo boxes: score_r > threshold, then suppression of doubles by class                                          (4)
    student: mean over regions of confidence_r * CE([<z_r, t_c>..., 0], y_r), ground truth has confidence 1          (5)

The student knows base boxes and pseudo boxes, and names all classes by their words. New names are known in training.

What differs from the release: see `dense.region_learner` and `dense.student`; boxes and masks are not learned, so (5) is the
classification term alone; the proposer has refined a proposal once before the `rounds` begin. Named settings for the embedded
world: `off_base` (a proposal on a base object is asked among new names only, and one of them will look likely; the release leaves
such labels in), `tau` from the backbone, fewer rounds.

Dimensions: N images, B of them at once, P proposals of an image, C_n new classes, e joint width, K scales, R regions.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.methods.dense.boxes import from_deltas
from vlmlab.methods.dense.crops import SHAPES, crop_embeddings
from vlmlab.methods.dense.pseudo_labels import PseudoLabels, chosen
from vlmlab.methods.dense.region_learner import EMBEDDED
from vlmlab.methods.dense.student import Student, StudentRecipe
from vlmlab.methods.method import Batch, option
from vlmlab.registry import register

SMALLEST = 5.0
"""Sides in pixels below which a box is not shown to CLIP."""


@register(
    "vl_plm",
    title="VL-PLM: Exploiting Unlabeled Data with Vision and Language Models for Object Detection",
    paper="arXiv:2207.08954",
    year=2022,
    section="7.1.3",
    family="detection",
    setup="open-vocabulary",
    learns="a head on regions",
    tasks=("detection",),
    status="extra",
)
class VLPLM(Student):
    """Pseudo boxes of new classes from proposals, CLIP and objectness."""

    @dataclasses.dataclass
    class Config(StudentRecipe):
        rounds: int = option(10, "times that proposals are refined before CLIP sees them", 0, 20)
        objectness: float = option(0.5, "w, share of objectness in the score", 0.0, 1.0)
        tau: float = option(0.01, "temperature of CLIP's softmax; 0: the backbone's own", 0.0, 1.0)
        threshold: float = option(0.8, "score that a pseudo label must exceed", 0.0, 1.0)
        doubles: float = option(0.6, "intersection over union of two pseudo boxes that are one", 0.0, 1.0)
        off_base: float = option(1.0, "intersection over union with a base box from which a label is dropped", 0.0, 1.0)
        confidence: bool = option(True, "weigh a pseudo label by its score")
        crop_shape: str = option("centred", "how a box is cut out", choices=SHAPES)
        epochs: int = option(24, "epochs over the training images", 1, 10000)
        batch_size: int = option(16, "images a step", 1, 4096)
        lr: float = option(0.02, "learning rate after the warm-up", 0.0, 10.0)
        weight_decay: float = option(1e-4, "weight decay", 0.0, 1.0)

    embedded: typing.ClassVar[dict] = EMBEDDED | {"rounds": 3, "tau": 0.0, "off_base": 0.5}

    def prepare(self, task) -> None:
        super().prepare(task)
        images = self.learns_from(task)
        self.pseudo = self.pseudo_labels(self.closer(images)).off(self.granted, self.config.off_base)
        self.targets = self.granted.beside(self.pseudo)

    @property
    def distils(self) -> bool:
        return False  # CLIP sees the refined boxes, not those that the bank has encoded

    def closer(self, images) -> dict[str, Tensor]:
        """(1) and the v_r of (2), of all images of a set, from the disk if they are there: {"boxes" [N, P, 4], "objectness"
        [N, P], "there" [N, P], "embeddings" [N, P, e]}."""
        bank, rounds = self.learned, self.config.rounds

        def compute(positions: range) -> dict[str, Tensor]:
            pixels, _ = self.framed([images.images(i) for i in positions])
            found = bank.find(pixels)
            boxes = bank.ratio * refined(bank.proposer, found.maps, found.boxes / bank.ratio, rounds)
            there = found.there & ((boxes[..., 2:] - boxes[..., :2]).amin(-1) >= SMALLEST * pixels.shape[-1] / 640)
            embeddings = encoded(self.backbone, pixels, boxes, bank.scales, bank.shape)
            own = {"boxes": boxes, "objectness": found.objectness, "embeddings": embeddings}
            return own | {"there": there.to(torch.uint8)}

        return bank.stored(images, f"refined {rounds} times {bank.scales} {bank.shape}", compute)

    def pseudo_labels(self, regions: dict[str, Tensor]) -> PseudoLabels:
        """(2) to (4): boxes of new classes, their labels numbered as `classes` are."""
        config = self.config
        new = torch.tensor(self.new, device=self.backbone.device)
        if not len(new):
            empty = regions["there"].bool() & False
            return PseudoLabels(regions["boxes"], empty.long(), empty.float(), empty)
        scale = 1 / config.tau if config.tau else float(self.backbone.logit_scale)
        sure, which = (scale * regions["embeddings"] @ self.text[new].T).softmax(-1).max(-1)  # [N, P]
        score = config.objectness * regions["objectness"] + (1 - config.objectness) * sure
        found = chosen(regions["boxes"], score, new[which], regions["there"].bool(), config.threshold, config.doubles)
        if not config.confidence:
            found.weights = found.there.float()
        return found

    def loss(self, batch: Batch) -> Tensor:
        index = batch.index.to(self.regions.maps.device)
        return self.named_loss(self.regions.at(index), self.targets.at(index), range(len(self.text)))


def encoded(backbone, images: Tensor, boxes: Tensor, scales: Sequence[float], shape: str) -> Tensor:
    """v_r of (2): unit [B, P, e] of boxes [B, P, 4] of normalised images, the crops of every scale made unit before they are
    added."""
    return F.normalize(sum(crop_embeddings(backbone, images, boxes, [scale], shape) for scale in scales), dim=-1)


@torch.no_grad()
def refined(proposer, maps: Tensor, boxes: Tensor, rounds: int) -> Tensor:
    """Boxes [B, P, 4] in pixels of the proposer's input, `rounds` times through its second stage."""
    for _ in range(rounds):
        boxes = from_deltas(boxes, proposer.second(proposer.regions(maps, boxes)), float(proposer.side))
    return boxes
