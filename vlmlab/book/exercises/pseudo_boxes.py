"""Exercises of chapter 7.1c, pseudo labels for boxes."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, same_shape


def cover(map, boxes):
    kept = torch.where(map >= 0.5 * map.max(), map, 0.0)
    scores = []
    for x0, y0, x1, y1 in boxes.tolist():
        scores.append(kept[y0:y1, x0:x1].sum() / ((x1 - x0) * (y1 - y0)) ** 0.5)
    return torch.stack(scores)


@exercise(
    "07_1c.cover",
    solution=cover,
    hints=(
        "First set the map to 0 where it is below half of its maximum. The score of a box "
        "is the sum of what is left inside, over the root of its area.",
        "Rows are y and columns x: `kept[y0:y1, x0:x1].sum() / ((x1 - x0) * (y1 - y0)) ** 0.5`.",
    ),
    seen=(
        "Divided by the area a box would shrink to the brightest place; not divided at "
        "all it would grow to the whole image. The root is a compromise."
    ),
)
def _cover(answer) -> None:
    map = torch.rand(16, 20, generator=generator(1))
    map[4:9, 6:14] += 1.0
    boxes = torch.tensor([[6, 4, 14, 9], [0, 0, 20, 16], [7, 5, 9, 7], [0, 10, 6, 16]])
    right = cover(map, boxes)
    given = same_shape(ask(answer, map, boxes), right, "[P]")
    area = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).float()
    whole = torch.stack([map[b:d, a:c].sum() for a, b, c, d in boxes.tolist()]) / area.sqrt()
    if torch.allclose(given, whole, atol=1e-3):
        raise Wrong("weak places are set to 0 first, those below half of the maximum.")
    if torch.allclose(given, right * area.sqrt() / area, atol=1e-3):
        raise Wrong("divide by the root of the area, not by the area.")
    if torch.allclose(given, right * area.sqrt(), atol=1e-2):
        raise Wrong("the root of the area is missing: the largest box would always win.")
    close(given, right, "sum inside of the box of the thresholded map, over the root of the area.")


def choose(objectness, certainty, weight, threshold):
    score = weight * objectness + (1 - weight) * certainty
    return score, score > threshold


@exercise(
    "07_1c.choose",
    solution=choose,
    hints=(
        "The proposer says whether there is an object, CLIP says which: the score is a weighted mean of both.",
        "`weight * objectness + (1 - weight) * certainty`; a pseudo label must lie above the threshold. Give both tensors.",
    ),
    seen="CLIP alone is as sure of half an object as of the whole one. Objectness asks for a box that fits, certainty for a name.",
)
def _choose(answer) -> None:
    objectness = torch.tensor([0.9, 0.2, 0.8, 0.95])
    certainty = torch.tensor([0.9, 0.99, 0.3, 0.99])
    given = ask(answer, objectness, certainty, 0.4, 0.8)
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise Wrong("two tensors are wanted: the score and whether it is chosen.")
    score, chosen = choose(objectness, certainty, 0.4, 0.8)
    mine = same_shape(given[0], score, "[P]")
    if torch.allclose(mine, 0.6 * objectness + 0.4 * certainty, atol=1e-4):
        raise Wrong("the weight is that of objectness.")
    close(mine, score, "weight * objectness + (1 - weight) * certainty.")
    kept = same_shape(given[1], chosen, "[P]")
    if not torch.equal(kept.bool(), chosen):
        raise Wrong("those whose score lies above the threshold are chosen.")


def quality(names, truths, overlap):
    hit = overlap >= 0.5
    right = hit & (names[:, None] == truths[None])
    return 100 * right.any(1).float().mean(), 100 * right.any(0).float().mean()


@exercise(
    "07_1c.quality",
    solution=quality,
    hints=(
        "A pseudo label is right if it meets an object of its name with an IoU of 0.5 or more. Make the matrix [labels, objects] of that.",
        "Precision asks the labels: `right.any(1)`; recall asks the objects: `right.any(0)`. Both in percent.",
    ),
    seen="A higher threshold buys precision with recall. Which of the two a student needs more is an experiment, and not a matter of taste.",
)
def _quality(answer) -> None:
    names, truths = torch.tensor([1, 2, 2, 3]), torch.tensor([1, 2, 3, 4, 2])
    overlap = torch.tensor([[0.6, 0, 0, 0, 0], [0, 0.5, 0, 0, 0.1], [0, 0.7, 0, 0, 0], [0, 0.9, 0.4, 0, 0]])
    given = ask(answer, names, truths, overlap)
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise Wrong("two numbers are wanted: precision and recall.")
    precision, recall = (same_shape(one, torch.zeros(()), "[]") for one in given)
    right = quality(names, truths, overlap)
    if torch.allclose(torch.stack([recall, precision]), torch.stack(right), atol=1e-2):
        raise Wrong("precision comes first: of the labels, how many are right.")
    if torch.allclose(precision, torch.tensor(100.0), atol=1e-2):
        raise Wrong("the name must be right, too.")
    close(precision, right[0], "the percentage of the labels that meet an object of their name.", 1e-3)
    close(recall, right[1], "the percentage of the objects that are met by a label with their name.", 1e-3)


def doubted(logits, sigma, noise, masks):
    return F.binary_cross_entropy_with_logits(logits + noise * sigma, masks)


@exercise(
    "07_1c.doubted",
    solution=doubted,
    hints=(
        "The logits of a pseudo mask get noise whose size the student predicts place by place, and then the usual loss is taken.",
        "logits + noise * sigma, then binary cross-entropy of the result against the mask, mean over all places.",
    ),
    seen="Where sigma is large the gradient points anywhere: on average it teaches less there, so a wrong outline costs less.",
)
def _doubted(answer) -> None:
    logits, sigma = torch.randn(2, 4, 4, generator=generator(1)), torch.rand(2, 4, 4, generator=generator(2))
    noise = torch.randn(2, 4, 4, generator=generator(3))
    masks = (torch.rand(2, 4, 4, generator=generator(4)) > 0.5).float()
    right = doubted(logits, sigma, noise, masks)
    given = same_shape(ask(answer, logits, sigma, noise, masks), right, "[]")
    if torch.allclose(given, F.binary_cross_entropy_with_logits(logits, masks), atol=1e-4):
        raise Wrong("the noise is missing.")
    if torch.allclose(given, F.binary_cross_entropy_with_logits(logits + noise, masks), atol=1e-4):
        raise Wrong("the noise is scaled by sigma, place by place.")
    if torch.allclose(given, 32 * right, atol=1e-2):
        raise Wrong("take the mean over all places.")
    close(given, right, "binary cross-entropy of logits + noise * sigma.")
