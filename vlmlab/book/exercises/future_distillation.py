"""Exercises of chapter 9.3, directions of distillation: open experiments, whose checks compare with a baseline on hidden seeds."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, same_shape
from vlmlab.book.exercises.future_transfer import HIDDEN, won
from vlmlab.studies.directions import individuals, teachers

DATASETS = ("objects-v2", "objects-mosaic", "textures", "aerial")


def target(features, words, scale):
    logits = [scale * f @ words.T for f in features]
    logits = [z - 0.5 * z.softmax(-1).mean(0).log() for z in logits]  # no teacher may prefer a class
    return torch.stack([z.softmax(-1) for z in logits]).mean(0).log()


@exercise(
    "09_3.target",
    solution=target,
    hints=(
        "Each teacher prefers some classes. Two opinions are worth more once each has been put right.",
        "Take half of the logarithm of the mean prediction from each teacher's logits, as in chapter 9.2, and then the mean of the probabilities.",
    ),
    seen="A target that is better than the sum of features costs nothing at this stage; whether a student can keep it is the open part.",
)
def _target(answer) -> str:
    judged = [teachers.views(name, 250, HIDDEN) for name in DATASETS]

    def rule(features, words, scale):
        given = ask(answer, features, words, scale)
        shape = [len(features[0]), len(words)]
        if not isinstance(given, Tensor) or list(given.shape) != shape:
            raise Wrong(f"logits [N, C] = {shape} are wanted, one row per image.")
        if not bool(given.isfinite().all()):
            raise Wrong("some logits are not finite.")
        return given

    own, base = (sum(teachers.measured(r, seen) for seen in judged) / len(judged) for r in (rule, teachers.feature_sum))
    return won(own, base, "percent on average over four datasets", "the sum of features")


def metric(features, who):
    mean = torch.stack([features[who == i].mean(0) for i in range(int(who.max()) + 1)])
    inside = features - mean[who]  # how one individual varies from draw to draw
    covariance = inside.T @ inside / len(features)
    covariance = covariance + 0.05 * covariance.trace() / len(covariance) * torch.eye(len(covariance))
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ torch.diag(values.rsqrt()) @ vectors.T


@exercise(
    "09_3.metric",
    solution=metric,
    hints=(
        "In which directions does one individual vary between its draws? These should count for little when two images are compared.",
        "The covariance of the differences from each individual's mean, with a little of the identity added, to the power -1/2.",
    ),
    seen="A linear map learned from other individuals carries over to ones that it never saw: what it learned is what does not matter.",
)
def _metric(answer) -> str:
    (train, f), (test, g) = _drawn(48, HIDDEN), _drawn(32, HIDDEN + 1)
    A = ask(answer, f.clone(), train.who.clone())
    if not isinstance(A, Tensor) or A.ndim != 2 or A.shape[0] != f.shape[1]:
        raise Wrong(f"a matrix [e, any] with e = {f.shape[1]} is wanted, which features are multiplied by.")
    if not bool(A.isfinite().all()):
        raise Wrong("some entries are not finite.")
    own, base = (individuals.ranked(h, test)["rank-1"] for h in (F.normalize(g @ A.float(), dim=-1), g))
    return won(own, base, "percent rank-1 on unseen individuals", "the frozen feature")


@functools.cache
def _drawn(count: int, seed: int) -> tuple[individuals.Album, Tensor]:
    """So many individuals, six times each, with their features; drawn and encoded for the first answer."""
    found = individuals.album(count, 6, seed=seed)
    return found, individuals.features(found)


def average_precision(hits):
    precision = hits.float().cumsum(0) / torch.arange(1, len(hits) + 1)
    return (precision * hits).sum() / hits.sum()


@exercise(
    "09_3.average_precision",
    solution=average_precision,
    hints=(
        "Precision at rank k is the share of hits among the first k. At which ranks does it count?",
        "`hits.cumsum(0) / arange(1, n + 1)` is the precision at every rank; take its mean over the ranks that are hits.",
    ),
    seen="Rank-1 looks at one neighbour, average precision at all of an individual's images: a system may win by one and lose by the other.",
)
def _average_precision(answer) -> None:
    hits = torch.rand(20, generator=generator(4)) < 0.3
    expected = average_precision(hits)
    given = same_shape(ask(answer, hits.clone()), expected, "a number")
    precision = hits.float().cumsum(0) / torch.arange(1, 21)
    if torch.allclose(given, precision.mean(), atol=1e-5):
        raise Wrong("precision counts only at ranks where there is a hit.")
    if torch.allclose(given, hits.float().mean(), atol=1e-5):
        raise Wrong("that is the share of hits; their places count.")
    if torch.allclose(given, (precision * hits).sum() / 20, atol=1e-5):
        raise Wrong("divide by the number of hits, not by the length of the list.")
    close(given, expected, "compare with equation (3) of the chapter.")
