"""Exercises of chapter 7.1a, distillation of features."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, same_shape


def relation(s, v):
    of_student, of_teacher = (F.normalize(x @ x.T, p=1, dim=1) for x in (s, v))
    return (of_student - of_teacher).pow(2).sum()


@exercise(
    "07_1a.relation",
    solution=relation,
    hints=(
        "The similarities among K regions are the matrix S S' [K, K]; each of its rows is "
        "divided by the sum of its absolute values, for student and teacher alike.",
        "`F.normalize(x @ x.T, p=1, dim=1)` does that; the loss is the sum of the squared differences of the two matrices.",
    ),
    seen="The loss does not care where the student's space lies, only who is near whom: turn all of S by the same rotation and it stays 0.",
)
def _relation(answer) -> None:
    s, v = (F.normalize(torch.randn(5, 8, generator=generator(seed)), dim=-1) for seed in (1, 2))
    right = relation(s, v)
    given = same_shape(ask(answer, s, v), right, "[]")
    if torch.allclose(given, (s @ s.T - v @ v.T).pow(2).sum(), atol=1e-4):
        raise Wrong("the rows are not normalised; RKD divides each by the sum of its absolute values.")
    one, two = (F.normalize(x @ x.T, p=2, dim=1) for x in (s, v))
    if torch.allclose(given, (one - two).pow(2).sum(), atol=1e-4):
        raise Wrong("those rows have length one; the release divides by the sum of absolute values (p=1).")
    if torch.allclose(given, right / 25, atol=1e-4) or torch.allclose(given, right.sqrt(), atol=1e-4):
        raise Wrong("it is the squared Frobenius norm: a sum of squares, neither a mean nor a root.")
    close(given, right, "|| rho(S S') - rho(V V') ||^2, with rho dividing each row by the sum of its absolute values.")
    turn = torch.linalg.qr(torch.randn(8, 8, generator=generator(3))).Q
    close(same_shape(ask(answer, v @ turn, v), right, "[]"), torch.zeros(()), "a rotated space has the same relations.")


def bag(box, gap):
    x0, y0, x1, y1 = box.tolist()
    width, height = x1 - x0, y1 - y0
    rows = []
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            dx, dy = across * (1 + gap) * width, down * (1 + gap) * height
            rows.append([x0 + dx, y0 + dy, x1 + dx, y1 + dy])
    return torch.tensor(rows)


@exercise(
    "07_1a.bag",
    solution=bag,
    hints=(
        "All nine boxes have the size of the first. Neighbours are one size and a gap away; a gap of -0.1 lets them overlap by a tenth.",
        "The shift across is (-1, 0, 1) * (1 + gap) * width, the shift down the same with the height; go row by row.",
    ),
    seen=(
        "A bag is no object proposal: it is the surroundings of one, and what lies in it may be "
        "nothing. The caption-like embedding of the whole says what belongs together."
    ),
)
def _bag(answer) -> None:
    box = torch.tensor([20.0, 30.0, 30.0, 50.0])
    right = bag(box, -0.1)
    given = same_shape(ask(answer, box, -0.1), right, "[9, 4]")
    if torch.allclose(given, bag(box, 0.1), atol=1e-3):
        raise Wrong("a negative gap lets boxes overlap: they are (1 + gap) sizes apart.")
    if not torch.allclose(given[4], box):
        raise Wrong("the box itself stands in the middle: place 4 of 0 to 8, row by row.")
    if torch.allclose(given.reshape(3, 3, 4).transpose(0, 1).reshape(9, 4), right, atol=1e-3):
        raise Wrong("go row by row: the first three lie above the box.")
    close(given, right, "shift by (1 + gap) times the width across and the height down.")


def infonce(u, y, scale):
    logits = scale * u @ y.T
    own = torch.arange(len(u))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


@exercise(
    "07_1a.contrast",
    solution=infonce,
    hints=(
        "Row i of u belongs to row i of y and to no other: two cross-entropies, one over the rows and one over the columns of the similarities.",
        "`F.cross_entropy(logits, torch.arange(n))` and the same of `logits.T`; the loss is their mean.",
    ),
    seen="Unlike L1, this loss needs others in the batch: which places look alike in it decides what the student must tell apart.",
)
def _contrast(answer) -> None:
    u = F.normalize(torch.randn(6, 8, generator=generator(7)), dim=-1)
    y = F.normalize(u + 0.5 * torch.randn(6, 8, generator=generator(8)), dim=-1)
    right = infonce(u, y, 30.0)
    given = same_shape(ask(answer, u, y, 30.0), right, "[]")
    own = torch.arange(6)
    for one in (F.cross_entropy(30 * u @ y.T, own), F.cross_entropy(30 * y @ u.T, own)):
        if torch.allclose(given, one, atol=1e-4) and not torch.allclose(right, one, atol=1e-4):
            raise Wrong("that is one direction; take the mean of both.")
    if torch.allclose(given, 2 * right, atol=1e-4):
        raise Wrong("that is the sum of both directions; take their mean.")
    if torch.allclose(given, infonce(u, y, 1.0), atol=1e-4):
        raise Wrong("the scale is missing.")
    close(given, right, "1/2 CE(scale u y', own) + 1/2 CE(scale y u', own).")


def object_crop(box, expand, side):
    x0, y0, x1, y1 = box.tolist()
    length = (expand * (x1 - x0) * (y1 - y0)) ** 0.5
    left = min(max((x0 + x1 - length) / 2, 0.0), side - length)
    top = min(max((y0 + y1 - length) / 2, 0.0), side - length)
    return torch.tensor([left, top, left + length, top + length])


@exercise(
    "07_1a.object_crop",
    solution=object_crop,
    hints=(
        "A square of `expand` times the area has sides of the root of expand * width * height, around the same centre.",
        "Where it leaves the image it is moved, not cut: left is at least 0 and at most side - length, and so is top.",
    ),
    seen=(
        "Nothing is distorted and nothing is cut, but the object fills only a part of the "
        "crop: this is why the teacher needs a token that sees the box alone."
    ),
)
def _object_crop(answer) -> None:
    for box in (torch.tensor([24.0, 20.0, 44.0, 30.0]), torch.tensor([0.0, 40.0, 20.0, 60.0])):
        right = object_crop(box, 4.0, 64.0)
        given = same_shape(ask(answer, box, 4.0, 64.0), right, "[4]")
        sides = given[2:] - given[:2]
        if float((sides[0] - sides[1]).abs()) > 1e-3:
            raise Wrong("the crop should be a square, so that nothing is distorted; if it leaves the image, move it.")
        if float(given.min()) < 0 or float(given.max()) > 64:
            raise Wrong("the crop leaves the image; move it inside.")
        close(given, right, "the side is the root of expand times the area of the box.")
