"""Food: ten dishes on a plate, seen from above or from the side (after Food-101). Captions often name them."""

from __future__ import annotations

import numpy as np

from vlmlab.world.domain import Domain, DomainClass, Pixels
from vlmlab.world.domains.canvas import Canvas, Colour, darker, lighter, pick, varied
from vlmlab.world.domains.wording import captions
from vlmlab.world.shapes import box, ellipse, polygon, rotate

CLASSES = (
    DomainClass("fried egg", ("a white blob", "a round yellow yolk")),
    DomainClass("hamburger", ("a round bun", "layers of meat and salad")),
    DomainClass("sushi", ("white rice rolls", "dark seaweed", "pink fish")),
    DomainClass("spaghetti", ("long thin noodles", "red sauce")),
    DomainClass("salad", ("green leaves", "red tomato slices")),
    DomainClass("pancakes", ("a stack of flat cakes", "a piece of butter", "syrup")),
    DomainClass("soup", ("a bowl", "orange liquid", "green herbs")),
    DomainClass("birthday cake", ("layers of icing", "burning candles")),
    DomainClass("hot dog", ("a long bun", "a sausage", "a line of mustard")),
    DomainClass("dumplings", ("pale folded pouches", "a steamer basket"), "rare"),
)
PLATES: tuple[Colour, ...] = ((240, 240, 236), (214, 226, 234), (62, 70, 84), (226, 208, 180))
TABLES: tuple[Colour, ...] = ((150, 108, 74), (196, 170, 136), (92, 96, 104), (188, 86, 78), (108, 142, 150))


def _egg(c: Canvas, rng: np.random.Generator) -> None:
    angle = np.linspace(0, 2 * np.pi, 30)
    radius = 0.56 + 0.07 * np.sin(3 * angle + rng.uniform(0, 6)) + 0.05 * np.sin(5 * angle + rng.uniform(0, 6))
    blob = np.stack([radius * np.cos(angle), 0.85 * radius * np.sin(angle)], 1)
    c.fill(blob * 1.04, (214, 200, 170))
    c.fill(blob, (250, 248, 240))
    x, y = rng.uniform(-0.14, 0.14, 2)
    c.shaded(ellipse(x, y, 0.24), (250, 190, 50), 0.2, gloss=0.5)


def _burger(c: Canvas, rng: np.random.Generator) -> None:
    bun = varied(rng, (214, 150, 80), 6)
    c.fill(ellipse(0, 0.42, 0.66, 0.2), darker(bun, 0.2))
    c.fill(box(-0.66, 0.22, 0.66, 0.42), bun)
    c.fill(box(-0.7, 0.06, 0.7, 0.26), (92, 54, 36))
    c.fill(polygon(-0.74, 0.08, 0.74, 0.08, 0.5, 0.2, 0.2, 0.06, -0.2, 0.22, -0.5, 0.06), (246, 200, 70))
    for x in np.linspace(-0.66, 0.66, 7):
        c.disc(x, 0.02, 0.13, (106, 168, 74))
    c.fill(box(-0.62, -0.12, 0.62, -0.02), (206, 60, 48))
    c.shaded(ellipse(0, -0.08, 0.7, 0.52, 180, 360), bun, 0.25, gloss=0.25)
    for x, y in rng.uniform((-0.42, -0.5), (0.42, -0.26), (9, 2)):
        c.fill(ellipse(x, y, 0.04, 0.025), (250, 236, 200))


def _sushi(c: Canvas, rng: np.random.Generator) -> None:
    for k, (x, y) in enumerate(((-0.42, -0.28), (0.4, -0.3), (-0.38, 0.34), (0.42, 0.3))):
        x, y = x + rng.uniform(-0.05, 0.05), y + rng.uniform(-0.05, 0.05)
        c.disc(x, y, 0.31, (36, 46, 40))
        c.disc(x, y, 0.25, (250, 248, 242))
        c.disc(x, y, 0.12, ((242, 134, 106), (244, 150, 120), (130, 180, 90))[(k + int(rng.integers(3))) % 3])


