"""Exercises of chapter 8.2, what the published figures of transfer say."""

from __future__ import annotations

import pandas as pd
import torch

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, number, same_shape


def all_from_parts(base, new):
    return (48 * base + 17 * new) / 65  # a mean over classes, so each part counts with its classes


@exercise(
    "08_2.all_from_parts",
    solution=all_from_parts,
    hints=(
        "AP50 of OV-COCO is a mean over all 65 classes. How many of them are base classes, how many new ones?",
        "The mean over 65 classes is the sum over 48 base and 17 new ones, divided by 65: a weighted mean of the two parts.",
    ),
    seen="A printed row that breaks this sum has a wrong cell, whatever its paper says. The sum does not say which cell; a second source does.",
)
def _all_from_parts(answer) -> None:
    base = 60 * torch.rand(6, generator=generator(1))
    new = 40 * torch.rand(6, generator=generator(2))
    given = same_shape(ask(answer, base, new), base, "[rows]")
    if torch.allclose(given, (base + new) / 2, atol=1e-3):
        raise Wrong("the two parts do not have equally many classes: 48 are base classes and 17 are new.")
    if torch.allclose(given, 2 * base * new / (base + new), atol=1e-3):
        raise Wrong("this is the harmonic mean of another protocol; AP50 over all classes is an ordinary mean.")
    if torch.allclose(given, (17 * base + 48 * new) / 65, atol=1e-3):
        raise Wrong("the weights are interchanged: 48 classes are base classes.")
    close(given, all_from_parts(base, new), "weigh each part by its number of classes.")


def odd_cell(rows, row, column):
    x = torch.cat([rows[:, :column], rows[:, column + 1 :]], 1)  # the other columns [N, D-1]
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    others = torch.arange(len(rows)) != row
    weights = torch.linalg.lstsq(x[others], rows[others, column : column + 1]).solution
    return rows[row, column] - (x[row] @ weights)[0]


@exercise(
    "08_2.odd_cell",
    solution=odd_cell,
    hints=(
        "Learn to predict the column from the other columns, on all rows but the one in question; the answer is printed minus predicted.",
        "Take the column out of `rows`, append a column of ones, and solve `torch.linalg.lstsq` on the rows other than `row`.",
    ),
    seen="A cell far from what its row predicts is a question, not an error: a retrieval model, or one that saw few cars, is odd for a reason.",
)
def _odd_cell(answer) -> None:
    skill = 20 * torch.randn(12, 1, generator=generator(3)) + 60
    rows = skill + torch.randn(12, 4, generator=generator(4))
    rows[5, 2] += 25
    right = odd_cell(rows, 5, 2)
    given = same_shape(ask(answer, rows.clone(), 5, 2), right, "[]")
    if torch.allclose(given, -right, atol=1e-2):
        raise Wrong("the sign is turned round: printed minus predicted.")
    every = torch.cat([rows[:, :2], rows[:, 3:], torch.ones(12, 1)], 1)
    with_it = rows[5, 2] - (every[5] @ torch.linalg.lstsq(every, rows[:, 2:3]).solution)[0]
    if torch.allclose(given, with_it, atol=1e-2):
        raise Wrong("the row in question helped to learn its own prediction; leave it out.")
    if torch.allclose(given, rows[5, 2] - rows[torch.arange(12) != 5, 2].mean(), atol=1e-2):
        raise Wrong(
            "the mean of the column ignores how good the row is elsewhere; predict from the other cells of the row."
        )
    close(given, right, "least squares with a constant, on the other rows.", 1e-3)


def shots_equal(shots, curve, level):
    x = torch.log2(shots)
    for i in range(len(shots) - 1):
        if curve[i] <= level <= curve[i + 1]:
            share = (level - curve[i]) / (curve[i + 1] - curve[i])
            return 2 ** (x[i] + share * (x[i + 1] - x[i]))
    return float("nan")


@exercise(
    "08_2.shots_equal",
    solution=shots_equal,
    hints=(
        "Find the two neighbours between which the curve meets the level, and how far between them; shots are powers of two.",
        "Interpolate in log2 of the shots: `2 ** (log2(a) + share * (log2(b) - log2(a)))` with the share of the way from curve[i] to curve[i + 1].",
    ),
    seen="'On a par with few-shot' is a number of shots, not a yes or no, and it changes with the few-shot system that one compares with.",
)
def _shots_equal(answer) -> None:
    shots, curve = torch.tensor([1.0, 2, 4, 8, 16]), torch.tensor([50.0, 54, 60, 66, 70])
    given = number(ask(answer, shots, curve, torch.tensor(63.0)), 1, 16, "shots")
    right = float(shots_equal(shots, curve, torch.tensor(63.0)))
    if abs(given - 6) < 1e-3:
        raise Wrong("between 4 and 8 this is half the way in shots; each doubling is one step, so interpolate log2.")
    if given in (1, 2, 4, 8, 16):
        raise Wrong("this is one of the measured numbers of shots; the curve meets the level between two of them.")
    if abs(given - right) > 0.01:
        raise Wrong(
            f"the curve [50, 54, 60, 66, 70] meets 63 elsewhere than at {given:.2f} shots; interpolate in log2 of the shots."
        )


LIKE = ["protocol", "dataset", "backbone", "shots", "split", "metric"]


def same_protocol(rows):
    return all(
        rows[column].nunique() == 1 for column in ["protocol", "dataset", "backbone", "shots", "split", "metric"]
    )


@exercise(
    "08_2.same_protocol",
    solution=same_protocol,
    hints=(
        "Two figures may be drawn together if all that decides a figure is equal, but for the system and the source.",
        "Ask of protocol, dataset, backbone, shots, split and metric whether the column has one value: `rows[column].nunique() == 1`.",
    ),
    seen="The board refuses by the same rule. Most tables of surveys would not pass it, and neither would many comparisons in papers.",
)
def _same_protocol(answer) -> None:
    like = pd.DataFrame([dict.fromkeys(LIKE, "a") | {"system": s, "source": s} for s in ("one", "two")])
    given = ask(answer, like.copy())
    if not isinstance(given, bool | int) and type(given).__name__ != "bool_":
        raise Wrong(f"True or False is wanted, and this is a {type(given).__name__}.")
    if not given:
        raise Wrong(
            "two systems of two sources that agree in everything else may stand together; your filter refuses them."
        )
    for column in LIKE:
        unlike = like.copy()
        unlike.loc[1, column] = "b"
        if ask(answer, unlike):
            raise Wrong(f"two rows that differ in {column} were let through.")
