"""What one composed set is: names put together from attributes, sentences for them, and a program that draws them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""An image [S, S, 3], red, green, blue."""

Draw = Callable[[tuple, np.random.Generator, int], Pixels]
"""(attributes of the class, source of randomness, side S) -> image."""


@dataclass(frozen=True)
class Composition:
    """A set whose classes are combinations of attributes.

    Attributes:
        classes: class name -> its attributes, in label order. What comes first in the attributes (a thing, a colour, a place)
            changes most slowly, so that the base and new halves of the classes differ in it and share the other attributes.
        templates: prompt templates with "{}" for the class name.
        draw: paints one image of a class.
        scenes: first part of the images' names. Two sets of one `scenes` draw from the same sources of randomness.
    """

    classes: dict[str, tuple]
    templates: tuple[str, ...]
    draw: Draw
    scenes: str = ""


def with_article(noun: str) -> str:
    """'apple' -> 'an apple'."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
