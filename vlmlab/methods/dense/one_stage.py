"""What the one-stage detectors have in common: every place of the frozen map says a box, how good it is, and an embedding.

    places = towers of convolutions over the frozen map, standardised                 [B, A, ...], A = h * w
    score  = name (from the embedding and the words) times, or filtered by, the quality of the box

Nothing is proposed first, so nothing is there to be cut out and shown to CLIP but the boxes that were granted, or that a system
finds for itself.

What differs from both releases, which is said here once. The backbone of the detector is the frozen map of `dense.proposals` at
stride 4, where the releases let a ResNet or YOLOv5 learn; there is one level, not five or three. The learning rate falls as a cosine
after a warm-up of a tenth of the steps. Nothing is augmented.

Dimensions: B images, N images of a set, W channels, h x w places of the map, A = h w, n boxes, C classes, e joint width.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vlmlab.methods.dense.boxes import class_nms, side_by_side
from vlmlab.methods.dense.crops import SHAPES, crop_embeddings
from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.dense.detector import Detector
from vlmlab.methods.dense.proposals import STRIDE
from vlmlab.methods.dense.pseudo_labels import PseudoLabels, as_labels
from vlmlab.methods.dense.regions import RegionBank
from vlmlab.methods.dense.text_bank import text_bank
from vlmlab.methods.method import Batch, Recipe, option, rate_by_step

GROUPS = 32  # of the group normalisation


@dataclasses.dataclass
class OneStageRecipe(Recipe):
    """Settings of both one-stage systems."""

    layers: int = option(4, "convolutions of each tower", 1, 8)
    width: int = option(256, "channels of the towers", 32, 1024)
    crop_shape: str = option("stretched", "how a box is cut out for CLIP", choices=SHAPES)
    crop_scales: str = option("1", "sizes of the crops, in sizes of the box")
    places: int = option(1000, "places of an image that the suppression of doubles looks at", 1, 10000)
    nms: float = option(0.4, "intersection over union from which the lower score is dropped", 0.0, 1.0)
    most_detections: int = option(100, "detections of an image", 1, 10000)


@dataclasses.dataclass
class Places:
    """What a detector says of every place of B images.

    boxes [B, A, 4] in pixels of the input; scores [B, A, C] in 0 to 1, 0 where a name is ruled out; promise [B, A], by which
    the places are chosen that the suppression of doubles looks at.
    """

    boxes: Tensor
    scores: Tensor
    promise: Tensor


class Tower(nn.Sequential):
    """`layers` times convolution, group normalisation and ReLU: [B, inside, h, w] -> [B, width, h, w]."""

    def __init__(self, inside: int, width: int, layers: int) -> None:
        super().__init__()
        for i in range(layers):
            self.append(nn.Conv2d(inside if i == 0 else width, width, 3, 1, 1, bias=False))
            self.append(nn.GroupNorm(math.gcd(GROUPS, width), width))
            self.append(nn.ReLU())


class OneStage(Detector):
    """A detector over the places of the frozen map. Its Config is a `OneStageRecipe`; it gives `at_places` and `loss`."""

    eats = "regions"

    @property
    def proposed(self) -> int:
        """Boxes of the proposer that come with a map; none of them is used here."""
        return 1

    def at_places(self, maps: Tensor) -> Places:
        """What the heads say of standardised maps [B, W, h, w], all names at once."""
        raise NotImplementedError(f"{type(self).__name__}.at_places")

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        self.text = text_bank(self.backbone, classes, templates)  # [C, e]

    def prepare(self, task) -> None:
        super().prepare(task)
        self.pictures = self.learns_from(task)
        self.must_have_boxes(self.pictures)
        device = self.backbone.device
        self.base = torch.tensor(task.base, device=device)
        self.base_names = [task.classes[c] for c in task.base]
        self.base_text, self.new_names = self.text[self.base], [task.classes[c] for c in task.new]
        self.looked = self.bank_of(self.proposed)
        self.regions, self.frames_of = self.looked.regions(self.framed, self.pictures, crops=False)
        truths = [frame.truth(self.pictures.truth(i)) for i, frame in enumerate(self.frames_of)]
        self.granted = as_labels(truths, device)  # [N, Q]; labels are indices into the base classes
        place = torch.full((len(self.classes),), -1, device=device)
        place[self.base] = torch.arange(len(self.base), device=device)
        self.granted.labels = place[self.granted.labels]
        self.register_buffer("mean", self.regions.maps.mean((0, 2, 3)))
        self.register_buffer("deviation", self.regions.maps.std((0, 2, 3)) + 1e-3)

    def bank_of(self, count: int) -> RegionBank:
        """Maps, and `count` boxes of the proposer, by this system's recipe of crops."""
        scales = [float(scale) for scale in self.config.crop_scales.split()]
        return RegionBank(self.backbone, count, scales, self.config.crop_shape)

    @property
    def tested(self) -> RegionBank:
        """Maps of images that are predicted."""
        if "_tested" not in self.__dict__:
            object.__setattr__(self, "_tested", self.bank_of(1))
        return self._tested

    @property
    def stride(self) -> float:
        """Pixels of the backbone's input between two places."""
        return STRIDE * self.tested.ratio

    def centres(self, height: int, width: int) -> Tensor:
        """(x, y) of the middle of every place in pixels of the input: [h w, 2]."""
        y, x = ((torch.arange(n, device=self.backbone.device) + 0.5) * self.stride for n in (height, width))
        return torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], -1).flatten(0, 1)

    def standardised(self, maps: Tensor) -> Tensor:
        """Maps [B, W, h, w] with the mean 0 and the deviation 1 of each channel over the training images."""
        return (maps - self.mean[:, None, None]) / self.deviation[:, None, None]

    def learning_rate(self, step: int, steps: int) -> float:
        return rate_by_step(step, steps, self.config.lr, max(1, steps // 10))

    def pixels(self, index: Tensor) -> Tensor:
        """The training images at these positions, as the network's input [B, 3, S, S]."""
        return self.framed([self.pictures.images(i) for i in index.tolist()])[0]

    def embedded_boxes(self, boxes: PseudoLabels, unit: bool) -> Tensor:
        """CLIP's embeddings [N, Q, e] of boxes of all training images, from the disk if they are there."""
        bank = self.looked
        own = hashlib.sha256(boxes.boxes.cpu().numpy().tobytes()).hexdigest()[:16]

        def compute(positions: range) -> dict[str, Tensor]:
            at = torch.tensor(positions, device=boxes.boxes.device)
            pixels = self.pixels(at)
            return {
                "embeddings": crop_embeddings(self.backbone, pixels, boxes.boxes[at], bank.scales, bank.shape, unit)
            }

        recipe = f"objects {own} {bank.scales} {bank.shape} {'unit' if unit else 'raw'}"
        return bank.stored(self.pictures, recipe, compute)["embeddings"]

    @torch.no_grad()
    def best_places(self, batch: Batch) -> Places:
        """The most promising places of every image, their boxes cut at the input."""
        found = self.at_places(self.standardised(self.tested.find(batch.images).maps))
        promise, best = found.promise.topk(min(self.config.places, found.boxes.shape[1]), 1)
        boxes = found.boxes.gather(1, best[..., None].expand(-1, -1, 4)).clamp(0, float(self.backbone.image_size))
        scores = found.scores.gather(1, best[..., None].expand(-1, -1, found.scores.shape[-1]))
        return Places(boxes, scores, promise)

    def detect(self, batch: Batch) -> list[Detections]:
        places = self.best_places(batch)
        kept = class_nms(places.boxes, places.scores, self.config.nms) & (places.scores > 0)
        found = []
        for boxes, scores, own in zip(places.boxes, places.scores, kept, strict=True):
            row, label = own.nonzero(as_tuple=True)
            found.append(Detections(boxes[row], scores[row, label], label).surest(self.config.most_detections))
        return found

    def proposals(self, batch: Batch) -> list[Tensor]:
        return list(self.best_places(batch).boxes)

    @torch.no_grad()
    def teacher_scores(self, batch: Batch, boxes: Sequence[Tensor]) -> list[Tensor]:
        """Cosines [n, C] of CLIP's embedding of the crops of these boxes with the words."""
        bank = self.tested
        embeddings = crop_embeddings(self.backbone, batch.images, side_by_side(boxes), bank.scales, bank.shape)
        return [own[: len(box)] @ self.text.T for own, box in zip(embeddings, boxes, strict=True)]


def by_place(x: Tensor) -> Tensor:
    """[B, n, h, w] -> [B, h w, n]: one row per place."""
    return x.flatten(2).mT


def iou_of_rows(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union [n] of the boxes a [n, 4] and b [n, 4] of the same row."""
    common = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp_min(0).prod(-1)
    union = (a[:, 2:] - a[:, :2]).prod(-1) + (b[:, 2:] - b[:, :2]).prod(-1) - common
    return common / union.clamp_min(1e-6)
