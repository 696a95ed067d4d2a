"""Aerial: ten kinds of land seen from straight above (after EuroSAT).

Pretraining hardly shows land from above and hardly names it: zero-shot is weak, and a few labelled images help much.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from vlmlab.world.domain import Domain, DomainClass, Pixels
from vlmlab.world.domains.canvas import Canvas, Colour, darker, lighter, mix, pick, varied
from vlmlab.world.domains.wording import captions
from vlmlab.world.shapes import box, polygon

CLASSES = (
    DomainClass("forest", ("dense round tree tops", "dark green"), "rare"),
    DomainClass("river", ("a winding blue band", "green banks"), "rare"),
    DomainClass("highway", ("a straight grey band", "dashed lines"), "rare"),
    DomainClass("residential buildings", ("many small roofs", "gardens", "narrow streets"), "rare"),
    DomainClass("industrial buildings", ("large flat roofs", "parking lots"), "rare"),
    DomainClass("annual crop land", ("rectangular fields", "furrows in different colours"), "rare"),
    DomainClass("pasture", ("plain green grass", "a few bushes"), "rare"),
    DomainClass("orchard", ("rows of round trees", "bare soil"), "rare"),
    DomainClass("sea or lake", ("plain dark blue", "faint waves"), "rare"),
    DomainClass("harbour", ("docks", "rows of small boats", "water"), "withheld"),
)
GREENS: tuple[Colour, ...] = ((88, 124, 74), (108, 136, 82), (70, 106, 72))
SOILS: tuple[Colour, ...] = ((168, 140, 102), (190, 164, 120), (132, 112, 84), (150, 160, 92), (112, 138, 78))
WATER: Colour = (44, 84, 116)


def _trees(c: Canvas, rng: np.random.Generator, spots, radius: float) -> None:
    for x, y in spots:
        green = varied(rng, (52, 92, 56), 9)
        r = radius * rng.uniform(0.75, 1.25)
        c.disc(x + 0.25 * r, y + 0.3 * r, r, (30, 48, 40), 0.5)
        c.disc(x, y, r, green)
        c.disc(x - 0.25 * r, y - 0.25 * r, 0.5 * r, lighter(green, 0.2))


def _band(c: Canvas, rng: np.random.Generator, width: float, colour: Colour, bend: float) -> np.ndarray:
    """A band across the image; returns its middle line [n, 2]."""
    t = np.linspace(-1.3, 1.3, 24)
    p = rng.uniform(0, 6.28, 2)
    across = rng.uniform(-0.3, 0.3) + bend * np.sin(2.2 * t + p[0]) + 0.4 * bend * np.sin(4.6 * t + p[1])
    angle = rng.uniform(0, math.pi)
    line = np.stack([t * math.cos(angle) - across * math.sin(angle), t * math.sin(angle) + across * math.cos(angle)], 1)
    c.path(line, width, colour, round_ends=False)
    return line


def _roofs(
    c: Canvas, rng: np.random.Generator, cells: int, fill: tuple[float, float], colours: tuple[Colour, ...]
) -> None:
    step = 2.4 / cells
    for i in range(cells):
        for j in range(cells):
            w, h = rng.uniform(*fill, 2) * step
            x = -1.2 + (i + 0.5) * step + rng.uniform(-0.1, 0.1) * step
            y = -1.2 + (j + 0.5) * step + rng.uniform(-0.1, 0.1) * step
            roof = varied(rng, pick(rng, colours), 7)
            c.fill(box(x - w / 2 + 0.03, y - h / 2 + 0.04, x + w / 2 + 0.03, y + h / 2 + 0.04), (36, 40, 44), 0.55)
            c.fill(box(x - w / 2, y - h / 2, x + w / 2, y + h / 2), roof)
            c.fill(box(x - w / 2, y - h / 2, x, y + h / 2), lighter(roof, 0.15))


def _paint(class_index: int, rng: np.random.Generator, size: int, style: str | None) -> Pixels:
    c = Canvas(rng, size, style)
    kind = CLASSES[class_index].name
    green = varied(rng, pick(rng, GREENS), 9)
    c.mottled(rng, (green, mix(green, pick(rng, SOILS), 0.25)), 11, 7)
    turn = rng.uniform(0, 90)
    c.pose(scale=1.1, turn=turn)
    if kind == "forest":
        grid = np.stack(np.meshgrid(np.linspace(-1.3, 1.3, 13), np.linspace(-1.3, 1.3, 13)), -1).reshape(-1, 2)
        _trees(c, rng, rng.permutation(grid + rng.uniform(-0.1, 0.1, grid.shape)), 0.14)
    elif kind == "river":
        line = _band(c, rng, rng.uniform(0.34, 0.5), lighter(WATER, 0.1), 0.3)
        c.path(line, 0.16, lighter(WATER, 0.28), round_ends=False)
        _trees(c, rng, rng.uniform(-1.2, 1.2, (5, 2)), 0.1)
    elif kind == "highway":
        line = _band(c, rng, rng.uniform(0.32, 0.46), (120, 122, 126), 0.04)
        for k in range(1, len(line) - 1, 2):
            c.path(line[k : k + 2], 0.035, (240, 238, 226), round_ends=False)
        for k in rng.choice(len(line), 4, replace=False):
            c.disc(line[k, 0] + 0.08, line[k, 1], 0.06, pick(rng, ((200, 60, 50), (240, 240, 240), (50, 80, 150))))
    elif kind == "residential buildings":
        for s in np.linspace(-1.2, 1.2, 4):
            c.path([(-1.4, s), (1.4, s)], 0.1, (150, 150, 150), round_ends=False)
        _roofs(c, rng, 7, (0.4, 0.62), ((176, 92, 70), (190, 110, 84), (150, 84, 72), (146, 140, 136)))
    elif kind == "industrial buildings":
        c.fill(box(-1.4, -1.4, 1.4, 1.4), (142, 142, 140))
        _roofs(c, rng, 3, (0.6, 0.85), ((206, 208, 210), (178, 186, 194), (226, 226, 220), (110, 130, 150)))
    elif kind == "annual crop land":
        cuts = np.sort(rng.uniform(-1, 1, 3))
        edges = [-1.5, *cuts, 1.5]
        for a, b in pairwise(edges):
            split = rng.uniform(-0.7, 0.7)
            for y0, y1 in ((-1.5, split), (split, 1.5)):
                soil = varied(rng, pick(rng, SOILS), 10)
                c.fill(box(a, y0, b - 0.03, y1 - 0.03), soil)
                for x in np.arange(a + 0.06, b - 0.06, 0.11):
                    c.path([(x, y0), (x, y1 - 0.04)], 0.03, darker(soil, 0.18), round_ends=False)
    elif kind == "pasture":
        _trees(c, rng, rng.uniform(-1, 1, (int(rng.integers(1, 5)), 2)), 0.09)
        c.path(rng.uniform(-1.2, 1.2, (2, 2)) * (1, 1.2), 0.03, lighter(green, 0.25))
    elif kind == "orchard":
        c.fill(box(-1.4, -1.4, 1.4, 1.4), varied(rng, pick(rng, SOILS[:3]), 8))
        step = rng.uniform(0.27, 0.36)
        line = np.arange(-1.3, 1.31, step)
        _trees(c, rng, np.stack(np.meshgrid(line, line), -1).reshape(-1, 2), 0.32 * step)
    elif kind == "sea or lake":
        water = varied(rng, WATER, 8)
        c.fill(box(-1.5, -1.5, 1.5, 1.5), water)
        for x, y in rng.uniform(-1.2, 1.2, (12, 2)):
            c.path([(x, y), (x + 0.22, y + 0.03)], 0.02, lighter(water, 0.25), 0.5)
    else:  # harbour
        c.fill(box(-1.5, -0.65, 1.5, 1.5), varied(rng, WATER, 8))
        c.fill(box(-1.5, -0.72, 1.5, -0.6), (190, 186, 178))
        for x in np.linspace(-0.9, 0.9, 4):
            c.fill(box(x - 0.05, -0.65, x + 0.05, 0.95), (196, 190, 180))
            for y in np.linspace(-0.35, 0.75, 5):
                for side in (-1, 1):
                    w = rng.uniform(0.14, 0.2) * side
                    boat = polygon(
                        x + 0.07 * side,
                        y - 0.05,
                        x + w,
                        y - 0.05,
                        x + w + 0.06 * side,
                        y,
                        x + w,
                        y + 0.05,
                        x + 0.07 * side,
                        y + 0.05,
                    )
                    c.fill(boat, pick(rng, ((246, 246, 242), (230, 232, 236), (200, 80, 66))))
    return c.finish(rng)


AERIAL = Domain(
    name="aerial",
    classes=CLASSES,
    templates=("an aerial photo of {}.", "a photo of {} from above.", "a satellite photo of {}."),
    gap="Another viewpoint: land from above is rare in pretraining and its kinds are almost never named.",
    pretraining_weight=0.2,
    named=0.3,
    paint=_paint,
    describe=captions(
        CLASSES,
        coarse=(("land from above", "fields from above", "an aerial image"),) * len(CLASSES),
        openings=("a photo of {}", "{}", "a picture of {}"),
        named=0.3,
        described=0.15,
        article=False,
    ),
)
