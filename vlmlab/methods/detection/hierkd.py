"""HierKD: a one-stage detector that learns from CLIP's view of each object, and from the caption of the whole image.

Ma et al., "Open-Vocabulary One-Stage Detection with Hierarchical Visual-Language Knowledge Distillation", arXiv 2203.10593;
code: mengqiDyangge/HierKD, commit 18b2307 (ATSSZSDSFLHead).

A one-stage detector proposes nothing, so there is no crop of an object that nobody boxed, and distillation from crops can only
repeat base classes. What tells of the others is the caption: it attends to the map of embeddings, and must be closest to its own
image.

    e_a    = n(class tower at place a)                                   [B, A, e]
    p_a    = softmax( tau [<e_a, t_1>, ..., <e_a, t_C>, <e_a, n(b)>] )   tau and b learned, b from "a photo of background."
    score  = p_ac * sigmoid(quality of the box at a)

    L_cls  = exp(-w) sum over a of 1/4 (1 - p_ay)^2 (-log p_ay) / positives + |w|        (1)
             a: all positives, and a tenth of the others, drawn; w learned
    L_box  = 2 sum_a u_a GIoU loss(box_a, object) / sum_a u_a,   u_a their IoU           (2)
    L_iou  = sum_a BCE(quality_a, u_a) / positives                                       (3)
    L_ins  = 0.05 mean_a || e_a - v_a ||_2      v_a: CLIP's crop of the box that place a predicts, if its IoU >= 0.5   (4)

    P_i    = n(max over a 3 x 3 grid of the map e of image i)                            [B, 9, e]
    alpha  = softmax over patches of <P_i, c_j>,   g_ji = n(sum alpha P_i)               c_j: caption of image j       (5)
    m_ji   = kappa <g_ji, c_j>,   L_cap = CE(m, own image) + CE(m', own caption)         kappa learned, from 10
    L      = L_cls + L_box + L_iou + L_ins + L_cap

Positives are chosen as ATSS does (arXiv 1912.02424): of the nine places nearest to the middle of an object, those whose anchor
overlaps it more than their mean and deviation, and whose middle lies in it. The classifier knows base names alone while it learns,
all names afterwards; as in the paper, it is also measured with new names alone (`ap50_new_only`).

What differs from the release, beyond `dense.one_stage`: anchors lie in the middle of their cell, crops have CLIP's own statistics
of pixels (the release shows CLIP what the detector sees), b is made unit within the graph. The caption of an image is
the one that it has, not one of five. Named settings for a world this small: `distil_boxes="granted"` (the release's own switch:
the crop of the ground truth instead of the predicted box, encoded once and for all), square crops, `bias` 0, smaller anchors
and towers, tau from the backbone.

Dimensions: B images, A places, G objects of an image at most, C classes, e joint width, n positive places, Q patches of an image.
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from vlmlab.datasets.captions import forms
from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.boxes import iou
from vlmlab.methods.dense.crops import crop_embeddings
from vlmlab.methods.dense.one_stage import OneStage, OneStageRecipe, Places, Tower, by_place, iou_of_rows
from vlmlab.methods.dense.pseudo_labels import PseudoLabels
from vlmlab.methods.dense.text_bank import sentence_bank
from vlmlab.methods.method import Batch, option
from vlmlab.registry import register

NEAREST = 9  # places near the middle of an object that may be positive
LIMIT = abs(math.log(16 / 1000))  # of the logarithm by which a side grows or shrinks
BACKGROUND = "a photo of background."


@register(
    "hierkd",
    title="HierKD: Open-Vocabulary One-Stage Detection with Hierarchical Visual-Language Knowledge Distillation",
    paper="arXiv:2203.10593",
    year=2022,
    section="7.1.1",
    family="detection",
    setup="open-vocabulary",
    learns="a dense head",
    tasks=("detection",),
)
class HierKD(OneStage):
    """Two towers on the map, the classifier of words, and two distances to CLIP."""

    also_new_only = True

    @dataclasses.dataclass
    class Config(OneStageRecipe):
        instances: float = option(0.05, "weight of the distance to CLIP's crops", 0.0, 1000.0)
        captions: float = option(1.0, "weight of the captions; 0: none is read", 0.0, 1000.0)
        new_nouns: bool = option(True, "whether captions may say new classes; if not, 'object' stands there")
        distil_boxes: str = option("predicted", "boxes that CLIP is shown", choices=("predicted", "granted"))
        grid: int = option(3, "patches of an image along each side", 1, 16)
        match_scale: float = option(10.0, "kappa at the start", 0.0, 1000.0)
        scale: float = option(100.0, "tau at the start; 0: the backbone's own", 0.0, 1000.0)
        negatives: float = option(0.1, "share of the places without an object that (1) looks at", 0.0, 1.0)
        anchor: float = option(8.0, "side of the anchors, in strides", 1.0, 64.0)
        bias: float = option(-4.595, "what the bias of the embeddings starts from", -10.0, 10.0)
        clip: float = option(10.0, "largest length of the gradient", 0.0, 1e6)
        crop_shape: str = option("letterboxed", "how a box is cut out for CLIP", choices=("letterboxed", "square"))
        epochs: int = option(12, "epochs over the training images", 1, 10000)
        batch_size: int = option(8, "images a step", 1, 4096)
        lr: float = option(0.01, "learning rate after the warm-up", 0.0, 10.0)
        momentum: float = option(0.9, "momentum of SGD", 0.0, 1.0)
        weight_decay: float = option(1e-4, "weight decay", 0.0, 1.0)

    embedded: typing.ClassVar[dict] = {
        "layers": 2,
        "width": 96,
        "distil_boxes": "granted",
        "crop_shape": "square",
        "crop_scales": "1.2",
        "anchor": 5.0,
        "bias": 0.0,
        "scale": 0.0,
        "epochs": 8,
        "batch_size": 16,
        "optimizer": "adamw",
        "lr": 1e-3,
        "weight_decay": 1e-2,
    }

    def prepare(self, task) -> None:
        super().prepare(task)
        config, device, inside = self.config, self.backbone.device, self.regions.maps.shape[1]
        width, joint = config.width, self.text.shape[1]
        self.class_tower, self.box_tower = (Tower(inside, width, config.layers) for _ in range(2))
        self.embedding, self.deltas, self.quality = (nn.Conv2d(width, n, 3, 1, 1) for n in (joint, 4, 1))
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, std=0.01)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        nn.init.constant_(self.embedding.bias, config.bias)
        self.delta_scale = nn.Parameter(torch.ones(()))
        self.tau = nn.Parameter(torch.tensor(config.scale or float(self.backbone.logit_scale)))
        self.class_weight = nn.Parameter(torch.ones(()))
        self.background = nn.Parameter(sentence_bank(self.backbone, [BACKGROUND])[0])
        if config.captions:
            self.match_scale = nn.Parameter(torch.tensor(config.match_scale))
            self.said = self.caption_embeddings()  # [N, e]
        self.to(device)
        if config.instances and config.distil_boxes == "granted":
            self.teachers = self.embedded_boxes(self.granted, unit=True)  # [N, G, e]

    def caption_embeddings(self) -> Tensor:
        """Unit [N, e] of the captions of the training images. Raises `VlmlabError` if they have none."""
        if not self.pictures.captioned:
            raise VlmlabError("hierkd reads captions, and these images have none; set captions=0")
        sentences = [self.pictures.caption(i) for i in range(len(self.pictures))]
        if not self.config.new_nouns:
            sentences = without_names(sentences, self.new_names)
        return sentence_bank(self.backbone, sentences)

    # --- the heads ---------------------------------------------------------------------------------------------------

    def heads(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of standardised maps: (unit embeddings [B, A, e], boxes [B, A, 4] in pixels of the input, logits of quality [B, A])."""
        box_features = self.box_tower(maps)
        embeddings = F.normalize(by_place(self.embedding(self.class_tower(maps))).float(), dim=-1)
        deltas = by_place(self.delta_scale * self.deltas(box_features)).float()
        boxes = moved(self.anchors(*maps.shape[-2:]), deltas)
        return embeddings, boxes, by_place(self.quality(box_features))[..., 0].float()

    def anchors(self, height: int, width: int) -> Tensor:
        """One square per place, [A, 4]."""
        centres, half = self.centres(height, width), self.config.anchor * self.stride / 2
        return torch.cat([centres - half, centres + half], -1)

    def class_logits(self, embeddings: Tensor, text: Tensor) -> Tensor:
        """[..., C + 1] of unit embeddings [..., e] and unit words [C, e]; background last."""
        return self.tau * embeddings @ torch.cat([text, F.normalize(self.background, dim=-1)[None]]).T

    def at_places(self, maps: Tensor) -> Places:
        embeddings, boxes, quality = self.heads(maps)
        probabilities = self.class_logits(embeddings, self.text).softmax(-1)[..., :-1]
        scores = probabilities * quality.sigmoid()[..., None]
        return Places(boxes, scores, scores.amax(-1))

    # --- learning ----------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Tensor:
        index = batch.index.to(self.backbone.device)
        maps = self.standardised(self.regions.maps[index])
        embeddings, boxes, quality = self.heads(maps)
        anchors = self.anchors(*maps.shape[-2:])
        total = self.loss_at_places(embeddings, boxes, quality, anchors, self.granted.at(index), index)
        if self.config.captions:
            patches = patches_of(embeddings.mT.unflatten(2, maps.shape[-2:]), self.config.grid)
            total = total + self.config.captions * caption_loss(patches, self.said[index], self.match_scale)
        return total

    def loss_at_places(
        self, embeddings: Tensor, boxes: Tensor, quality: Tensor, anchors: Tensor, known: PseudoLabels, index: Tensor
    ) -> Tensor:
        """(1) to (4) of what `heads` gives for the images at `index` [B], whose objects are `known`."""
        config = self.config
        which = nearest_anchors(anchors, known)  # [B, A], -1 where there is no object
        image, place = (which >= 0).nonzero(as_tuple=True)
        target = which[image, place]
        positives = (which >= 0).sum(1).clamp_min(1).sum()

        labels = torch.full_like(which, len(self.base))
        labels[image, place] = known.labels[image, target]
        drawn = drawn_places(which.flatten() >= 0, config.negatives)
        logits = self.class_logits(embeddings, self.base_text).flatten(0, 1)
        focal = softmax_focal(logits[drawn], labels.flatten()[drawn])
        total = (-self.class_weight).exp() * focal.sum() / positives + self.class_weight.abs()

        mine, objects = boxes[image, place], known.boxes[image, target]
        overlap = iou_of_rows(mine.detach(), objects)
        total = total + 2 * box_loss(mine, objects, overlap)
        total = total + F.binary_cross_entropy_with_logits(quality[image, place], overlap, reduction="sum") / positives
        if config.instances:
            good = overlap >= 0.5
            image, place, target = image[good], place[good], target[good]
            if config.distil_boxes == "granted":
                teachers = self.teachers[index][image, target]
            else:
                teachers = self.crops(index, image, mine.detach()[good])
            total = total + config.instances * instance_loss(embeddings[image, place], teachers)
        return total

    def crops(self, index: Tensor, image: Tensor, boxes: Tensor) -> Tensor:
        """CLIP's unit embeddings [n, e] of boxes [n, 4], each in an image [n] of the batch of images at `index` [B]."""
        pixels, bank = self.pixels(index), self.looked
        side = float(self.backbone.image_size)
        found = [
            crop_embeddings(
                self.backbone, pixels[i : i + 1], boxes[image == i][None].clamp(0, side), bank.scales, bank.shape
            )
            for i in range(len(index))
        ]
        return torch.cat(found, 1)[0]  # `image` ascends

    def before_step(self) -> None:
        nn.utils.clip_grad_norm_(self.parameters(), self.config.clip)


