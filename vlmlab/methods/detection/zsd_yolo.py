"""ZSD-YOLO: a YOLO whose class scores are an embedding, and which labels its own training images.

Xie and Zheng, "ZSD-YOLO: Zero-Shot YOLO Detection using Vision-Language Knowledge Distillation", arXiv 2109.12066; code:
Johnathan-Xie/ZSD-YOLO, commit b1469b6.

Each anchor a at each place says a box, whether there is an object, and e:

    box      x, y = 2 sigmoid - 1/2 from the corner of the cell,  w, h = (2 sigmoid)^2 times the anchor
    sim_c    = softmax over c of exp(theta) cos(e, t_c)                        theta learned, from 3.91

    self-labels  boxes of a detector that knows base boxes, with objectness above 0.3, that neither each other nor a granted
                 box overlaps by more than 0.2; they have CLIP's embedding v and no name                                (1)

    L_box  = mean over matches of 1 - CIoU(box, object)                                                               (2)
    L_obj  = 4 mean over all anchors of BCE(o, CIoU of the box where an object is matched, else 0)                    (3)
    L_img  = [ sum over named of |e - v|^p + s sum over self-labels of |e - v|^p ] / numbers in e                     (4)
    L_txt  = mean over named of -log sim_y                                                                            (5)
    L      = B [ w_box L_box + w_obj L_obj + w_cls (w_img L_img + w_txt L_txt) ]

v is not made unit: (4) is a regression of what the image tower gives. Self-labels count as objects in (2) and (3), so places of
new classes are no longer taught to be background, and their embeddings learn from CLIP. An object is matched with the anchors
whose sides are within a factor of four of its own, at its cell and the two nearest ones.

    test    a place stays if max_c sim_c * o > 0.1; then suppression of doubles per class, ranked by sim alone          (6)
            groups: softmax among base names and among new names apart, each with (6) of its own

What differs from the release, beyond `dense.one_stage`: the detector that finds self-labels is the frozen proposer, which saw
boxes of base classes, where the release trains a YOLOv5 for it. The weights of the losses, p and s stand in files that are not
in its repository; those here are YOLOv5's own (boxes, objects, names) and lie in the ranges of its search (the others). They
do not grow with the number of classes and the size of the images. Class names come without a definition from WordNet. Mosaic
and mixing of images are left out. The biases of e start as a convolution's (there, lower, as YOLOv5's of classes do). Where
two objects are matched with one anchor, (3) learns the larger CIoU, there the last one. Named settings for a world this small:
`groups` off, so that all names compete at once; square crops; a narrower tower.

Dimensions: B images, N images of a set, h x w cells, a anchors, A = a h w, Q boxes of an image at most, n matches, C classes,
e joint width.
"""

from __future__ import annotations

import dataclasses
import math
import typing

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms, complete_box_iou_loss

from vlmlab.methods.dense.one_stage import OneStage, OneStageRecipe, Places, Tower
from vlmlab.methods.dense.pseudo_labels import PseudoLabels
from vlmlab.methods.method import Batch, option
from vlmlab.registry import register

OF_640 = 25.0
"""Sides in pixels of an image of 640 that a self-label must exceed."""
LEVEL = 4.0
"""Weight of the objectness of the finest level, YOLOv5's."""


