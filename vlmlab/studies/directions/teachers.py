"""Several teachers: is a student of two vision-language models better than of one?

The micro backbones share a text tower, so that features of their image towers lie in one space. What a student could learn
is measured before any student: the targets themselves as classifiers. The number that counts is accuracy over datasets,
against the better teacher, and against what either of them knows.

Dimensions: N images, C classes, e joint width, M teachers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.studies.directions.encoded import Encoded, accuracy, encoded

TEACHERS = ("micro-vit", "micro-rn")
DATASETS = (
    "objects",
    "objects-v2",
    "objects-sketch",
    "objects-silhouette",
    "objects-mosaic",
    "textures",
    "flowers",
    "aerial",
)

Target = Callable[[Sequence[Tensor], Tensor, float], Tensor]
"""(unit features [N, e] of each teacher, unit class embeddings [C, e], logit scale) -> logits [N, C]."""


def views(dataset: str, images: int = 300, seed: int = 0, teachers: Sequence[str] = TEACHERS) -> list[Encoded]:
    """The same test images through every teacher, drawn by the seed."""
    every = [encoded(dataset, name) for name in teachers]
    index = torch.randperm(len(every[0].labels), generator=torch.Generator().manual_seed(seed))[:images]
    return [one.at(index) for one in every]


def one_teacher(place: int) -> Target:
    """The teacher of this place alone."""
    return lambda features, words, scale: scale * features[place] @ words.T


def feature_sum(features: Sequence[Tensor], words: Tensor, scale: float) -> Tensor:
    """The normalised sum of the unit features: what a student with one head would be drawn to."""
    return scale * F.normalize(torch.stack(list(features)).sum(0), dim=-1) @ words.T


def probability_mean(features: Sequence[Tensor], words: Tensor, scale: float) -> Tensor:
    """The mean of the teachers' probabilities."""
    return torch.stack([(scale * f @ words.T).softmax(-1) for f in features]).mean(0).clamp_min(1e-30).log()


def most_confident(features: Sequence[Tensor], words: Tensor, scale: float) -> Tensor:
    """Per image, the logits of the teacher whose highest probability is highest."""
    logits = torch.stack([scale * f @ words.T for f in features])  # [M, N, C]
    best = logits.softmax(-1).amax(-1).argmax(0)  # [N]
    return logits[best, torch.arange(logits.shape[1])]


def measured(target: Target, seen: Sequence[Encoded]) -> float:
    """Accuracy (%) of a target on images seen by every teacher."""
    return accuracy(target([one.features for one in seen], seen[0].words, seen[0].scale), seen[0].labels)


def either(seen: Sequence[Encoded]) -> float:
    """Percent of the images that at least one teacher gets right: what the best choice per image could reach."""
    right = torch.stack([(one.features @ one.words.T).argmax(-1) == one.labels for one in seen])
    return 100 * float(right.any(0).float().mean())
