"""At test time: can a model learn from the stream that it is judged on, without labels, gradients, and cheating?

A stream is a set of test images in an order. A rule gives logits for each image before the next one comes: what image i
gets may depend on images 1 to i alone. `causal` tests that. The number that counts is the gain of a rule over zero-shot
prediction on the same images, in points of percent.

The baseline is TDA (arXiv 2403.18293) with the settings of its release for ImageNet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from vlmlab.errors import unknown
from vlmlab.registry import load_system
from vlmlab.studies.directions.encoded import Encoded, Rule, encoded, zero_shot
from vlmlab.studies.run import shared_bank

SHIFTED = ("objects-sketch", "objects-mosaic", "aerial", "textures", "digits")
KNOWN = ("objects", "flowers", "vehicles")
ORDERS = ("shuffled", "in runs", "sorted")
"""By chance; runs of images of one class, the runs by chance; all images of a class, then all of the next."""
RUN = 10
"""Images of a run."""


def stream(dataset: str, order: str = "shuffled", seed: int = 0, images: int = 400) -> Encoded:
    """So many test images of a dataset (all, if it has fewer), drawn and ordered by the seed.

    Raises `VlmlabError` for an order that is not in ORDERS.
    """
    if order not in ORDERS:
        raise unknown("order of a stream", order, ORDERS)
    every = encoded(dataset)
    index = torch.randperm(len(every.labels), generator=torch.Generator().manual_seed(seed))[:images]
    if order != "shuffled":
        index = index[every.labels[index].argsort(stable=True)]
    if order == "in runs":
        runs = index.split(RUN)
        chance = torch.randperm(len(runs), generator=torch.Generator().manual_seed(seed + 1)).tolist()
        index = torch.cat([runs[k] for k in chance])
    return every.at(index)


def tda(**settings) -> Rule:
    """TDA as a rule, with its release's settings but for those given."""
    method = load_system("tda")(shared_bank("micro-vit").backbone)
    method.config = dataclasses.replace(method.config, **settings)

    def rule(features, words, scale):
        method.classifier = words
        return method.stream(features)

    return rule


def debiased(share: float, start: float = 10.0) -> Rule:
    """Take `share` of the logarithm of the classifier's mean prediction so far from its logits; caches nothing.

    The mean begins as that of `start` images of every class equally. It believes that classes arrive equally often.
    """

    def rule(features, words, scale):
        logits = zero_shot(features, words, scale)
        p = logits.softmax(-1)
        seen = torch.arange(1, len(p) + 1)[:, None]
        mean = (p.cumsum(0) + start / p.shape[1]) / (seen + start)
        return logits - share * mean.log()

    return rule


def gains(
    rule: Rule,
    datasets: Sequence[str] = SHIFTED + KNOWN,
    order: str = "shuffled",
    seeds: Sequence[int] = (0, 1, 2),
    images: int = 400,
) -> dict[str, list[float]]:
    """Dataset -> the rule's gain over zero-shot prediction per seed, in points."""
    return {d: [stream(d, order, seed, images).gain(rule) for seed in seeds] for d in datasets}


def causal(rule: Rule, one: Encoded) -> bool:
    """Whether a rule uses only what has arrived: with one image again and again in the second half, the first gets the same."""
    half = len(one.features) // 2
    other = torch.cat([one.features[:half], one.features[half:][:1].expand(len(one.features) - half, -1)])
    first, second = (rule(f, one.words, one.scale)[:half] for f in (one.features, other))
    return torch.allclose(first, second, atol=1e-4)