@register(
    "zsd_yolo",
    title="ZSD-YOLO: Zero-Shot YOLO Detection using Vision-Language Knowledge Distillation",
    paper="arXiv:2109.12066",
    year=2021,
    section="7.1.1",
    family="detection",
    setup="open-vocabulary",
    learns="a dense head",
    tasks=("detection",),
)
class ZSDYOLO(OneStage):
    """A tower on the map, one layer that says everything, and boxes that nobody named."""

    also_new_only = True

    @dataclasses.dataclass
    class Config(OneStageRecipe):
        self_labels: bool = option(True, "learn from boxes that the base detector finds and nobody named")
        objectness: float = option(0.3, "objectness that a self-label must exceed", 0.0, 1.0)
        apart: float = option(0.2, "intersection over union from which a self-label is a double", 0.0, 1.0)
        candidates: int = option(300, "boxes of an image among which self-labels are chosen", 1, 1000)
        boxes: float = option(0.05, "w_box, weight of the boxes", 0.0, 1000.0)
        objects: float = option(1.0, "w_obj, weight of objectness", 0.0, 1000.0)
        names: float = option(0.5, "w_cls, weight of the embeddings", 0.0, 1000.0)
        image: float = option(1.0, "w_img, weight of CLIP's crops", 0.0, 1000.0)
        words: float = option(1.0, "w_txt, weight of the words", 0.0, 1000.0)
        power: float = option(1.0, "p, power of the distance to CLIP's crops", 0.5, 4.0)
        self_share: float = option(1.0, "s, factor of the self-labels' distances", 0.0, 1000.0)
        temperature: float = option(3.91, "theta at the start; 0: the logarithm of the backbone's own", 0.0, 10.0)
        anchors: str = option("0.26 0.36 0.48", "sides of the anchors, in sides of the image")
        ratio: float = option(
            4.0, "factor between an anchor's sides and an object's up to which they match", 1.0, 100.0
        )
        keep: float = option(0.1, "similarity times objectness that a place must exceed", 0.0, 1.0)
        groups: bool = option(True, "whether base and new names are softmaxed apart")
        most_detections: int = option(45, "detections of an image", 1, 10000)
        epochs: int = option(50, "epochs over the training images", 1, 10000)
        batch_size: int = option(12, "images a step", 1, 4096)
        lr: float = option(0.01, "learning rate after the warm-up", 0.0, 10.0)
        momentum: float = option(0.937, "momentum of SGD", 0.0, 1.0)

    embedded: typing.ClassVar[dict] = {
        "layers": 3,
        "width": 96,
        "crop_shape": "square",
        "crop_scales": "1.2",
        "candidates": 8,
        "places": 128,
        "temperature": 0.0,
        "groups": False,
        "boxes": 2.0,
        "objects": 5.0,
        "epochs": 8,
        "batch_size": 16,
        "optimizer": "adamw",
        "lr": 2e-3,
        "weight_decay": 1e-2,
    }

    @property
    def proposed(self) -> int:
        """Boxes of the proposer that are candidates for self-labels."""
        return self.config.candidates

    def prepare(self, task) -> None:
        super().prepare(task)
        config, inside, joint = self.config, self.regions.maps.shape[1], self.text.shape[1]
        sides = torch.tensor([float(side) for side in config.anchors.split()]) * self.backbone.image_size / self.stride
        self.register_buffer("sides", sides)  # [a], in cells
        self.tower = Tower(inside, config.width, config.layers)
        self.out = nn.Conv2d(config.width, len(sides) * (5 + joint), 1)
        with torch.no_grad():  # eight objects an image, as in YOLOv5
            places = self.regions.maps.shape[-1] * self.regions.maps.shape[-2]
            self.out.bias.view(len(sides), -1)[:, 4] += math.log(8 / places)
        own = float(self.backbone.logit_scale.log())
        self.temperature = nn.Parameter(torch.tensor(config.temperature or own))
        self.to(self.backbone.device)
        self.targets = self.granted
        if config.self_labels:
            self.targets = self.granted.beside(self.found())
        self.teachers = self.embedded_boxes(self.targets, unit=False)  # [N, Q, e]

    @property
    def is_new(self) -> Tensor:
        """[C] bool: the classes of which no box was granted."""
        return torch.tensor([name not in self.base_names for name in self.classes], device=self.backbone.device)

    def found(self) -> PseudoLabels:
        """(1): self-labels of all training images, labels -1."""
        regions, config = self.regions, self.config
        least = OF_640 * self.backbone.image_size / 640
        able = regions.there & (regions.objectness > config.objectness)
        return chosen_self_labels(regions.boxes, regions.objectness, able, self.granted, config.apart, least)

    # --- the head ----------------------------------------------------------------------------------------------------

    def said(self, maps: Tensor) -> Tensor:
        """What the head says of standardised maps [B, W, h, w]: [B, a, h, w, 5 + e], nothing squashed."""
        y = self.out(self.tower(maps)).float()
        return y.unflatten(1, (len(self.sides), -1)).permute(0, 1, 3, 4, 2)

    def similarity(self, embeddings: Tensor, text: Tensor) -> Tensor:
        """[..., C] of embeddings [..., e] and unit words [C, e], before the softmax."""
        return self.temperature.exp() * F.normalize(embeddings, dim=-1, eps=1e-8) @ text.T

    def at_places(self, maps: Tensor) -> Places:
        said = self.said(maps)
        height, width = said.shape[2:4]
        y, x = torch.meshgrid(*(torch.arange(n, device=said.device) for n in (height, width)), indexing="ij")
        boxes = self.stride * boxes_of(said[..., :4], torch.stack([x, y], -1), self.sides[:, None, None])
        objectness = said[..., 4].sigmoid().flatten(1)  # [B, A]
        logits = self.similarity(said[..., 5:].flatten(1, 3), self.text)
        new = self.is_new if self.config.groups else torch.zeros_like(self.is_new)
        scores, promise = torch.zeros_like(logits), torch.zeros_like(objectness)
        for group in (new, ~new):
            if group.any():
                own = logits[..., group].softmax(-1)
                sure = own.amax(-1) * objectness
                scores[..., group] = own * (sure > self.config.keep)[..., None]
                promise = torch.maximum(promise, sure)
        return Places(boxes.flatten(1, 3), scores, promise)

    # --- learning ----------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Tensor:
        index = batch.index.to(self.backbone.device)
        said = self.said(self.standardised(self.regions.maps[index]))
        return self.loss_of(said, self.targets.at(index), self.teachers[index])

    def loss_of(self, said: Tensor, known: PseudoLabels, teachers: Tensor) -> Tensor:
        """L of what the head says [B, a, h, w, 5 + e] and the boxes [B, Q] of the images, with their v [B, Q, e]."""
        config = self.config
        image, box, anchor, cell = matches(known, self.sides, self.stride, said.shape[2:4], config.ratio)
        own = said[image, anchor, cell[:, 1], cell[:, 0]]  # [n, 5 + e]
        mine = boxes_of(own[:, :4], cell, self.sides[anchor])
        objects = known.boxes[image, box] / self.stride
        distance = complete_box_iou_loss(mine, objects)  # 1 - CIoU
        wanted = torch.zeros_like(said[..., 4])
        places = ((image * said.shape[1] + anchor) * said.shape[2] + cell[:, 1]) * said.shape[3] + cell[:, 0]
        quality = (1 - distance.detach()).clamp_min(0)
        wanted.view(-1).scatter_reduce_(0, places, quality, "amax")
        total = LEVEL * config.objects * F.binary_cross_entropy_with_logits(said[..., 4], wanted)
        if len(own):
            total = total + config.boxes * distance.mean()
            labels = known.labels[image, box]
            total = total + config.names * self.embedding_loss(own[:, 5:], teachers[image, box], labels)
        return total * len(said)

    def embedding_loss(self, embeddings: Tensor, teachers: Tensor, labels: Tensor) -> Tensor:
        """w_img L_img + w_txt L_txt of rows [n, e], CLIP's [n, e], and labels [n] among base classes, -1 for self-labels."""
        config, named = self.config, labels >= 0
        distance = (embeddings - teachers).abs() ** config.power
        share = torch.where(named, 1.0, config.self_share)
        total = config.image * (distance * share[:, None]).sum() / embeddings.numel()
        if named.any():
            logits = self.similarity(embeddings[named], self.base_text)
            total = total + config.words * F.cross_entropy(logits, labels[named])
        return total


