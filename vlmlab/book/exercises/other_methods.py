"""Exercises of chapter 6.5, other methods."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, number, same_shape


def _units(seed: int, *shape: int):
    return F.normalize(torch.randn(*shape, generator=generator(seed)), dim=-1)


def described(f, texts, owner, classes):
    cosines = f @ texts.T  # [B, D]
    mine = F.one_hot(owner, classes).float()  # [D, C]
    return cosines @ mine / mine.sum(0)  # [B, C] (2)


@exercise(
    "06_5.described",
    solution=described,
    hints=(
        "First the cosine of every image with every descriptor, [B, D]. Then the mean over the descriptors of each class: their numbers differ.",
        "`F.one_hot(owner, classes).float()` [D, C] says which descriptor belongs to which class: a product with it sums, `.sum(0)` counts.",
    ),
    seen="A mean of dot products is a dot product with the mean, so VCD is a classifier with one vector per class, too. Its parts remain "
    "readable: that is the explanation. CuPL normalises the mean, and loses nothing but the parts.",
)
def _described(answer) -> None:
    f, texts, owner = _units(1, 4, 8), _units(2, 9, 8), torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2])
    expected = described(f, texts, owner, 3)
    given = same_shape(ask(answer, f, texts, owner, 3), expected, "[B, C]")
    mine = F.one_hot(owner, 3).float()
    if torch.allclose(given, f @ texts.T @ mine, atol=1e-5):
        raise Wrong(
            "these are sums: a class with more descriptors would win by their number. Divide by how many it has."
        )
    means = F.normalize((mine.T @ texts) / mine.sum(0)[:, None], dim=-1)
    if torch.allclose(given, f @ means.T, atol=1e-5):
        raise Wrong(
            "that is CuPL: the mean vector is normalised. In (2) of VCD the mean of the cosines is taken, and nothing after it."
        )
    close(given, expected, "compare with equation (2).")


def looked(z, t):
    a = 2 * z @ t.T  # A [P, C] (3)
    return a.softmax(0).T @ z  # T' [C, e] (4)


@exercise(
    "06_5.looked",
    solution=looked,
    hints=(
        "The affinities of places and texts are A = 2 Z Tᵀ [P, C]. A text looks at the places: for one class, the weights of all places sum to 1.",
        "`a.softmax(0)` normalises over the places; transposed, [C, P], it mixes the rows of Z [P, e].",
    ),
    seen="Nothing here was learned, and nothing has to be: places and texts live in one space, so their products are sensible weights. Over the "
    "other axis, the same matrix gives the image that read the texts.",
)
def _looked(answer) -> None:
    z, t = _units(3, 6, 8), _units(4, 3, 8)
    expected = looked(z, t)
    given = same_shape(ask(answer, z, t), expected, "[C, e]")
    a = 2 * z @ t.T
    if torch.allclose(given, a.softmax(1).T @ z, atol=1e-5):
        raise Wrong(
            "the softmax runs over the classes. Here a text looks at the image: its weights over the places P sum to 1."
        )
    if torch.allclose(given, (a / 2).softmax(0).T @ z, atol=1e-5):
        raise Wrong("the factor 2 of equation (3) is missing.")
    if torch.allclose(given, F.normalize(expected, dim=-1), atol=1e-5):
        raise Wrong("the result is not normalised again: its length says how much the places agree.")
    close(given, expected, "compare with equations (3) and (4).")


def residual(t, x, alpha):
    return F.normalize(t + alpha * x, dim=-1)  # w [C, e] (6)


@exercise(
    "06_5.residual",
    solution=residual,
    hints=(
        "The residual is added to the text feature as it is, and the sum is brought to unit length.",
        "`F.normalize(..., dim=-1)`, once, at the end.",
    ),
    seen="With x = 0 this is zero-shot prediction exactly, and a short x turns the class vector only a little: the raw length of t says how hard "
    "the old knowledge holds on.",
)
def _residual(answer) -> None:
    t, x = 5 * _units(5, 3, 8), torch.randn(3, 8, generator=generator(6))
    expected = residual(t, x, 0.5)
    given = same_shape(ask(answer, t, x, 0.5), expected, "[C, e]")
    if torch.allclose(given, F.normalize(F.normalize(t, dim=-1) + 0.5 * x, dim=-1), atol=1e-5):
        raise Wrong(
            "t is normalised too early: with its raw length lost, the same residual turns the class much further."
        )
    if torch.allclose(given, t + 0.5 * x, atol=1e-5):
        raise Wrong("the rows have to have unit length in the end, as every class vector.")
    close(given, expected, "compare with equation (6).")


def merged(zero_shot, fine_tuned, alpha):
    return {
        key: (1 - alpha) * start + alpha * fine_tuned[key] if start.is_floating_point() else start
        for key, start in zero_shot.items()
    }


@exercise(
    "06_5.merged",
    solution=merged,
    hints=(
        "Both arguments are dictionaries name → tensor with the same names. Mix every tensor: (1 − α) of the zero-shot one, α of the fine-tuned one.",
        "A counter of whole numbers cannot be mixed; keep the zero-shot one: `start.is_floating_point()` tells.",
    ),
    seen="One line, no training, no cost at prediction: the mixture is an ordinary model. It works because a short fine-tuning stays in the valley "
    "in which it began; mix two models that were trained apart, and the middle is worse than both.",
)
def _merged(answer) -> None:
    start = {"w": torch.randn(3, 2, generator=generator(7)), "count": torch.tensor(3)}
    end = {"w": torch.randn(3, 2, generator=generator(8)), "count": torch.tensor(8)}
    expected = merged(start, end, 0.25)
    given = ask(answer, start, end, 0.25)
    if not isinstance(given, dict) or set(given) != set(start):
        raise Wrong("a dictionary with the same names is wanted.")
    w = same_shape(given["w"], expected["w"], "of each tensor")
    if torch.allclose(w, merged(end, start, 0.25)["w"], atol=1e-5):
        raise Wrong("the ends are swapped: alpha = 0 is zero-shot, alpha = 1 fine-tuned.")
    close(w, expected["w"], "compare with equation (7).")
    if not isinstance(given["count"], torch.Tensor) or given["count"].is_floating_point() or int(given["count"]) != 3:
        raise Wrong("the counter is a whole number and cannot be mixed; keep that of the zero-shot model.")


@exercise(
    "06_5.encodings",
    solution=20_000,
    hints=(
        "Only texts are encoded, and only once for a task: how many are there?",
        "1,000 classes times 20 sentences; the templates do not take part.",
    ),
    seen="The price of a description is paid once. After that, prediction costs what zero-shot prediction costs: one vector per class.",
)
def _encodings(answer) -> None:
    given = number(answer, 0, 1e12, "texts")
    if given == 1000:
        raise Wrong("1,000 vectors are kept in the end, but every sentence has to be encoded to get their means.")
    if given == 20_000 * 10_000:
        raise Wrong("the texts do not depend on the images: they are encoded once, not once per test image.")
    if given != 20_000:
        raise Wrong(f"{given:,.0f} is not it: classes times sentences.")
