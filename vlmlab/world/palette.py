"""The colours of MicroWorld: eight that language names, and the fixed ones of wheels, eyes and wood."""

from __future__ import annotations

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (206, 56, 50),
    "orange": (236, 138, 44),
    "yellow": (242, 208, 66),
    "green": (82, 158, 84),
    "blue": (56, 104, 196),
    "purple": (132, 76, 168),
    "pink": (236, 140, 176),
    "grey": (134, 136, 144),
}
"""Colour word -> red, green, blue."""

FIXED: dict[str, tuple[int, int, int]] = {
    "black": (34, 32, 38),
    "white": (244, 242, 234),
    "brown": (126, 84, 52),
    "green": (64, 136, 66),
    "yellow": (248, 202, 74),
    "red": (200, 58, 52),
}
"""Role -> colour, for the parts that do not follow the colour of the object."""
