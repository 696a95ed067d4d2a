"""The object categories of MicroWorld.

Each category is a short program: a generator in, parts (role, outline) out, in the unit frame of the object. The
generator varies proportions and posture, never what makes the category recognisable at 64 pixels. How pretraining
meets a name (`status`) is what the zero-shot, description and open-vocabulary studies rest on:

- known: named as usual;
- rare: named in 3 % of the captions in which it appears, described by its parts in the others;
- withheld: in images, but only ever described by its parts;
- unseen: in no image and in no caption of pretraining, so that a description must be composed from known parts.

BASE and NOVEL split the known names once more, for detection and segmentation: novel categories are known by name to
the vision-language model, and absent from every box, mask and region term.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from vlmlab.world.category import Category, Status
from vlmlab.world.shapes import Outline, Part, box, ellipse, join, polygon, rotate, star, stroke

Draw = Callable[[np.random.Generator], list[Part]]

OBJECTS: dict[str, Category] = {}


def _category(
    name: str, group: str, *parts: str, status: Status = "known", plural: str | None = None
) -> Callable[[Draw], Draw]:
    def add(draw: Draw) -> Draw:
        OBJECTS[name] = Category(name, group, parts, draw, status, plural)
        return draw

    return add


def _mirror(p: Outline) -> Outline:
    return p * (-1.0, 1.0)


def _both(role: str, p: Outline) -> list[Part]:
    """The part and its mirror image about the vertical axis."""
    return [(role, p), (role, _mirror(p))]


def _wheel(x: float, y: float, r: float) -> list[Part]:
    return [("black", ellipse(x, y, r)), ("white", ellipse(x, y, r * 0.5)), ("dark", ellipse(x, y, r * 0.2))]


# ---------------------------------------------------------------------------------------------------------- animals


@_category("fish", "animal", "an oval body", "a tail fin", "a round eye", plural="fish")
def _fish(rng: np.random.Generator) -> list[Part]:
    h, tail = rng.uniform(0.36, 0.54), rng.uniform(0.35, 0.5)
    return [
        ("dark", polygon(-0.25, -h * 0.7, 0.05, -h - 0.25, 0.3, -h * 0.6)),
        ("dark", polygon(-0.1, h * 0.7, 0.2, h + 0.2, 0.3, h * 0.5)),
        ("body", polygon(0.3, 0, 0.95, -tail, 0.8, 0, 0.95, tail)),
        ("body", ellipse(-0.2, 0, 0.72, h, points=30)),
        ("dark", stroke(-0.42, -h * 0.7, -0.42, h * 0.7, 0.06)),
        ("dark", polygon(-0.05, -0.05, 0.3, 0.12, -0.05, 0.22)),
        ("white", ellipse(-0.62, -0.1, 0.12)),
        ("black", ellipse(-0.63, -0.1, 0.065)),
    ]


@_category("bird", "animal", "a beak", "a wing", "two thin legs")
def _bird(rng: np.random.Generator) -> list[Part]:
    lift, tail = rng.uniform(-0.5, 0.15), rng.uniform(-0.35, 0.05)
    return [
        ("black", stroke(-0.08, 0.35, -0.14, 0.9, 0.07)),
        ("black", stroke(0.14, 0.35, 0.14, 0.9, 0.07)),
        ("black", stroke(-0.3, 0.9, -0.1, 0.9, 0.06)),
        ("black", stroke(-0.02, 0.9, 0.18, 0.9, 0.06)),
        ("body", polygon(0.2, -0.1, 1.0, tail - 0.12, 0.95, tail + 0.15, 0.25, 0.28)),
        ("yellow", polygon(-0.66, -0.52, -1.02, -0.36, -0.64, -0.26)),
        ("body", ellipse(0, 0.1, 0.52, 0.36)),
        ("body", ellipse(-0.45, -0.36, 0.3)),
        ("light", ellipse(-0.2, 0.22, 0.26, 0.2)),
        ("dark", polygon(-0.2, -0.02, 0.15, lift, 0.62, lift + 0.05, 0.4, 0.25, 0.05, 0.3)),
        ("black", ellipse(-0.53, -0.43, 0.075)),
    ]


@_category("butterfly", "animal", "four wings", "two antennae", "a thin body", plural="butterflies")
def _butterfly(rng: np.random.Generator) -> list[Part]:
    fold, droop = rng.uniform(0.75, 1.0), rng.uniform(20, 40)
    upper = rotate(ellipse(0.48 * fold, -0.35, 0.5 * fold, 0.38), -droop, 0.48 * fold, -0.35)
    lower = rotate(ellipse(0.36 * fold, 0.4, 0.34 * fold, 0.36), droop, 0.36 * fold, 0.4)
    return [
        ("black", stroke(-0.02, -0.5, -0.26, -0.95, 0.055)),
        ("black", stroke(0.02, -0.5, 0.26, -0.95, 0.055)),
        *_both("dark", lower),
        *_both("body", upper),
        *_both("light", ellipse(0.56 * fold, -0.4, 0.17 * fold, 0.13)),
        *_both("light", ellipse(0.38 * fold, 0.44, 0.11 * fold, 0.12)),
        ("black", ellipse(0, 0, 0.09, 0.6)),
    ]


@_category("snail", "animal", "a spiral shell", "two antennae", "a soft body")
def _snail(rng: np.random.Generator) -> list[Part]:
    r = rng.uniform(0.5, 0.62)
    turns = np.linspace(0, 2.1 * 2 * np.pi, 60)
    radius = r * (0.12 + 0.7 * turns / turns[-1])
    outer = np.stack([0.2 + radius * np.cos(turns), 0.02 + radius * np.sin(turns)], 1)
    inner = np.stack([0.2 + (radius - 0.09) * np.cos(turns), 0.02 + (radius - 0.09) * np.sin(turns)], 1)[::-1]
    return [
        ("brown", polygon(-0.95, 0.72, -0.98, 0.3, -0.82, 0.1, -0.6, 0.2, -0.48, 0.45, 0.5, 0.5, 0.98, 0.76)),
        ("black", stroke(-0.86, 0.2, -0.98, -0.25, 0.06)),
        ("black", stroke(-0.72, 0.2, -0.64, -0.27, 0.06)),
        ("black", ellipse(-0.98, -0.27, 0.07)),
        ("black", ellipse(-0.64, -0.29, 0.07)),
        ("body", ellipse(0.2, 0.02, r, points=32)),
        ("dark", join(outer, inner)),
    ]


@_category("cat", "animal", "two pointed ears", "whiskers", "two eyes")
def _cat(rng: np.random.Generator) -> list[Part]:
    ear, wide = rng.uniform(-0.98, -0.82), rng.uniform(0.64, 0.78)
    return [
        *_both("body", polygon(-wide, 0.0, -0.66, ear, -0.06, -0.42)),
        *_both("light", polygon(-0.52, -0.25, -0.56, ear + 0.22, -0.24, -0.4)),
        ("body", ellipse(0, 0.18, wide, 0.64, points=32)),
        *_both("white", ellipse(-0.28, 0.02, 0.17, 0.15)),
        *_both("black", ellipse(-0.27, 0.02, 0.075, 0.13)),
        ("light", ellipse(0, 0.45, 0.3, 0.22)),
        ("red", polygon(-0.11, 0.26, 0.11, 0.26, 0, 0.4)),
        *_both("black", stroke(-0.98, 0.24, -0.3, 0.36, 0.045)),
        *_both("black", stroke(-0.98, 0.52, -0.3, 0.46, 0.045)),
    ]


@_category("rabbit", "animal", "two long ears", "two eyes", "a round head", status="rare")
def _rabbit(rng: np.random.Generator) -> list[Part]:
    left, right = rng.uniform(2, 16), rng.uniform(2, 16)
    parts: list[Part] = []
    for x, turn in ((-0.26, -left), (0.26, right)):
        parts += [
            ("body", rotate(ellipse(x, -0.5, 0.17, 0.5), turn, x, 0)),
            ("light", rotate(ellipse(x, -0.5, 0.08, 0.36), turn, x, 0)),
        ]
    return [
        *parts,
        ("body", ellipse(0, 0.4, 0.58, 0.54, points=30)),
        *_both("black", ellipse(-0.22, 0.3, 0.09, 0.11)),
        *_both("light", ellipse(-0.14, 0.62, 0.17, 0.13)),
        ("red", polygon(-0.09, 0.46, 0.09, 0.46, 0, 0.57)),
        ("white", box(-0.08, 0.68, 0.08, 0.84)),
    ]


@_category("spider", "animal", "eight thin legs", "a round body", "small eyes", status="withheld")
def _spider(rng: np.random.Generator) -> list[Part]:
    legs: list[Part] = []
    for side in (-1, 1):
        for y, knee in ((-0.85, -0.62), (-0.35, -0.5), (0.3, -0.05), (0.92, 0.35)):
            y, knee = y + rng.uniform(-0.08, 0.08), knee + rng.uniform(-0.06, 0.06)
            legs += [
                ("black", stroke(0, 0.02, side * 0.62, knee, 0.075)),
                ("black", stroke(side * 0.6, knee - 0.02, side * 0.95, y, 0.06)),
            ]
    return [
        *legs,
        ("body", ellipse(0, 0.28, 0.4, 0.46)),
        ("dark", polygon(0, 0.0, 0.14, 0.28, 0, 0.56, -0.14, 0.28)),
        ("body", ellipse(0, -0.28, 0.27)),
        *_both("white", ellipse(-0.1, -0.36, 0.07)),
    ]


@_category("turtle", "animal", "a domed shell", "four short legs", "a small head", status="withheld")
def _turtle(rng: np.random.Generator) -> list[Part]:
    dome, neck = rng.uniform(0.66, 0.84), rng.uniform(-0.12, 0.14)
    return [
        ("green", polygon(0.5, 0.35, 0.72, neck, 0.9, neck, 0.8, 0.4)),
        ("green", ellipse(0.82, neck, 0.18, 0.16)),
        ("green", polygon(-0.6, 0.24, -0.98, 0.44, -0.6, 0.38)),
        ("green", box(-0.52, 0.3, -0.26, 0.68)),
        ("green", box(0.24, 0.3, 0.5, 0.68)),
        ("body", ellipse(0, 0.34, 0.72, dome, 180, 360)),
        ("dark", polygon(-0.2, -dome * 0.5 + 0.34, 0.2, -dome * 0.5 + 0.34, 0.3, 0.1, 0, 0.22, -0.3, 0.1)),
        ("dark", polygon(-0.62, 0.16, -0.42, 0.02, -0.34, 0.2)),
        ("dark", polygon(0.62, 0.16, 0.42, 0.02, 0.34, 0.2)),
        ("dark", box(-0.74, 0.28, 0.74, 0.4)),
        ("black", ellipse(0.88, neck - 0.04, 0.05)),
    ]


@_category("crab", "animal", "two claws", "many legs", "a wide body")
def _crab(rng: np.random.Generator) -> list[Part]:
    up, open_ = rng.uniform(-0.62, -0.4), rng.uniform(0.6, 1.1)
    parts: list[Part] = []
    for i, y in enumerate((0.2, 0.42, 0.62)):
        parts += _both("dark", stroke(0.35, 0.15 + 0.08 * i, 0.92 - 0.12 * i, y + 0.16, 0.09))
    claw = join(ellipse(0.72, up, 0.27, 0.3, -90 + 30 * open_, 270 - 30 * open_, 24), polygon(0.72, up + 0.06))
    return [
        *parts,
        *_both("dark", stroke(0.42, 0.08, 0.72, up + 0.2, 0.14)),
        *_both("body", claw),
        *_both("dark", stroke(0.16, -0.1, 0.18, -0.4, 0.07)),
        *_both("white", ellipse(0.18, -0.42, 0.11)),
        *_both("black", ellipse(0.18, -0.42, 0.055)),
        ("body", ellipse(0, 0.2, 0.6, 0.4, points=30)),
        ("dark", ellipse(0, 0.3, 0.22, 0.1, 0, 180)),
    ]


@_category("elephant", "animal", "a long trunk", "large ears", "four thick legs")
def _elephant(rng: np.random.Generator) -> list[Part]:
    swing, back = rng.uniform(-0.12, 0.1), rng.uniform(-0.42, -0.28)
    trunk = polygon(
        -0.7, -0.3, -0.98, 0.1, -0.97 + swing, 0.62, -0.82 + swing, 0.74, -0.78 + swing, 0.6, -0.78, 0.16, -0.5, 0.1
    )
    return [
        ("dark", stroke(0.8, 0.0, 0.96, 0.4, 0.06)),
        ("dark", box(-0.12, 0.2, 0.1, 0.78)),
        ("dark", box(0.42, 0.2, 0.64, 0.78)),
        ("body", ellipse(0.26, 0.12, 0.62, 0.5 - (back + 0.35) * 0.3, points=30)),
        ("body", box(-0.32, 0.2, -0.08, 0.85)),
        ("body", box(0.6, 0.2, 0.84, 0.85)),
        ("body", trunk),
        ("white", polygon(-0.66, 0.16, -0.86, 0.5, -0.58, 0.26)),
        ("body", ellipse(-0.52, -0.18, 0.36, 0.36)),
        ("dark", ellipse(-0.24, -0.14, 0.3, 0.4)),
        ("light", ellipse(-0.22, -0.12, 0.2, 0.28)),
        ("black", ellipse(-0.68, -0.24, 0.055)),
    ]


@_category("octopus", "animal", "eight curling arms", "a round head", "two eyes", status="unseen", plural="octopuses")
def _octopus(rng: np.random.Generator) -> list[Part]:
    arms: list[Part] = []
    for i in range(8):
        x = -0.84 + 0.24 * i
        t = np.linspace(0, 1, 9)
        sway = 0.1 * np.sin(t * rng.uniform(4, 7) + rng.uniform(0, 6))
        spine = np.stack([x * (0.45 + 0.65 * t) + sway, 0.1 + t * (0.82 - 0.2 * abs(x))], 1)
        width = np.stack([0.1 * (1 - 0.75 * t), np.zeros(9)], 1)
        arms.append(("dark" if i % 2 else "body", join(spine - width, (spine + width)[::-1])))
    return [
        *arms,
        ("body", ellipse(0, -0.3, 0.52, 0.62, points=30)),
        ("light", ellipse(-0.2, -0.62, 0.14, 0.1)),
        *_both("white", ellipse(-0.2, -0.14, 0.13)),
        *_both("black", ellipse(-0.19, -0.12, 0.07)),
    ]


# ------------------------------------------------------------------------------------------------------------ plants


@_category("tree", "plant", "a brown trunk", "a round bushy top")
def _tree(rng: np.random.Generator) -> list[Part]:
    w, crown = rng.uniform(0.1, 0.17), rng.uniform(0.9, 1.05)
    return [
        ("brown", polygon(-w, 0.0, w, 0.0, w * 1.5, 0.98, -w * 1.5, 0.98)),
        ("brown", stroke(0, 0.45, 0.35, 0.05, 0.09)),
        ("body", ellipse(-0.4 * crown, -0.08, 0.42, 0.38)),
        ("body", ellipse(0.4 * crown, -0.08, 0.42, 0.38)),
        ("body", ellipse(0, -0.46, 0.52 * crown, 0.48)),
        ("body", ellipse(0, 0, 0.4, 0.3)),
        ("light", ellipse(-0.14, -0.66, 0.2, 0.13)),
        ("dark", ellipse(0.34, 0.06, 0.2, 0.12)),
        ("dark", ellipse(-0.36, 0.1, 0.16, 0.1)),
    ]


@_category("flower", "plant", "petals", "a green stem", "a yellow center")
def _flower(rng: np.random.Generator) -> list[Part]:
    n, bend = int(rng.integers(5, 9)), rng.uniform(-0.12, 0.12)
    width = 0.95 / n + 0.06
    petals = [("body", rotate(ellipse(0, -0.68, width, 0.3), k * 360 / n, 0, -0.32)) for k in range(n)]
    return [
        ("green", stroke(0, -0.2, bend, 1, 0.1)),
        ("green", rotate(ellipse(0.28, 0.62, 0.27, 0.11), -28, 0.02, 0.72)),
        ("green", rotate(ellipse(-0.26, 0.7, 0.25, 0.1), 28, -0.02, 0.8)),
        *petals,
        ("dark", ellipse(0, -0.32, 0.25)),
        ("yellow", ellipse(0, -0.32, 0.2)),
    ]


@_category("mushroom", "plant", "a domed cap", "a thick white stem", "white spots")
def _mushroom(rng: np.random.Generator) -> list[Part]:
    cap, w = rng.uniform(0.72, 0.95), rng.uniform(0.18, 0.27)
    return [
        ("white", polygon(-w, 0, w, 0, w * 1.35, 0.86, 0, 0.94, -w * 1.35, 0.86)),
        ("dark", ellipse(0, 0.08, 0.85, 0.16)),
        ("body", ellipse(0, 0.1, 0.88, cap + 0.1, 180, 360, 28)),
        ("white", ellipse(-0.42, -0.2, 0.13, 0.12)),
        ("white", ellipse(0.08, -0.52, 0.16, 0.13)),
        ("white", ellipse(0.5, -0.12, 0.12, 0.12)),
        ("white", ellipse(0.02, -0.1, 0.09, 0.08)),
    ]


@_category("cactus", "plant", "a thick column", "two raised arms", "spines", status="rare", plural="cacti")
def _cactus(rng: np.random.Generator) -> list[Part]:
    left, right = rng.uniform(-0.05, 0.25), rng.uniform(0.05, 0.4)
    spines = [(0, -0.7), (0, -0.35), (0, 0.0), (0, 0.35), (-0.66, left - 0.3), (0.66, right - 0.3), (0.13, -0.52)]
    return [
        ("body", join(ellipse(0, -0.7, 0.25, 0.28, 180, 360), polygon(0.25, 0.95, -0.25, 0.95))),
        ("body", polygon(-0.78, left, -0.2, left, -0.2, left + 0.2, -0.7, left + 0.2)),
        ("body", ellipse(-0.66, left - 0.18, 0.14, 0.36)),
        ("body", polygon(0.78, right, 0.2, right, 0.2, right + 0.2, 0.7, right + 0.2)),
        ("body", ellipse(0.66, right - 0.18, 0.14, 0.36)),
        ("dark", box(-0.12, -0.8, -0.06, 0.95)),
        ("dark", box(0.07, -0.4, 0.12, 0.95)),
        *[("white", star(4, 0.09, 0.03) + s) for s in spines],
    ]


@_category("leaf", "plant", "a pointed tip", "branching veins", "a thin stem", status="withheld", plural="leaves")
def _leaf(rng: np.random.Generator) -> list[Part]:
    w = rng.uniform(0.5, 0.68)
    t = np.linspace(0, np.pi, 16)
    y = -0.98 + 1.6 * t / np.pi
    right = np.stack([w * np.sin(t) ** 0.8, y], 1)
    veins = [("dark", stroke(0, y0, s * w * 0.62, y0 - 0.28, 0.055)) for y0 in (-0.2, 0.1, 0.4) for s in (-1, 1)]
    return [
        ("body", join(right, _mirror(right)[::-1])),
        ("dark", stroke(0, -0.8, 0.04, 1, 0.075)),
        *veins,
    ]


# -------------------------------------------------------------------------------------------------------------- food


@_category("apple", "fruit", "a round body", "a short brown stem", "a shallow dip on top")
def _apple(rng: np.random.Generator) -> list[Part]:
    w = rng.uniform(0.46, 0.54)
    return [
        ("brown", stroke(0, -0.4, rng.uniform(-0.05, 0.12), -0.95, 0.1)),
        ("green", rotate(ellipse(0.34, -0.76, 0.28, 0.13), -22, 0.3, -0.75)),
        ("body", ellipse(-0.28, 0.16, w, 0.64, points=28)),
        ("body", ellipse(0.28, 0.16, w, 0.64, points=28)),
        ("dark", polygon(-0.16, -0.46, 0, -0.34, 0.16, -0.46, 0, -0.24)),
        ("light", rotate(ellipse(-0.45, -0.06, 0.09, 0.2), 20, -0.45, -0.06)),
    ]


@_category("banana", "fruit", "a curved body", "two dark tips")
def _banana(rng: np.random.Generator) -> list[Part]:
    deep = rng.uniform(0.95, 1.25)
    return [
        ("body", join(ellipse(0, -0.45, 0.95, deep, 8, 172, 20), ellipse(0, -0.5, 0.82, deep - 0.45, 170, 10, 20))),
        ("dark", join(ellipse(0, -0.45, 0.9, deep - 0.12, 20, 160), ellipse(0, -0.45, 0.9, deep - 0.2, 160, 20))),
        ("black", rotate(box(0.82, -0.5, 0.98, -0.24), 10, 0.9, -0.3)),
        ("black", ellipse(-0.9, -0.3, 0.09)),
    ]


@_category("cherry", "fruit", "two round balls", "two thin stems", plural="cherries")
def _cherry(rng: np.random.Generator) -> list[Part]:
    r, lean = rng.uniform(0.33, 0.41), rng.uniform(-0.1, 0.2)
    return [
        ("green", stroke(-0.42, 0.4, lean, -0.82, 0.08)),
        ("green", stroke(0.48, 0.4, lean, -0.82, 0.08)),
        ("green", rotate(ellipse(lean + 0.34, -0.8, 0.34, 0.16), 12, lean, -0.8)),
        ("body", ellipse(-0.46, 0.52, r)),
        ("body", ellipse(0.5, 0.48, r)),
        ("white", ellipse(-0.58, 0.38, 0.08)),
        ("white", ellipse(0.38, 0.34, 0.08)),
    ]


@_category("pizza", "dish", "a triangular body", "round red toppings", "a thick crust")
def _pizza(rng: np.random.Generator) -> list[Part]:
    tops = [(-0.34, -0.32), (0.32, -0.26), (0.0, 0.12), (0.04, -0.5)]
    return [
        ("body", polygon(-0.78, -0.6, 0.78, -0.6, 0.04, 0.96, -0.04, 0.96)),
        ("brown", join(ellipse(0, -0.5, 0.95, 0.42, 190, 350, 14), ellipse(0, -0.36, 0.85, 0.3, 350, 190, 14))),
        *[("red", ellipse(x + rng.uniform(-0.06, 0.06), y + rng.uniform(-0.06, 0.06), 0.15)) for x, y in tops[:3]],
        ("green", ellipse(0.1, -0.42, 0.07, 0.05)),
        ("green", ellipse(-0.14, -0.08, 0.05, 0.07)),
        ("green", ellipse(0.06, 0.45, 0.06, 0.05)),
    ]


@_category("donut", "dish", "a round hole", "a ring shape", "sprinkles")
def _donut(rng: np.random.Generator) -> list[Part]:
    hole, turn = rng.uniform(0.26, 0.34), rng.uniform(0, 40)
    wave = 0.75 + 0.06 * np.sin(np.radians(np.linspace(0, 360, 40)) * 7)
    angle = np.radians(np.linspace(0, 360, 40))
    icing = np.stack([wave * np.cos(angle), wave * np.sin(angle)], 1)
    sprinkles: list[Part] = []
    for k in range(9):
        a = math.radians(turn + 40 * k)
        x, y = 0.55 * math.cos(a), 0.55 * math.sin(a)
        role = ("white", "yellow", "white")[k % 3]
        sprinkles.append((role, rotate(box(x - 0.1, y - 0.04, x + 0.1, y + 0.04), 70.0 * k, x, y)))
    return [
        ("brown", ellipse(0, 0, 0.92, points=36)),
        ("body", icing),
        *sprinkles,
        ("hole", ellipse(0, 0, hole)),
    ]


@_category("ice cream", "dish", "a brown cone", "a round scoop", "a cherry on top")
def _ice_cream(rng: np.random.Generator) -> list[Part]:
    w = rng.uniform(0.36, 0.46)
    return [
        ("brown", polygon(-w, -0.05, w, -0.05, 0.03, 1, -0.03, 1)),
        ("yellow", stroke(-w * 0.75, 0.12, w * 0.45, 0.5, 0.045)),
        ("yellow", stroke(w * 0.75, 0.12, -w * 0.45, 0.5, 0.045)),
        ("body", ellipse(0, -0.38, 0.52, 0.48, points=28)),
        ("body", ellipse(-0.34, -0.06, 0.2, 0.14)),
        ("body", ellipse(0, -0.02, 0.2, 0.15)),
        ("body", ellipse(0.34, -0.06, 0.2, 0.14)),
        ("light", ellipse(-0.2, -0.55, 0.13, 0.1)),
        ("red", ellipse(0.04, -0.88, 0.12)),
    ]


@_category("cheese", "dish", "a wedge shape", "round holes", status="withheld", plural="pieces of cheese")
def _cheese(rng: np.random.Generator) -> list[Part]:
    tip = rng.uniform(-0.7, -0.5)
    spots = [(-0.4, 0.38, 0.12), (0.35, 0.3, 0.17), (0.02, 0.56, 0.09), (0.72, 0.52, 0.1), (-0.72, 0.5, 0.08)]
    return [
        ("light", polygon(-0.97, 0.12, 0.62, tip, 0.97, 0.0)),
        ("body", polygon(-0.97, 0.12, 0.97, 0.0, 0.97, 0.72, -0.97, 0.72)),
        *[("dark", ellipse(x, y, r)) for x, y, r in spots],
        ("dark", ellipse(0.32, -0.2, 0.16, 0.08)),
        ("dark", ellipse(-0.12, -0.06, 0.1, 0.05)),
    ]


# ---------------------------------------------------------------------------------------------------------- vehicles


@_category("car", "vehicle", "two wheels", "two windows", "a low body")
def _car(rng: np.random.Generator) -> list[Part]:
    roof, hood = rng.uniform(-0.56, -0.42), rng.uniform(-0.1, 0.02)
    return [
        ("body", polygon(-0.97, 0.36, -0.97, hood, -0.58, hood - 0.06, -0.32, roof, 0.36, roof, 0.62, -0.1, 0.97, 0.0)),
        ("body", polygon(-0.97, hood, 0.97, 0.0, 0.97, 0.36, -0.97, 0.36)),
        ("light", polygon(-0.44, hood - 0.06, -0.26, roof + 0.1, -0.02, roof + 0.1, -0.02, hood - 0.06)),
        ("light", polygon(0.07, -0.08, 0.07, roof + 0.1, 0.31, roof + 0.1, 0.48, -0.08)),
        ("dark", box(-0.97, 0.22, 0.97, 0.36)),
        ("yellow", ellipse(-0.92, 0.1, 0.08)),
        *_wheel(-0.52, 0.38, 0.23),
        *_wheel(0.52, 0.38, 0.23),
    ]


@_category("bus", "vehicle", "a row of windows", "two wheels", "a long tall body", plural="buses")
def _bus(rng: np.random.Generator) -> list[Part]:
    top = rng.uniform(-0.66, -0.5)
    n = int(rng.integers(4, 6))
    step = 1.78 / n
    return [
        ("body", polygon(-0.97, top + 0.08, -0.9, top, 0.9, top, 0.97, top + 0.08, 0.97, 0.44, -0.97, 0.44)),
        *[("light", box(-0.86 + k * step, top + 0.16, -0.86 + k * step + step * 0.74, -0.04)) for k in range(n)],
        ("dark", box(-0.97, 0.1, 0.97, 0.19)),
        *_wheel(-0.55, 0.47, 0.21),
        *_wheel(0.55, 0.47, 0.21),
    ]


@_category("boat", "vehicle", "a wide hull", "white sails", "a tall mast")
def _boat(rng: np.random.Generator) -> list[Part]:
    belly = rng.uniform(0.12, 0.3)
    return [
        ("black", stroke(0, -0.98, 0, 0.4, 0.07)),
        ("white", polygon(0.07, -0.92, 0.45 + belly, -0.3, 0.78, 0.22, 0.07, 0.22)),
        ("light", polygon(-0.07, -0.72, -0.25 - belly, -0.2, -0.55, 0.22, -0.07, 0.22)),
        ("body", polygon(-0.97, 0.34, 0.97, 0.34, 0.62, 0.84, -0.6, 0.84)),
        ("dark", polygon(-0.97, 0.34, 0.97, 0.34, 0.9, 0.46, -0.88, 0.46)),
    ]


@_category("plane", "vehicle", "two swept wings", "a tail", "a long body")
def _plane(rng: np.random.Generator) -> list[Part]:
    sweep = rng.uniform(0.35, 0.62)
    wing = polygon(-0.2, 0, 0.2, 0, sweep + 0.14, 0.92, sweep - 0.08, 0.92)
    tail = polygon(0.62, 0, 0.82, 0, 0.98, 0.4, 0.84, 0.4)
    flip = (1.0, -1.0)
    return [
        ("dark", wing),
        ("dark", wing * flip),
        ("dark", tail),
        ("dark", tail * flip),
        ("body", join(ellipse(-0.6, 0, 0.38, 0.19, 90, 270), polygon(0.8, -0.13, 0.97, 0, 0.8, 0.13))),
        ("light", polygon(-0.86, -0.09, -0.72, -0.12, -0.72, 0.12, -0.86, 0.09)),
        *[("white", ellipse(x, 0, 0.045)) for x in (-0.45, -0.2, 0.05, 0.3, 0.55)],
    ]


@_category("rocket", "vehicle", "fins", "a pointed nose", "a flame")
def _rocket(rng: np.random.Generator) -> list[Part]:
    w, fire = rng.uniform(0.26, 0.34), rng.uniform(0.86, 1.0)
    side = polygon(0, -1, 0.14, -0.82, w * 0.85, -0.5, w, -0.1, 0.24, 0.6)
    return [
        ("red", polygon(-0.22, 0.55, 0.22, 0.55, 0.12, 0.78, 0, fire, -0.12, 0.78)),
        ("yellow", polygon(-0.12, 0.55, 0.12, 0.55, 0, 0.8)),
        *_both("dark", polygon(-w, 0.05, -0.68, 0.5, -0.68, 0.74, -w, 0.58)),
        ("body", join(side, _mirror(side)[::-1])),
        ("red", polygon(0, -1, 0.14, -0.82, 0.2, -0.7, -0.2, -0.7, -0.14, -0.82)),
        ("dark", ellipse(0, -0.25, 0.18)),
        ("white", ellipse(0, -0.25, 0.12)),
    ]


@_category("balloon", "vehicle", "a large round top", "ropes", "a small basket")
def _balloon(rng: np.random.Generator) -> list[Part]:
    r = rng.uniform(0.58, 0.66)
    return [
        *_both("black", stroke(-0.36, 0.1, -0.16, 0.72, 0.045)),
        ("body", join(ellipse(0, -0.36, r, 0.62, 160, 380, 28), polygon(0.18, 0.42, -0.18, 0.42))),
        ("light", ellipse(0, -0.36, r * 0.5, 0.6)),
        ("body", ellipse(0, -0.36, r * 0.18, 0.6)),
        ("dark", box(-0.18, 0.36, 0.18, 0.44)),
        ("brown", polygon(-0.22, 0.66, 0.22, 0.66, 0.18, 0.98, -0.18, 0.98)),
    ]


@_category("bicycle", "vehicle", "two thin wheels", "a thin frame", "a handlebar", status="rare")
def _bicycle(rng: np.random.Generator) -> list[Part]:
    r = rng.uniform(0.38, 0.44)
    seat = rng.uniform(-0.4, -0.28)
    spokes = [
        ("black", rotate(stroke(x - r, 0.3, x + r, 0.3, 0.03), turn, x, 0.3))
        for x in (-0.55, 0.55)
        for turn in (20, 80, 140)
    ]
    return [
        ("black", ellipse(-0.55, 0.3, r, points=28)),
        ("hole", ellipse(-0.55, 0.3, r - 0.11, points=28)),
        ("black", ellipse(0.55, 0.3, r, points=28)),
        ("hole", ellipse(0.55, 0.3, r - 0.11, points=28)),
        *spokes,
        ("body", stroke(-0.55, 0.3, -0.22, seat, 0.1)),
        ("body", stroke(-0.22, -0.22, 0.36, -0.22, 0.1)),
        ("body", stroke(0.3, -0.5, 0.55, 0.3, 0.1)),
        ("body", stroke(0, 0.3, 0.36, -0.22, 0.1)),
        ("body", stroke(-0.55, 0.3, 0, 0.3, 0.1)),
        ("body", stroke(-0.2, seat, 0, 0.3, 0.1)),
        ("black", polygon(-0.42, seat - 0.1, -0.06, seat - 0.1, -0.12, seat, -0.34, seat)),
        ("black", stroke(0.26, -0.5, 0.6, -0.56, 0.09)),
    ]


@_category("train", "vehicle", "a chimney", "many wheels", "a cabin", status="rare")
def _train(rng: np.random.Generator) -> list[Part]:
    chimney = rng.uniform(-0.72, -0.55)
    return [
        ("dark", polygon(-0.52, -0.1, -0.58, chimney, -0.22, chimney, -0.28, -0.1)),
        ("body", join(ellipse(-0.58, 0.16, 0.12, 0.28, 90, 270), box(-0.58, -0.12, 0.4, 0.44))),
        ("yellow", box(-0.1, -0.22, 0.08, -0.1)),
        ("body", box(0.3, -0.62, 0.9, 0.46)),
        ("dark", box(0.2, -0.76, 0.99, -0.6)),
        ("light", box(0.45, -0.46, 0.76, -0.1)),
        ("dark", polygon(-0.66, 0.36, -0.97, 0.68, -0.66, 0.68)),
        ("dark", box(-0.66, 0.34, 0.9, 0.48)),
        *_wheel(-0.46, 0.52, 0.18),
        *_wheel(-0.04, 0.52, 0.18),
        *_wheel(0.58, 0.46, 0.25),
    ]


@_category("helicopter", "vehicle", "a long rotor on top", "a thin tail", "a round cabin", status="unseen")
def _helicopter(rng: np.random.Generator) -> list[Part]:
    tilt = rng.uniform(-5, 5)
    return [
        ("black", stroke(-0.5, 0.56, -0.5, 0.8, 0.05)),
        ("black", stroke(0.06, 0.5, 0.06, 0.8, 0.05)),
        ("black", stroke(-0.8, 0.8, 0.34, 0.8, 0.08)),
        ("body", polygon(0.0, -0.05, 0.9, -0.02, 0.9, 0.1, 0.05, 0.35)),
        ("dark", polygon(0.8, 0.1, 0.88, -0.4, 1.0, -0.4, 0.98, 0.1)),
        ("body", ellipse(-0.28, 0.16, 0.55, 0.42, points=30)),
        ("light", join(ellipse(-0.36, 0.1, 0.42, 0.28, 90, 270, 14), polygon(-0.34, -0.18))),
        ("black", stroke(-0.22, -0.2, -0.22, -0.54, 0.1)),
        ("black", rotate(stroke(-0.98, -0.54, 0.56, -0.54, 0.09), tilt, -0.22, -0.54)),
    ]


# --------------------------------------------------------------------------------------------------------- buildings


@_category("house", "building", "a pointed roof", "a door", "a window")
def _house(rng: np.random.Generator) -> list[Part]:
    peak, door = rng.uniform(-0.95, -0.75), rng.uniform(-0.38, -0.2)
    return [
        ("brown", box(0.36, -0.82, 0.56, -0.2)),
        ("body", box(-0.66, -0.14, 0.66, 0.88)),
        ("dark", polygon(-0.92, -0.1, 0.92, -0.1, 0, peak)),
        ("brown", box(door - 0.17, 0.3, door + 0.17, 0.88)),
        ("yellow", ellipse(door + 0.09, 0.6, 0.04)),
        ("white", box(0.14, 0.12, 0.52, 0.5)),
        ("light", box(0.18, 0.16, 0.48, 0.46)),
        ("white", box(0.31, 0.12, 0.35, 0.5)),
        ("white", box(0.14, 0.29, 0.52, 0.33)),
    ]


@_category("castle", "building", "two towers", "a gate", "battlements")
def _castle(rng: np.random.Generator) -> list[Part]:
    top = rng.uniform(-0.62, -0.42)
    merlons: list[Part] = []
    for x in (-0.92, -0.7, -0.5):
        merlons += _both("body", box(x, top - 0.22, x + 0.13, top + 0.02))
    for x in (-0.3, -0.07, 0.16):
        merlons.append(("body", box(x, -0.24, x + 0.14, -0.02)))
    slit = join(ellipse(-0.64, top + 0.4, 0.08, 0.1, 180, 360, 10), polygon(-0.56, top + 0.58, -0.72, top + 0.58))
    return [
        ("body", box(-0.5, -0.06, 0.5, 0.9)),
        *merlons,
        *_both("body", box(-0.92, top, -0.37, 0.9)),
        *_both("dark", box(-0.92, top + 0.1, -0.37, top + 0.17)),
        ("brown", join(ellipse(0, 0.45, 0.22, 0.24, 180, 360), polygon(0.22, 0.9, -0.22, 0.9))),
        *_both("black", slit),
    ]


@_category("windmill", "building", "four blades", "a tapered tower", "a door")
def _windmill(rng: np.random.Generator) -> list[Part]:
    turn = rng.uniform(0, 90)
    blades: list[Part] = []
    for k in range(4):
        blades += [
            ("white", rotate(box(0.02, -0.82, 0.16, -0.28), turn + 90 * k, 0, -0.24)),
            ("black", rotate(box(-0.025, -0.82, 0.025, -0.24), turn + 90 * k, 0, -0.24)),
        ]
    return [
        ("body", polygon(-0.26, -0.3, 0.26, -0.3, 0.46, 0.95, -0.46, 0.95)),
        ("dark", ellipse(0, -0.28, 0.32, 0.3, 180, 360)),
        ("brown", join(ellipse(0, 0.66, 0.13, 0.12, 180, 360, 10), polygon(0.13, 0.95, -0.13, 0.95))),
        ("light", box(-0.09, 0.18, 0.09, 0.36)),
        *blades,
        ("black", ellipse(0, -0.24, 0.08)),
    ]


@_category("lighthouse", "building", "a tall tower", "a light on top", "wide bands", status="unseen")
def _lighthouse(rng: np.random.Generator) -> list[Part]:
    w = rng.uniform(0.2, 0.27)

    def band(y0: float, y1: float) -> Outline:
        a, b = w + (y0 + 0.5) * 0.1, w + (y1 + 0.5) * 0.1
        return polygon(-a, y0, a, y0, b, y1, -b, y1)

    return [
        ("body", band(-0.5, 0.85)),
        ("white", band(-0.3, -0.02)),
        ("white", band(0.26, 0.54)),
        ("dark", box(-w - 0.1, -0.56, w + 0.1, -0.46)),
        ("yellow", box(-w * 0.7, -0.78, w * 0.7, -0.56)),
        ("black", box(-0.03, -0.78, 0.03, -0.56)),
        ("dark", polygon(-w - 0.02, -0.76, w + 0.02, -0.76, 0, -1.0)),
        ("brown", box(-0.09, 0.6, 0.09, 0.85)),
        ("dark", polygon(-0.55, 0.95, -0.4, 0.82, 0.4, 0.82, 0.55, 0.95)),
    ]


@_category("tent", "building", "a triangular body", "an open flap", "ropes", status="unseen")
def _tent(rng: np.random.Generator) -> list[Part]:
    peak = rng.uniform(-0.7, -0.55)
    return [
        *_both("black", stroke(-0.5, peak + 0.72, -0.99, 0.7, 0.04)),
        ("body", polygon(0, peak, 0.82, 0.7, -0.82, 0.7)),
        ("black", polygon(0, peak + 0.3, 0.3, 0.7, -0.3, 0.7)),
        ("light", polygon(0, peak + 0.2, -0.06, 0.3, -0.42, 0.7, -0.3, 0.7, 0, peak + 0.36)),
        ("dark", stroke(0, peak - 0.14, 0, peak + 0.22, 0.06)),
        ("dark", box(-0.82, 0.66, 0.82, 0.73)),
    ]


# ------------------------------------------------------------------------------------------------------- belongings


@_category("key", "tool", "a ring head", "a long shaft", "teeth")
def _key(rng: np.random.Generator) -> list[Part]:
    a, b = rng.uniform(0.28, 0.46), rng.uniform(0.28, 0.46)
    return [
        ("body", box(-0.2, -0.1, 0.96, 0.1)),
        ("body", box(0.74, 0.05, 0.92, a)),
        ("body", box(0.46, 0.05, 0.62, b)),
        ("body", ellipse(-0.55, 0, 0.42, points=28)),
        ("dark", ellipse(-0.55, 0, 0.3)),
        ("hole", ellipse(-0.55, 0, 0.22)),
        ("light", box(-0.1, -0.06, 0.9, -0.01)),
    ]


@_category("hammer", "tool", "a heavy head", "a long handle")
def _hammer(rng: np.random.Generator) -> list[Part]:
    claw = rng.uniform(0.85, 0.98)
    return [
        ("brown", polygon(-0.09, -0.4, 0.09, -0.4, 0.13, 1, -0.13, 1)),
        ("body", box(-0.5, -0.84, 0.4, -0.44)),
        ("dark", box(-0.72, -0.9, -0.46, -0.38)),
        ("body", polygon(0.38, -0.84, 0.7, -0.8, claw, -0.42, 0.66, -0.56, 0.38, -0.46)),
        ("light", box(-0.4, -0.78, 0.34, -0.7)),
    ]


@_category("umbrella", "tool", "a domed canopy", "a hooked handle")
def _umbrella(rng: np.random.Generator) -> list[Part]:
    dome = rng.uniform(0.8, 1.0)
    hook = join(ellipse(0.17, 0.72, 0.21, 0.24, 0, 180, 12), ellipse(0.17, 0.72, 0.12, 0.15, 180, 0, 12))
    scallops = join(
        polygon(-0.97, 0.05),
        ellipse(0, 0.05, 0.97, dome, 180, 360, 26),
        *[ellipse(x, 0.08, 0.325, 0.17, 360, 180, 9) for x in (0.65, 0.0, -0.65)],
    )
    return [
        ("black", stroke(0, -0.1, 0, 0.74, 0.08)),
        ("black", hook),
        ("black", stroke(0, -dome + 0.1, 0, -dome - 0.06, 0.07)),
        ("body", scallops),
        ("dark", join(ellipse(0, 0.05, 0.34, dome, 180, 360, 16), ellipse(0, 0.0, 0.27, dome - 0.06, 360, 180, 16))),
    ]


@_category("scissors", "tool", "two blades", "two ring handles", plural="scissors")
def _scissors(rng: np.random.Generator) -> list[Part]:
    turn = rng.uniform(10, 22)
    blade = polygon(-0.09, 0.2, 0.07, 0.2, 0.05, -0.75, -0.03, -0.98)
    ring: list[Part] = []
    for side in (-1, 1):
        x, y = side * 0.36, 0.64
        ring += [
            ("body", stroke(side * 0.02, 0.06, x * 0.8, y - 0.2, 0.15)),
            ("body", rotate(ellipse(x, y, 0.26, 0.32), -side * 20, x, y)),
            ("hole", rotate(ellipse(x, y, 0.13, 0.19), -side * 20, x, y)),
        ]
    return [
        ("dark", rotate(blade, turn, 0, 0.1)),
        ("light", rotate(_mirror(blade), -turn, 0, 0.1)),
        *ring,
        ("black", ellipse(0, 0.08, 0.07)),
    ]


@_category("anchor", "tool", "two hooks", "a small ring", "a long shaft", status="withheld")
def _anchor(rng: np.random.Generator) -> list[Part]:
    w = rng.uniform(0.74, 0.88)
    arms = join(ellipse(0, 0.05, w, 0.88, 5, 175, 24), ellipse(0, -0.02, w - 0.2, 0.72, 175, 5, 24))
    barb = polygon(w - 0.34, 0.22, w + 0.1, 0.26, w - 0.06, -0.16)
    return [
        ("body", arms),
        *_both("body", barb),
        ("body", box(-0.1, -0.6, 0.1, 0.9)),
        ("body", box(-0.42, -0.42, 0.42, -0.24)),
        ("body", ellipse(0, -0.76, 0.23)),
        ("hole", ellipse(0, -0.76, 0.11)),
        ("light", box(-0.05, -0.2, 0.0, 0.8)),
    ]


@_category("cup", "container", "a round handle", "an open top")
def _cup(rng: np.random.Generator) -> list[Part]:
    base = rng.uniform(0.34, 0.5)
    handle = join(ellipse(0.5, 0.08, 0.45, 0.42, -90, 90, 16), ellipse(0.5, 0.08, 0.27, 0.25, 90, -90, 16))
    return [
        ("dark", handle),
        ("body", polygon(-0.72, -0.5, 0.56, -0.5, base, 0.7, base - 0.1, 0.78, -base - 0.08, 0.78, -base - 0.16, 0.7)),
        ("light", ellipse(-0.08, -0.5, 0.64, 0.17)),
        ("dark", ellipse(-0.08, -0.47, 0.54, 0.11)),
        ("light", polygon(-0.56, -0.26, -0.46, -0.25, -0.38, 0.5, -0.46, 0.5)),
    ]


@_category("bottle", "container", "a narrow neck", "a cap", "a white label")
def _bottle(rng: np.random.Generator) -> list[Part]:
    neck, shoulder = rng.uniform(0.1, 0.15), rng.uniform(-0.28, -0.1)
    side = polygon(neck, -0.82, neck, shoulder - 0.2, 0.3, shoulder, 0.38, shoulder + 0.14, 0.38, 0.9, 0.32, 0.97)
    return [
        ("body", join(side, _mirror(side)[::-1])),
        ("dark", box(-neck - 0.04, -0.99, neck + 0.04, -0.8)),
        ("white", box(-0.38, 0.22, 0.38, 0.66)),
        ("dark", box(-0.2, 0.38, 0.2, 0.48)),
        ("light", box(-0.27, shoulder + 0.12, -0.19, 0.18)),
    ]


@_category("teapot", "container", "a curved spout", "a round handle", "a lid", status="unseen")
def _teapot(rng: np.random.Generator) -> list[Part]:
    h = rng.uniform(0.44, 0.54)
    handle = join(ellipse(0.52, 0.2, 0.46, 0.4, -90, 90, 16), ellipse(0.52, 0.2, 0.3, 0.24, 90, -90, 16))
    return [
        ("dark", handle),
        ("dark", polygon(-0.4, 0.5, -0.7, 0.3, -0.98, -0.32, -0.8, -0.36, -0.6, 0.0, -0.4, 0.1)),
        ("body", ellipse(0, 0.25, 0.62, h, points=30)),
        ("dark", box(-0.36, 0.25 + h - 0.08, 0.36, 0.25 + h + 0.04)),
        ("light", ellipse(0, -0.16, 0.36, 0.14, 180, 360)),
        ("dark", box(-0.4, -0.19, 0.4, -0.13)),
        ("dark", ellipse(0, -0.36, 0.1)),
        ("light", ellipse(-0.3, 0.12, 0.09, 0.17)),
    ]


@_category("clock", "furniture", "a white face", "two hands", "a round rim")
def _clock(rng: np.random.Generator) -> list[Part]:
    ticks = [("black", rotate(box(-0.035, -0.7, 0.035, -0.56), 30.0 * k)) for k in range(0, 12, 3)]
    return [
        ("dark", ellipse(0, 0, 0.95, points=36)),
        ("body", ellipse(0, 0, 0.89, points=36)),
        ("white", ellipse(0, 0, 0.72, points=32)),
        *ticks,
        ("black", rotate(stroke(0, 0.08, 0, -0.6, 0.085), rng.uniform(0, 360))),
        ("black", rotate(stroke(0, 0.06, 0, -0.4, 0.12), rng.uniform(0, 360))),
        ("red", ellipse(0, 0, 0.09)),
    ]


@_category("table", "furniture", "four straight legs", "a flat top")
def _table(rng: np.random.Generator) -> list[Part]:
    depth, length = rng.uniform(0.26, 0.4), rng.uniform(0.68, 0.82)
    return [
        ("dark", box(-0.6, -0.1, -0.48, length - 0.2)),
        ("dark", box(0.48, -0.1, 0.6, length - 0.2)),
        ("body", box(-0.88, -0.1, -0.72, length)),
        ("body", box(0.72, -0.1, 0.88, length)),
        ("light", polygon(-0.7, -0.2 - depth, 0.7, -0.2 - depth, 0.97, -0.18, -0.97, -0.18)),
        ("body", box(-0.97, -0.2, 0.97, -0.02)),
    ]


@_category("chair", "furniture", "a tall back", "a flat seat", "four legs", status="rare")
def _chair(rng: np.random.Generator) -> list[Part]:
    top = rng.uniform(-0.99, -0.85)
    return [
        ("dark", box(-0.24, 0.2, -0.12, 0.76)),
        ("dark", box(0.24, 0.2, 0.36, 0.76)),
        ("body", polygon(-0.62, top, -0.46, top, -0.38, 0.2, -0.54, 0.2)),
        ("body", polygon(-0.1, top + 0.14, 0.04, top + 0.14, 0.1, 0.1, -0.04, 0.1)),
        ("dark", polygon(-0.58, top + 0.08, -0.06, top + 0.2, -0.04, top + 0.42, -0.55, top + 0.36)),
        ("dark", polygon(-0.52, top + 0.54, -0.0, top + 0.58, 0.02, top + 0.74, -0.5, top + 0.74)),
        ("light", polygon(-0.5, 0.1, 0.0, 0.0, 0.68, 0.06, 0.5, 0.2)),
        ("body", polygon(-0.54, 0.12, 0.56, 0.16, 0.68, 0.06, 0.68, 0.2, 0.56, 0.3, -0.54, 0.28)),
        ("body", box(-0.54, 0.2, -0.4, 0.97)),
        ("body", box(0.44, 0.2, 0.58, 0.97)),
    ]


@_category("lamp", "furniture", "a wide shade", "a thin pole", "a flat base", status="withheld")
def _lamp(rng: np.random.Generator) -> list[Part]:
    top, low = rng.uniform(0.26, 0.42), rng.uniform(0.6, 0.76)
    return [
        ("black", box(-0.06, -0.1, 0.06, 0.86)),
        ("yellow", ellipse(0, -0.04, 0.16, 0.12)),
        ("body", polygon(-top, -0.9, top, -0.9, low, -0.05, -low, -0.05)),
        ("light", polygon(-top * 0.5, -0.9, -top * 0.1, -0.9, -low * 0.15, -0.05, -low * 0.55, -0.05)),
        ("dark", ellipse(0, 0.87, 0.46, 0.12)),
    ]


@_category("hat", "clothing", "a wide brim", "a tall top", "a dark band")
def _hat(rng: np.random.Generator) -> list[Part]:
    top, w = rng.uniform(-0.75, -0.5), rng.uniform(0.4, 0.54)
    left, right = polygon(-w - 0.07, 0.38, -w, top), polygon(w, top, w + 0.07, 0.38)
    upper, lower = ellipse(0, top, w, 0.13, 180, 360, 12), ellipse(0, 0.38, w + 0.07, 0.12, 0, 180, 12)
    return [
        ("body", ellipse(0, 0.4, 0.98, 0.26, points=30)),
        ("dark", ellipse(0, 0.36, 0.7, 0.16)),
        ("body", join(left, upper, right, lower)),
        ("black", polygon(-w - 0.04, 0.1, w + 0.04, 0.1, w + 0.07, 0.36, -w - 0.07, 0.36)),
        ("light", ellipse(0, top, w - 0.05, 0.08)),
    ]


@_category("shirt", "clothing", "two short sleeves", "an open collar", "buttons")
def _shirt(rng: np.random.Generator) -> list[Part]:
    sleeve, hem = rng.uniform(0.0, 0.2), rng.uniform(0.78, 0.92)
    return [
        ("body", polygon(-0.24, -0.82, 0.24, -0.82, 0.5, -0.7, 0.52, hem, -0.52, hem, -0.5, -0.7)),
        *_both("body", polygon(-0.42, -0.76, -0.99, sleeve - 0.16, -0.72, sleeve + 0.1, -0.42, -0.14)),
        *_both("dark", polygon(-0.99, sleeve - 0.16, -0.72, sleeve + 0.1, -0.66, sleeve + 0.02, -0.92, sleeve - 0.24)),
        ("hole", polygon(-0.24, -0.9, 0.24, -0.9, 0, -0.56)),
        *_both("white", polygon(-0.3, -0.86, -0.2, -0.88, 0, -0.56, -0.12, -0.42)),
        ("dark", box(-0.025, -0.5, 0.025, hem)),
        *[("white", ellipse(0, y, 0.06)) for y in (-0.3, 0.02, 0.34, 0.64)],
    ]


@_category("glasses", "clothing", "two round lenses", "a thin bridge", plural="glasses")
def _glasses(rng: np.random.Generator) -> list[Part]:
    ry, clear = rng.uniform(0.32, 0.44), rng.random() < 0.5
    lens = "light" if clear else "black"
    return [
        *_both("body", polygon(-0.9, -0.1, -0.99, -0.36, -0.9, -0.4, -0.78, -0.14)),
        ("body", join(ellipse(0, 0.0, 0.2, 0.16, 180, 360, 10), ellipse(0, 0.04, 0.14, 0.09, 360, 180, 10))),
        *_both("body", ellipse(-0.5, 0.05, 0.45, ry, points=28)),
        *_both(lens, ellipse(-0.5, 0.05, 0.34, ry - 0.11, points=26)),
        ("white", rotate(box(-0.68, -0.12, -0.6, 0.12), 30, -0.64, 0)),
        ("white", rotate(box(0.32, -0.12, 0.4, 0.12), 30, 0.36, 0)),
    ]


@_category("crown", "clothing", "three points", "jewels", "a band", status="rare")
def _crown(rng: np.random.Generator) -> list[Part]:
    mid, side = rng.uniform(-0.8, -0.62), rng.uniform(-0.56, -0.38)
    return [
        ("body", polygon(-0.8, 0.6, -0.95, side, -0.45, 0.1, 0, mid, 0.45, 0.1, 0.95, side, 0.8, 0.6)),
        ("dark", polygon(-0.82, 0.38, 0.82, 0.38, 0.8, 0.7, -0.8, 0.7)),
        ("red", ellipse(0, mid, 0.13)),
        *_both("white", ellipse(-0.93, side, 0.12)),
        ("red", polygon(0, 0.42, 0.13, 0.54, 0, 0.66, -0.13, 0.54)),
        *_both("white", ellipse(-0.48, 0.54, 0.09)),
    ]


@_category("guitar", "instrument", "a long neck", "a curved body", "strings")
def _guitar(rng: np.random.Generator) -> list[Part]:
    hip = rng.uniform(0.42, 0.52)
    return [
        ("brown", box(-0.08, -0.85, 0.08, 0.2)),
        ("dark", polygon(-0.12, -1.0, 0.12, -1.0, 0.14, -0.72, -0.14, -0.72)),
        ("body", ellipse(0, 0.16, hip - 0.1, 0.3)),
        ("body", ellipse(0, 0.62, hip, 0.37, points=28)),
        ("body", box(-0.26, 0.15, 0.26, 0.6)),
        ("black", ellipse(0, 0.36, 0.15)),
        ("brown", box(-0.2, 0.7, 0.2, 0.78)),
        ("white", box(-0.035, -0.75, -0.01, 0.72)),
        ("white", box(0.02, -0.75, 0.045, 0.72)),
    ]


@_category("drum", "instrument", "a white skin", "two sticks", "a round side")
def _drum(rng: np.random.Generator) -> list[Part]:
    h = rng.uniform(0.6, 0.76)
    zigzag: list[Part] = []
    for k in range(4):
        x = -0.7 + 0.35 * k
        zigzag += [
            ("white", stroke(x, 0.05, x + 0.175, h - 0.08, 0.05)),
            ("white", stroke(x + 0.175, h - 0.08, x + 0.35, 0.05, 0.05)),
        ]
    return [
        ("body", join(polygon(-0.75, -0.18, 0.75, -0.18), ellipse(0, h, 0.75, 0.2, 0, 180, 20))),
        *zigzag,
        ("dark", join(ellipse(0, h, 0.75, 0.2, 0, 180, 20), ellipse(0, h - 0.13, 0.75, 0.2, 180, 0, 20))),
        ("dark", ellipse(0, -0.16, 0.79, 0.28, points=30)),
        ("white", ellipse(0, -0.19, 0.68, 0.21, points=30)),
        ("brown", stroke(-0.1, -0.16, -0.86, -0.84, 0.09)),
        ("brown", stroke(0.1, -0.16, 0.86, -0.84, 0.09)),
        ("brown", ellipse(-0.1, -0.16, 0.1, 0.09)),
        ("brown", ellipse(0.1, -0.16, 0.1, 0.09)),
    ]


@_category("bell", "instrument", "a flared rim", "a domed top", "a clapper", status="rare")
def _bell(rng: np.random.Generator) -> list[Part]:
    flare, swing = rng.uniform(0.78, 0.92), rng.uniform(-0.16, 0.16)
    side = polygon(0.44, -0.4, 0.5, 0.0, 0.58, 0.3, flare, 0.58)
    return [
        ("dark", ellipse(0, -0.84, 0.15)),
        ("hole", ellipse(0, -0.84, 0.07)),
        ("black", ellipse(swing, 0.72, 0.17)),
        ("body", join(ellipse(0, -0.4, 0.44, 0.4, 180, 360, 16), side, _mirror(side)[::-1])),
        ("dark", box(-flare - 0.03, 0.5, flare + 0.03, 0.66)),
        ("light", polygon(-0.3, -0.5, -0.2, -0.55, -0.3, 0.3, -0.42, 0.32)),
    ]


@_category("book", "stationery", "two covers", "white pages", "lines of text")
def _book(rng: np.random.Generator) -> list[Part]:
    dip = rng.uniform(0.08, 0.2)
    lines: list[Part] = []
    for y in (-0.3, -0.05, 0.2):
        lines += _both("black", stroke(-0.68, y, -0.2, y + dip * 0.5, 0.06))
    return [
        ("body", polygon(-0.98, -0.55, 0, -0.55 + dip, 0.98, -0.55, 0.98, 0.64, 0, 0.66 + dip, -0.98, 0.64)),
        *_both("white", polygon(-0.86, -0.64, -0.02, -0.64 + dip, -0.02, 0.5 + dip, -0.86, 0.5)),
        ("dark", stroke(0, -0.6 + dip, 0, 0.62 + dip, 0.06)),
        *lines,
    ]


@_category("envelope", "stationery", "a folded flap", "a rectangular body", "a round seal", status="withheld")
def _envelope(rng: np.random.Generator) -> list[Part]:
    flap = rng.uniform(0.05, 0.25)
    return [
        ("body", box(-0.95, -0.62, 0.95, 0.62)),
        *_both("dark", stroke(-0.95, 0.62, -0.2, 0.02, 0.05)),
        ("light", polygon(-0.95, -0.62, 0.95, -0.62, 0, flap)),
        *_both("dark", stroke(-0.95, -0.62, 0, flap, 0.06)),
        ("red", ellipse(0, flap - 0.04, 0.15)),
    ]


@_category("candle", "stationery", "a flame", "a tall column", "a round saucer")
def _candle(rng: np.random.Generator) -> list[Part]:
    top, sway = rng.uniform(-0.4, -0.1), rng.uniform(-0.08, 0.08)
    tip = polygon(-0.1, top - 0.5, sway, top - 0.62, 0.1, top - 0.5)
    flame = join(ellipse(0, top - 0.3, 0.18, 0.2, 0, 180, 14), tip)
    return [
        ("dark", ellipse(0, 0.84, 0.62, 0.14)),
        ("body", box(-0.25, top, 0.25, 0.84)),
        ("light", ellipse(0, top, 0.25, 0.07)),
        ("light", box(-0.17, top + 0.06, -0.08, 0.6)),
        ("black", stroke(0, top - 0.16, 0, top, 0.06)),
        ("yellow", flame),
        ("red", ellipse(0, top - 0.26, 0.08, 0.11)),
    ]


@_category("flag", "stationery", "a tall pole", "a waving cloth")
def _flag(rng: np.random.Generator) -> list[Part]:
    wave, phase = rng.uniform(0.06, 0.14), rng.uniform(0, 6)
    x = np.linspace(-0.68, 0.95, 14)
    ripple = wave * np.sin((x + 0.68) * 4 + phase)
    upper, lower = np.stack([x, -0.8 + ripple], 1), np.stack([x, 0.12 + ripple], 1)
    middle = np.stack([x, -0.48 + ripple], 1), np.stack([x, -0.2 + ripple], 1)
    return [
        ("body", join(upper, lower[::-1])),
        ("white", join(middle[0], middle[1][::-1])),
        ("brown", box(-0.82, -0.94, -0.66, 1)),
        ("yellow", ellipse(-0.74, -0.93, 0.1)),
    ]


# ---------------------------------------------------------------------------------------------- symbols and the sky


@_category("star", "symbol", "five points")
def _star(rng: np.random.Generator) -> list[Part]:
    inner = rng.uniform(0.36, 0.48)
    return [("body", star(5, 0.99, inner)), ("light", star(5, 0.5, inner * 0.5))]


@_category("heart", "symbol", "two lobes", "a pointed bottom")
def _heart(rng: np.random.Generator) -> list[Part]:
    t = np.linspace(0, 2 * np.pi, 44)
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16.5
    tall = rng.uniform(0.9, 1.05)
    p = np.stack([0.96 * np.sin(t) ** 3, tall * y - 0.05], 1)
    return [("body", p), ("light", rotate(ellipse(-0.48, -0.42, 0.12, 0.2), 40, -0.48, -0.42))]


@_category("arrow", "symbol", "a triangular head", "a straight shaft")
def _arrow(rng: np.random.Generator) -> list[Part]:
    h, w = rng.uniform(0.52, 0.7), rng.uniform(0.14, 0.22)
    return [("body", polygon(-0.95, -w, 0.15, -w, 0.15, -h, 0.97, 0, 0.15, h, 0.15, w, -0.95, w))]


@_category("sun", "sky", "pointed rays", "a round center")
def _sun(rng: np.random.Generator) -> list[Part]:
    n, turn = int(rng.integers(9, 13)), rng.uniform(0, 30)
    return [
        ("dark", star(n, 0.99, 0.55, turn)),
        ("body", ellipse(0, 0, 0.56, points=30)),
        ("light", ellipse(-0.14, -0.16, 0.26)),
    ]


@_category("moon", "sky", "a crescent shape", "two horns")
def _moon(rng: np.random.Generator) -> list[Part]:
    # The two arcs meet in the horns at +-55 degrees of the outer circle.
    bite = rng.uniform(-0.15, 0.15)
    outer = ellipse(-0.1, 0, 0.92, 0.95, 55, 305, 34)
    hx, hy = outer[0]
    t = np.linspace(-1, 1, 20)
    inner = np.stack([hx - (0.34 - 0.8 * bite + 0.8 * hx) * np.cos(t * np.pi / 2), hy * t], 1)
    return [
        ("body", join(outer, inner)),
        ("dark", ellipse(-0.72, -0.2, 0.1)),
        ("dark", ellipse(-0.55, 0.42, 0.12)),
        ("dark", ellipse(-0.62, 0.14, 0.06)),
    ]


@_category("cloud", "sky", "a puffy outline", "a flat bottom")
def _cloud(rng: np.random.Generator) -> list[Part]:
    a, b = rng.uniform(0.34, 0.44), rng.uniform(0.34, 0.46)
    return [
        ("body", ellipse(-0.55, 0.16, 0.42, a)),
        ("body", ellipse(0.54, 0.14, 0.43, b)),
        ("body", ellipse(-0.08, -0.16, 0.52, 0.48)),
        ("body", ellipse(0.3, -0.04, 0.36, 0.36)),
        ("body", box(-0.56, 0.1, 0.56, 0.54)),
        ("light", ellipse(-0.16, -0.3, 0.28, 0.2)),
        ("dark", polygon(-0.66, 0.47, 0.66, 0.47, 0.54, 0.56, -0.54, 0.56)),
    ]


# ---------------------------------------------------------------------------------------------------------- indices

NAMES: tuple[str, ...] = tuple(OBJECTS)


def names(*statuses: Status) -> tuple[str, ...]:
    """Names of the categories with one of the statuses, in the order of NAMES."""
    return tuple(name for name, category in OBJECTS.items() if category.status in statuses)


KNOWN, RARE, WITHHELD, UNSEEN = names("known"), names("rare"), names("withheld"), names("unseen")

NOVEL: tuple[str, ...] = (
    "cat", "crab", "mushroom", "banana", "bus", "balloon", "castle", "umbrella", "cup", "hat", "drum", "arrow",
)  # fmt: skip
BASE: tuple[str, ...] = tuple(name for name in KNOWN if name not in NOVEL)

HIERARCHY: dict[str, dict[str, tuple[str, ...]]] = {
    above: {group: tuple(n for n in NAMES if OBJECTS[n].group == group) for group in groups}
    for above, groups in {
        "nature": ("animal", "plant", "sky"),
        "food": ("fruit", "dish"),
        "town": ("vehicle", "building"),
        "belongings": ("tool", "container", "furniture", "clothing", "instrument", "stationery"),
        "sign": ("symbol",),
    }.items()
}
"""Super group -> group -> category names."""
