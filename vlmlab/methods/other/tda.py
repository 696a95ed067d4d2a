"""TDA: Efficient Test-Time Adaptation of Vision-Language Models (arXiv:2403.18293, CVPR 2024).

Not among the survey's systems (section 6.3.3 would be its place); the field built it on Tip-Adapter and TPT. Test images
arrive one after the other. TDA remembers the few that CLIP was surest of, per predicted class, and lets them vote on
those that follow: Tip-Adapter's cache, filled with pseudo labels while the test runs. A second cache remembers images
that CLIP was moderately unsure of, and votes *against* the classes that these were probably showing. No gradient is taken.

    p = softmax(s f W^T),   c = argmax p,   H = entropy of p           f = n(E_I(x)), W the class sentences   (1)
    positive cache: the K images of lowest H per predicted class c                                            (2)
    negative cache: the same for images with low < H / log2 C < high, with K' places                          (3)
    logits = s f W^T + a  sum_j exp(-b  (1 - f k_j)) onehot(c_j)           over the positive cache            (4)
                     - a' sum_j exp(-b' (1 - f k_j)) [low' < p_j < high']   over the negative cache

The image itself enters the caches before (4), as in the release. The defaults are the release's for ImageNet; it has
other weights for each of its datasets, chosen we do not know how.

`logits` takes the batch as the stream: its images arrive in an order that follows from the seed of the task, and the
caches are empty at first. So `predict` hands it the whole test set at once, and results do not depend on what was asked
before. `stream` takes the images in the order that they have. What an image gets depends on those that came before it:
its accuracy is not comparable with that of systems that see one image at a time.

What differs from the release: the scale s is the backbone's, where the release writes 100; float32; every image is seen
once (the release looks at 64 augmented views on ImageNet and its variants, and at one elsewhere).

Dimensions: N images of the stream, C classes, K images per class in a cache, e joint width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vlmlab.methods.method import Batch, Method, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.registry import register


class Cache:
    """The K images of lowest entropy per predicted class.

    keys [C, K, e] unit features; entropy [C, K], infinite where a place is free; values [C, K, C] what each votes for.
    """

    def __init__(self, classes: int, places: int, width: int, like: Tensor) -> None:
        self.keys = like.new_zeros(classes, places, width)
        self.entropy = like.new_full((classes, places), torch.inf)
        self.values = like.new_zeros(classes, places, classes)

    def offer(self, predicted: int, feature: Tensor, entropy: Tensor, value: Tensor) -> None:
        """An image takes a free place of its class, or that of the image of highest entropy if its own is lower."""
        place = int(self.entropy[predicted].argmax())
        if entropy < self.entropy[predicted, place]:
            self.keys[predicted, place] = feature
            self.entropy[predicted, place] = entropy
            self.values[predicted, place] = value

    def votes(self, feature: Tensor, sharpness: float) -> Tensor:
        """sum_j exp(-b (1 - f k_j)) value_j, [C], for one unit feature [e]."""
        filled = self.entropy.isfinite()
        weight = (sharpness * (self.keys @ feature - 1)).exp() * filled  # [C, K]
        return torch.einsum("ck,ckd->d", weight, self.values)


@register(
    "tda",
    title="TDA: Efficient Test-Time Adaptation of Vision-Language Models",
    paper="arXiv:2403.18293",
    year=2024,
    section="6.3.3",
    family="other",
    setup="transductive",
    learns="nothing (two caches of test images with their pseudo labels)",
    status="extra",
)
class TDA(Method):
    """Test images that were predicted with confidence vote on those that follow."""

    @dataclasses.dataclass
    class Config:
        positive_shots: int = option(3, "places K per class in the positive cache; 0 leaves it out", 0, 100)
        positive_weight: float = option(2.0, "a, weight of the positive cache", 0.0, 100.0)
        positive_sharpness: float = option(5.0, "b, how fast a vote fades with distance", 0.0, 100.0)
        negative_shots: int = option(2, "places K' per class in the negative cache; 0 leaves it out", 0, 100)
        negative_weight: float = option(0.117, "a', weight of the negative cache", 0.0, 100.0)
        negative_sharpness: float = option(1.0, "b' of the negative cache", 0.0, 100.0)
        entropy_low: float = option(0.2, "least H / log2 C of an image in the negative cache", 0.0, 1.0)
        entropy_high: float = option(0.5, "largest H / log2 C of an image in the negative cache", 0.0, 1.0)
        mask_low: float = option(0.03, "probability above which a class is voted against", 0.0, 1.0)
        mask_high: float = option(1.0, "probability below which a class is voted against", 0.0, 1.0)
        templates: str = option("dataset", HELP)

    eats = "features"

    def prepare(self, task) -> None:
        self.order_seed = task.seed
        super().prepare(task)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        sentences = choose(self.config.templates, templates)
        self.classifier = self.backbone.class_embeddings(spoken(classes), sentences)  # W [C, e]

    def logits(self, batch: Batch) -> Tensor:
        """[N, C]; the images of the batch arrive in an order that follows from the task's seed."""
        f = self.image_features(batch)
        order = torch.randperm(len(f), generator=torch.Generator().manual_seed(self.order_seed)).to(f.device)
        logits = torch.empty(len(f), len(self.classes), device=f.device)
        logits[order] = self.stream(f[order])
        return logits

    @torch.no_grad()
    def stream(self, f: Tensor) -> Tensor:
        """Logits [N, C] of unit features f [N, e] that arrive one after the other, the caches empty at first."""
        config, (classes, width) = self.config, self.classifier.shape
        clip = self.backbone.logit_scale * f @ self.classifier.T  # [N, C]
        p = clip.softmax(-1)
        entropy = -(p * clip.log_softmax(-1)).sum(-1)  # [N] (1)
        share = (entropy / math.log2(classes)).tolist()  # as in the release: nats by bits
        predicted = clip.argmax(-1).tolist()
        against = ((p > config.mask_low) & (p < config.mask_high)).to(f)  # [N, C]
        labels = torch.eye(classes, device=f.device)
        positive = Cache(classes, config.positive_shots, width, f)
        negative = Cache(classes, config.negative_shots, width, f)
        logits = clip.clone()
        for i, c in enumerate(predicted):
            if config.positive_shots:
                positive.offer(c, f[i], entropy[i], labels[c])  # (2)
                logits[i] += config.positive_weight * positive.votes(f[i], config.positive_sharpness)  # (4)
            if config.negative_shots:
                if config.entropy_low < share[i] < config.entropy_high:
                    negative.offer(c, f[i], entropy[i], against[i])  # (3)
                logits[i] -= config.negative_weight * negative.votes(f[i], config.negative_sharpness)
        return logits
