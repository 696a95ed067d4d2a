"""Exercises of chapter 7.1, open-vocabulary detection."""

from __future__ import annotations

import torch

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, number, same_shape


def ap50(scores, hits, objects):
    order = scores.argsort(descending=True)
    right = hits[order].cumsum(0)
    recall, precision = right / objects, right / torch.arange(1, len(right) + 1)
    best = precision.flip(0).cummax(0).values.flip(0)  # the best precision at this recall or a higher one
    levels = torch.linspace(0, 1, 101)
    place = torch.searchsorted(recall, levels)
    return 100 * torch.where(place < len(best), best[place.clamp_max(len(best) - 1)], 0.0).mean()


@exercise(
    "07_1.ap50",
    solution=ap50,
    hints=(
        "Sort by score. After k detections, recall is the share of the objects found so far and precision the share of the k that are right.",
        "COCO takes, at each of 101 recall levels 0, 0.01, ..., 1, the best precision at "
        "that recall or a higher one, and 0 where it is never reached.",
    ),
    seen=(
        "An object that is never found costs recall for good: its levels count as 0. The "
        "order of the scores within a class is all that counts, not their size."
    ),
)
def _ap50(answer) -> None:
    scores = torch.tensor([0.9, 0.3, 0.8, 0.6, 0.5])
    hits = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0])
    given = number(ask(answer, scores, hits, 4), 0, 100, "percent")
    right = float(ap50(scores, hits, 4))
    if abs(given - float(ap50(torch.arange(5, 0, -1).float(), hits, 4))) < 0.05:
        raise Wrong("the detections are not sorted by their score.")
    if abs(given - float(ap50(scores, hits, 3))) < 0.05:
        raise Wrong("one of the four objects is not found at all; recall is a share of all objects.")
    if abs(given - right / 100) < 1e-3:
        raise Wrong("give percent, 0 to 100.")
    if abs(given - right) > 0.3:
        raise Wrong(
            f"{given:.2f} is not right: at every recall level take the best precision at that recall or beyond, then the mean over 101 levels."
        )
    flat = number(ask(answer, torch.tensor([0.5, 0.4]), torch.tensor([1.0, 1.0]), 2), 0, 100, "percent")
    if abs(flat - 100) > 1e-3:
        raise Wrong("with every object found and nothing else, AP50 is 100.")


def two_scales(boxes, side, encode):
    seen = []
    for scale in (1.0, 1.5):
        centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, scale * (boxes[:, 2:] - boxes[:, :2]) / 2
        seen.append(encode(torch.cat([centre - half, centre + half], 1).clamp(0, side)))
    total = seen[0] + seen[1]
    return total / total.norm(dim=-1, keepdim=True)


@exercise(
    "07_1.two_scales",
    solution=two_scales,
    hints=(
        "Take the centre and half of the size of every box; the larger crop has 1.5 times that half around the same centre.",
        "Crops end where the image ends: `.clamp(0, side)`. Add what `encode` says of both, and bring the sum to length one.",
    ),
    seen=(
        "The larger crop lets the teacher see what is around an object. Two crops are two "
        "encodings: the teacher's cost doubles, but it is paid once, before training."
    ),
)
def _two_scales(answer) -> None:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 40.0], [0.0, 40.0, 20.0, 64.0]])
    weights = torch.randn(4, 5, generator=generator(3))
    asked = []

    def encode(crops):
        asked.append(crops.clone())
        return (crops / 64) @ weights + 0.1

    right = two_scales(boxes, 64.0, encode)
    asked.clear()
    given = same_shape(ask(answer, boxes, 64.0, encode), right, "[R, e]")
    if len(asked) != 2:
        raise Wrong(f"two crops of every box are encoded, and `encode` was called {len(asked)} times.")
    if any(float(crops.min()) < 0 or float(crops.max()) > 64 for crops in asked):
        raise Wrong("a crop leaves the image; cut it off there.")
    if not torch.allclose(given.norm(dim=-1), torch.ones(2), atol=1e-4):
        raise Wrong("the result should have length one.")
    close(
        given, right, "the crop of 1.5 has the same centre as the box; add the two embeddings, then normalise the sum."
    )


def fusion(p, q, is_new):
    share = torch.where(is_new, 2 / 3, 1 / 3)
    return p ** (1 - share) * q**share


@exercise(
    "07_1.fusion",
    solution=fusion,
    hints=(
        "The exponents of p and q add up to 1 and depend on the class alone: base classes trust p, new ones q.",
        "`share = torch.where(is_new, 2 / 3, 1 / 3)` is q's exponent [C]; it broadcasts over the regions.",
    ),
    seen=(
        "A product ranks low whatever one of the two is sure against. If p is sure of "
        "itself, its noise on new classes spoils q's ranking: hence `soften`."
    ),
)
def _fusion(answer) -> None:
    p = torch.rand(6, 5, generator=generator(1))
    q = torch.rand(6, 5, generator=generator(2))
    is_new = torch.tensor([False, True, False, False, True])
    right = fusion(p, q, is_new)
    given = same_shape(ask(answer, p, q, is_new), right, "[R, C]")
    if torch.allclose(given, fusion(p, q, ~is_new), atol=1e-4):
        raise Wrong("the text head p has learned base classes from boxes: it is trusted there, and q on new ones.")
    if torch.allclose(given, torch.where(is_new, p / 3 + 2 * q / 3, 2 * p / 3 + q / 3), atol=1e-4):
        raise Wrong("that is the arithmetic mean; ViLD takes the geometric one.")
    if torch.allclose(given, right / right.sum(-1, keepdim=True), atol=1e-4):
        raise Wrong("ViLD does not normalise the product again.")
    close(given, right, "base: p^(2/3) q^(1/3), new: p^(1/3) q^(2/3).")


def distance(z, v):
    unit = torch.nn.functional.normalize
    return (unit(z, dim=-1) - unit(v, dim=-1)).abs().sum(-1).mean()


@exercise(
    "07_1.distance",
    solution=distance,
    hints=(
        "Bring both to length one, take the absolute differences, and think about which of the two axes is summed and which is averaged.",
        "Sum over the e dimensions, mean over the R regions: `.abs().sum(-1).mean()`.",
    ),
    seen=(
        "Averaged over the dimensions, the same weight would count 128 times less here, "
        "and 512 times less in the paper: as good as no distillation."
    ),
)
def _distance(answer) -> None:
    z, v = 3 * torch.randn(7, 16, generator=generator(5)), torch.randn(7, 16, generator=generator(6))
    right = distance(z, v)
    given = same_shape(ask(answer, z, v), right, "[]")
    if torch.allclose(given, right / 16, atol=1e-4):
        raise Wrong("that is the mean over the dimensions; ViLD sums over them.")
    if torch.allclose(given, 7 * right, atol=1e-3):
        raise Wrong("take the mean over the regions, or the loss grows with their number.")
    if torch.allclose(given, (z - v).abs().sum(-1).mean(), atol=1e-3):
        raise Wrong("both sides are brought to length one first.")
    close(given, right, "1/R sum over r of the L1 distance of unit vectors.")
