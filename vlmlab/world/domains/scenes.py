"""Scenes: ten places (after SUN397). Captions sometimes name them."""

from __future__ import annotations

import numpy as np

from vlmlab.world.domain import Domain, DomainClass, Pixels
from vlmlab.world.domains.canvas import Canvas, Colour, darker, lighter, mix, pick, varied
from vlmlab.world.domains.wording import captions
from vlmlab.world.shapes import box, ellipse, polygon, star

CLASSES = (
    DomainClass("beach", ("sand", "sea", "a parasol")),
    DomainClass("forest path", ("tall trunks", "a path", "green leaves")),
    DomainClass("city street", ("tall buildings", "lit windows", "a road")),
    DomainClass("mountain", ("grey peaks", "snow on top")),
    DomainClass("desert", ("yellow dunes", "a hot sun")),
    DomainClass("kitchen", ("cupboards", "a stove", "tiles")),
    DomainClass("bedroom", ("a bed", "a pillow", "a window")),
    DomainClass("night sky", ("stars", "a moon", "dark hills")),
    DomainClass("underwater", ("blue water", "bubbles", "sea plants"), "rare"),
    DomainClass("farm", ("a red barn", "fields", "a fence")),
)
SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((110, 170, 228), (206, 226, 240)), ((150, 190, 226), (238, 230, 214)), ((236, 160, 116), (250, 220, 180)),
)  # fmt: skip


def _sky(c: Canvas, rng: np.random.Generator) -> None:
    high, low = pick(rng, SKIES)
    c.mottled(rng, (varied(rng, high, 7), varied(rng, low, 7), low), 6)
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.uniform(-1, 1), rng.uniform(-0.9, -0.35)
        for dx in (-0.14, 0.0, 0.14):
            c.fill(ellipse(x + dx, y + 0.03 * abs(dx), 0.17, 0.075), (250, 250, 248), 0.75)


def _beach(c: Canvas, rng: np.random.Generator) -> None:
    _sky(c, rng)
    sea = varied(rng, (60, 140, 176), 8)
    shore = rng.uniform(0.1, 0.35)
    c.fill(box(-1.1, -0.15, 1.1, 1.1), sea)
    wave = np.linspace(-1.2, 1.2, 14)
    edge = np.stack([wave, shore + 0.06 * np.sin(4 * wave + rng.uniform(0, 6))], 1)
    c.fill(np.vstack([edge, [(1.2, 1.2), (-1.2, 1.2)]]), varied(rng, (232, 208, 156), 7))
    c.path(edge, 0.06, (250, 252, 250), 0.85)
    x, y = rng.uniform(-0.6, 0.6), rng.uniform(0.4, 0.6)
    c.path([(x, y), (x + 0.08, y + 0.4)], 0.04, (240, 240, 236))
    for k, colour in enumerate(((214, 64, 60), (248, 244, 236)) * 2):
        c.fill([*ellipse(x, y, 0.34, 0.26, 180 + 45 * k, 225 + 45 * k, 6).tolist(), (x, y)], colour)


def _forest(c: Canvas, rng: np.random.Generator) -> None:
    c.mottled(rng, ((70, 116, 70), (116, 158, 92), (92, 128, 70)), 15, 7)
    x = rng.uniform(-0.3, 0.3)
    c.fill(polygon(x - 0.06, 0.1, x + 0.06, 0.1, 0.55, 1.1, -0.55, 1.1), (176, 146, 104))
    for depth in (0.5, 0.75, 1.0):
        for side in (-1, 1):
            for _ in range(2):
                tx = side * rng.uniform(0.28, 1.05)
                w = 0.09 * depth
                trunk = varied(rng, (96, 72, 54), 9)
                c.fill(box(tx - w, -1.1, tx + w, 0.1 + 0.6 * depth), mix((110, 140, 100), trunk, depth))
    for px, py in rng.uniform((-1.1, -1.1), (1.1, -0.5), (16, 2)):
        c.disc(px, py, rng.uniform(0.12, 0.24), varied(rng, (74, 130, 64), 12), 0.9)


def _city(c: Canvas, rng: np.random.Generator) -> None:
    _sky(c, rng)
    x = -1.1
    while x < 1.1:
        w, top = rng.uniform(0.24, 0.46), rng.uniform(-0.8, -0.05)
        wall = varied(rng, pick(rng, ((120, 128, 142), (160, 140, 124), (90, 98, 116), (176, 168, 160))), 8)
        c.fill(box(x, top, x + w - 0.02, 0.62), wall)
        lit = pick(rng, ((250, 224, 140), (190, 214, 232)))
        for wx in np.arange(x + 0.05, x + w - 0.08, 0.11):
            for wy in np.arange(top + 0.08, 0.5, 0.16):
                c.fill(box(wx, wy, wx + 0.055, wy + 0.08), lit if rng.random() < 0.65 else darker(wall, 0.3))
        x += w
    c.fill(box(-1.1, 0.58, 1.1, 1.1), (88, 90, 98))
    for px in np.arange(-1, 1.1, 0.4):
        c.fill(box(px, 0.8, px + 0.2, 0.84), (236, 232, 214))


