"""Exercises of chapter 6.1b, prompts that carry over to new classes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, number, same_shape
from vlmlab.randomness import LocalRandom


def shifted(f, context, down, up):
    shift = up(torch.relu(down(f)))  # pi [B, d] (1)
    return context + shift[:, None]  # [B, M, d] (2)


@exercise(
    "06_1b.meta_net",
    solution=shifted,
    hints=(
        "Two layers with a ReLU between them give one vector per image, [B, d]. It is added to each of the M context vectors.",
        "`context` is [M, d] and the shift [B, d]: give the shift an axis in the middle, `shift[:, None]`, and let broadcasting do the rest.",
    ),
    seen="One vector moves all M context vectors of an image alike. The network is small on purpose, e to e/16 to d: "
    "with CLIP ViT-B/16 (e = d = 512) 33,312 numbers beside the 2,048 of the context.",
)
def _meta_net(answer) -> None:
    with LocalRandom(3):
        down, up = torch.nn.Linear(8, 3), torch.nn.Linear(3, 6)
    f, context = (
        F.normalize(torch.randn(5, 8, generator=generator(1)), dim=-1),
        torch.randn(4, 6, generator=generator(2)),
    )
    with torch.no_grad():
        expected = shifted(f, context, down, up)
        given = same_shape(ask(answer, f, context, down, up), expected, "[B, M, d]")
        if torch.allclose(given, context + up(down(f))[:, None], atol=1e-5):
            raise Wrong("there is no ReLU between the two layers: without it they are one linear map (1).")
        if torch.allclose(given, up(torch.relu(down(f)))[:, None].expand_as(given), atol=1e-5):
            raise Wrong("this is the shift alone; equation (2) adds it to the context vectors.")
    close(given, expected, "compare with (1) and (2): the image's shift, added to every context vector.")


def distance(w, w0):
    return 1 - F.cosine_similarity(w, w0, dim=-1).mean()


@exercise(
    "06_1b.distance",
    solution=distance,
    hints=(
        "A cosine is the dot product of two vectors of length one. Each class has one cosine, between its learned and its written row.",
        "`F.cosine_similarity(w, w0, dim=-1)` gives [C]; the distance is one minus the mean.",
    ),
    seen="It is a mean over classes, so that a thousand classes weigh no more than ten. For unit rows the squared distance is twice "
    "this number: a weight of 8 here is a weight of 4 there.",
)
def _distance(answer) -> None:
    w, w0 = 3 * torch.randn(5, 7, generator=generator(4)), torch.randn(5, 7, generator=generator(5))
    expected = distance(w, w0)
    given = same_shape(ask(answer, w, w0), expected, "[] (one number)")
    if torch.allclose(given, F.cosine_similarity(w, w0, dim=-1).mean()):
        raise Wrong("this is the mean cosine, which grows as the rows agree; a distance is 0 where they do.")
    if torch.allclose(given, 1 - (w * w0).sum(-1).mean()):
        raise Wrong("the rows still have their own length: a cosine needs both of length 1.")
    if torch.allclose(given, (F.normalize(w, dim=-1) - F.normalize(w0, dim=-1)).square().sum(-1).mean()):
        raise Wrong("this is the squared distance of the unit rows, which is twice what (5) has.")
    if torch.allclose(given, 1 - (F.normalize(w, dim=-1) @ F.normalize(w0, dim=-1).T).mean()):
        raise Wrong("every row was compared with all written rows; a class is compared with its own.")
    close(given, expected, "compare with (5): one minus the mean over classes of the cosine with the own written row.")


def text_to_text(h, w, scale):
    sentences, classes = h.shape[:2]
    logits = scale * h.flatten(0, 1) @ w.T  # [L C, C]
    return F.cross_entropy(logits, torch.arange(classes).repeat(sentences))


@exercise(
    "06_1b.text_to_text",
    solution=text_to_text,
    hints=(
        "Treat the L times C sentences as if they were images: a batch [L C, e], to be classified by w. What are their labels?",
        "`h.flatten(0, 1)` runs through the classes of the first template, then of the second: the labels are 0 .. C-1, L times over.",
    ),
    seen="No image takes part. That is why classes without any image can: their sentences are samples like all others.",
)
def _text_to_text(answer) -> None:
    h = F.normalize(torch.randn(3, 5, 8, generator=generator(6)), dim=-1)
    w = F.normalize(torch.randn(5, 8, generator=generator(7)), dim=-1)
    expected = text_to_text(h, w, 10.0)
    given = same_shape(ask(answer, h, w, 10.0), expected, "[] (one number)")
    wrong = F.cross_entropy(10.0 * h.flatten(0, 1) @ w.T, torch.arange(5).repeat_interleave(3))
    if torch.allclose(given, wrong, atol=1e-5):
        raise Wrong("the labels are in the wrong order: after flattening, a template's C classes follow each other.")
    if torch.allclose(given, F.cross_entropy(h.flatten(0, 1) @ w.T, torch.arange(5).repeat(3)), atol=1e-5):
        raise Wrong("the logit scale is missing (6).")
    if torch.allclose(given, 15 * expected, rtol=1e-4):
        raise Wrong("this is the sum over the sentences; (6) has their mean.")
    close(given, expected, "compare with (6): sentences are the samples, learned prompts the classifier.")


def averaged(logits):
    return logits.log_softmax(-1).logsumexp(1) - math.log(logits.shape[1])


@exercise(
    "06_1b.averaged",
    solution=averaged,
    hints=(
        "Each sample has its own softmax over the classes. The probabilities are averaged over the samples, and then the logarithm is taken.",
        "log (1/L) sum exp(log p) is `log_p.logsumexp(1) - log(L)`: it never leaves the logarithms, so that nothing underflows.",
    ),
    seen="Averaging logits instead would be much like one prediction by a mean prompt, as sharp as any single one. An average of probabilities is "
    "unsure where the samples disagree.",
)
def _averaged(answer) -> None:
    logits = 8 * torch.randn(4, 3, 5, generator=generator(8))
    expected = averaged(logits)
    given = same_shape(ask(answer, logits), expected, "[B, C]")
    if torch.allclose(given, logits.mean(1).log_softmax(-1), atol=1e-4):
        raise Wrong("the logits were averaged, then the softmax taken; (9) averages probabilities.")
    if torch.allclose(given, logits.log_softmax(-1).mean(1), atol=1e-4):
        raise Wrong("this is the mean of the logarithms; (9) is the logarithm of the mean.")
    if torch.allclose(given, expected.exp(), atol=1e-4):
        raise Wrong("these are the averaged probabilities; their logarithm is wanted.")
    if torch.allclose(given, expected + math.log(3), atol=1e-4):
        raise Wrong("this is the logarithm of a sum: the number of samples has to be divided out.")
    close(given, expected, "softmax over classes for each sample, mean over samples, logarithm.")
    large = 1000 * logits
    if not torch.allclose(same_shape(ask(answer, large), expected, "[B, C]"), averaged(large), rtol=1e-4):
        raise Wrong("for large logits a probability becomes 0 and its logarithm is lost; stay in logarithms (hint 2).")


@exercise(
    "06_1b.texts",
    solution=(64_000, 1_000),
    hints=(
        "CoCoOp has a prompt of its own for every image *and* class. Does KgCoOp's prompt know anything of the image?",
        "CoCoOp: images times classes. KgCoOp: once per class, whatever the number of images.",
    ),
    seen="This is why CoCoOp's release trains with one image at a time, and why its predictions cost a text encoder each. The shared prefix "
    "makes a text shorter; it does not make the number of texts smaller.",
)
def _texts(answer) -> None:
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong("two numbers are wanted: (CoCoOp, KgCoOp).")
    conditional, fixed = (number(one, 1, 1e12, "a count of texts") for one in answer)
    if conditional != 64 * 1000:
        raise Wrong(
            f"{conditional:,.0f} is not CoCoOp's: every one of the 64 images has prompts of its own, one per class."
        )
    if fixed != 1000:
        raise Wrong(f"{fixed:,.0f} is not KgCoOp's: its prompts do not depend on the image, one per class is enough.")
