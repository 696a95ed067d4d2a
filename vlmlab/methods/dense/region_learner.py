"""What the two-stage systems that learn have in common: regions of the training images, their labels, and the recipe.

    boxes of an image = proposals of the frozen proposer, granted ground truth, random boxes
    label             = the base class of the object that a box meets with an IoU of 0.5 or more, else background
    features          = RoIAlign of the frozen map, standardised by the map's own mean and deviation over the training images

What differs from all of their releases, which is said here once. The backbone of the detector, the proposer and the boxes are
frozen and shared (`dense.proposals`), where the releases let everything learn: so the losses of proposals, boxes and masks
are left out, the heads have two layers without normalisation, and a fit takes seconds. All regions of an image are learned from;
releases draw 512 with at most a quarter of objects. The learning rate falls as a cosine after a warm-up of a tenth of the steps; in
most releases it falls in steps. The learned background starts with a deviation of 0.01 as ViLD's; that of OADP, BARON and DetPro is
drawn by Xavier's rule, longer, so that its direction turns more slowly. At test no score is too small; some releases drop those
below 0.05 or less. Named settings for
a world this small, off in the releases: `negatives` (random boxes beside proposals, most of which are here unlabelled new
objects), `dropout`, and square crops.

Dimensions: B images, P proposals an image, G objects of an image at most, N random boxes, n = P + G + N, W channels,
C classes, F features of a region, e joint width.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.methods.dense.boxes import side_by_side
from vlmlab.methods.dense.crops import SHAPES
from vlmlab.methods.dense.proposals import CELLS, region_features
from vlmlab.methods.dense.pseudo_labels import PseudoLabels, matched
from vlmlab.methods.dense.regions import Regions
from vlmlab.methods.dense.roi_head import RegionHead
from vlmlab.methods.dense.two_stage import TwoStage
from vlmlab.methods.method import Batch, Recipe, option, rate_by_step

FREE = 0.3  # IoU with every object below which a random box is background


@dataclasses.dataclass
class RegionRecipe(Recipe):
    """Settings of every system over regions; ViLD's where the systems differ."""

    proposals: int = option(300, "proposals of a training image", 1, 1000)
    negatives: int = option(0, "random boxes of a training image beside the proposals", 0, 1000)
    hidden: int = option(1024, "width of the head's layers", 1, 8192)
    dropout: float = option(0.0, "share of the head's inputs that are left out", 0.0, 0.9)
    test_proposals: int = option(1000, "proposals of a test image", 1, 1000)
    crop_shape: str = option("stretched", "how a box is cut out", choices=SHAPES)
    crop_scales: str = option("1 1.5", "sizes of the crops, in sizes of the box")
    nms: float = option(0.5, "intersection over union from which the lower score is dropped", 0.0, 1.0)
    most_detections: int = option(300, "detections of an image", 1, 10000)


EMBEDDED: dict[str, typing.Any] = {
    "proposals": 8,
    "negatives": 16,
    "hidden": 256,
    "dropout": 0.3,
    "test_proposals": 12,
    "crop_shape": "square",
    "crop_scales": "1.2",
    "epochs": 8,
    "batch_size": 16,
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 1e-2,
}
"""What the systems over regions share on the embedded backbones."""


@dataclasses.dataclass
class Labelled:
    """Boxes of a batch with what is known of them.

    boxes [B, n, 4] in pixels of the backbone's input; labels [B, n] indices into the base classes, their number for background;
    there [B, n] bool, the ones to learn from; overlap [B, n] with the granted object that each lies on best.
    """

    boxes: Tensor
    labels: Tensor
    there: Tensor
    overlap: Tensor


