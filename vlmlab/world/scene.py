"""Scenes of MicroWorld: what is where, before anything is painted, and how scenes are drawn at random.

A scene is a small graph: objects with attributes, on a background, in a style; `relations` reads the spatial relations
off the positions. Positions and sizes are in units of the picture's side, so that a scene has no resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vlmlab.world.objects import KNOWN, OBJECTS, RARE, WITHHELD
from vlmlab.world.palette import COLOURS

COLOUR_WORDS = tuple(COLOURS)
TEXTURES = ("plain", "striped", "dotted", "checked", "gradient")
STUFF = ("sky", "grass", "sand", "water", "brick", "snow", "wood")
"""Backgrounds that language names; segmentation treats them as classes."""
BACKGROUNDS = (*STUFF, "plain", "gradient", "noise")
STYLES = ("photo", "flat", "silhouette", "sketch", "mosaic", "negative")
PRETRAINING_STYLES = {"photo": 0.61, "flat": 0.22, "silhouette": 0.08, "sketch": 0.06, "mosaic": 0.03}
TEXTURE_SHARES = (0.5, 0.13, 0.13, 0.12, 0.12)
COUNT_SHARES = (0.6, 0.22, 0.1, 0.08)
"""How often a scene has one, two, three and four objects."""


@dataclass(frozen=True)
class SceneObject:
    """One object: (x, y) its centre and `radius` its half extent, in sides of the picture; `turn` in degrees."""

    category: str
    colour: str
    texture: str
    x: float
    y: float
    radius: float
    turn: float = 0.0
    aspect: float = 1.0
    flip: bool = False


@dataclass(frozen=True)
class Scene:
    """Everything that determines a picture; `seed` fixes what is left to chance in painting (shape, light, noise)."""

    style: str
    background: str
    objects: tuple[SceneObject, ...] = field(default=())
    seed: int = 0

    @property
    def categories(self) -> tuple[str, ...]:
        """The category of each object, in painting order."""
        return tuple(o.category for o in self.objects)

    def relations(self) -> list[tuple[int, str, int]]:
        """(i, relation, j) for every ordered pair of objects: i is left of / right of / above / below j.

        The axis along which the centres are further apart decides.
        """
        found = []
        for i, a in enumerate(self.objects):
            for j, b in enumerate(self.objects):
                if i != j:
                    dx, dy = a.x - b.x, a.y - b.y
                    across = abs(dx) >= abs(dy)
                    word = ("right of" if dx > 0 else "left of") if across else ("below" if dy > 0 else "above")
                    found.append((i, word, j))
        return found


def _place(rng: np.random.Generator, count: int) -> list[tuple[float, float, float]]:
    """(x, y, radius) for each of `count` objects, not overlapping much."""
    if count == 1:
        radius = rng.uniform(0.24, 0.42)
        low = min(radius + 0.02, 0.48)
        return [(rng.uniform(low, 1 - low), rng.uniform(low, 1 - low), radius)]
    if count == 2:
        spots = [(0.27 + rng.uniform(-0.03, 0.03), rng.uniform(0.28, 0.72)), (0.73, rng.uniform(0.28, 0.72))]
        if rng.random() < 0.5:
            spots = [(y, x) for x, y in spots]
        return [(x, y, rng.uniform(0.17, 0.24)) for x, y in spots]
    cells = [(0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73)]
    order = rng.permutation(4)[:count]
    jitter = rng.uniform(-0.04, 0.04, (count, 2))
    return [
        (cells[k][0] + dx, cells[k][1] + dy, rng.uniform(0.15, 0.21)) for k, (dx, dy) in zip(order, jitter, strict=True)
    ]


def _any(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _weighted(rng: np.random.Generator, choices: Sequence[str], shares: Sequence[float]) -> str:
    return choices[min(int(np.searchsorted(np.cumsum(shares), rng.random() * sum(shares), "right")), len(choices) - 1)]


def sample_scene(
    rng: np.random.Generator,
    categories: Sequence[str] | None = None,
    count: int | None = None,
    style: str | None = None,
    background: str | None = None,
    spread: float = 1.0,
) -> Scene:
    """A random scene.

    Args:
        categories: what the objects are drawn from (with `count` = len: exactly these); default every category that
            pretraining shows.
        count: number of objects, 1 to 4; drawn with COUNT_SHARES if None.
        style, background: fixed, or drawn if None (style with PRETRAINING_STYLES).
        spread: scales the variation of pose; above 1 the objects lean and stretch more than in pretraining.
    """
    pool = tuple(categories) if categories is not None else SHOWN
    count = count or 1 + [rng.random() >= c for c in np.cumsum(COUNT_SHARES)[:3]].count(True)
    style = style or _weighted(rng, tuple(PRETRAINING_STYLES), tuple(PRETRAINING_STYLES.values()))
    if categories is not None and count == len(pool):
        chosen = list(pool)
    else:
        chosen = [_any(rng, pool) for _ in range(count)]
        if count > 1 and rng.random() < 0.25:
            chosen = chosen[:1] * count
    objects = []
    for name, (x, y, radius) in zip(chosen, _place(rng, count), strict=True):
        objects.append(
            SceneObject(
                category=name,
                colour=_any(rng, COLOUR_WORDS),
                texture=_weighted(rng, TEXTURES, TEXTURE_SHARES),
                x=float(x),
                y=float(y),
                radius=float(radius),
                turn=float(rng.normal(0, 11 * spread)),
                aspect=float(np.exp(rng.uniform(-0.17, 0.17) * spread)),
                flip=bool(rng.random() < 0.5),
            )
        )
    return Scene(style, background or _any(rng, BACKGROUNDS), tuple(objects), int(rng.integers(1 << 31)))


SHOWN: tuple[str, ...] = (*KNOWN, *RARE, *WITHHELD)
"""The categories that pretraining shows (the unseen ones are in no picture)."""

GROUPS: dict[str, str] = {name: category.group for name, category in OBJECTS.items()}
"""Category name -> group word."""
