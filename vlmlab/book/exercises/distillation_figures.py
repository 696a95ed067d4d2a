"""Exercises of chapter 8.3, what the published figures of distillation say."""

from __future__ import annotations

import torch

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, same_shape


def weights(parts, whole):
    return torch.linalg.lstsq(parts, whole[:, None]).solution[:, 0]


@exercise(
    "08_3.weights",
    solution=weights,
    hints=(
        "AP is a mean over the classes of all three groups, so it is a weighted sum of APr, APc and APf; the rows are equations for the weights.",
        "`torch.linalg.lstsq(parts, whole[:, None]).solution` has the weights that miss the least; no constant is needed.",
    ),
    seen="The weights are the shares of the classes. A row that misses by more than its rounding has a cell of another table.",
)
def _weights(answer) -> None:
    parts = 10 + 25 * torch.rand(12, 3, generator=generator(1))
    true = torch.tensor([0.2, 0.42, 0.38])
    whole = parts @ true
    given = same_shape(ask(answer, parts, whole), true, "[3]")
    if torch.allclose(given, torch.full((3,), 1 / 3), atol=1e-2):
        raise Wrong("the three groups do not have equally many classes; let the rows decide.")
    close(given, true, "least squares of whole on parts, without a constant.", 1e-3)


def one_scale(mask, ratio, ratio_error):
    box = mask / ratio
    return box, box * ratio_error / ratio


@exercise(
    "08_3.one_scale",
    solution=one_scale,
    hints=(
        "mask = ratio times box, so box = mask / ratio. A relative error of the ratio is the same relative error of the box AP.",
        "Give two tensors: mask / ratio, and that times ratio_error / ratio.",
    ),
    seen="Converted figures carry half a point of error. Systems that are closer than that cannot be told apart on one scale.",
)
def _one_scale(answer) -> None:
    mask = torch.tensor([20.0, 25.9, 33.0])
    given = ask(answer, mask, 0.925, 0.02)
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise Wrong("two tensors are wanted: box AP and its error.")
    box, error = one_scale(mask, 0.925, 0.02)
    mine = same_shape(given[0], box, "[rows]")
    if torch.allclose(mine, mask * 0.925, atol=1e-3):
        raise Wrong("masks are harder than boxes: box AP is larger than mask AP, so divide.")
    close(mine, box, "box = mask / ratio.")
    close(same_shape(given[1], box, "[rows]"), error, "the relative error of box AP is that of the ratio.", 1e-3)


def credit(rows):
    pairs = []
    for i, one in enumerate(rows):
        for j, two in enumerate(rows):
            if one < two and len(two - one) == 1:
                pairs.append((i, j))
    return pairs


@exercise(
    "08_3.credit",
    solution=credit,
    hints=(
        "A gain may be credited to an ingredient if the two rows share all others. Ingredients of a row are a set.",
        "`two - one` is what row two has more; it must be one ingredient, and row one must have nothing of its own: `one < two`.",
    ),
    seen="From a table of finished systems hardly any pair differs in one ingredient; from an ablation inside one paper, many do.",
)
def _credit(answer) -> None:
    rows = [set(), {"distillation"}, {"pseudo labels"}, {"distillation", "pseudo labels"}, {"captions", "large"}]
    given = ask(answer, [set(row) for row in rows])
    try:
        pairs = {(int(i), int(j)) for i, j in given}
    except (TypeError, ValueError):
        raise Wrong("a list of pairs (i, j) is wanted.") from None
    right = {(0, 1), (0, 2), (1, 3), (2, 3)}
    if {(j, i) for i, j in pairs} == right:
        raise Wrong("the row without the ingredient comes first.")
    if extra := pairs - right:
        i, j = min(extra)
        raise Wrong(f"rows {i} and {j} have {sorted(rows[i])} and {sorted(rows[j])}: not one ingredient more.")
    if pairs != right:
        raise Wrong("a pair is missing; distillation and pseudo labels each have two.")
