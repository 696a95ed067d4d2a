"""Exercises of chapter 6.0, motivation and setups."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, number, same_shape


def distance(p, q):
    p, q = F.normalize(p, dim=-1), F.normalize(q, dim=-1)
    return (p.mean(0) - q.mean(0)).square().sum()  # (1)


@exercise(
    "06_0.distance",
    solution=distance,
    hints=(
        "Bring every feature to length 1 first. Then each set has one mean, a vector of e numbers; the gap is the squared length of the "
        "difference of the two means.",
        "`F.normalize(p, dim=-1).mean(0)` is one mean [e]; `.square().sum()` of the difference is a tensor without axes.",
    ),
    seen="Two samples of the same images have a small distance and not zero: the noise of two means. A gap is only one where it is well "
    "above that floor.",
)
def _distance(answer) -> None:
    p, q = 3 * torch.randn(40, 8, generator=generator(1)) + 1, torch.randn(30, 8, generator=generator(2))
    expected = distance(p, q)
    given = ask(answer, p, q)
    if isinstance(given, float):
        given = torch.tensor(given)
    given = same_shape(given, expected, "[]")
    if torch.allclose(given, (p.mean(0) - q.mean(0)).square().sum(), rtol=1e-4):
        raise Wrong("the features have their own length: long ones outvote the others. Bring each to length 1 first.")
    if torch.allclose(given, expected.sqrt(), rtol=1e-4):
        raise Wrong("this is the distance, and (1) is its square.")
    unit = F.normalize(p.mean(0), dim=0) - F.normalize(q.mean(0), dim=0)
    if torch.allclose(given, unit.square().sum(), rtol=1e-4):
        raise Wrong("the means are brought to length 1, and the features should be, before the mean.")
    close(given, expected, "compare with equation (1).")


def contrastive(f, g, scale):
    logits = scale * f @ g.T  # [B, B]: every image with every caption
    own = torch.arange(len(f))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2  # (3)


@exercise(
    "06_0.contrastive",
    solution=contrastive,
    hints=(
        "The logits are s times the cosines of every image with every caption, [B, B]. The right answer of row i is column i.",
        "Two cross-entropies, of the rows (which caption belongs to this image?) and of the columns (`logits.T`: which image belongs to this "
        "caption?), and their mean. `F.cross_entropy` takes logits, no probabilities.",
    ),
    seen="No class occurs in it. If two images of a batch have the same caption, the loss still asks to tell them apart, and cannot fall below "
    "log 2 for them: what pretraining minimises is not what a task wants.",
)
def _contrastive(answer) -> None:
    f = F.normalize(torch.randn(5, 8, generator=generator(1)), dim=-1)
    g = F.normalize(torch.randn(5, 8, generator=generator(2)) + f, dim=-1)
    scale, own = 7.0, torch.arange(5)
    expected, logits = contrastive(f, g, scale), scale * f @ g.T
    given = same_shape(ask(answer, f, g, scale), expected, "[]")
    for value, said in (
        (F.cross_entropy(logits, own), "only the rows count here: the captions must find their images, too."),
        (F.cross_entropy(logits.T, own), "only the columns count here: the images must find their captions, too."),
        (2 * expected, "this is the sum of the two directions; (3) has their mean."),
        (contrastive(f, g, 1.0), "the logit scale s is missing."),
        (
            (F.cross_entropy(logits.softmax(-1), own) + F.cross_entropy(logits.T.softmax(-1), own)) / 2,
            "the softmax is taken twice: `F.cross_entropy` wants logits.",
        ),
    ):
        if torch.allclose(given, value, rtol=1e-4):
            raise Wrong(said)
    close(given, expected, "compare with equation (3).")


def headroom(zero_shot, adapted, ceiling):
    return (adapted - zero_shot) / (ceiling - zero_shot) if ceiling != zero_shot else 0.0  # (4)


@exercise(
    "06_0.headroom",
    solution=headroom,
    hints=(
        "The way from zero-shot to the ceiling is the room that there is. How much of it has the adapted system walked?",
        "(adapted − zero_shot) / (ceiling − zero_shot); where both ends are the same there is no room, and the share is 0.",
    ),
    seen="A gain of ten points is little where forty were possible and all where ten were. A share above 1 says that the ceiling was none, a "
    "negative one that adapting did harm.",
)
def _headroom(answer) -> None:
    for zero_shot, adapted, ceiling in ((20.0, 50.0, 80.0), (60.0, 55.0, 90.0), (40.0, 95.0, 90.0), (70.0, 70.0, 70.0)):
        expected = headroom(zero_shot, adapted, ceiling)
        given = number(ask(answer, zero_shot, adapted, ceiling), -100, 100, "a share of the room")
        if abs(given - expected) > 1e-6 and abs(given - (adapted - zero_shot) / zero_shot) < 1e-6:
            raise Wrong("this compares the gain with zero-shot accuracy; compare it with the room above zero-shot.")
        if abs(given - expected) > 1e-6 and abs(given - 100 * expected) < 1e-6:
            raise Wrong("this is in percent; a share lies between 0 and 1 as a rule.")
        if abs(given - expected) > 1e-6:
            raise Wrong(
                f"from {zero_shot:g} to {adapted:g} of {ceiling:g} is {expected:.3f} of the room, and this says {given:.3f}: see (4)."
            )


@exercise(
    "06_0.labels",
    solution=100 * 16 * 1000 / 1_281_167,
    hints=(
        "Few-shot transfer sees so many labelled images per class, times the number of classes. Supervised transfer sees all of them.",
        "16 · 1000 images of 1,281,167, times 100 for percent.",
    ),
    seen="Few-shot results are obtained with about one image in eighty. That is the whole point of the setup, and the reason why the choice of "
    "the images, the seed, moves its numbers.",
)
def _labels(answer) -> None:
    given, expected = number(answer, 0, 100, "a percentage"), 100 * 16 * 1000 / 1_281_167
    if abs(given - expected / 100) < 1e-4:
        raise Wrong("this is a share; the question asks for percent.")
    if abs(given - expected / 16) < 1e-3:
        raise Wrong("this is one image per class; there are 16.")
    if abs(given - expected) > 0.01:
        raise Wrong(f"{given:g} % is not it: labelled images of 16 shots in 1,000 classes, of 1,281,167.")
