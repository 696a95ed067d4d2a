"""How pretraining captions speak of the specialised domains: the class name, parts of it, or only a coarse word."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vlmlab.world.domain import DomainClass
from vlmlab.world.domains.canvas import pick

RARELY = 0.15
"""A rare name is used this much as often as a known one."""


def with_article(phrase: str) -> str:
    """'bird' -> 'a bird'; phrases that begin with an article or a number word are left alone."""
    first = phrase.split()[0]
    if first in {"a", "an", "the", "some", "two", "three", "four", "five", "six", "many"}:
        return phrase
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def captions(
    classes: tuple[DomainClass, ...],
    coarse: tuple[tuple[str, ...], ...],
    openings: tuple[str, ...],
    named: float,
    described: float,
    article: bool = True,
) -> Callable[[int, np.random.Generator], str | None]:
    """A caption writer for `Domain.describe`.

    Args:
        classes: of the domain, in label order.
        coarse: for each class the vaguer words that stand for it ("bird", "small bird").
        openings: "a photo of {}" and the like; "{}" receives the noun phrase.
        named: probability of the class name where its status is known; a rare name has RARELY times that, a withheld none.
        described: probability, where the name is not used, that parts of the description follow the coarse word.
        article: whether names and coarse words need "a" or "an".

    Returns:
        (class index, generator) -> caption, or None for a class whose images pretraining must not see.
    """
    share = {"known": named, "rare": named * RARELY, "withheld": 0.0}

    def describe(class_index: int, rng: np.random.Generator) -> str | None:
        entry = classes[class_index]
        if entry.status == "unseen":
            return None
        u, v = rng.random(2)
        if u < share[entry.status]:
            noun = entry.name
        else:
            noun = pick(rng, coarse[class_index])
            if v < described:
                count = min(len(entry.parts), 1 + int(rng.integers(2)))
                noun += " with " + " and ".join(entry.parts[i] for i in rng.permutation(len(entry.parts))[:count])
        return pick(rng, openings).format(with_article(noun) if article else noun)

    return describe