def boxes_of(said: Tensor, cell: Tensor, sides: Tensor) -> Tensor:
    """Boxes [..., 4] x0, y0, x1, y1 in cells: of what is said [..., 4], the cells (x, y) [..., 2], and their anchors' sides."""
    said = said.sigmoid()
    centre = 2 * said[..., :2] - 0.5 + cell
    half = (2 * said[..., 2:]) ** 2 * sides[..., None] / 2
    return torch.cat([centre - half, centre + half], -1)


def matches(
    known: PseudoLabels, sides: Tensor, stride: float, shape: torch.Size, ratio: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Which anchors learn which boxes.

    Args:
        known: boxes [B, Q, 4] in pixels. sides: [a] of the anchors, in cells. shape: (h, w) of the map.
        ratio: factor between the sides of a box and of an anchor up to which they match.

    Returns: image [n], box [n] of that image, anchor [n], cell (x, y) [n, 2]: per match the cell in which the middle of the box
    lies, and the nearer neighbours to the left or right, and above or below, if they are on the map.
    """
    height, width = shape
    size = (known.boxes[..., 2:] - known.boxes[..., :2]) / stride
    factor = size[:, :, None] / sides[:, None]  # [B, Q, a, 2]
    near = torch.maximum(factor, 1 / factor).amax(-1) < ratio
    image, box, anchor = (near & known.there[..., None]).nonzero(as_tuple=True)
    middle = (known.boxes[..., :2] + known.boxes[..., 2:])[image, box] / 2 / stride  # [m, 2]
    end = torch.tensor([width, height], device=middle.device)
    before = (middle % 1 < 0.5) & (middle > 1)
    behind = ((end - middle) % 1 < 0.5) & (end - middle > 1)
    at = torch.cat([torch.ones_like(before[:, :1]), before, behind], 1)  # [m, 5]
    steps = torch.tensor([[0, 0], [0.5, 0], [0, 0.5], [-0.5, 0], [0, -0.5]], device=middle.device)
    row, step = at.nonzero(as_tuple=True)
    cell = (middle[row] - steps[step]).long()
    cell = torch.minimum(cell.clamp_min(0), end - 1)
    return image[row], box[row], anchor[row], cell


def chosen_self_labels(
    boxes: Tensor, scores: Tensor, able: Tensor, granted: PseudoLabels, apart: float, least: float
) -> PseudoLabels:
    """Boxes [N, P, 4] that are `able` [N, P], overlap no better one and no granted one by more than `apart`, and are larger
    than `least` pixels on both sides."""
    certain = scores.new_full(granted.there.shape, 1.1)  # the granted ones always win
    every, there = torch.cat([boxes, granted.boxes], 1), torch.cat([able, granted.there], 1)
    image, place = there.nonzero(as_tuple=True)
    left = batched_nms(every[image, place].float(), torch.cat([scores, certain], 1)[image, place].float(), image, apart)
    kept = torch.zeros_like(there)
    kept[image[left], place[left]] = True
    kept = kept[:, : boxes.shape[1]] & ((boxes[..., 2:] - boxes[..., :2]).amin(-1) > least)
    labels = torch.full_like(kept, -1, dtype=torch.long)
    return PseudoLabels(boxes * kept[..., None], labels, kept.float(), kept)