def _spaghetti(c: Canvas, rng: np.random.Generator) -> None:
    for _ in range(22):
        start, turn, radius = rng.uniform(0, 6.28), rng.uniform(1.5, 4.5), rng.uniform(0.16, 0.62)
        t = np.linspace(start, start + turn, 12)
        c.path(np.stack([radius * np.cos(t), 0.9 * radius * np.sin(t)], 1), 0.06, varied(rng, (236, 202, 118), 9))
    c.fill(ellipse(0, -0.02, 0.34, 0.27), (196, 54, 38))
    for x, y in rng.uniform(-0.26, 0.26, (8, 2)):
        c.disc(x, y, 0.06, (166, 40, 30))
    c.fill(rotate(ellipse(0.05, -0.06, 0.13, 0.06), rng.uniform(0, 180)), (70, 142, 66))


def _salad(c: Canvas, rng: np.random.Generator) -> None:
    for x, y in rng.uniform(-0.5, 0.5, (16, 2)):
        green = varied(rng, pick(rng, ((90, 160, 68), (122, 184, 84), (66, 128, 62))), 8)
        c.fill(rotate(ellipse(x, y, 0.26, 0.16), rng.uniform(0, 180), x, y), green)
        c.path([(x - 0.16, y), (x + 0.16, y)], 0.025, lighter(green, 0.4))
    for x, y in rng.uniform(-0.42, 0.42, (4, 2)):
        c.disc(x, y, 0.15, (206, 54, 46))
        c.disc(x, y, 0.1, (236, 112, 90))


def _pancakes(c: Canvas, rng: np.random.Generator) -> None:
    for k in range(4):
        y = 0.42 - 0.19 * k
        x = rng.uniform(-0.05, 0.05)
        c.fill(ellipse(x, y + 0.08, 0.68, 0.24), (176, 112, 52))
        c.fill(ellipse(x, y, 0.68, 0.24), varied(rng, (230, 174, 96), 5))
    c.fill(ellipse(0, -0.16, 0.5, 0.15), (170, 84, 30), 0.85)
    c.fill(polygon(-0.42, -0.12, -0.3, -0.12, -0.32, 0.4, -0.4, 0.4), (170, 84, 30), 0.85)
    c.fill(polygon(-0.14, -0.3, 0.1, -0.34, 0.18, -0.2, -0.06, -0.15), (252, 228, 120))


def _soup(c: Canvas, rng: np.random.Generator) -> None:
    bowl = varied(rng, pick(rng, ((70, 110, 160), (236, 234, 228), (160, 70, 60))), 8)
    c.disc(0, 0, 0.74, darker(bowl, 0.15))
    c.disc(0, 0, 0.66, lighter(bowl, 0.3))
    c.disc(0, 0, 0.56, varied(rng, (232, 132, 50), 10))
    c.fill(ellipse(-0.14, -0.18, 0.26, 0.12), (250, 190, 120), 0.6)
    for x, y in rng.uniform(-0.34, 0.34, (7, 2)):
        c.fill(rotate(ellipse(x, y, 0.08, 0.035), rng.uniform(0, 180), x, y), (76, 140, 64))


def _cake(c: Canvas, rng: np.random.Generator) -> None:
    icing = varied(rng, pick(rng, ((244, 178, 200), (250, 244, 232), (120, 74, 52))), 6)
    c.fill(box(-0.62, 0.06, 0.62, 0.56), (214, 168, 110))
    c.fill(box(-0.62, 0.26, 0.62, 0.34), icing)
    c.fill(box(-0.64, -0.02, 0.64, 0.12), icing)
    for x in np.linspace(-0.54, 0.54, 6):
        c.disc(x, 0.13, 0.1, icing)
    for x in np.linspace(-0.42, 0.42, 4):
        c.fill(box(x - 0.04, -0.42, x + 0.04, -0.02), pick(rng, ((90, 150, 220), (240, 220, 90), (220, 90, 90))))
        c.fill(ellipse(x, -0.52, 0.055, 0.11), (252, 190, 60))
        c.fill(ellipse(x, -0.49, 0.03, 0.06), (255, 246, 190))


