"""What a specialised domain of MicroWorld (creatures, flowers, aerial, ...) offers to pretraining and to the suite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmlab.world.category import Status

Pixels = NDArray[np.uint8]
"""An image [S, S, 3], red, green, blue."""


@dataclass(frozen=True)
class DomainClass:
    """One class of a domain.

    Attributes:
        name: as it stands in the prompt templates.
        parts: noun phrases that define it.
        status: how pretraining meets the name.
    """

    name: str
    parts: tuple[str, ...]
    status: Status = "known"


@dataclass(frozen=True)
class Domain:
    """A set of classes that one painter draws.

    Attributes:
        name: key of the dataset.
        classes: in label order.
        templates: prompt templates with "{}" for the class name.
        gap: one sentence on what separates the domain from pretraining.
        pretraining_weight: relative frequency among the domain images of pretraining (0: never shown).
        named: fraction of the pretraining captions that use the class name (the others describe).
        paint: (class index, generator, size, style or None for the domain's own mixture) -> pixels [size, size, 3].
        describe: (class index, generator) -> caption, or None if pretraining must not see this image.
    """

    name: str
    classes: tuple[DomainClass, ...]
    templates: tuple[str, ...]
    gap: str
    pretraining_weight: float
    named: float
    paint: Callable[[int, np.random.Generator, int, str | None], Pixels]
    describe: Callable[[int, np.random.Generator], str | None]

    def sample(self, class_index: int, rng: np.random.Generator, size: int = 64, style: str | None = None) -> Pixels:
        """One fresh image [size, size, 3] of the class."""
        return self.paint(class_index, rng, size, style)

    def caption(self, class_index: int, rng: np.random.Generator) -> str | None:
        """One fresh caption of the class; None for a class that is withheld from pretraining."""
        return self.describe(class_index, rng)