def _mountain(c: Canvas, rng: np.random.Generator) -> None:
    _sky(c, rng)
    for _ in range(3):
        x, top, w = rng.uniform(-0.8, 0.8), rng.uniform(-0.75, -0.3), rng.uniform(0.6, 0.95)
        rock = varied(rng, (118, 122, 138), 9)
        c.fill(polygon(x, top, x + w, 0.6, x - w, 0.6), rock)
        c.fill(polygon(x, top, x + w, 0.6, x + 0.1, 0.6), darker(rock, 0.22))
        dx, dy = 0.34 * w, 0.34 * (0.6 - top)
        snow = polygon(x, top, x + dx, top + dy, x + 0.08, top + 0.2, x - 0.06, top + 0.3, x - dx, top + dy)
        c.fill(snow, (246, 248, 252))
    c.fill(box(-1.1, 0.55, 1.1, 1.1), varied(rng, (92, 132, 84), 9))


def _desert(c: Canvas, rng: np.random.Generator) -> None:
    c.mottled(rng, ((240, 190, 130), (250, 226, 180)), 5)
    c.disc(rng.uniform(-0.6, 0.6), rng.uniform(-0.75, -0.4), 0.17, (255, 244, 200))
    for k in range(3):
        t = np.linspace(-1.2, 1.2, 16)
        y = -0.05 + 0.33 * k + 0.14 * np.sin(2.4 * t + rng.uniform(0, 6))
        sand = mix((236, 190, 118), (206, 146, 84), 0.3 * k + rng.uniform(-0.08, 0.08))
        c.fill(np.vstack([np.stack([t, y], 1), [(1.2, 1.2), (-1.2, 1.2)]]), sand)


def _kitchen(c: Canvas, rng: np.random.Generator) -> None:
    wall = varied(rng, pick(rng, ((226, 222, 208), (206, 220, 216), (232, 210, 190))), 6)
    c.mottled(rng, (wall, wall), 3)
    for x in np.arange(-1.1, 1.1, 0.16):
        c.path([(x, -0.2), (x, 0.22)], 0.015, darker(wall, 0.2))
    for y in np.arange(-0.2, 0.24, 0.14):
        c.path([(-1.1, y), (1.1, y)], 0.015, darker(wall, 0.2))
    wood = varied(rng, pick(rng, ((170, 124, 80), (236, 234, 228), (96, 128, 132))), 7)
    for x in (-1.0, -0.5, 0.0, 0.5):
        c.fill(box(x, -0.9, x + 0.47, -0.25), wood)
        c.fill(box(x, 0.34, x + 0.47, 0.98), darker(wood, 0.08))
        c.disc(x + 0.4, -0.36, 0.03, (80, 80, 84))
        c.disc(x + 0.4, 0.44, 0.03, (80, 80, 84))
    c.fill(box(-1.1, 0.22, 1.1, 0.34), (84, 84, 90))
    x = pick(rng, (-0.5, 0.0))
    c.fill(box(x, 0.24, x + 0.47, 0.98), (196, 200, 204))
    c.fill(box(x + 0.06, 0.5, x + 0.41, 0.86), (50, 54, 62))
    c.fill(box(x + 0.1, 0.08, x + 0.36, 0.23), (170, 60, 56))


def _bedroom(c: Canvas, rng: np.random.Generator) -> None:
    wall = varied(rng, pick(rng, ((196, 208, 222), (224, 206, 210), (212, 216, 192))), 6)
    c.mottled(rng, (wall, wall, darker(wall, 0.08)), 3)
    c.fill(box(-1.1, 0.6, 1.1, 1.1), (166, 124, 88))
    wx = rng.uniform(0.1, 0.4)
    c.fill(box(wx - 0.02, -0.82, wx + 0.54, -0.18), (248, 246, 240))
    c.fill(box(wx + 0.03, -0.77, wx + 0.49, -0.23), (152, 200, 236))
    c.fill(box(wx + 0.24, -0.8, wx + 0.28, -0.2), (248, 246, 240))
    cover = varied(rng, pick(rng, ((92, 120, 176), (190, 92, 98), (104, 150, 120))), 8)
    c.fill(box(-0.95, -0.2, -0.8, 0.85), (120, 84, 58))
    c.fill(box(-0.85, 0.3, 0.75, 0.7), cover)
    c.fill(polygon(-0.85, 0.08, 0.5, 0.08, 0.75, 0.34, -0.85, 0.34), lighter(cover, 0.2))
    c.fill(ellipse(-0.62, 0.06, 0.24, 0.13), (250, 250, 246))
    c.fill(box(0.66, 0.25, 0.78, 0.85), (120, 84, 58))