class RegionLearner(TwoStage):
    """A detector whose heads learn from cached regions. Its Config is a `RegionRecipe`."""

    eats = "regions"

    def prepare(self, task) -> None:
        super().prepare(task)
        images = self.learns_from(task)
        self.must_have_boxes(images)
        self.base = torch.tensor(task.base, device=self.backbone.device)
        self.base_names = [task.classes[c] for c in task.base]
        self.base_text, self.unnamed = self.text[self.base], len(task.classes) - len(task.base)
        self.learned = self.bank_of(self.config.proposals)
        self.regions, self.frames_of = self.learned.regions(self.framed, images, self.distils)
        # Saved with the heads, which were learned on features that these made.
        self.register_buffer("mean", self.regions.maps.mean((0, 2, 3)))
        self.register_buffer("deviation", self.regions.maps.std((0, 2, 3)) + 1e-3)

    @property
    def distils(self) -> bool:
        """Whether CLIP's embeddings of the crops are needed."""
        return True

    def head(self, width: int = 0) -> RegionHead:
        """A new head on regions that gives `width` numbers, the joint width if 0."""
        features, config = self.regions.maps.shape[1] * CELLS**2, self.config
        head = RegionHead(features, width or self.text.shape[1], config.hidden, config.dropout)
        return head.to(self.backbone.device)

    @property
    def scale(self) -> float:
        """What cosines are multiplied by, of a system whose Config has a `scale`."""
        return self.config.scale or float(self.backbone.logit_scale)

    @property
    def is_new(self) -> Tensor:
        """[C] bool: the classes of which no box was granted."""
        return torch.tensor([name not in self.base_names for name in self.classes], device=self.backbone.device)

    def learning_rate(self, step: int, steps: int) -> float:
        return rate_by_step(step, steps, self.config.lr, max(1, steps // 10))

    def features(self, maps: Tensor, boxes: Tensor) -> Tensor:
        """[B, n, F] of maps [B, W, h, h] and boxes [B, n, 4] in pixels of the backbone's input."""
        maps = (maps - self.mean[:, None, None]) / self.deviation[:, None, None]
        return region_features(maps, boxes / self.tested.ratio)

    def regions_of(self, batch: Batch) -> Regions:
        """The cached regions of a batch of training images."""
        return self.regions.at(batch.index.to(self.regions.maps.device))

    def labelled(self, batch: Batch, regions: Regions) -> Labelled:
        """Proposals, granted ground truth and random boxes of a batch of training images, side by side.

        A random box that lies on an object (IoU of 0.3 or more) is not learned from.
        """
        truths = [self.frames_of[i].truth(t) for i, t in zip(batch.index.tolist(), batch.truths, strict=True)]
        return self.matched(regions.boxes, regions.there, truths)

    def matched(self, proposals: Tensor, there: Tensor, truths: Sequence) -> Labelled:
        """`labelled` of proposals [B, P, 4], of which `there` [B, P] are some, and of what is granted of each image."""
        device, base = proposals.device, len(self.base)
        place = torch.full((len(self.classes),), base, device=device)
        place[self.base] = torch.arange(base, device=device)
        own = side_by_side([truth.boxes.to(device) for truth in truths])
        kind = side_by_side([place[truth.labels.to(device)] for truth in truths], base)
        noise = self.random_boxes(len(proposals), device)
        boxes = torch.cat([proposals, own, noise], 1)
        objects = kind < base
        labels, _, best = matched(boxes, PseudoLabels(own, kind, objects.float(), objects), base)
        free = best[:, boxes.shape[1] - noise.shape[1] :] < FREE
        return Labelled(boxes, labels, torch.cat([there, objects, free], 1), best)

    def random_boxes(self, images: int, device) -> Tensor:
        """[images, N, 4]: sides of 0.15 to 0.65 of the input, anywhere in it."""
        count, side = self.config.negatives, self.backbone.image_size
        size = side * (0.15 + 0.5 * torch.rand(images, count, 2, device=device))
        corner = torch.rand(images, count, 2, device=device) * (side - size)
        return torch.cat([corner, corner + size], -1)


def text_loss(logits: Tensor, labels: Tensor, unnamed: int) -> Tensor:
    """Mean cross-entropy of regions among base classes and background, as ViLD's release computes it.

    Args:
        logits: [R, C_base + 1], background last.
        labels: [R] in 0 to C_base.
        unnamed: new classes, whose logits the release multiplies by 0: they count as 0 in the sum of the softmax.

    0 without a region.
    """
    if not len(logits):
        return logits.sum()
    return F.cross_entropy(torch.cat([logits, logits.new_zeros(len(logits), unnamed)], 1), labels)
