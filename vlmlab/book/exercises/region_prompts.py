"""Exercises of chapter 7.1b, prompts for regions."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, same_shape


def background(logits):
    return -logits.log_softmax(-1).mean(-1).mean()


@exercise(
    "07_1b.background",
    solution=background,
    hints=(
        "The target of a background region is the uniform distribution 1/C over the base classes: soft cross-entropy with it.",
        "sum_c (1/C) (-log p_c) is the mean over the classes of -log p; then take the mean over the regions.",
    ),
    seen=(
        "The smallest value is log C, where every class is equally likely: background is "
        "taught to look like nothing in particular, without a class of its own."
    ),
)
def _background(answer) -> None:
    logits = 3 * torch.randn(8, 5, generator=generator(1))
    right = background(logits)
    given = same_shape(ask(answer, logits), right, "[]")
    p = logits.softmax(-1)
    if torch.allclose(given, -(p * p.log()).sum(-1).mean(), atol=1e-4):
        raise Wrong("that is the entropy; the target is uniform, and the logarithm is of p.")
    if torch.allclose(given, 5 * right, atol=1e-3):
        raise Wrong("every class has the weight 1/C.")
    if torch.allclose(given, -right, atol=1e-4):
        raise Wrong("the sign: a loss falls when background becomes uniform.")
    close(given, right, "-1/C sum over the classes of log p, mean over the regions.")
    flat = same_shape(ask(answer, torch.zeros(2, 5)), right, "[]")
    close(flat, torch.log(torch.tensor(5.0)), "with equal logits the loss is log C.")


def groups(iou, edges):
    return torch.searchsorted(torch.tensor(edges), iou, right=True) - 1


@exercise(
    "07_1b.groups",
    solution=groups,
    hints=(
        "A region belongs to the last group whose lower edge its IoU reaches; below the first edge to none, -1.",
        "Count the edges that are not larger than the IoU and take one off: `(iou[:, None] >= torch.tensor(edges)).sum(-1) - 1`.",
    ),
    seen="Each group learns its own context: loose boxes show half of an object, and the words for them may be others than for tight ones.",
)
def _groups(answer) -> None:
    iou = torch.tensor([0.2, 0.5, 0.69, 0.7, 0.84, 0.9, 1.0])
    edges = [0.5, 0.7, 0.85]
    right = groups(iou, edges)
    given = same_shape(ask(answer, iou, edges), right, "[R]")
    if given.is_floating_point():
        raise Wrong("group numbers are whole numbers.")
    if (given == right + 1).all():
        raise Wrong("the first group has the number 0, and regions below it have -1.")
    wrong = (given != right).nonzero().flatten()
    if len(wrong):
        k = int(wrong[0])
        raise Wrong(f"IoU {iou[k]:.2f} belongs to group {int(right[k])}; the lower edge is included.")


def ensemble(words):
    return F.normalize(F.normalize(words, dim=-1).sum(0), dim=-1)


@exercise(
    "07_1b.ensemble",
    solution=ensemble,
    hints=(
        "Every group says each class in its own words. They are brought to length one before they are added, so that none counts more.",
        "`F.normalize(words, dim=-1).sum(0)`, and again to length one.",
    ),
    seen="One classifier of C words is left: at test nobody knows how good a box is, so all groups speak at once.",
)
def _ensemble(answer) -> None:
    words = torch.randn(3, 4, 6, generator=generator(2)) * torch.tensor([1.0, 4.0, 0.5])[:, None, None]
    right = ensemble(words)
    given = same_shape(ask(answer, words), right, "[C, e]")
    if torch.allclose(given, F.normalize(words.sum(0), dim=-1), atol=1e-4):
        raise Wrong("long vectors would count more: bring each to length one before the sum.")
    if not torch.allclose(given.norm(dim=-1), torch.ones(4), atol=1e-4):
        raise Wrong("the result should have length one.")
    close(given, right, "n(sum over the groups of n(t)).")


def web_box(scores, boxes):
    first = scores[:20]
    return boxes[int(first.argmax())]


@exercise(
    "07_1b.web_box",
    solution=web_box,
    hints=(
        "The class of the image is known; the box is the proposal with the highest score for it, among the most promising ones.",
        "Proposals come in the order of their objectness: look at the first 20 alone, and take the box with the largest score there.",
    ),
    seen="One box of a noisy image, chosen by the detector itself: where it is wrong, training makes it surer of its mistake.",
)
def _web_box(answer) -> None:
    scores = torch.rand(40, generator=generator(5))
    scores[33], scores[7] = 2.0, 1.5
    boxes = torch.arange(160).reshape(40, 4).float()
    given = same_shape(ask(answer, scores, boxes), boxes[7], "[4]")
    if torch.equal(given, boxes[33]):
        raise Wrong("only the first 20 proposals, the most promising ones, may be chosen.")
    if not torch.equal(given, boxes[7]):
        raise Wrong("take the box with the highest score among the first 20.")