def _hot_dog(c: Canvas, rng: np.random.Generator) -> None:
    c.fill(ellipse(0, 0.12, 0.86, 0.34), (206, 146, 80))
    c.fill(ellipse(0, 0.02, 0.82, 0.26), (236, 190, 124))
    c.shaded(ellipse(0, 0.0, 0.92, 0.15), (176, 74, 50), 0.3, gloss=0.25)
    x = np.linspace(-0.72, 0.72, 22)
    c.path(np.stack([x, 0.07 * np.sin(14 * x + rng.uniform(0, 6)) - 0.02], 1), 0.065, (250, 206, 60))


def _dumplings(c: Canvas, rng: np.random.Generator) -> None:
    c.disc(0, 0, 0.8, (168, 124, 74))
    c.disc(0, 0, 0.7, (214, 178, 124))
    for k in range(5):
        angle = 1.2566 * k + rng.uniform(-0.15, 0.15)
        x, y = 0.4 * np.cos(angle), 0.4 * np.sin(angle)
        c.shaded(rotate(ellipse(x, y, 0.27, 0.18), rng.uniform(-40, 40), x, y), (246, 234, 212), 0.18)
        for d in (-0.1, 0.0, 0.1):
            c.path([(x + d, y - 0.12), (x + 0.5 * d, y - 0.01)], 0.025, (200, 180, 150))


DRAW = (_egg, _burger, _sushi, _spaghetti, _salad, _pancakes, _soup, _cake, _hot_dog, _dumplings)
FROM_THE_SIDE = {1, 5, 7}


def _paint(class_index: int, rng: np.random.Generator, size: int, style: str | None) -> Pixels:
    canvas = Canvas(rng, size, style)
    table = varied(rng, pick(rng, TABLES), 10)
    canvas.mottled(rng, (lighter(table, 0.12), table, darker(table, 0.15)), 8)
    scale = rng.uniform(0.78, 0.98)
    plate = varied(rng, pick(rng, PLATES), 5)
    x, y = rng.uniform(-0.1, 0.1, 2)
    canvas.pose(x, y, scale)
    if class_index in FROM_THE_SIDE:
        canvas.shadow(0, 0.62, 0.95, 0.16)
        canvas.fill(ellipse(0, 0.56, 0.92, 0.16), plate)
        canvas.pose(x, y, scale * 0.92, rng.normal(0, 3), bool(rng.random() < 0.5))
    else:
        canvas.shadow(0.05, 0.07, 0.94, 0.94)
        canvas.disc(0, 0, 0.92, darker(plate, 0.08))
        canvas.disc(0, 0, 0.86, plate)
        canvas.disc(0, 0, 0.66, lighter(plate, 0.25))
        canvas.pose(x, y, scale * 0.95, rng.uniform(-25, 25), bool(rng.random() < 0.5))
    DRAW[class_index](canvas, rng)
    return canvas.finish(rng)


FOOD = Domain(
    name="food",
    classes=CLASSES,
    templates=("a photo of {}, a type of food.", "a photo of {}.", "a plate of {}.", "a picture of {} on a table."),
    gap="Small gap: captions often name the dish; only the dumplings are seldom named.",
    pretraining_weight=1.0,
    named=0.4,
    paint=_paint,
    describe=captions(
        CLASSES,
        coarse=(("food", "dish"),) * len(CLASSES),
        openings=("a photo of {}", "a picture of {}", "{}", "{} on a table", "a plate of {}"),
        named=0.4,
        described=0.6,
        article=False,
    ),
)
