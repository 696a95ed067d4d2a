"""Exercises of chapter 7.3, weak supervision."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, number, same_shape


def target(feature, present, background, scale, k):
    logits = scale * torch.cat([present, background]) @ feature
    return logits.softmax(0)[k]


@exercise(
    "07_3.target",
    solution=target,
    hints=(
        "One softmax over everything that may be said: the names of the label, and the background words behind them.",
        "`torch.cat([present, background]) @ feature` are the cosines; times `scale`, softmax, and the entry `k`, which counts in the names.",
    ),
    seen="The gradient of a cosine asks what makes the image look like a cat. That of this probability asks what makes it look like a cat *rather "
    "than* like the dog beside it, or the grass below.",
)
def _target(answer) -> None:
    draw = lambda n, seed: F.normalize(torch.randn(n, 8, generator=generator(seed)), dim=-1)  # noqa: E731
    feature, present, background = draw(1, 1)[0], draw(3, 2), draw(4, 3)
    expected = target(feature, present, background, 5.0, 1)
    given = same_shape(ask(answer, feature, present, background, 5.0, 1), expected, "[]")
    if torch.allclose(given, (5.0 * present @ feature).softmax(0)[1], atol=1e-5):
        raise Wrong("the softmax is over the names of the label alone; the background words belong into it, too.")
    if torch.allclose(given, target(feature, present, background, 1.0, 1), atol=1e-5):
        raise Wrong("the factor in front of the cosines is missing: all words come out about equal.")
    if torch.allclose(given, 5.0 * present[1] @ feature, atol=1e-5):
        raise Wrong("that is the plain logit, before any softmax.")
    if torch.allclose(given, torch.cat([present, background])[1] @ feature, atol=1e-5):
        raise Wrong("that is the plain cosine, before any softmax.")
    close(given, expected, "compare with equation (1) of the chapter.", 1e-5)


def cam(activations, gradients):
    weights = gradients.mean((1, 2), keepdim=True)
    found = F.relu((weights * activations).sum(0))
    return (found - found.min()) / (found.max() - found.min() + 1e-7)


@exercise(
    "07_3.cam",
    solution=cam,
    hints=(
        "One weight per channel: the mean of its gradient over the places. Then a weighted sum of the channels, without what is negative.",
        "`gradients.mean((1, 2), keepdim=True)` is [d, 1, 1]. After `F.relu(...sum(0))` the map is shifted and scaled to 0 to 1.",
    ),
    seen="The weights do not depend on the place: Grad-CAM asks which channels speak for the class, and shows where these are active. Two things of "
    "one kind of channel light up together.",
)
def _cam(answer) -> None:
    activations, gradients = (torch.randn(6, 4, 5, generator=generator(seed)) for seed in (4, 5))
    expected = cam(activations, gradients)
    given = same_shape(ask(answer, activations, gradients), expected, "[h, w]")
    scaled = lambda x: (x - x.min()) / (x.max() - x.min() + 1e-7)  # noqa: E731
    if torch.allclose(given, scaled(F.relu((gradients * activations).sum(0))), atol=1e-4):
        raise Wrong(
            "every place has its own gradient here; Grad-CAM takes the mean over the places, one weight per channel."
        )
    summed = (gradients.mean((1, 2), keepdim=True) * activations).sum(0)
    if torch.allclose(given, scaled(summed), atol=1e-4):
        raise Wrong("places that speak against the class are in the map: cut negative values off before scaling.")
    if torch.allclose(given, F.relu(summed), atol=1e-4):
        raise Wrong("the map is not scaled to 0 to 1, so no threshold would mean the same for two images.")
    if torch.allclose(given, F.relu(summed) / (F.relu(summed).max() + 1e-7), atol=1e-4) and F.relu(summed).min() > 0:
        raise Wrong("shift the map, too, so that its least value is 0.")
    close(given, expected, "compare with equation (2) of the chapter.")


def affinity(attention, rounds):
    for _ in range(rounds):
        attention = attention / attention.sum(0, keepdim=True)  # columns
        attention = attention / attention.sum(1, keepdim=True)  # rows
    attention = (attention + attention.T) / 2
    return attention @ attention


@exercise(
    "07_3.affinity",
    solution=affinity,
    hints=(
        "A round divides every column by its sum, then every row by its. Afterwards the matrix and its transpose are averaged, and the result is "
        "multiplied with itself.",
        "Columns: `attention.sum(0, keepdim=True)`; rows: `attention.sum(1, keepdim=True)`. A matrix product, not a square of the entries.",
    ),
    seen="The product walks two steps: a place hears of what its neighbours' neighbours are. Without the rounds a place that everybody looks at, "
    "such as a bright corner, would take over every map.",
)
def _affinity(answer) -> None:
    attention = torch.randn(6, 6, generator=generator(6)).softmax(-1)
    expected, before = affinity(attention, 3), attention.clone()
    given = same_shape(ask(answer, attention, 3), expected, "[T, T]")
    if not torch.equal(attention, before):
        raise Wrong("the attention itself was changed; divide into a new matrix (`a = a / ...`).")
    if torch.allclose(given, affinity(attention, 1), atol=1e-5):
        raise Wrong("one round only; `rounds` says how many.")
    rowwise = attention
    for _ in range(3):
        rowwise = rowwise / rowwise.sum(1, keepdim=True)
        rowwise = rowwise / rowwise.sum(0, keepdim=True)
    rowwise = (rowwise + rowwise.T) / 2
    if torch.allclose(given, rowwise @ rowwise, atol=1e-5):
        raise Wrong("rows first, then columns; the release ends with the rows.")
    once = attention
    for _ in range(3):
        once = once / once.sum(0, keepdim=True)
        once = once / once.sum(1, keepdim=True)
    if torch.allclose(given, once @ once, atol=1e-5):
        raise Wrong("not symmetric: average the matrix with its transpose before the product.")
    if torch.allclose(given, (once + once.T) / 2, atol=1e-5):
        raise Wrong("one step only: multiply the matrix with itself.")
    if torch.allclose(given, ((once + once.T) / 2) ** 2, atol=1e-5):
        raise Wrong("the entries were squared; a matrix product (`@`) walks two steps.")
    close(given, expected, "compare with equation (3) of the chapter.", 1e-5)


def clims(o, b, g, area, weights):
    h0, h1, h2, h3 = weights
    outside = g[g > 0.26]  # cut-outs that look like a ground
    return h0 * -o.log().mean() + h1 * -(1 - b).log().mean() + h2 * -(1 - outside).log().sum() + h3 * area.mean()


@exercise(
    "07_3.clims",
    solution=clims,
    hints=(
        "Four terms: -log o and -log(1 - b) are means over the pairs, the ground term is a *sum* over cosines above 0.26, the last the mean of the "
        "maps.",
        "`g[g > 0.26]` keeps what looks like a ground. Multiply each term with its weight and add.",
    ),
    seen="Each term alone has a foolish answer: o alone lights the whole image, b alone too, the area alone nothing. The ground term is what takes "
    "the water from the boat.",
)
def _clims(answer) -> None:
    o, b = (0.1 + 0.6 * torch.rand(5, generator=generator(seed)) for seed in (7, 8))
    g = 0.5 * torch.rand(5, 4, generator=generator(9))
    area, weights = torch.rand(5, 4, 4, generator=generator(10)), (10.0, 24.0, 1.0, 0.2)
    expected = clims(o, b, g, area, weights)
    given = number(ask(answer, o, b, g, area, weights), -1e4, 1e4, "a loss")
    near = lambda value: abs(given - float(value)) < 1e-3 * max(1.0, abs(given))  # noqa: E731
    _, h1, h2, h3 = weights
    ground = -(1 - g[g > 0.26]).log()
    if near(expected - h2 * ground.sum() + h2 * ground.mean()):
        raise Wrong("the ground term is a sum over what exceeds 0.26, not a mean.")
    if near(expected - h2 * ground.sum() - h2 * (1 - g).log().sum()):
        raise Wrong("only cosines above 0.26 count as looking like a ground; the others are left alone.")
    if near(expected - h1 * -(1 - b).log().mean() + h1 * -b.log().mean()):
        raise Wrong("what is left should *not* look like the class: -log(1 - b).")
    if near(expected - h3 * area.mean()):
        raise Wrong("the area term is missing, without which the map grows over the whole image.")
    if near(-expected):
        raise Wrong("the sign is turned round: a loss falls when the maps get better.")
    if not near(expected):
        raise Wrong(f"{given:.4g} is not it; compare with equation (5) of the chapter term by term.")
