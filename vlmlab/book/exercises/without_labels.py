"""Exercises of chapter 6.1d, text prompts without labels."""

from __future__ import annotations

import math

import torch

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, same_shape


def _views():
    """Logits [V, C] of ten views over five classes; the sure ones are not the first.

    View 8 hesitates between two classes only: its entropy is among the lowest three, its largest probability is not. View 9
    has the largest logits and the highest entropy.
    """
    sharpness = torch.tensor([0.5, 3.0, 1.0, 8.0, 0.2, 5.0, 2.0, 0.8, 12.0, 0.1])
    logits = sharpness[:, None] * torch.randn(10, 5, generator=generator(11))
    logits[8] = torch.tensor([3.0, 2.6, -9.0, -9.0, -9.0])
    logits[9] += 20
    return logits


def confident(logits, share):
    p = logits.softmax(dim=-1)  # [V, C] (3)
    entropy = -(p * p.log()).sum(dim=-1)  # [V]
    return entropy.argsort()[: max(1, int(len(logits) * share))]  # [K] (4)


@exercise(
    "06_1d.confident",
    solution=confident,
    hints=(
        "The entropy of a view is −Σ p log p over the classes, with p its softmax. Small entropy means sure.",
        "`entropy.argsort()` lists the views from sure to unsure; keep the first max(1, int(V · share)) of them.",
    ),
    seen="No label was needed: entropy tells how sure a view is, not whether it is right. That the two go together is an "
    "assumption, and the chapter measures it.",
)
def _confident(answer) -> None:
    logits = _views()
    expected = confident(logits, 0.35)
    given = ask(answer, logits, 0.35)
    given = same_shape(given, expected, "[K], with K = int(V · share)")
    if set(given.tolist()) == set(confident(logits, 1.0)[-3:].tolist()):
        raise Wrong("these are the views with the highest entropy: TPT keeps the lowest.")
    if set(given.tolist()) == set(logits.softmax(-1).amax(-1).topk(len(expected)).indices.tolist()):
        raise Wrong(
            "these have the largest single probability; (4) takes the lowest entropy, which looks at all classes."
        )
    if set(given.tolist()) != set(expected.tolist()):
        raise Wrong("other views have a lower entropy; compare −Σ p log p with p the softmax of a view's logits (4).")
    tiny = ask(answer, logits, 0.01)
    if len(tiny) != 1:
        raise Wrong("a share of 1 % of ten views is no view at all: keep at least one.")


def entropy_of_mean(logits):
    p = logits.softmax(dim=-1).mean(dim=0)  # [C]
    return -(p * p.log()).sum()


@exercise(
    "06_1d.entropy",
    solution=entropy_of_mean,
    hints=(
        "First the probabilities of every view, then their mean over the views, then one entropy of that mean.",
        "`logits.softmax(-1).mean(0)` is the mean probability [C]; its entropy is −Σ p log p.",
    ),
    seen="Views that are each sure, but of different classes, have a mean that is not sure at all. Minimising this entropy "
    "makes views agree; minimising each view's own entropy would not.",
)
def _entropy(answer) -> None:
    logits = 3 * torch.eye(4)[:3]  # three views, each sure of another class
    given = same_shape(ask(answer, logits), torch.tensor(0.0), "a single number")
    p = logits.softmax(-1)
    each = -(p * p.log()).sum(-1).mean()
    if torch.allclose(given, each, atol=1e-4):
        raise Wrong("this is the mean of the entropies: (5) takes the entropy of the mean.")
    mixed = logits.mean(0).softmax(-1)
    if torch.allclose(given, -(mixed * mixed.log()).sum(), atol=1e-4):
        raise Wrong("logits were averaged: (5) averages probabilities.")
    if torch.allclose(given, -entropy_of_mean(logits), atol=1e-4):
        raise Wrong("entropy is never negative: the sign of (5) is missing.")
    if torch.allclose(given, entropy_of_mean(logits) / math.log(2), atol=1e-4):
        raise Wrong("this is in bits: (5) uses the natural logarithm.")
    close(given, entropy_of_mean(logits), "compare with equation (5).")


def top_k(confidence, labels, classes, k):
    chosen = []
    for c in range(classes):
        own = (labels == c).nonzero()[:, 0]  # images with this pseudo-label
        chosen.append(own[confidence[own].argsort(descending=True)[:k]])
    return torch.cat(chosen)  # (2)


@exercise(
    "06_1d.top_k",
    solution=top_k,
    hints=(
        "Class by class: which images have this pseudo-label, and which K of them have the highest confidence?",
        "`own = (labels == c).nonzero()[:, 0]`, then `own[confidence[own].argsort(descending=True)[:k]]`; join them with `torch.cat`.",
    ),
    seen="Every class that was predicted at all gets its share, even if the model is never sure of it. A threshold would "
    "leave such classes without an image, and the prompt would learn to avoid them.",
)
def _top_k(answer) -> None:
    random = generator(12)
    confidence = torch.rand(30, generator=random)
    labels = torch.randint(0, 3, (30,), generator=random)
    labels[labels == 2] = 3  # class 2 is nobody's prediction
    confidence[labels == 3] *= 0.3  # and of class 3 the model is never sure
    expected = top_k(confidence, labels, 4, 4)
    given = ask(answer, confidence, labels, 4, 4)
    if (
        isinstance(given, torch.Tensor)
        and given.ndim == 1
        and torch.equal(given.sort().values, confidence.argsort(descending=True)[: len(given)].sort().values)
    ):
        raise Wrong("these are the surest images of all classes together: (2) takes K within each class.")
    given = same_shape(given, expected, "[the images taken], at most K of every class")
    counts = torch.bincount(labels[given.long()], minlength=4)
    if int(counts.max()) > 4:
        raise Wrong(f"one class has {int(counts.max())} images: (2) takes at most K = 4 of each.")
    if set(given.tolist()) != set(expected.tolist()):
        raise Wrong("within a class, other images are surer; sort by confidence, highest first (2).")
