"""Exercises of chapter 7.2, segmentation."""

from __future__ import annotations

import torch

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, same_shape
from vlmlab.datasets.truth import NOTHING, UNLABELLED


def pooled(features, masks):
    area = masks.sum((1, 2)).clamp_min(1e-6)  # an empty mask gives zeros
    return torch.einsum("nhw,ehw->ne", masks, features) / area[:, None]


@exercise(
    "07_2.pooled",
    solution=pooled,
    hints=(
        "A weighted mean: the features under the mask times its weights, summed over the places, over the sum of the weights.",
        "`torch.einsum('nhw,ehw->ne', masks, features)` is the sum; divide by `masks.sum((1, 2))`, of which an empty mask makes zero.",
    ),
    seen="The same few lines name a proposal in OpenSeg, and start MaskFormer's queries near CLIP. Whether they name it right depends on what the "
    "places know, and that is less than what a crop knows.",
)
def _pooled(answer) -> None:
    features = torch.randn(6, 4, 5, generator=generator(1))
    masks = (torch.rand(3, 4, 5, generator=generator(2)) > 0.6).float()
    masks[1] *= 0.5
    masks[2] = 0
    expected = pooled(features, masks)
    given = same_shape(ask(answer, features, masks), expected, "[N, e]")
    if given.isnan().any():
        raise Wrong("an empty mask gives 0 / 0: its features should be zeros.")
    if torch.allclose(given, torch.einsum("nhw,ehw->ne", masks, features), atol=1e-5):
        raise Wrong("that is the sum under the mask; a mean divides by the area of the mask.")
    if torch.allclose(given, torch.einsum("nhw,ehw->ne", masks, features) / 20, atol=1e-5):
        raise Wrong("divided by all places; a small thing would have small features. Divide by the area of the mask.")
    shown = (masks > 0).float()
    if torch.allclose(
        given[:2], (torch.einsum("nhw,ehw->ne", masks, features) / shown.sum((1, 2))[:, None])[:2], atol=1e-5
    ):
        raise Wrong("a mask may have weights between 0 and 1: divide by their sum, not by how many there are.")
    close(given, expected, "compare with equation (2) of the chapter.")


def mean_iou(counts):
    shown = counts.sum(1)
    union = shown + counts.sum(0) - counts.diag()
    return 100 * (counts.diag()[shown > 0] / union[shown > 0]).mean()


@exercise(
    "07_2.mean_iou",
    solution=mean_iou,
    hints=(
        "The intersection of a class is on the diagonal. Its union is everything that is the class (its row) or is called so (its column).",
        "Row sum plus column sum counts the intersection twice: take the diagonal off once. Then a mean over the classes whose row is not empty.",
    ),
    seen="A class that nobody shows has no row, and releases differ in what they do with it: some average over classes that are there, some "
    "count a wrongly predicted absent class as 0. The same maps then have other figures.",
)
def _mean_iou(answer) -> None:
    counts = torch.tensor([[50.0, 5, 0, 1], [10, 20, 0, 0], [0, 0, 0, 0], [2, 0, 0, 8]])
    expected = mean_iou(counts)
    given = same_shape(ask(answer, counts), expected, "[]")
    if given.isnan():
        raise Wrong(
            "a class that is neither shown nor predicted gives 0 / 0: leave classes out that the truth does not show."
        )
    diagonal, rows, columns = counts.diag(), counts.sum(1), counts.sum(0)
    if torch.allclose(given * 100, expected, atol=1e-3):
        raise Wrong("that is a share; the figure is in percent.")
    if torch.allclose(given, 100 * diagonal.sum() / counts.sum(), atol=1e-3):
        raise Wrong("that is pixel accuracy, in which the large classes decide.")
    if torch.allclose(given, 100 * (diagonal / rows)[rows > 0].mean(), atol=1e-3):
        raise Wrong(
            "that is a mean accuracy by class; what is called so by mistake (the column) belongs to the union, too."
        )
    if torch.allclose(given, 100 * (diagonal / (rows + columns))[rows > 0].mean(), atol=1e-3):
        raise Wrong("row and column both hold the intersection: it must be taken off the union once.")
    if torch.allclose(given, expected * 3 / 4, atol=1e-3):
        raise Wrong(
            "a class that the truth does not show was counted as 0; the mean is over the classes that are there."
        )
    close(given, expected, "row sum plus column sum less the diagonal, class by class.", 1e-3)


