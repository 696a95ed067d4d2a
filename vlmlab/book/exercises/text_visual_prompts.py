"""Exercises of chapter 6.3, text-visual prompt tuning."""

from __future__ import annotations

import torch

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, number, same_shape


def numbers(n, layers, d, width):
    independent = layers * n * (d + width)
    coupled = layers * n * d + layers * (d * width + width)
    return independent, coupled


@exercise(
    "06_3.numbers",
    solution=numbers,
    hints=(
        "Independent: n tokens per layer in either tower, one of width d and one of the image's width. Coupled: no free visual tokens, but "
        "one linear map per layer, and a linear map has a bias.",
        "A linear map from d to width has `d * width + width` numbers, and there are `layers` of them.",
    ),
    seen="For ViT-B/16 with 2 tokens in 9 layers: 23,040 against 3,555,072. The coupling is paid for with 150 times the parameters; what it "
    "buys is that both towers pull at the same text tokens.",
)
def _numbers(answer) -> None:
    for n, layers, d, width in ((2, 9, 512, 768), (2, 3, 128, 128)):
        given, expected = ask(answer, n, layers, d, width), numbers(n, layers, d, width)
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise Wrong("two numbers are wanted: independent, coupled.")
        given = [number(value, 0, 1e12, "numbers that are learned") for value in given]
        if given[1] == expected[1] - layers * width:
            raise Wrong("the linear maps have a bias each, of the image's width.")
        if given[1] == expected[1] + layers * n * width:
            raise Wrong("coupled prompts have no visual tokens of their own: those are what the linear maps give.")
        if given[0] != expected[0]:
            raise Wrong(f"{given[0]:,.0f} is not the count of independent prompts: n tokens per layer, in both towers.")
        if given[1] != expected[1]:
            raise Wrong(
                f"{given[1]:,.0f} is not the count of coupled prompts: text tokens, and one linear map per layer."
            )


def replaced(x, prompts):
    n = prompts.shape[0]
    return torch.cat([x[:, :-n], prompts.expand(len(x), -1, -1)], dim=1)


@exercise(
    "06_3.replaced",
    solution=replaced,
    hints=(
        "The last n tokens of every sequence are the prompts of the block before. The new ones take their place, so the length stays.",
        "`x[:, :-n]` is everything but the old prompts; `prompts.expand(len(x), -1, -1)` are the new ones for every image; join them along "
        "the tokens, axis 1.",
    ),
    seen="What the old prompts had become by then is thrown away: a deep prompt does not travel through the tower, it enters again at every block.",
)
def _replaced(answer) -> None:
    x, prompts = torch.randn(3, 9, 4, generator=generator(1)), torch.randn(2, 4, generator=generator(2))
    expected = replaced(x, prompts)
    given = ask(answer, x.clone(), prompts)
    if isinstance(given, torch.Tensor) and given.shape == (3, 11, 4):
        raise Wrong("the sequence grew: the old prompts must go when the new ones come.")
    given = same_shape(given, expected, "[B, T + n, d]")
    if torch.allclose(given, torch.cat([prompts.expand(3, -1, -1), x[:, 2:]], 1)):
        raise Wrong("the new prompts stand in front, where the class token was; prompts are the last n tokens.")
    if torch.allclose(given, torch.cat([x[:, :-2], x[:, -2:] + prompts], 1)):
        raise Wrong("the new prompts were added to the old ones; they take their place.")
    close(given, expected, "everything but the last n tokens should be as it was.")


def attended(tokens, wq, wk, wv):
    q, k, v = tokens @ wq, tokens @ wk, tokens @ wv  # [n, h] each: one sequence of n tokens
    return (q @ k.T / k.shape[-1] ** 0.5).softmax(-1) @ v


@exercise(
    "06_3.attended",
    solution=attended,
    hints=(
        "Queries, keys and values are [n, h]. Every query meets every key, which gives [n, n] scores; the softmax runs over the keys.",
        "`q @ k.T / h ** 0.5`, a softmax over the last axis, times v.",
    ),
    seen="Treat the n tokens as a batch of n sequences of length one, and the softmax runs over a single key: every token sees itself alone. That "
    "mistake stands in the public re-implementation of UPT. It raises no error and trains well.",
)
def _attended(answer) -> None:
    tokens = torch.randn(5, 4, generator=generator(3))
    wq, wk, wv = (torch.randn(4, 4, generator=generator(seed)) for seed in (4, 5, 6))
    expected = attended(tokens, wq, wk, wv)
    given = same_shape(ask(answer, tokens, wq, wk, wv), expected, "[n, h]")
    q, k, v = tokens @ wq, tokens @ wk, tokens @ wv
    if torch.allclose(given, v, atol=1e-5):
        raise Wrong("every token saw itself alone: this is v. The softmax must run over all n tokens.")
    if torch.allclose(given, (q @ k.T).softmax(-1) @ v, atol=1e-5):
        raise Wrong("the scores are not divided by the square root of the width h.")
    if torch.allclose(given, (q @ k.T / 2).softmax(0) @ v, atol=1e-5):
        raise Wrong("the softmax runs over the queries; for each query the weights of the keys should sum to 1.")
    close(given, expected, "softmax(q kᵀ / √h) v, for one sequence.")


def recall(logits, labels, most):
    found = logits.topk(most, dim=-1).indices == labels[:, None]  # [B, R]
    return float(found.any(-1).float().mean())


@exercise(
    "06_3.recall",
    solution=recall,
    hints=(
        "For every image: is its class among the `most` classes with the largest logits? Then the mean over images.",
        "`logits.topk(most, dim=-1).indices` are the candidates [B, R]; compare with `labels[:, None]` and ask `any` along the candidates.",
    ),
    seen="An image whose class is not among the candidates gets prompts for wrong classes only, in training and in the test. With fewer "
    "candidates the prompts are more to the point, and more often miss it.",
)
def _recall(answer) -> None:
    logits, labels = torch.randn(40, 6, generator=generator(7)), torch.arange(40) % 6
    for most in (1, 3, 6):
        expected = recall(logits, labels, most)
        given = number(ask(answer, logits, labels, most), 0, 100, "a share of the images")
        lowest = (logits.topk(most, dim=-1, largest=False).indices == labels[:, None]).any(-1).float().mean()
        if most < 6 and abs(given - float(lowest)) < 1e-6 and abs(given - expected) > 1e-6:
            raise Wrong("these are the least likely classes; candidates are those with the largest logits.")
        if abs(given - 100 * expected) < 1e-4 and expected > 0:
            raise Wrong("a share is wanted, between 0 and 1, not percent.")
        if abs(given - expected) > 1e-6:
            raise Wrong(
                f"{given:.3f} is not it for R = {most}: count the images whose class is among their R candidates."
            )
