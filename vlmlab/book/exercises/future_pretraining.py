"""Exercises of chapter 9.1, directions of pretraining: open experiments, whose checks compare with a baseline on hidden seeds."""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, same_shape
from vlmlab.book.exercises.future_transfer import HIDDEN, won
from vlmlab.studies.directions import captions, parts

IMAGES, STEPS = 400, 100
"""Less than in the chapter, so that an answer is judged in seconds."""


def caption_of(scene, rng):
    return captions.everything(scene, rng)  # every object with its colour, and the background


@exercise(
    "09_1.caption_of",
    solution=caption_of,
    hints=(
        "A scene has `objects`, each with `category` and `colour`, a `style` and a `background`. What do captions of the world leave out?",
        "Name every object, not one to three of them, in a drawn order. `captions.everything(scene, rng)` does; you may add to it.",
    ),
    seen="Who looks at the image and says all of it beats who says one thing each time in other words: what is named can be learned.",
)
def _caption_of(answer) -> str:
    images = captions.locked(IMAGES, HIDDEN)

    def diet(scene, rng):
        said = ask(answer, scene, rng)
        if not isinstance(said, str) or not said.strip():
            raise Wrong("a caption is wanted: a text that is not empty.")
        return said

    diet(images.scenes[0], np.random.default_rng(0))
    tower, _ = captions.trained(images, diet, STEPS, seed=HIDDEN)
    return won(captions.zero_shot(tower), _of_the_world(), "percent zero-shot", "a caption of the world each time")


@functools.cache
def _of_the_world() -> float:
    """What a tower reaches that is told a caption of the world each time; the same for every answer."""
    diet = captions.diet("looked again")
    return captions.zero_shot(captions.trained(captions.locked(IMAGES, HIDDEN), diet, STEPS, seed=HIDDEN)[0])


def trust(features, texts):
    words = sorted({word for text in texts for word in text.split()})
    place = {word: k for k, word in enumerate(words)}
    said = torch.zeros(len(texts), len(words))
    for i, text in enumerate(texts):
        said[i, [place[word] for word in text.split()]] = 1
    rare = said * (len(texts) / said.sum(0)).log()  # a word that all captions have tells nothing
    near = (features @ features.T).fill_diagonal_(-1).topk(20).indices  # images that look alike, [n, 20]
    return (F.normalize(rare, dim=-1) * F.normalize(rare[near].mean(1), dim=-1)).sum(-1)  # does theirs say the same?


@exercise(
    "09_1.trust",
    solution=trust,
    hints=(
        "Images that look alike should have captions that say alike. A wrong caption comes from elsewhere, and its neighbours do not know its words.",
        "Find the 20 nearest images of each, count the words of their captions, weigh words by how rare they are, and compare with the image's "
        "own caption by cosine.",
    ),
    seen="No model that knows everything already was asked, and the wrong half is told from the right one better than by the tower that was "
    "trained on both.",
)
def _trust(answer) -> str:
    images = captions.locked(IMAGES, HIDDEN)
    texts, true = captions.noisy(images, seed=HIDDEN)
    scores = ask(answer, images.features.clone(), list(texts))
    if not isinstance(scores, Tensor) or scores.shape != true.shape:
        raise Wrong(f"one score per pair is wanted, [{len(true)}].")
    if not bool(scores.isfinite().all()):
        raise Wrong("some scores are not finite.")
    own, unit = _truth_kept(true, scores.float()), "percent of the kept half true"
    return won(own, _by_a_tower(), unit, "the score of a tower trained on these pairs")


def _truth_kept(true: Tensor, scores: Tensor) -> float:
    """The percentage of true pairs in the better half."""
    return 100 * float(true[captions.better_half(scores)].float().mean())


@functools.cache
def _by_a_tower() -> float:
    """`_truth_kept` by the score of a tower that was trained on all pairs; the same for every answer."""
    images = captions.locked(IMAGES, HIDDEN)
    texts, true = captions.noisy(images, seed=HIDDEN)
    tower, _ = captions.trained(images, texts, STEPS, seed=HIDDEN)
    return _truth_kept(true, captions.own_scores(images, texts, tower))


def pool(word, tokens):
    cosine = tokens @ word  # [n, T]
    attention = (cosine / 0.2).softmax(-1)  # tokens that fit the phrase count for more
    pooled = F.normalize((attention[..., None] * tokens).sum(1), dim=-1)
    return pooled @ word


@exercise(
    "09_1.pool",
    solution=pool,
    hints=(
        "The best token sees a patch of 8 pixels: enough for a colour, not for a cat. Let all tokens speak, those that fit most of all.",
        "Weights softmax(cosine / 0.2) over the tokens, the weighted mean of the tokens, and its cosine with the phrase.",
    ),
    seen="A soft maximum is better than the maximum, without learning. Where colours are exchanged it helps little: no pooling tells what "
    "the tokens do not carry.",
)
def _pool(answer) -> str:
    def rule(word, tokens):
        given = ask(answer, word, tokens)
        if not isinstance(given, Tensor) or given.shape != tokens.shape[:1]:
            raise Wrong(f"one score per image is wanted, [{len(tokens)}].")
        if not bool(given.isfinite().all()):
            raise Wrong("some scores are not finite.")
        return given

    judged = [parts.groups(kind, seed=HIDDEN) for kind in parts.KINDS]
    own, base = (sum(parts.first(parts.scores(g, r), "new") for g in judged) / 2 for r in (rule, parts.nearest))
    return won(own, base, "percent of the phrases", "the best token")


def bilingual(english, french, teacher, share):
    keep = (english - teacher).square().sum(-1).mean()  # English stays as it was
    learn = (french - teacher).square().sum(-1).mean()  # French goes where its English is
    return share * keep + (1 - share) * learn


@exercise(
    "09_1.bilingual",
    solution=bilingual,
    hints=(
        "Both sentences of a pair have one target: what the frozen tower says of the English one.",
        "Squared distances to `teacher`, summed over e, mean over N; `share` weighs the English one, the rest the French one.",
    ),
    seen="No image, no negative and no contrast is in it: the space is there already, and French only has to be led into it.",
)
def _bilingual(answer) -> None:
    english, french, teacher = (F.normalize(torch.randn(6, 8, generator=generator(k)), dim=-1) for k in range(3))
    expected = bilingual(english, french, teacher, 0.3)
    given = same_shape(ask(answer, english, french, teacher, 0.3), expected, "a number")
    if torch.allclose(given, bilingual(english, french, teacher, 0.7), atol=1e-5):
        raise Wrong("the share belongs to English; here it is the other way round.")
    if torch.allclose(given * 6, expected * 6 * 6, atol=1e-4) or torch.allclose(given, expected / 8, atol=1e-5):
        raise Wrong("sum over the axis of the features, mean over the sentences.")
    if torch.allclose(
        given, 0.3 * (english - teacher).square().sum(-1).mean() + 0.7 * (french - english).square().sum(-1).mean()
    ):
        raise Wrong("the French sentence goes to what the frozen tower said; the student's English moves.")
    close(given, expected, "compare with equation (1) of the chapter.")
