"""Exercises of chapter 7.2c, pseudo labels for pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, number, same_shape
from vlmlab.datasets.truth import NOTHING, UNLABELLED


def counted_loss(scores, target):
    losses = F.cross_entropy(scores, target.clamp_min(0), reduction="none")
    counted = target != NOTHING
    return (losses * counted).sum() / counted.sum().clamp_min(1)


@exercise(
    "07_2c.counted",
    solution=counted_loss,
    hints=(
        "Pixels without a class (-1) count nothing: neither in the sum nor in the number that it is divided by.",
        "`F.cross_entropy(scores, target, ignore_index=-1)` does both; by hand, divide the sum of the counted losses by their number.",
    ),
    seen="Divided by all pixels the loss of an image with much nameless ground would be small, and its step short, though its labels are as good as "
    "any.",
)
def _counted(answer) -> None:
    scores = torch.randn(2, 4, 5, 6, generator=generator(1))
    target = torch.randint(-1, 4, (2, 5, 6), generator=generator(2))
    expected = counted_loss(scores, target)
    given = same_shape(ask(answer, scores, target), expected, "[]")
    losses = F.cross_entropy(scores, target.clamp_min(0), reduction="none")
    if torch.allclose(given, losses.mean(), atol=1e-5):
        raise Wrong("pixels without a class were taught class 0; they should count nothing.")
    if torch.allclose(given, (losses * (target >= 0)).mean(), atol=1e-5):
        raise Wrong("divided by all pixels; the mean is over those that count.")
    if torch.allclose(given, (losses * (target >= 0)).sum(), atol=1e-3):
        raise Wrong("that is the sum; divide by the number of pixels that count.")
    close(given, expected, "compare with equation (3) of the chapter.")


def right_share(labels, truth, granted):
    asked = granted == UNLABELLED
    return 100 * (labels == truth)[asked].float().mean()


@exercise(
    "07_2c.right",
    solution=right_share,
    hints=(
        "Only pixels that had no label were answered by the teacher; where a mask was granted, being right is no merit.",
        "`asked = granted == -2` says where; the share of `labels == truth` there, times 100.",
    ),
    seen="Over all pixels the figure would flatter, because most of them are granted or ground. What the student can learn of unseen classes "
    "is this smaller number.",
)
def _right(answer) -> None:
    truth = torch.randint(0, 5, (8, 9), generator=generator(3))
    granted = torch.where(truth >= 3, UNLABELLED, truth)
    labels = torch.where(granted == UNLABELLED, torch.randint(3, 5, (8, 9), generator=generator(4)), granted)
    expected = float(right_share(labels, truth, granted))
    given = number(ask(answer, labels, truth, granted), 0, 100, "percent")
    if abs(given - 100 * float((labels == truth).float().mean())) < 1e-3:
        raise Wrong("granted pixels are in it, where nobody had to guess.")
    if abs(given * 100 - expected) < 1e-3:
        raise Wrong("that is a share; give percent.")
    if abs(given - (100 - expected)) < 1e-3:
        raise Wrong("that is the share of wrong labels.")
    if abs(given - expected) > 1e-3:
        raise Wrong(f"{given:g} is not it: right ones among the pixels without a label.")


def averaged(maps, flipped):
    return (maps + flipped.flip(-1)) / 2


@exercise(
    "07_2c.flipped",
    solution=averaged,
    hints=(
        "The maps of the mirrored image are mirrored, too: turn them back before averaging.",
        "`flipped.flip(-1)` mirrors along the width; then the mean of both.",
    ),
    seen="What both views agree on stays, what only one of them says is halved. Forgetting to turn back puts two images on top of each other, and "
    "symmetric test images would never tell.",
)
def _flipped(answer) -> None:
    maps = torch.randn(3, 4, 5, generator=generator(5))
    flipped = torch.randn(3, 4, 5, generator=generator(6))
    expected = averaged(maps, flipped)
    given = same_shape(ask(answer, maps, flipped), expected, "[C, h, w]")
    if torch.allclose(given, (maps + flipped) / 2, atol=1e-6):
        raise Wrong("the maps of the mirrored image were not turned back: left and right are mixed.")
    if torch.allclose(given, (maps + flipped.flip(-2)) / 2, atol=1e-6):
        raise Wrong("turned upside down: the image was mirrored along its width, the last axis.")
    if torch.allclose(given, maps + flipped.flip(-1), atol=1e-6):
        raise Wrong("that is the sum; take the mean, so that the scores keep their scale.")
    close(given, expected, "turn back, then average.", 1e-5)
