"""Flowers: twelve kinds that differ in the number, shape and colour of the petals and in the centre (after Flowers102).

Pretraining calls nearly all of them "a flower", so that names help little and descriptions more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vlmlab.world.domain import Domain, DomainClass, Pixels
from vlmlab.world.domains.canvas import Canvas, Colour, darker, lighter, mix, pick, varied
from vlmlab.world.domains.wording import captions
from vlmlab.world.shapes import ellipse, polygon, rotate


class Kind(NamedTuple):
    """What a kind looks like; widths and lengths in units of the flower's radius."""

    petals: int
    shape: str  # "round", "narrow", "pointed" or "heart"
    colours: tuple[Colour, ...]
    centre: Colour
    core: float  # radius of the centre
    rows: int = 1


WHITE, YELLOW, BLUE, PURPLE = (248, 246, 240), (246, 208, 60), (74, 108, 206), (138, 76, 178)
PINK, RED, ORANGE, BROWN = (240, 140, 180), (206, 48, 58), (242, 138, 46), (96, 62, 38)

KINDS: dict[str, Kind] = {
    "daisy": Kind(16, "narrow", (WHITE,), YELLOW, 0.3),
    "sunflower": Kind(20, "pointed", (YELLOW,), BROWN, 0.48),
    "poppy": Kind(4, "round", (RED,), (40, 34, 40), 0.22),
    "buttercup": Kind(5, "round", (YELLOW,), (226, 172, 40), 0.2),
    "forget-me-not": Kind(5, "round", (BLUE,), YELLOW, 0.2),
    "cornflower": Kind(10, "heart", (BLUE,), PURPLE, 0.24),
    "gerbera": Kind(22, "narrow", (ORANGE, PINK, RED), (70, 50, 40), 0.22, 2),
    "lily": Kind(6, "pointed", (WHITE, PINK), (232, 190, 80), 0.12),
    "wild rose": Kind(5, "heart", (PINK,), YELLOW, 0.24),
    "clematis": Kind(8, "pointed", (PURPLE,), (236, 232, 190), 0.18),
    "marigold": Kind(14, "round", (ORANGE,), (206, 96, 30), 0.2, 3),
    "pansy": Kind(5, "heart", (PURPLE, YELLOW), (40, 26, 60), 0.3),
}

NUMBER = {4: "four", 5: "five", 6: "six", 8: "eight", 10: "ten"}
COLOUR_NAMES = {
    WHITE: "white",
    YELLOW: "yellow",
    BLUE: "blue",
    PURPLE: "purple",
    PINK: "pink",
    RED: "red",
    ORANGE: "orange",
}


def _parts(kind: Kind) -> tuple[str, ...]:
    count = NUMBER.get(kind.petals, "many")
    dark = sum(kind.centre) < 330
    return (
        f"{count} {kind.shape} {COLOUR_NAMES[kind.colours[0]]} petals",
        f"a {'large' if kind.core > 0.28 else 'small'} {'dark' if dark else 'bright'} centre",
    )


RARE_NAMES = {"clematis", "cornflower", "gerbera", "forget-me-not", "pansy"}
CLASSES = tuple(
    DomainClass(name, _parts(kind), "rare" if name in RARE_NAMES else "known") for name, kind in KINDS.items()
)


def _petal(shape: str, width: float):
    if shape == "round":
        return ellipse(0, -0.6, width * 1.15, 0.42)
    if shape == "narrow":
        return ellipse(0, -0.62, width * 0.9, 0.4)
    if shape == "pointed":
        return polygon(0, -1.02, width * 0.8, -0.6, width * 0.55, -0.15, -width * 0.55, -0.15, -width * 0.8, -0.6)
    return polygon(
        0,
        -0.82,
        width * 0.6,
        -1,
        width * 1.15,
        -0.74,
        width * 0.5,
        -0.1,
        -width * 0.5,
        -0.1,
        -width * 1.15,
        -0.74,
        -width * 0.6,
        -1,
    )


def _paint(class_index: int, rng: np.random.Generator, size: int, style: str | None) -> Pixels:
    kind = KINDS[CLASSES[class_index].name]
    canvas = Canvas(rng, size, style)
    leaf = varied(rng, pick(rng, ((60, 120, 58), (84, 140, 66), (46, 96, 72), (120, 140, 80))), 10)
    canvas.bokeh(rng, leaf, mix(leaf, (30, 50, 40), 0.5), 6)
    colour = varied(rng, pick(rng, kind.colours), 8)
    blooms = 1 if rng.random() < 0.72 else 2
    for k in range(blooms):
        x, y = rng.uniform(-0.25, 0.25, 2) + (0 if blooms == 1 else (-0.42, 0.42)[k])
        scale = rng.uniform(0.56, 0.82) * (1 if blooms == 1 else 0.68)
        canvas.unpose()
        canvas.path([(x, y), (x + rng.uniform(-0.3, 0.3), 1.15)], 0.06, darker(leaf, 0.35))
        canvas.pose(x, y, scale, rng.uniform(0, 360 / kind.petals), wide=rng.uniform(0.78, 1.0))
        width = min(0.5, 2.3 / kind.petals)
        for row in range(kind.rows):
            shrink = 1 - 0.27 * row
            base = mix(colour, lighter(colour, 0.4), 0.35 * row)
            for j in range(kind.petals):
                angle = 360 * (j + 0.5 * row) / kind.petals
                petal = rotate(_petal(kind.shape, width) * shrink, angle)
                canvas.fill(petal, darker(base, 0.22 if j % 2 else 0.08))
                canvas.fill(petal * 0.9, base)
                if kind.shape == "heart" and kind.core >= 0.3:  # the face of the pansy
                    canvas.fill(petal * 0.5, kind.centre, 0.85)
        canvas.shaded(ellipse(0, 0, kind.core), varied(rng, kind.centre, 6), 0.35)
        if kind.core > 0.28:
            for px, py in rng.uniform(-0.7, 0.7, (12, 2)) * kind.core:
                canvas.disc(px, py, 0.03, darker(kind.centre, 0.4))
    return canvas.finish(rng)


FLOWERS = Domain(
    name="flowers",
    classes=CLASSES,
    templates=("a photo of a {}, a type of flower.", "a photo of a {}.", "a close-up of a {}.", "a {} in a garden."),
    gap="Fine-grained: captions mostly say 'flower' and describe petals; five kinds are hardly ever named.",
    pretraining_weight=0.9,
    named=0.1,
    paint=_paint,
    describe=captions(
        CLASSES,
        coarse=(("flower", "blossom"),) * len(CLASSES),
        openings=("a photo of {}", "a picture of {}", "{}", "a close-up of {}"),
        named=0.1,
        described=0.6,
    ),
)
