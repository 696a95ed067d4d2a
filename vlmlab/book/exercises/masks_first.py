"""Exercises of chapter 7.2a, masks first."""

from __future__ import annotations

import torch

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, same_shape

COSTS = ((1, 2, 9), (2, 4, 8), (7, 6, 5))
"""Of three queries with three segments."""

matched = (1, 0, 2)


@exercise(
    "07_2a.matched",
    solution=matched,
    hints=(
        "Each segment goes to another query, and the *sum* counts. Query 0 and query 1 both like the tree best: who loses less by giving it up?",
        "Query 0 gives up 1 point by taking the sky (2 instead of 1), query 1 gives up 2 (4 instead of 2). Write down both sums with the bird at "
        "query 2.",
    ),
    seen="The query that likes the tree best does not get it. A greedy choice pays 1 + 4 + 5 = 10, the assignment 2 + 2 + 5 = 9; with a "
    "hundred queries nobody sees that by eye, and SciPy finds it in microseconds.",
)
def _matched(answer) -> None:
    if isinstance(answer, torch.Tensor):
        answer = answer.tolist()
    if not isinstance(answer, tuple | list) or len(answer) != 3 or not all(isinstance(k, int) for k in answer):
        raise Wrong("three numbers are wanted: the segment (0, 1 or 2) of query 0, of query 1 and of query 2.")
    answer = tuple(answer)
    if any(k not in (0, 1, 2) for k in answer):
        raise Wrong("there are three segments: 0, 1 and 2.")
    if answer == (0, 0, 2):
        raise Wrong("that is every query's favourite, and the sky is nobody's: each segment goes to one query.")
    if len(set(answer)) < 3:
        raise Wrong("a segment is taken twice, so another one teaches nobody.")
    if answer == (0, 1, 2):
        raise Wrong("greedy: query 0 took its favourite first, and the sum is 10. There is a cheaper one.")
    if answer != matched:
        total = sum(row[k] for row, k in zip(COSTS, answer, strict=True))
        raise Wrong(f"the sum is {total}; there is a cheaper assignment.")


def fused(p, q, seen, w):
    of_clip = torch.where(seen, 1 - w, w)  # CLIP's exponent per class
    return p ** (1 - of_clip) * q**of_clip


@exercise(
    "07_2a.fused",
    solution=fused,
    hints=(
        "For a seen class the segmenter has the exponent w and CLIP 1 - w; for the others it is the other way round. The opinions are "
        "multiplied, not added.",
        "`torch.where(seen, 1 - w, w)` is CLIP's exponent per class, [C]; it broadcasts over the N segments.",
    ),
    seen="A product is a veto: a class that one of them finds impossible is out, whatever the other thinks. A sum would let a sure and wrong "
    "opinion through.",
)
def _fused(answer) -> None:
    p = torch.rand(4, 6, generator=generator(1)).softmax(-1)
    q = torch.rand(4, 6, generator=generator(2)).softmax(-1)
    seen = torch.tensor([True, True, False, True, False, False])
    expected = fused(p, q, seen, 0.8)
    given = same_shape(ask(answer, p, q, seen, 0.8), expected, "[N, C]")
    if torch.allclose(given, fused(p, q, ~seen, 0.8), atol=1e-6):
        raise Wrong("the exponents are at the wrong group: on seen classes the segmenter is to be trusted.")
    if torch.allclose(given, p**0.8 * q**0.2, atol=1e-6):
        raise Wrong("all classes have the exponents of the seen ones; CLIP should have w on the others.")
    weights = torch.where(seen, 0.2, 0.8)
    if torch.allclose(given, (1 - weights) * p + weights * q, atol=1e-6):
        raise Wrong("that is a weighted sum; the opinions are raised to their exponents and multiplied.")
    close(given, expected, "compare with the first line of the table of systems.", 1e-5)


def averaged(q, seen):
    found = q.clone()
    found[:, seen] = q[:, seen].mean(-1, keepdim=True)
    return found


@exercise(
    "07_2a.averaged",
    solution=averaged,
    hints=(
        "Each row by itself: the mean over its seen entries goes into all of them. The unseen entries stay.",
        "`q[:, seen].mean(-1, keepdim=True)` is [N, 1]; assign it to `found[:, seen]` of a copy (`q.clone()`).",
    ),
    seen="CLIP still says how likely it is that this is any seen class at all, and no longer which. The segmenter, which was taught them, ranks "
    "the seen classes alone: good if it knows them better than CLIP does.",
)
def _averaged(answer) -> None:
    q = torch.rand(4, 6, generator=generator(3)).softmax(-1)
    seen = torch.tensor([True, True, False, True, False, False])
    expected, before = averaged(q, seen), q.clone()
    given = same_shape(ask(answer, q, seen), expected, "[N, C]")
    if not torch.equal(q, before):
        raise Wrong("`q` itself was changed; whoever reads it afterwards gets the means. Work on a copy.")
    if torch.allclose(given, averaged(q, ~seen), atol=1e-6):
        raise Wrong("the unseen entries were averaged; it is the seen ones that CLIP shall not rank.")
    every = q.clone()
    every[:, seen] = q.mean(-1, keepdim=True)
    if torch.allclose(given, every, atol=1e-6):
        raise Wrong("the mean is over all classes; take it over the seen ones.")
    whole = q.clone()
    whole[:, seen] = q[:, seen].mean()
    if torch.allclose(given, whole, atol=1e-6):
        raise Wrong("one mean for all segments; each has its own.")
    if torch.allclose(given, torch.where(seen, q[:, seen].sum(-1, keepdim=True), q), atol=1e-6):
        raise Wrong("that is the sum of the seen entries; take their mean.")
    close(given, expected, "row by row, the mean over the seen entries.", 1e-5)
