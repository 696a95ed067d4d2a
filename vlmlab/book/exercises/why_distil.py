"""Exercises of chapter 7.0, why vision-language models are distilled."""

from __future__ import annotations

import torch

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, number, same_shape


def overlap(a, b):
    corner, far = torch.maximum(a[:, None, :2], b[None, :, :2]), torch.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (far - corner).clamp(min=0).prod(-1)
    area_a, area_b = ((boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b))
    return common / (area_a[:, None] + area_b[None] - common)


@exercise(
    "07_0.overlap",
    solution=overlap,
    hints=(
        "The common part of two boxes goes from the larger of their left upper corners to the smaller "
        "of their right lower ones; without a common part a side would be negative.",
        "`.clamp(min=0).prod(-1)` of the sides is the common area; the union is the sum of both areas less the common one.",
    ),
    seen=(
        "Half of a box inside of it has IoU 0.5 with it, and so has a box twice as large "
        "around it: the measure does not say which of the two happened."
    ),
)
def _overlap(answer) -> None:
    a = torch.tensor([[0.0, 0, 10, 10], [5, 5, 15, 25]])
    b = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [0, 5, 10, 15]])
    right = overlap(a, b)
    given = same_shape(ask(answer, a, b), right, "[n, m]")
    if (given < 0).any() or given[0, 1] > 0:
        raise Wrong("boxes that do not meet have nothing in common: two negative sides make no area.")
    if float(given[0, 0]) != 1:
        raise Wrong("a box has IoU 1 with itself: the common part counts once in the union.")
    close(given, right, "common area over (area of a + area of b - common area).")


def best_shift(score, shifts):
    return shifts[score.argmax(-1)].float().pow(2).sum(-1).sqrt().mean()


@exercise(
    "07_0.best_shift",
    solution=best_shift,
    hints=(
        "For each object, find the shifted box that the classifier likes best, and see how far that is from the true place.",
        "`shifts[score.argmax(-1)]` is [n, 2]; the length of each is its distance, and the answer is their mean.",
    ),
    seen=(
        "A classifier of crops that is as sure of a shifted box as of the true one cannot "
        "place a box: this is why detectors have proposals and regress them."
    ),
)
def _best_shift(answer) -> None:
    score = torch.rand(9, 5, generator=generator(2))
    shifts = torch.tensor([[0, 0], [3, 4], [-6, 8], [0, 5], [5, 0]])
    given = number(ask(answer, score, shifts), 0, 100, "pixels")
    right = float(best_shift(score, shifts))
    if abs(given - float(shifts[score.argmin(-1)].float().norm(dim=-1).mean())) < 1e-3:
        raise Wrong("those are the boxes that the classifier likes least.")
    if abs(given - float(shifts[score.argmax(-1)].float().mean(0).norm())) < 1e-3:
        raise Wrong("shifts to opposite sides cancel; take the length of each before the mean.")
    if abs(given - right) > 1e-3:
        raise Wrong(f"{given:.3f} is not right: the mean length of the shift of the best score of each object.")


def per_scene(crops, crop_seconds, student_seconds, images, training):
    return training / (images * (crops * crop_seconds - student_seconds))


@exercise(
    "07_0.payback",
    solution=per_scene,
    hints=(
        "Naming an image costs `crops * crop_seconds` with the teacher and "
        "`student_seconds` with the student; the difference is saved on every image.",
        "The student has paid for its training when images * saving reaches it: training / (images * saving) is in days, if `images` is a day's.",
    ),
    seen=(
        "The teacher on every crop is the better detector here and a slow one. Distillation "
        "buys speed with accuracy, and it pays as soon as there are many images."
    ),
)
def _payback(answer) -> None:
    given = number(ask(answer, 300, 0.01, 0.2, 1000, 86400.0), 0, 1e9, "days")
    right = per_scene(300, 0.01, 0.2, 1000, 86400.0)
    if abs(given - 86400.0 / (1000 * 300 * 0.01)) < 0.1:
        raise Wrong("the student costs something, too: only the difference is saved.")
    if abs(given - right) > 1e-3 * right:
        raise Wrong(f"{given:g} is not right: seconds of training over the seconds that a day's images save.")


def teacher_topone(v, t, labels):
    return 100 * ((v @ t.T).argmax(-1) == labels).float().mean()


@exercise(
    "07_0.teacher",
    solution=teacher_topone,
    hints=(
        "The name of a crop is that of the nearest text; the ceiling is how often that is right among all names.",
        "`(v @ t.T).argmax(-1) == labels`, as a percentage; all C names compete.",
    ),
    seen="Of classes that the teacher cannot name no student can learn them from it. This number comes before any other.",
)
def _teacher(answer) -> None:
    v = torch.nn.functional.normalize(torch.randn(12, 6, generator=generator(3)), dim=-1)
    t = torch.nn.functional.normalize(torch.randn(4, 6, generator=generator(4)), dim=-1)
    labels = torch.arange(12) % 4
    right = teacher_topone(v, t, labels)
    given = same_shape(ask(answer, v, t, labels), right, "[]")
    if torch.allclose(given, right / 100, atol=1e-4):
        raise Wrong("give percent, 0 to 100.")
    close(given, right, "the share of crops whose nearest text is that of their label, in percent.")