def pseudo(masks, guide, unlabelled):
    best = torch.tensor(unlabelled)[guide[unlabelled].argmax(0)]
    return torch.where(masks == UNLABELLED, best, masks)


@exercise(
    "07_2.pseudo",
    solution=pseudo,
    hints=(
        "Only pixels with the value -2 (a class is there, nobody says which) change, and only words without masks may be said.",
        "`guide[unlabelled].argmax(0)` counts within the short list: `torch.tensor(unlabelled)[...]` turns its places into classes. "
        "Then `torch.where`.",
    ),
    seen="What is left out makes the labels good: the teacher is right far more often among the words without masks than among all, because "
    "the seen ones, which it knows best, cannot win.",
)
def _pseudo(answer) -> None:
    masks = torch.randint(-2, 3, (6, 7), generator=generator(3))
    guide = torch.randn(5, 6, 7, generator=generator(4))
    guide[:3] += 2  # seen classes look likely everywhere
    expected = pseudo(masks, guide, [3, 4])
    given = same_shape(ask(answer, masks, guide, [3, 4]), expected, "[H, W]")
    where = masks == UNLABELLED
    if torch.equal(given, torch.where(where, guide.argmax(0), masks)):
        raise Wrong("seen classes won: their masks are granted, so what has no label is none of them.")
    if torch.equal(given, torch.where(where, guide[[3, 4]].argmax(0), masks)):
        raise Wrong("the place within the list of unlabelled words was written down instead of the class.")
    if torch.equal(given, torch.where(masks < 0, expected.new_tensor([3, 4])[guide[[3, 4]].argmax(0)], masks)):
        raise Wrong(f"pixels of no class ({NOTHING}) got a name; only those without a label ({UNLABELLED}) should.")
    if not torch.equal(given[masks >= 0], masks[masks >= 0]):
        raise Wrong("a mask that is granted was changed.")
    if not torch.equal(given, expected):
        raise Wrong("compare with equation (4) of the chapter, pixel by pixel.")


def snapped(scores, regions):
    out = torch.empty_like(scores)
    for r in regions.unique():
        out[:, regions == r] = scores[:, regions == r].mean(1, keepdim=True)
    return out


@exercise(
    "07_2.snapped",
    solution=snapped,
    hints=(
        "Every region by itself: the mean of its scores, class by class, goes to all of its pixels.",
        "`scores[:, regions == r]` is [C, pixels of the region]; `.mean(1, keepdim=True)` is [C, 1] and can be assigned back to them.",
    ),
    seen="Nothing was learned, and outlines of things become outlines of the map. Averaging before the argmax lets sure pixels decide for "
    "unsure ones; a vote after it would count them alike.",
)
def _snapped(answer) -> None:
    scores = torch.rand(3, 5, 6, generator=generator(5))
    regions = torch.randint(0, 4, (5, 6), generator=generator(6))
    expected = snapped(scores, regions)
    given = same_shape(ask(answer, scores.clone(), regions), expected, "[C, H, W]")
    if torch.allclose(given, scores.mean((1, 2), keepdim=True).expand_as(scores), atol=1e-5):
        raise Wrong("one mean for the whole image; every region has its own.")
    largest = torch.empty_like(scores)
    for r in regions.unique():
        largest[:, regions == r] = scores[:, regions == r].amax(1, keepdim=True)
    if torch.allclose(given, largest, atol=1e-5):
        raise Wrong("that is the largest score of a region: one pixel decides for all. Take the mean.")
    if torch.allclose(given, scores, atol=1e-5):
        raise Wrong("the scores are as they were.")
    close(given, expected, "the mean of each region, class by class.")