def moved(anchors: Tensor, deltas: Tensor) -> Tensor:
    """Anchors [A, 4] moved by deltas [B, A, 4]: shifts in tenths of a side, logarithms of sides in fifths."""
    centre, size = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    centre = centre + 0.1 * deltas[..., :2] * size
    size = size * (0.2 * deltas[..., 2:]).clamp(-LIMIT, LIMIT).exp()
    return torch.cat([centre - size / 2, centre + size / 2], -1)


def nearest_anchors(anchors: Tensor, known: PseudoLabels, nearest: int = NEAREST) -> Tensor:
    """Which object each anchor [A, 4] learns, [B, A]: an index into the G of its image, or -1; ATSS on one level.

    Of the `nearest` anchors to the middle of an object, those are positive whose IoU with it is at least the mean plus the
    deviation of theirs, and whose middle is in it. An anchor that is positive twice learns the object that it overlaps most.
    """
    overlap = iou(anchors[None].expand(len(known.boxes), -1, -1), known.boxes)  # [B, A, G]
    if not overlap.shape[2]:
        return torch.full(overlap.shape[:2], -1, device=anchors.device)
    middle, goal = (anchors[:, :2] + anchors[:, 2:]) / 2, (known.boxes[..., :2] + known.boxes[..., 2:]) / 2
    distance = (middle[None, :, None] - goal[:, None]).square().sum(-1).sqrt()  # [B, A, G]
    near = distance.topk(min(nearest, len(anchors)), 1, largest=False).indices  # [B, k, G]
    own = overlap.gather(1, near)
    enough = own >= own.mean(1, keepdim=True) + own.std(1, keepdim=True)
    at = middle[near]  # [B, k, G, 2]
    low, high = at - known.boxes[:, None, :, :2], known.boxes[:, None, :, 2:] - at
    inside = torch.cat([low, high], -1).amin(-1) > 0.01
    positive = torch.zeros_like(overlap, dtype=torch.bool)
    positive.scatter_(1, near, enough & inside & known.there[:, None])
    best, which = overlap.masked_fill(~positive, -torch.inf).max(-1)
    return which.masked_fill(best == -torch.inf, -1)


