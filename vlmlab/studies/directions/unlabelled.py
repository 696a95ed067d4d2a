"""Without labels: does a gain without labels survive when the unlabelled images are not what one thinks?

Systems that learn from unlabelled images mostly take for granted that every class is there, about equally often. Here
the images are drawn with all classes, with some of them, or with some foreign images among them, and predicted together
(transduction). A rule is told all class names each time, and not which of them occur. The number that counts is the gain
over zero-shot prediction on the images that belong to the classes, in points.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.errors import VlmlabError
from vlmlab.registry import load_system
from vlmlab.studies.directions.encoded import Encoded, Rule, accuracy, encoded, zero_shot
from vlmlab.studies.run import shared_bank

DATASETS = ("aerial", "textures", "digits")
FOREIGN = "food"
"""Where foreign images come from: its classes are in none of DATASETS."""


def pool(
    dataset: str, present: int | None = None, foreign: float = 0.0, seed: int = 0, images: int = 300
) -> tuple[Encoded, Tensor]:
    """Unlabelled images and which of them [N] belong to the classes at all.

    Args:
        present: how many of the classes occur, drawn by the seed; all if None.
        foreign: share of the images that come from FOREIGN.

    Raises:
        VlmlabError: fewer than one class, or a share of foreign images outside of 0 to 0.9.
    """
    every = encoded(dataset)
    classes = len(every.words)
    present = classes if present is None else present
    if not 1 <= present <= classes or not 0 <= foreign <= 0.9:
        raise VlmlabError(f"{dataset} has 1 to {classes} classes to draw from, and foreign images are 0 to 0.9 of all")
    generator = torch.Generator().manual_seed(seed)
    kept = torch.randperm(classes, generator=generator)[:present]
    own = torch.isin(every.labels, kept).nonzero().flatten()
    count = round(images * (1 - foreign))
    own = own[torch.randperm(len(own), generator=generator)[:count]]
    drawn = every.at(own)
    others = encoded(FOREIGN)
    strange = torch.randperm(len(others.labels), generator=generator)[: images - count]
    features = torch.cat([drawn.features, others.features[strange]])
    labels = torch.cat([drawn.labels, torch.full((len(strange),), -1)])
    return dataclasses.replace(drawn, features=features, labels=labels), labels >= 0


def gain(rule: Rule, one: Encoded, belongs: Tensor) -> float:
    """Gain over zero-shot prediction in points, on the images that belong to the classes."""
    own, base = (
        accuracy(r(one.features, one.words, one.scale)[belongs], one.labels[belongs]) for r in (rule, zero_shot)
    )
    return own - base


def gains(
    rule: Rule, present: int | None = None, foreign: float = 0.0, seeds: Sequence[int] = (0, 1, 2)
) -> dict[str, list[float]]:
    """Dataset -> gain per seed."""
    return {d: [gain(rule, *pool(d, present, foreign, seed)) for seed in seeds] for d in DATASETS}


def transduced(features: Tensor, first: Tensor) -> Tensor:
    """TransCLIP (arXiv 2406.01837) with probabilities `first` [N, C] as what the texts say: log assignments [N, C]."""
    method = load_system("transclip")(shared_bank("micro-vit").backbone)
    method.support = None
    return method.assigned(features, first).clamp_min(1e-30).log()


def transclip(features: Tensor, words: Tensor, scale: float) -> Tensor:
    """TransCLIP as it is published: a Gaussian per class, fitted to the images that it predicts."""
    return transduced(features, (scale * features @ words.T).softmax(-1))


def balanced(share: float) -> Rule:
    """TransCLIP on zero-shot probabilities from which `share` of the logarithm of their mean over the images was taken.

    A classifier that prefers some classes is put right by as much as the images are believed to be balanced: 1 believes that
    all classes occur equally often, 0 believes the classifier.
    """

    def rule(features: Tensor, words: Tensor, scale: float) -> Tensor:
        logits = zero_shot(features, words, scale)
        return transduced(features, (logits - share * logits.softmax(-1).mean(0).log()).softmax(-1))

    return rule


def pseudo_labelled(features: Tensor, words: Tensor, scale: float, top: int = 16, share: float = 0.5) -> Tensor:
    """The pseudo labels of UPL (arXiv 2204.03649), learned in the simplest way: class means instead of a prompt.

    The `top` surest images of every class, by zero-shot prediction, are taken for that class; the classifier is their mean,
    mixed with the words.
    """
    confidence = (scale * features @ words.T).softmax(-1)  # [N, C]
    predicted = confidence.argmax(-1)
    mine = confidence.masked_fill(predicted[:, None] != torch.arange(len(words)), 0.0)
    value, index = mine.topk(min(top, len(features)), 0)  # [top, C]; none where a class was never predicted
    mean = F.normalize(torch.einsum("kc,kce->ce", (value > 0).to(features), features[index]), dim=-1)
    found = (value > 0).any(0)[:, None]
    return scale * features @ torch.where(found, F.normalize((1 - share) * words + share * mean, dim=-1), words).T
