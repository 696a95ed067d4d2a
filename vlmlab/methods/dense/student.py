"""The student of detectors that learn from pseudo labels: one head over regions, whose boxes may bear any name and a weight.

    z_r = head(features of r)                                  [R, e]
    logits = [<z_r, t_1>, ..., <z_r, t_C>, 0]                  words of the classes, and a background of zeros

The product is plain: z_r is not made unit, so the head finds its own scale, and background is the logit 0 that a name must
exceed. So do OVR-CNN (arXiv 2011.10678) and those who build on it: PB-OVD, XPM and VL-PLM. With `scale` above 0 the logits
are scale * cos instead. What differs from their releases: words are unit rows, where PB-OVD takes the mean over the templates as
it is, a little shorter; the last layer starts as PyTorch starts one, not from a normal distribution of deviation 0.01.

Dimensions: B images, N images of a set, P proposals of an image, K random boxes, R regions, F features of a region,
e joint width, C classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.dense.pseudo_labels import PseudoLabels, as_labels, matched
from vlmlab.methods.dense.region_learner import FREE, RegionLearner, RegionRecipe
from vlmlab.methods.dense.regions import Regions
from vlmlab.methods.method import Batch, option


@dataclasses.dataclass
class StudentRecipe(RegionRecipe):
    """Settings of the students."""

    proposals: int = option(100, "proposals of a training image", 1, 1000)
    scale: float = option(0.0, "factor of cosines; 0: plain products, as in the release", 0.0, 1000.0)
    background: float = option(1.0, "weight of background in the cross-entropy", 0.0, 1.0)
    most_detections: int = option(100, "detections of an image", 1, 10000)


class Student(RegionLearner):
    """A detector with one head; its Config is a `StudentRecipe`."""

    def prepare(self, task) -> None:
        super().prepare(task)
        self.new = list(task.new)
        self.granted = self.known(self.learns_from(task))
        self.student = self.head()

    def known(self, images) -> PseudoLabels:
        """The granted ground truth of the training images, in pixels of the input: [N, Q]."""
        truths = [frame.truth(images.truth(i)) for i, frame in enumerate(self.frames_of)]
        return as_labels(truths, self.backbone.device)

    def regions_to_learn(
        self, regions: Regions, targets: PseudoLabels, background: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Proposals, the targets themselves and random boxes of B images side by side, with what they are called.

        Returns: boxes [B, n, 4]; labels [B, n], `background` where no target is met by 0.5 or more; weights [B, n]; which of
        the n are to be learned from [B, n] bool. A random box that lies on a target is not.
        """
        noise = self.random_boxes(len(regions.boxes), regions.boxes.device)
        boxes = torch.cat([regions.boxes, targets.boxes, noise], 1)
        labels, weights, best = matched(boxes, targets, background)
        free = best[:, best.shape[1] - noise.shape[1] :] < FREE
        return boxes, labels, weights, torch.cat([regions.there, targets.there, free], 1)

    def class_logits(self, embeddings: Tensor, text: Tensor) -> Tensor:
        """[..., C + 1] of embeddings [..., e] and unit words [C, e]; background last."""
        if self.config.scale:
            embeddings = self.config.scale * F.normalize(embeddings, dim=-1)
        logits = embeddings @ text.T
        return torch.cat([logits, torch.zeros_like(logits[..., :1])], -1)

    def named_loss(self, regions: Regions, targets: PseudoLabels, classes: Sequence[int]) -> Tensor:
        """`weighted_cross_entropy` of the regions of B images among these classes and background.

        `targets` have labels among the classes as `set_classes` numbers them, and only such that are in `classes`.
        """
        boxes, labels, weights, learned = self.regions_to_learn(regions, targets, len(self.classes))
        embeddings = self.student(self.features(regions.maps, boxes)[learned], learning=True)
        own = torch.tensor(list(classes), device=boxes.device)
        place = torch.full((len(self.classes) + 1,), len(own), device=boxes.device)
        place[own] = torch.arange(len(own), device=boxes.device)
        logits = self.class_logits(embeddings, self.text[own])
        return weighted_cross_entropy(logits, place[labels[learned]], weights[learned], self.config.background)

    @torch.no_grad()
    def detect(self, batch: Batch) -> list[Detections]:
        found = self.tested.find(batch.images)
        return self.named(found.boxes, self.scores(self.features(found.maps, found.boxes)), found.there)

    def scores(self, features: Tensor) -> Tensor:
        """[..., C] in 0 to 1 of the features of regions [..., F]."""
        return self.class_logits(self.student(features), self.text).softmax(-1)[..., :-1]


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor, background: float = 1.0) -> Tensor:
    """Mean over R regions of weight_r * w_y * CE_r, where w_y is `background` for the last class and 1 for the others.

    Args:
        logits: [R, C + 1], background last. labels: [R]. weights: [R] confidence of each label.

    The mean divides by the number of regions, not by the sum of the weights: so do VL-PLM (confidence), PB-OVD and XPM
    (background of 0.2). 0 without a region.
    """
    losses = F.cross_entropy(logits, labels, reduction="none") * weights
    losses = torch.where(labels == logits.shape[-1] - 1, background * losses, losses)
    return losses.sum() / max(1, len(labels))
