"""Exercises of chapter 9.2, directions of transfer: open experiments, whose checks compare with a baseline on hidden seeds."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vlmlab.book.exercise import NotStarted, Wrong, ask, exercise
from vlmlab.studies.directions import descriptions, marks, test_time, unlabelled
from vlmlab.studies.directions.encoded import Encoded, Rule, encoded, encoded_pixels
from vlmlab.world.captions import description, with_article

HIDDEN = 7193
"""Seed of what answers are judged on; the chapter uses small seeds."""


def as_rule(answer) -> Rule:
    """The answer as a rule that says what is wrong with its logits."""

    def rule(features: Tensor, words: Tensor, scale: float) -> Tensor:
        given = ask(answer, features, words, scale)
        shape = [len(features), len(words)]
        if not isinstance(given, Tensor) or list(given.shape) != shape:
            raise Wrong(f"logits [N, C] = {shape} are wanted, one row per image.")
        if not bool(given.isfinite().all()):
            raise Wrong("some logits are not finite.")
        return given

    return rule


def won(own: float, base: float, unit: str, what: str) -> str:
    """What is said of an answer that is better than the baseline; `Wrong` if it is not."""
    if not own > base:
        raise Wrong(f"{own:.2f} {unit} on hidden seeds, and {what} has {base:.2f}: not better yet.")
    return f"{own:.2f} {unit} on hidden seeds; {what} has {base:.2f}, so yours is {own - base:.2f} better."


def stream_rule(features, words, scale):
    logits = scale * features @ words.T
    p = logits.softmax(-1)
    seen = torch.arange(1, len(p) + 1)[:, None]
    mean = (p.cumsum(0) + 10 / p.shape[1]) / (seen + 10)  # mean prediction so far [N, C], from equal shares
    return logits - 0.5 * mean.log()


@exercise(
    "09_2.stream_rule",
    solution=stream_rule,
    hints=(
        "Zero-shot prediction prefers some classes. What have its predictions been on average, so far, and what should that be if the classes "
        "are about equally frequent?",
        "With `p = logits.softmax(-1)`, the mean so far is `p.cumsum(0)` over the number of images; take a share of its logarithm from the logits, "
        "and let the mean begin from equal shares, as if ten images had been seen.",
    ),
    seen="The cheapest memory that there is, C numbers, can beat a cache of images here. It also believes that classes are balanced: ask the "
    "chapter's table what becomes of it on a sorted stream.",
)
def _stream_rule(answer) -> str:
    rule = as_rule(answer)
    streams = _streams()
    _settled(rule, streams[0])
    if not test_time.causal(rule, streams[0]):
        raise Wrong(
            "the first images got other logits when later ones were changed: a stream has not brought them yet."
        )
    return won(_mean_gain(rule), _gain_of_tda(), "points above zero-shot", "TDA")


@functools.cache
def _streams() -> list[Encoded]:
    names = ("aerial", "objects-mosaic", "textures", "flowers")
    return [test_time.stream(name, seed=HIDDEN, images=300) for name in names]


def _mean_gain(rule: Rule) -> float:
    return sum(one.gain(rule) for one in _streams()) / len(_streams())


@functools.cache
def _gain_of_tda() -> float:
    """What an answer is compared with; the same for every one."""
    return _mean_gain(test_time.tda())


def _settled(rule: Rule, one: Encoded) -> None:
    first, second = (rule(one.features, one.words, one.scale) for _ in range(2))
    if not torch.allclose(first, second, atol=1e-4):
        raise Wrong("asked twice, the function gives different logits; draw from a generator with a fixed seed.")


def pool_rule(features, words, scale):
    logits = scale * features @ words.T
    believed = logits.softmax(-1).mean(0).log()  # how often zero-shot prediction says each class, [C]
    return unlabelled.transduced(features, (logits - 0.5 * believed).softmax(-1))


@exercise(
    "09_2.pool_rule",
    solution=pool_rule,
    hints=(
        "TransCLIP begins with what the texts say, and that is lopsided. `unlabelled.transduced(features, first)` takes other first probabilities.",
        "Take half of the logarithm of the mean zero-shot probability of each class from the logits before the softmax, and hand the result on.",
    ),
    seen="On average it wins, and the average hides the price: with all classes and with foreign images it gains, with three of ten classes it "
    "loses. To know which of these one has, without labels, is what is left to do.",
)
def _pool_rule(answer) -> str:
    rule = as_rule(answer)
    _settled(rule, _pools()[0][0])
    unit = "points above zero-shot, mean over nine kinds of pools"
    return won(_gain_on_pools(rule), _gain_of_transclip(), unit, "TransCLIP")


@functools.cache
def _pools() -> list[tuple[Encoded, Tensor]]:
    return [
        unlabelled.pool(name, seed=HIDDEN + k, **kind)
        for name in unlabelled.DATASETS
        for kind in ({}, {"present": 3}, {"foreign": 0.2})
        for k in range(8)
    ]


def _gain_on_pools(rule: Rule) -> float:
    return sum(unlabelled.gain(rule, *pool) for pool in _pools()) / len(_pools())


@functools.cache
def _gain_of_transclip() -> float:
    """What an answer is compared with; the same for every one."""
    return _gain_on_pools(unlabelled.transclip)


def describe(name, parts):
    return [f"a photo of {with_article(description(name))}"]  # the group word and its parts, and not the name


@exercise(
    "09_2.describe",
    solution=describe,
    hints=(
        "Pretraining never read these names. What does a text encoder do with a word that it does not know, in the middle of a sentence?",
        "Leave the name out, and say what captions of pretraining said of such things: the group, with the parts. "
        "`description(name)` of vlmlab.world.captions writes it; your own words count as well.",
    ),
    seen="An unknown name is noise in every sentence that has it. Descriptions win here because pretraining was told exactly such descriptions of "
    "these objects: it is recall of what was read, and no proof of composition.",
)
def _describe(answer) -> str:
    dataset = "objects-unnamed"
    said = {name: _texts(ask(answer, name, parts)) for name, parts in descriptions.parts(dataset).items()}
    half = torch.randperm(len(encoded(dataset).labels), generator=torch.Generator().manual_seed(HIDDEN))[:400]
    base = descriptions.measured(dataset, descriptions.written(dataset, "true"), half)
    return won(descriptions.measured(dataset, said, half), base, "percent", "the name with its true parts")


def _texts(given) -> list[str]:
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(text, str) for text in given):
        raise Wrong("a list of sentences is wanted.")
    if not given:
        raise NotStarted
    if not all(text.strip() for text in given):
        raise Wrong("an empty sentence says nothing.")
    return list(given)


def mark(pixels, box):
    return marks.marked(pixels, box, "crop")  # nothing else is left to be spoken of


@exercise(
    "09_2.mark",
    solution=mark,
    hints=(
        "A circle is one more thing in the image, and this model never saw one that meant anything. What takes things away?",
        "Everything outside of the box may go. Then the object is small in an empty image: what else did pretraining do with single objects?",
    ),
    seen="What is called a prompt works as far as pretraining prepared it: enlarged single objects were among its images, red circles were not.",
)
def _mark(answer) -> str:
    found, words, base = _marked()
    given = []
    for picture, box in zip(found.pictures, found.boxes, strict=True):
        one = ask(answer, picture.pixels.copy(), box.copy())
        if not isinstance(one, np.ndarray) or one.shape != picture.pixels.shape or one.dtype != np.uint8:
            raise Wrong(f"an image of uint8 {list(picture.pixels.shape)} is wanted, as it came.")
        given.append(one)
    own = marks.followed(encoded_pixels(np.stack(given)), found, words)[1]
    return won(own, base, "percent of the marked objects named first", "blurring what is outside")


@functools.cache
def _marked() -> tuple[marks.TwoObjects, Tensor, float]:
    """The scenes, the class embeddings, and what blurring reaches; the same for every answer."""
    found = marks.scenes(120, HIDDEN)
    words = marks.words(found.classes)
    return found, words, marks.followed(marks.features(found, "blur"), found, words)[1]