def drawn_places(positive: Tensor, share: float) -> Tensor:
    """Positions of all that are `positive` [n], and of a `share` of the others, drawn; none if none is positive."""
    yes, no = positive.nonzero()[:, 0], (~positive).nonzero()[:, 0]
    if not len(yes):
        return yes
    chosen = torch.randperm(len(no), device=no.device)[: int(share * len(no))]
    return torch.cat([yes, no[chosen]])


def softmax_focal(logits: Tensor, labels: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """alpha (1 - p_y)^gamma (-log p_y) of logits [n, C + 1], softmaxed, and labels [n]: [n]."""
    entropy = F.cross_entropy(logits, labels, reduction="none")
    return alpha * (1 - (-entropy).exp()) ** gamma * entropy


def box_loss(boxes: Tensor, objects: Tensor, weights: Tensor) -> Tensor:
    """GIoU loss of boxes [n, 4] and their objects, weighted [n]; divided by the sum of the weights, or by 1 if that is less."""
    losses = generalized_box_iou_loss(boxes, objects)
    return (losses * weights).sum() / weights.sum().clamp_min(1)


def instance_loss(students: Tensor, teachers: Tensor) -> Tensor:
    """(4) without its weight: mean of || e - v ||_2 of rows [n, e]; 0 without a row."""
    if not len(students):
        return students.sum()
    return (students - teachers).norm(dim=-1).mean()


def patches_of(embeddings: Tensor, grid: int) -> Tensor:
    """Unit [B, grid * grid, e] of a map [B, e, h, w]: the largest value of each dimension in each part of the image."""
    return F.normalize(by_place(F.adaptive_max_pool2d(embeddings, grid)), dim=-1)


def attended(patches: Tensor, captions: Tensor) -> Tensor:
    """g of (5): unit [B_captions, B_images, e], what each caption [B, e] finds among the patches [B, Q, e] of each image."""
    attention = torch.einsum("iqe,je->jiq", patches, captions).softmax(-1)
    return F.normalize(torch.einsum("jiq,iqe->jie", attention, patches), dim=-1)


def caption_loss(patches: Tensor, captions: Tensor, scale: Tensor | float) -> Tensor:
    """(5) of patches [B, Q, e] and the unit captions [B, e] of the same images."""
    match = scale * torch.einsum("jie,je->ji", attended(patches, captions), captions)
    own = torch.arange(len(match), device=match.device)
    return F.cross_entropy(match, own) + F.cross_entropy(match.T, own)


def without_names(sentences: Sequence[str], names: Sequence[str], instead: str = "object") -> list[str]:
    """The sentences with `instead` wherever one of the names stands, in any of its `forms`."""
    said = sorted({form for name in names for form in forms(name)}, key=len, reverse=True)
    if not said:
        return list(sentences)
    search = re.compile(r"\b(" + "|".join(map(re.escape, said)) + r")\b", re.IGNORECASE)
    return [search.sub(instead, sentence) for sentence in sentences]
