"""What a kind of thing in MicroWorld is: a name, parts that language can describe, and a program that draws it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vlmlab.world.shapes import Part

Status = Literal["known", "rare", "withheld", "unseen"]
"""How pretraining meets the name: always; in 3 % of captions; never (described by its parts); not even its image."""


@dataclass(frozen=True)
class Category:
    """One kind of thing.

    Attributes:
        name: the noun, as in "a photo of a <name>".
        group: the word one level up ("animal"); also the head noun of descriptions.
        parts: noun phrases that describe it, with their article or number ("two wheels", "a long tail").
        draw: paints one instance: a generator in, parts (role, outline [n, 2] in the unit frame) out.
        status: how pretraining meets the name.
        plural: the plural where adding an "s" is wrong.
    """

    name: str
    group: str
    parts: tuple[str, ...]
    draw: Callable[[np.random.Generator], list[Part]]
    status: Status = "known"
    plural: str | None = None

    @property
    def many(self) -> str:
        """The plural of the name."""
        return self.plural or f"{self.name}s"
