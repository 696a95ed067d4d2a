"""Which images and which classes: few-shot sampling and the base-to-new split, as the field defines them."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

import torch
from torch import LongTensor

from vlmlab.datasets.image_set import ImageSet
from vlmlab.errors import VlmlabError

SPLIT_SHARES = {"train": 0.5, "val": 0.2, "test": 0.3}
"""CoOp's shares (arXiv 2109.01134, its released splits) for datasets that come without an official split."""


def seeded_order(ids: Sequence[str], seed: int) -> list[int]:
    """Indices of `ids` in a random order that depends only on the names and the seed, not on how they are listed."""

    def rank(i: int) -> bytes:
        return hashlib.blake2b(f"{seed}\0{ids[i]}".encode(), digest_size=16).digest()

    return sorted(range(len(ids)), key=rank)


def few_shot(train: ImageSet, shots: int, seed: int, classes: Sequence[str] | None = None) -> LongTensor:
    """Indices of `shots` images of every class: the support set of few-shot learning.

    Class after class, each class in seeded order. The choice depends on the images' names and on the seed only, so it
    is the same on every machine whatever order a file system lists files in; and it is nested: the 1-shot support is
    part of the 2-shot support of the same seed, so that curves over shots compare like with like.

    In a multi-label set a class draws the first `shots` images that show it, and the support is their union.

    Args:
        train: the images to draw from.
        shots: images per class, 0 or more.
        seed: any integer, 0 included.
        classes: class names, for the error message and for classes that have no image at all.

    Raises:
        VlmlabError: a class has fewer images; the message names the smallest class and its count.
    """
    if shots < 0:
        raise VlmlabError(f"shots must be 0 or more, not {shots}")
    labels = train.labels
    count = len(classes) if classes is not None else _class_count(train)
    order = torch.tensor(seeded_order(train.ids, seed), dtype=torch.long)
    shows = labels if train.multi_label else torch.nn.functional.one_hot(labels, max(count, _class_count(train)))
    available = shows.sum(0)[:count]
    if count and int(available.min()) < shots:
        smallest = int(available.argmin())
        name = f"'{classes[smallest]}'" if classes is not None else f"number {smallest}"
        most = int(available[smallest])
        if not most:
            raise VlmlabError(
                f"{_counted(shots, 'shot')} asked for, but class {name} has no training image; choose another dataset, or a "
                "system that takes no shots"
            )
        raise VlmlabError(
            f"{_counted(shots, 'shot')} asked for, but class {name} has only {_counted(most, 'training image')}; "
            f"use at most {_counted(most, 'shot')}"
        )
    chosen = [order[shows[order, c].bool()][:shots] for c in range(count)]
    support = torch.cat(chosen) if chosen else order[:0]
    if train.multi_label:
        support = torch.tensor(list(dict.fromkeys(support.tolist())), dtype=torch.long)
    return support


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def at_most(images: ImageSet, count: int, seed: int) -> LongTensor:
    """Indices of up to `count` images of every class, in seeded order: CoOp's validation set."""
    order = torch.tensor(seeded_order(images.ids, seed), dtype=torch.long)
    labels = images.labels
    if images.multi_label:
        chosen = [order[labels[order, c].bool()][:count] for c in range(labels.shape[1])]
        return torch.tensor(list(dict.fromkeys(torch.cat(chosen).tolist())), dtype=torch.long)
    chosen = [order[labels[order] == c][:count] for c in range(_class_count(images))]
    return torch.cat(chosen) if chosen else order[:0]


def base_new(classes: Sequence[str]) -> tuple[list[int], list[int]]:
    """(base, new) class indices as CoCoOp splits them (arXiv 2203.05557, section 4.1).

    The labels in ascending order are cut in halves; an odd class goes to base.
    """
    half = -(-len(classes) // 2)
    return list(range(half)), list(range(half, len(classes)))


def seeded_split(ids: Sequence[str], labels: Sequence[int], seed: int) -> dict[str, list[int]]:
    """Cut labelled images into train, val and test in CoOp's shares, class by class, by seeded order of their names.

    Every class keeps at least one image to learn from and one to be tested on; a class of four or more has one to
    validate on. Raises `ValueError` if a class has fewer than two images (callers name it first).
    """
    by_class: dict = _by_class(ids, labels, seed)  # labels of one kind, which can be sorted
    split: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for label in sorted(by_class):
        members = by_class[label]
        if len(members) < 2:
            raise ValueError("a class of one image cannot be split")
        test = max(1, round(SPLIT_SHARES["test"] * len(members)))
        val = min(round(SPLIT_SHARES["val"] * len(members)), len(members) - test - 1)
        split["test"] += members[:test]
        split["val"] += members[test : test + val]
        split["train"] += members[test + val :]
    return {name: sorted(members, key=lambda i: ids[i]) for name, members in split.items()}


def held_out(ids: Sequence[str], labels: Sequence[Hashable], share: float, seed: int) -> set[int]:
    """Indices of `share` of each class, by seeded order of the names: a validation set cut from training images."""
    return {i for members in _by_class(ids, labels, seed).values() for i in members[: round(share * len(members))]}


def _by_class(ids: Sequence[str], labels: Sequence[Hashable], seed: int) -> dict[Hashable, list[int]]:
    """Label -> its images in seeded order."""
    by_class: dict[Hashable, list[int]] = {}
    for i in seeded_order(ids, seed):
        by_class.setdefault(labels[i], []).append(i)
    return by_class


def _class_count(images: ImageSet) -> int:
    labels = images.labels
    if images.multi_label:
        return labels.shape[1]
    return int(labels.max()) + 1 if len(labels) else 0


def mislabelled(labels: LongTensor, classes: int, share: float, seed: int) -> LongTensor:
    """Labels [N] of which a `share` (0 to 1) of every class is replaced by another class, all others equally likely.

    The wrong ones grow with the share: those of 25 % are wrong at 50 % too. Raises `VlmlabError` for labels [N, C].
    """
    if labels.ndim == 2:
        raise VlmlabError("wrong labels are drawn for images with one label each; choose a dataset that has them")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    others = torch.randint(1, max(classes, 2), labels.shape, generator=generator)
    noisy = labels.clone()
    for c in range(classes):
        own = order[labels[order] == c]
        wrong = own[: round(share * len(own))]
        noisy[wrong] = (c + others[wrong]) % classes
    return noisy


def partially_known(labels: LongTensor, proportion: float, seed: int) -> LongTensor:
    """Multi-label annotation of which only a `proportion` (0 to 1) is known: labels [N, C] of 0 and 1, -1 where hidden.

    Every entry is hidden or not by itself, as in DualCoOp's protocol (arXiv 2206.09541, section 4.1).
    """
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.rand(labels.shape, generator=generator) >= proportion
    return labels.masked_fill(hidden, -1)
