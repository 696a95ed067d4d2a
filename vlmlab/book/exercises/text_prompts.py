"""Exercises of chapter 6.1, text prompt tuning."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, number, same_shape


@exercise(
    "06_1.count",
    solution=(8192, 819200),
    hints=(
        "A context is M vectors of width d. How many of them are there if all classes share one, and how many if each has its own?",
        "Shared: M · d. Class-specific: C · M · d.",
    ),
    seen="Eight thousand numbers, 32 kB in float32, are the whole task. The class-specific context is a hundred times that, and belongs "
    "to its hundred classes for good.",
)
def _count(answer) -> None:
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong("two numbers are wanted: (shared context, class-specific context).")
    shared, own = (number(one, 1, 1e12, "a count of numbers") for one in answer)
    if shared != 16 * 512:
        raise Wrong(f"{shared:,.0f} is not the size of a shared context: equation (1) has M vectors, each of width d.")
    if own != 100 * 16 * 512:
        raise Wrong(f"{own:,.0f} is not the size of class-specific contexts: every one of the C classes has M vectors.")


def prompts(start, context, rest):
    classes = len(rest)
    shared = torch.cat([start, context])  # [1 + M, d]
    return torch.cat([shared.expand(classes, -1, -1), rest], dim=1)  # [C, 1 + M + S, d]


@exercise(
    "06_1.prompts",
    solution=prompts,
    hints=(
        "Equation (1) is the order: start token, context, then what belongs to the class. Only the last part differs from class to class.",
        "`x.expand(C, -1, -1)` repeats a [n, d] tensor for C classes without copying; `torch.cat([...], dim=1)` joins along the sequence.",
    ),
    seen="Everything before the class name is the same for every class. In a causal text encoder it never sees the name, which is why the "
    "package encodes it once and not C times.",
)
def _prompts(answer) -> None:
    start, context, rest = (
        torch.randn(*shape, generator=generator(n)) for n, shape in enumerate([(1, 6), (4, 6), (3, 5, 6)], 1)
    )
    expected = prompts(start, context, rest)
    given = same_shape(ask(answer, start, context, rest), expected, "[C, 1 + M + S, d]")
    if torch.allclose(given[:, :4], context.expand(3, -1, -1)):
        raise Wrong("the context stands before the start token: equation (1) begins with [SOS].")
    close(given, expected, "the order along the sequence should be start, context, rest.")


def coop_loss(context, encode, features, labels, scale):
    w = F.normalize(encode(context), dim=-1)  # [C, e] (2)
    f = F.normalize(features, dim=-1)  # [B, e] (2)
    return F.cross_entropy(scale * f @ w.T, labels)  # (3)


@exercise(
    "06_1.loss",
    solution=coop_loss,
    hints=(
        "`encode(context)` gives the text features [C, e] of all classes. Both sides of the product in (3) have unit length (2).",
        "`F.cross_entropy` takes logits [B, C] and labels [B]; it takes the softmax itself.",
    ),
    seen="The gradient reached the context through an encoder of which nothing changed. That path is the whole method.",
)
def _loss(answer) -> None:
    table = torch.randn(5, 12, generator=generator(5))
    context = (0.1 * torch.randn(3, 4, generator=generator(6))).requires_grad_(True)
    features, labels = 2 * torch.randn(6, 8, generator=generator(7)), torch.tensor([0, 1, 2, 3, 4, 0])
    mix = torch.randn(24, 8, generator=generator(8))

    def encode(c):
        return torch.cat([table, c.flatten().expand(5, -1)], dim=1) @ mix

    expected = coop_loss(context, encode, features, labels, 10.0)
    given = ask(answer, context, encode, features, labels, 10.0)
    given = same_shape(given, expected, "[] (one number)")
    if not given.requires_grad:
        raise Wrong(
            "no gradient can flow from this loss to the context: do not detach, and compute without torch.no_grad()."
        )
    if torch.allclose(
        given, F.cross_entropy(10.0 * features @ F.normalize(encode(context), dim=-1).T, labels), atol=1e-4
    ):
        raise Wrong("the image features still have their own length: equation (2) has f = n(E_I(x)).")
    if torch.allclose(given, F.cross_entropy((10.0 * F.normalize(features, dim=-1) @ F.normalize(encode(context), dim=-1).T)
                                             .softmax(-1), labels), atol=1e-4):  # fmt: skip
        raise Wrong("the softmax is taken twice: F.cross_entropy wants logits.")
    close(given, expected, "compare with equations (2) and (3), factor by factor.")
    mine, right = (torch.autograd.grad(one, context, retain_graph=True)[0] for one in (given, expected))
    close(mine, right, "the value agrees but its gradient does not: something on the way was detached.")


def harmonic_mean(base, new):
    return 2 * base * new / (base + new) if base + new else 0.0


@exercise(
    "06_1.harmonic",
    solution=harmonic_mean,
    hints=(
        "The harmonic mean of two numbers is two divided by the sum of their reciprocals.",
        "2 / (1/b + 1/n) = 2 b n / (b + n); say what it is when both are 0, where the formula divides by 0.",
    ),
    seen="By this measure the published CoOp (82.69 and 63.22, so 71.66) is no better than zero-shot CLIP (69.34 and 74.22, so 71.70): "
    "thirteen points won on base classes, eleven lost on new ones.",
)
def _harmonic(answer) -> None:
    for base, new in ((80.0, 60.0), (69.34, 74.22), (100.0, 0.0), (0.0, 0.0)):
        given, expected = (
            number(ask(answer, base, new), 0, 100, "a harmonic mean of percentages"),
            harmonic_mean(base, new),
        )
        if base != new and abs(given - (base + new) / 2) < 1e-9:
            raise Wrong(
                f"{given:g} for {base:g} and {new:g} is the arithmetic mean, which forgives a collapse on one side."
            )
        if abs(given - expected) > 1e-6:
            raise Wrong(f"{given:g} for {base:g} and {new:g}; it should be {expected:g}.")