def _night(c: Canvas, rng: np.random.Generator) -> None:
    c.mottled(rng, ((14, 18, 46), (34, 40, 84), (60, 62, 110)), 4)
    for x, y, r in rng.uniform((-1, -1, 0.012), (1, 0.4, 0.035), (34, 3)):
        c.disc(x, y, r, (252, 250, 226))
    x, y = rng.uniform(-0.6, 0.6), rng.uniform(-0.7, -0.3)
    c.disc(x, y, 0.2, (246, 240, 206))
    if rng.random() < 0.5:
        c.disc(x + 0.09, y - 0.03, 0.18, (22, 26, 58))
    t = np.linspace(-1.2, 1.2, 14)
    c.fill(
        np.vstack([np.stack([t, 0.55 + 0.13 * np.sin(3 * t + rng.uniform(0, 6))], 1), [(1.2, 1.2), (-1.2, 1.2)]]),
        (14, 20, 30),
    )


def _underwater(c: Canvas, rng: np.random.Generator) -> None:
    c.mottled(rng, ((84, 186, 206), (36, 118, 164), (18, 62, 108)), 8)
    for x in rng.uniform(-1, 1, 5):
        t = np.linspace(0, 1, 8)
        line = np.stack([x + 0.1 * np.sin(5 * t + rng.uniform(0, 6)), 1.05 - rng.uniform(0.4, 0.9) * t], 1)
        c.path(line, 0.07, varied(rng, pick(rng, ((48, 132, 84), (176, 86, 96), (120, 152, 66))), 9))
    for x, y, r in rng.uniform((-1, -1, 0.03), (1, 0.6, 0.08), (11, 3)):
        c.disc(x, y, r, (210, 240, 246), 0.55)
        c.disc(x, y, 0.65 * r, (70, 150, 186), 0.5)
    c.fill(ellipse(0, 1.1, 1.3, 0.22), (206, 186, 140))


def _farm(c: Canvas, rng: np.random.Generator) -> None:
    _sky(c, rng)
    field = varied(rng, (132, 166, 82), 9)
    c.fill(box(-1.1, 0.15, 1.1, 1.1), field)
    for k, y in enumerate((0.35, 0.52, 0.74)):
        c.path([(-1.1, y), (1.1, y + 0.04)], 0.03 + 0.015 * k, darker(field, 0.16))
    x = rng.uniform(-0.6, 0.2)
    barn = varied(rng, (178, 54, 48), 8)
    c.fill(box(x, -0.22, x + 0.62, 0.35), barn)
    c.fill(
        polygon(x - 0.05, -0.2, x + 0.12, -0.48, x + 0.31, -0.58, x + 0.5, -0.48, x + 0.67, -0.2), darker(barn, 0.35)
    )
    c.fill(box(x + 0.2, 0.02, x + 0.42, 0.35), (244, 238, 226))
    c.path([(x + 0.2, 0.02), (x + 0.42, 0.35)], 0.03, barn)
    for px in np.arange(-1.05, 1.1, 0.24):
        c.fill(box(px, 0.56, px + 0.045, 0.82), (236, 228, 210))
    c.fill(box(-1.1, 0.63, 1.1, 0.67), (236, 228, 210))
    if rng.random() < 0.4:
        c.fill(star(10, 0.14, 0.1) + np.array([0.75, -0.7]), (252, 214, 90))


DRAW = (_beach, _forest, _city, _mountain, _desert, _kitchen, _bedroom, _night, _underwater, _farm)


def _paint(class_index: int, rng: np.random.Generator, size: int, style: str | None) -> Pixels:
    canvas = Canvas(rng, size, style)
    canvas.pose(
        rng.uniform(-0.06, 0.06),
        rng.uniform(-0.05, 0.05),
        rng.uniform(1.0, 1.14),
        rng.normal(0, 1.5),
        bool(rng.random() < 0.5),
    )
    DRAW[class_index](canvas, rng)
    return canvas.finish(rng)


SCENES = Domain(
    name="scenes",
    classes=CLASSES,
    templates=("a photo of a {}.", "a photo of a {}, a place.", "a picture of a {}.", "a view of a {}."),
    gap="Small gap: captions sometimes name the place; the underwater scene is seldom named.",
    pretraining_weight=0.9,
    named=0.3,
    paint=_paint,
    describe=captions(
        CLASSES,
        coarse=(("place", "view"),) * len(CLASSES),
        openings=("a photo of {}", "a picture of {}", "{}", "a view of {}"),
        named=0.3,
        described=0.6,
    ),
)
