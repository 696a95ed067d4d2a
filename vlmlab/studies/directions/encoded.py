"""What the experiments of section 9 begin with: the test images of a dataset as features, and its class names as a classifier.

Dimensions: N images, C classes, e joint width.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.datasets.image_set import ImageSet
from vlmlab.datasets.task import Task
from vlmlab.registry import load_system
from vlmlab.studies.run import dataset_for, shared_bank

Rule = Callable[[Tensor, Tensor, float], Tensor]
"""(unit features [N, e], unit class embeddings [C, e], logit scale) -> logits [N, C]: a way to predict images together."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Images and class names in one space.

    Attributes:
        features: unit features [N, e].
        words: unit class embeddings [C, e] from all sentences of the dataset.
        scale: the backbone's logit scale.
        labels: [N], which no rule sees.
        images: the images themselves.
    """

    dataset: str
    features: Tensor
    words: Tensor
    scale: float
    labels: Tensor
    images: ImageSet
    classes: tuple[str, ...]

    def at(self, index: Tensor) -> Encoded:
        """The images of these places [n], in this order."""
        return dataclasses.replace(
            self, features=self.features[index], labels=self.labels[index], images=self.images.subset(index.tolist())
        )

    def accuracy(self, rule: Rule) -> float:
        """Percent of the images that a rule predicts right."""
        return accuracy(rule(self.features, self.words, self.scale), self.labels)

    def gain(self, rule: Rule) -> float:
        """By how many points a rule is better than zero-shot prediction on these images."""
        return self.accuracy(rule) - self.accuracy(zero_shot)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Percent of the rows of logits [N, C] whose largest entry is that of the label [N]."""
    return 100 * float((logits.argmax(-1) == labels).float().mean())


def zero_shot(features: Tensor, words: Tensor, scale: float) -> Tensor:
    """The rule that learns nothing."""
    return scale * features @ words.T


@functools.lru_cache(64)
def encoded(dataset: str, backbone: str = "micro-vit") -> Encoded:
    """All test images of a dataset; encoded once, and cached on disk."""
    bank = shared_bank(backbone)
    data = dataset_for(bank, dataset)
    zero = load_system("zero_shot")(bank.backbone)
    zero.prepare(Task(bank.backbone, data, 0))
    features = F.normalize(bank.features(data.test), dim=-1)
    scale = float(bank.backbone.logit_scale)
    return Encoded(dataset, features, zero.classifier, scale, data.test.labels, data.test, tuple(data.classes))


@torch.no_grad()
def encoded_pixels(pixels: np.ndarray, backbone: str = "micro-vit") -> Tensor:
    """Unit features [n, e] of images uint8 [n, S, S, 3] that belong to no dataset, such as drawings of one experiment."""
    tower = shared_bank(backbone).backbone
    chunks = np.array_split(pixels, -(-len(pixels) // 100))
    return F.normalize(torch.cat([tower.encode_image(tower.preprocess(chunk)) for chunk in chunks]).float(), dim=-1)
