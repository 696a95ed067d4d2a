"""Exercises of chapter 6.4, feature adapters."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, number, same_shape


def _cache():
    """Unit features [6, 8], unit keys [12, 8], one-hot values [12, 4]."""
    f = F.normalize(torch.randn(6, 8, generator=generator(1)), dim=-1)
    keys = F.normalize(torch.randn(12, 8, generator=generator(2)), dim=-1)
    return f, keys, F.one_hot(torch.arange(4).repeat_interleave(3), 4).float()


def vote(f, keys, values, beta):
    affinity = f @ keys.T  # A [B, N] (2)
    return (-beta * (1 - affinity)).exp() @ values  # [B, C] (3)


@exercise(
    "06_4.vote",
    solution=vote,
    hints=(
        "First the cosines of every image with every key, A = f Kᵀ [B, N]. Then a weight per key, exp(−β(1 − A)). Then sum the weights "
        "of each class.",
        "Summing by class is a matrix product with the one-hot values: [B, N] @ [N, C].",
    ),
    seen="No training, and still something was learned: the answer depends on the labelled images. A key that equals the image votes with "
    "weight 1, a key at a right angle with exp(−β).",
)
def _vote(answer) -> None:
    f, keys, values = _cache()
    expected = vote(f, keys, values, 3.0)
    given = same_shape(ask(answer, f, keys, values, 3.0), expected, "[B, C]")
    if torch.allclose(given, f @ keys.T @ values, atol=1e-5):
        raise Wrong("these are sums of cosines: the kernel exp(−β(1 − A)) of equation (3) is missing.")
    if torch.allclose(given, (3.0 * (1 - f @ keys.T)).exp() @ values, atol=1e-5):
        raise Wrong("the far keys count most: the exponent of equation (3) is negative.")
    if torch.allclose(given, (3.0 * f @ keys.T).exp() @ values, atol=1e-3):
        raise Wrong("the votes are exp(β) too large: equation (3) has exp(−β(1 − A)), which is at most 1 per key.")
    close(given, expected, "compare with equations (2) and (3).")


def nearest(f, keys, values):
    return values[(f @ keys.T).argmax(dim=-1)]  # [B, C]


@exercise(
    "06_4.nearest",
    solution=nearest,
    hints=(
        "As β grows, exp(−β(1 − A)) falls off ever faster. Relative to the largest vote, whose vote is left in the end?",
        "`(f @ keys.T).argmax(dim=-1)` is the place of the nearest key, [B]; indexing `values` with it gives that key's one-hot label.",
    ),
    seen="β moves the cache between two old acquaintances: at β = 0 every key counts the same and the vote says nothing, for large β it is "
    "the nearest neighbour. The useful values lie between.",
)
def _nearest(answer) -> None:
    f, keys, values = _cache()
    expected = nearest(f, keys, values)
    given = same_shape(ask(answer, f, keys, values), expected, "[B, C]").float()
    if not torch.equal(given.sum(-1), torch.ones(len(f))):
        raise Wrong("every row should have a single 1, the label of one key.")
    sharp = vote(f.double(), keys.double(), values.double(), 400.0).argmax(-1)  # float32 would underflow
    if not torch.equal(given.argmax(-1), sharp):
        raise Wrong(
            "for β = 400 the vote of equation (3) is decided by another key than yours: take the one with the highest cosine."
        )
    close(given, expected, "the row should be the one-hot label of the nearest key.")


def flattery(on_val, on_test):
    honest = on_test.flatten()[on_val.argmax()]
    return float(on_test.max() - honest)


@exercise(
    "06_4.flattery",
    solution=flattery,
    hints=(
        "Two numbers are compared: the best test accuracy of the grid, and the test accuracy of the setting that validation chose.",
        "`on_val.argmax()` counts through the flattened grid, so look it up in `on_test.flatten()`.",
    ),
    seen="It can never be negative, and that is the point: whoever chooses on test images reports a maximum over noise. With few validation "
    "images it is points, not decimals.",
)
def _flattery(answer) -> None:
    for seed in (1, 2, 3):
        on_val = torch.rand(5, 4, generator=generator(seed))  # no two alike: one pair is best
        on_test = torch.rand(5, 4, generator=generator(10 + seed))
        given, expected = (
            number(ask(answer, on_val, on_test), -1, 1, "a difference of accuracies"),
            flattery(on_val, on_test),
        )
        if abs(given - float(on_test.max() - on_val.max())) < 1e-6 and abs(given - expected) > 1e-6:
            raise Wrong(
                "that compares the best test accuracy with the best validation accuracy; both sides should be test accuracies."
            )
        if given < -1e-6:
            raise Wrong(f"{given:.3f} is negative: take the best test accuracy first, and subtract the honest one.")
        if abs(given - expected) > 1e-6:
            raise Wrong(f"{given:.3f} is not it: find the setting on validation, and read its accuracy on test.")


@exercise(
    "06_4.megabytes",
    solution=65.536,
    hints=(
        "The keys are one feature vector per labelled image: N = classes times shots rows of e numbers, 4 bytes each.",
        "1000 · 16 rows, 1024 numbers each, 4 bytes: divide by 10⁶.",
    ),
    seen="CoOp keeps 16 · 512 numbers for the same task, 0.03 MB, and that does not grow with the shots. The cache answers without training and "
    "pays in memory, and in one product with every key per image.",
)
def _megabytes(answer) -> None:
    given = number(answer, 0, 1e9, "megabytes")
    if abs(given - 62.5) < 0.1:
        raise Wrong("62.5 is in units of 2²⁰ bytes (MiB); asked for are megabytes of 10⁶ bytes.")
    if abs(given - 65.536) > 0.6:
        factor = given / 65.536
        raise Wrong(
            f"{given:g} is {factor:.3g} times what it should be: N rows, e numbers per row, 4 bytes per number."
        )


def residual(h, v1, v2, ratio):
    a = F.relu(F.relu(h @ v1) @ v2)  # (4)
    return F.normalize(ratio * a + (1 - ratio) * h, dim=-1)  # (5)


@exercise(
    "06_4.residual",
    solution=residual,
    hints=(
        "Two matrix products with a relu after each give a [B, e]. The mixture takes a share r of it and a share 1 − r of h.",
        "h and a are mixed with the lengths that they have; the mixture is normalised, and nothing before it.",
    ),
    seen="With r = 0 it is zero-shot prediction whatever the adapter has learned, and the second relu lets the addition only go up. At the "
    "start a is much shorter than h, so that r means less than it says; how much it means afterwards is learned, too.",
)
def _residual(answer) -> None:
    h = 3 * torch.randn(5, 8, generator=generator(6))
    v1, v2 = torch.randn(8, 2, generator=generator(7)), torch.randn(2, 8, generator=generator(8))
    expected = residual(h, v1, v2, 0.3)
    given = same_shape(ask(answer, h, v1, v2, 0.3), expected, "[B, e]")
    if torch.allclose(given, residual(h, v1, v2, 0.7), atol=1e-5):
        raise Wrong("the shares are the wrong way round: r belongs to the adapted feature (5).")
    linear = F.relu(h @ v1) @ v2
    if torch.allclose(
        given, F.normalize(0.3 * F.normalize(F.relu(linear), dim=-1) + 0.7 * F.normalize(h, dim=-1), dim=-1), atol=1e-5
    ):
        raise Wrong("both parts were normalised before they were mixed; only the mixture is (5).")
    if torch.allclose(given, F.normalize(0.3 * linear + 0.7 * h, dim=-1), atol=1e-5):
        raise Wrong("the second relu is missing (4).")
    unnormalised = 0.3 * F.relu(linear) + 0.7 * h
    if torch.allclose(given, unnormalised, atol=1e-4):
        raise Wrong("the mixture still has its own length: normalise it (5).")
    close(given, expected, "compare with (4) and (5).")


def confidence(c):
    return 1 - float(c.softmax(-1).max(-1).values.mean())


@exercise(
    "06_4.confidence",
    solution=confidence,
    hints=(
        "Every row of logits becomes probabilities over the classes; how sure CLIP is of an image is the largest of them.",
        "`c.softmax(-1).max(-1).values` has one number per image; α is one minus their mean.",
    ),
    seen="No label was needed: where CLIP is sure of itself, its words weigh more. The rule cannot see whether CLIP is sure and wrong.",
)
def _confidence(answer) -> None:
    for seed in (1, 2):
        c = 4 * torch.randn(9, 5, generator=generator(20 + seed))
        given, expected = number(ask(answer, c), -1e9, 1e9, "a share"), confidence(c)
        if abs(given - (1 - expected)) < 1e-5:
            raise Wrong("that is how sure CLIP is; α is one minus it (8).")
        if abs(given - (1 - float(c.max(-1).values.mean()))) < 1e-4:
            raise Wrong("the largest logit is no probability: take the softmax over the classes first (8).")
        if abs(given - (1 - float(c.softmax(0).max(-1).values.mean()))) < 1e-5:
            raise Wrong("the softmax runs over the images; it should run over the classes, the last axis (8).")
        if abs(given - (1 - float(c.softmax(-1).max()))) < 1e-5:
            raise Wrong("that is the single surest image; take the mean over all of them (8).")
        if abs(given - expected) > 1e-5:
            raise Wrong(f"{given:.3f} is not it: one minus the mean of the largest probabilities (8).")
