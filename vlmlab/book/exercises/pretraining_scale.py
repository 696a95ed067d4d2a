"""Exercises of chapter 8.1, pretraining and scale."""

from __future__ import annotations

import pandas as pd
import torch

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, number, same_shape


def slope(x, y):
    x = torch.log10(x)
    return ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()


@exercise(
    "08_1.slope",
    solution=slope,
    hints=(
        "A decade is a factor of ten: put log10 of x on the horizontal axis, then it is an ordinary least squares line.",
        "The slope is the covariance of log10 x and y divided by the variance of log10 x.",
    ),
    seen="Points per decade can be compared between axes only if the axes were varied alone. In a cloud of models nothing was varied alone.",
)
def _slope(answer) -> None:
    x = 10 ** (6 + 4 * torch.rand(9, generator=generator(1)))
    y = 9 * torch.log10(x) - 20 + 3 * torch.randn(9, generator=generator(2))
    right = slope(x, y)
    given = same_shape(ask(answer, x, y), right, "[]")
    if torch.allclose(given * torch.log(torch.tensor(10.0)), right, rtol=1e-3):
        raise Wrong("this is points per factor e; a decade is a factor of ten, so take log10.")
    if torch.allclose(given * torch.log2(torch.tensor(10.0)), right, rtol=1e-3):
        raise Wrong("this is points per doubling; a decade is a factor of ten.")
    ends = (y[x.argmax()] - y[x.argmin()]) / torch.log10(x.max() / x.min())
    if torch.allclose(given, ends, rtol=1e-3):
        raise Wrong("two points make a line, but here are nine; use least squares over all of them.")
    close(given, right, "see (1): covariance over variance of log10 x.")


def controlled(rows, varied, fixed):
    same = [
        (i, j)
        for i in rows.index
        for j in rows.index
        if rows.at[i, varied] < rows.at[j, varied] and all(rows.at[i, c] == rows.at[j, c] for c in fixed)
    ]
    return same


@exercise(
    "08_1.controlled",
    solution=controlled,
    hints=(
        "A pair is controlled if it agrees in every column of `fixed` and differs in `varied`. The one with less comes first.",
        "Go through all pairs (i, j) of the index with rows.at[i, varied] < rows.at[j, varied], and keep those equal in all fixed columns.",
    ),
    seen="Of a hundred models only a handful of pairs is controlled, and they say something smaller than the cloud does.",
)
def _controlled(answer) -> None:
    rows = pd.DataFrame({"arch": list("aabbac"), "data": list("xxxyxx"), "seen": [1, 3, 1, 2, 1, 9]})
    given = ask(answer, rows.copy(), "seen", ["arch", "data"])
    try:
        pairs = {(int(i), int(j)) for i, j in given}
    except (TypeError, ValueError):
        raise Wrong("a list of pairs (i, j) of the index is wanted.") from None
    right = {(0, 1), (4, 1)}
    if {(j, i) for i, j in pairs} == right:
        raise Wrong("in each pair the row with less of `varied` comes first.")
    if extra := pairs - right:
        i, j = min(extra)
        raise Wrong(
            f"rows {i} and {j} are {rows.loc[i].to_dict()} and {rows.loc[j].to_dict()}: not equal but for seen."
        )
    if pairs != right:
        raise Wrong("a pair is missing: three rows are of the same architecture and data, and one of them saw more.")


def next_by_last(x, y, target):
    u = torch.log10(x)
    rate = (y[-1] - y[-2]) / (u[-1] - u[-2])
    return y[-1] + rate * (torch.log10(torch.as_tensor(target)) - u[-1])


@exercise(
    "08_1.saturates",
    solution=next_by_last,
    hints=(
        "Only the last two models speak about where the ladder is now. Continue their line, in log10 of the cost, to the target.",
        "rate = (y[-1] - y[-2]) / (log10 x[-1] - log10 x[-2]); the answer is y[-1] + rate * (log10 target - log10 x[-1]).",
    ),
    seen="Even the last slope overshoots the next model when slopes fall. A line through the whole ladder overshoots more.",
)
def _saturates(answer) -> None:
    x, y = torch.tensor([1e9, 3e9, 1e10, 4e10]), torch.tensor([50.0, 58, 64, 68])
    right = float(next_by_last(x, y, 2e11))
    given = number(ask(answer, x, y, 2e11), 0, 100, "accuracy in percent")
    u = torch.log10(x)
    b = slope(x, y)
    whole = float(y.mean() + b * (torch.log10(torch.tensor(2e11)) - u.mean()))
    if abs(given - whole) < 0.02:
        raise Wrong("this line goes through all models; take the last two, the ladder has become flatter.")
    if abs(given - right) > 0.02:
        raise Wrong(f"the last two of [50, 58, 64, 68] lead elsewhere than to {given:.2f}; work in log10 of the cost.")


def in_decades(gain, points_per_decade):
    return gain / points_per_decade


@exercise(
    "08_1.filter",
    solution=in_decades,
    hints=(
        "A filter gains so many points at equal compute. How many decades more data would have gained the same, by the slope?",
        "Points divided by points per decade are decades.",
    ),
    seen="A good filter is worth a large part of a decade of data, which the words 'data size' leave out.",
)
def _filter(answer) -> None:
    right = torch.tensor(0.8)
    given = same_shape(ask(answer, torch.tensor(12.0), torch.tensor(15.0)), right, "[]")
    if torch.allclose(given, torch.tensor(15 / 12)):
        raise Wrong("the fraction is turned round: points over points per decade.")
    if torch.allclose(given, torch.tensor(10**0.8), rtol=1e-3):
        raise Wrong("this is the factor of data; the decades are its log10.")
    close(given, right, "gain over slope.")
