"""The colours of MicroWorld: eight that language names, fixed ones of parts, and those of the stuff behind.

All colours are (red, green, blue) in [0, 255].
"""

from __future__ import annotations

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (206, 52, 48),
    "orange": (238, 138, 38),
    "yellow": (243, 208, 62),
    "green": (66, 156, 74),
    "blue": (52, 100, 200),
    "purple": (132, 70, 170),
    "pink": (238, 140, 176),
    "grey": (134, 138, 146),
}
"""The colours of objects; the keys are the words of captions."""

FIXED: dict[str, Colour] = {
    "black": (34, 32, 40),
    "white": (247, 245, 239),
    "brown": (126, 84, 52),
    "green": (58, 134, 66),
    "yellow": (250, 206, 84),
    "red": (204, 58, 52),
}
"""The colours of parts whose role is not relative to the colour of the object."""

SHADE: Colour = (26, 20, 52)
"""Dark parts lean towards this cool violet, as shadows do."""

LIGHT: Colour = (255, 250, 236)
"""Light parts lean towards this warm white, as lit surfaces do."""

Ramp = tuple[Colour, Colour]
"""Two colours that a background runs between."""

STUFF_RAMPS: dict[str, tuple[Ramp, ...]] = {
    "sky": (
        ((92, 158, 224), (196, 224, 244)),
        ((60, 112, 196), (158, 198, 238)),
        ((118, 108, 168), (244, 176, 148)),
        ((152, 168, 186), (212, 218, 222)),
        ((70, 82, 138), (206, 152, 176)),
    ),
    "grass": (
        ((64, 132, 52), (124, 176, 74)),
        ((92, 148, 66), (168, 190, 92)),
        ((44, 98, 56), (88, 142, 76)),
        ((138, 146, 66), (190, 188, 104)),
    ),
    "sand": (
        ((212, 182, 128), (236, 212, 164)),
        ((200, 158, 112), (228, 192, 146)),
        ((206, 198, 178), (230, 224, 208)),
        ((188, 146, 96), (222, 184, 124)),
    ),
    "water": (
        ((40, 102, 168), (88, 156, 206)),
        ((36, 124, 140), (98, 184, 186)),
        ((48, 82, 122), (98, 138, 170)),
        ((66, 118, 116), (128, 172, 158)),
    ),
    "brick": (
        ((164, 80, 62), (206, 196, 184)),
        ((128, 76, 62), (172, 160, 148)),
        ((176, 124, 88), (224, 212, 192)),
        ((138, 130, 126), (196, 192, 188)),
        ((196, 178, 152), (158, 140, 122)),
    ),
    "snow": (
        ((214, 226, 240), (250, 252, 254)),
        ((198, 212, 234), (240, 244, 252)),
        ((224, 222, 232), (252, 248, 246)),
    ),
    "wood": (
        ((148, 100, 58), (188, 140, 90)),
        ((108, 70, 44), (148, 104, 68)),
        ((196, 156, 110), (222, 188, 144)),
        ((140, 126, 112), (176, 164, 150)),
    ),
}
"""Stuff -> its ramps: dark to light, top to bottom (sky), or bricks and mortar."""

BACKDROPS: tuple[Colour, ...] = (
    (232, 214, 190), (206, 222, 226), (236, 202, 198), (204, 220, 192), (222, 208, 230), (244, 230, 180),
    (184, 200, 218), (226, 226, 222), (176, 190, 168), (206, 178, 160), (120, 142, 168), (158, 116, 122),
    (96, 126, 122), (84, 84, 108), (186, 160, 196), (240, 186, 142),
)  # fmt: skip
"""Colours of plain, gradient and noise backgrounds."""

STUFF: tuple[str, ...] = tuple(STUFF_RAMPS)
"""Backgrounds that language names; segmentation treats them as classes."""
