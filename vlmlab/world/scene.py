"""Scene graphs: what is where in an image, before anything is painted.

A `Scene` holds all that an image depends on; painting it twice, in any process, at any size, gives the same image.
Positions and radii are fractions of the image's side; y points down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from vlmlab.errors import VlmlabError
from vlmlab.world.objects import NAMES
from vlmlab.world.palette import COLOURS, STUFF

STYLES: tuple[str, ...] = ("photo", "flat", "silhouette", "sketch", "mosaic", "negative")
TEXTURES: tuple[str, ...] = ("plain", "striped", "dotted", "checked", "gradient")
BACKGROUNDS: tuple[str, ...] = (*STUFF, "plain", "gradient", "noise")

COLOUR_WORDS: tuple[str, ...] = tuple(COLOURS)
COUNT_SHARES: tuple[float, ...] = (0.6, 0.22, 0.1, 0.08)
"""Shares of scenes with one, two, three and four objects."""

SAME_KIND = 0.25
"""Share of the scenes with several objects in which all are of one category."""

TEXTURE_SHARES: tuple[float, ...] = (0.52, 0.12, 0.12, 0.12, 0.12)

_RADII = ((0.24, 0.44), (0.17, 0.26), (0.14, 0.2), (0.13, 0.18))


@dataclass(frozen=True)
class SceneObject:
    """One thing in a scene.

    Attributes:
        category: its name in the catalogue.
        colour: one of COLOUR_WORDS.
        texture: one of TEXTURES; how its body is patterned.
        x, y: centre.
        radius: half its extent.
        rotation: degrees clockwise.
        aspect: width over height, beyond that of the category.
        flip: mirrored left to right.
        seed: of its proportions and posture.
    """

    category: str
    colour: str
    texture: str
    x: float
    y: float
    radius: float
    rotation: float
    aspect: float
    flip: bool
    seed: int


@dataclass(frozen=True)
class Scene:
    """All that an image depends on.

    Attributes:
        style: one of STYLES.
        background: one of BACKGROUNDS.
        objects: in painting order, the last in front.
        seed: of the background, the light and the film.
    """

    style: str
    background: str
    objects: tuple[SceneObject, ...]
    seed: int

    @property
    def categories(self) -> tuple[str, ...]:
        """The category of each object, in painting order."""
        return tuple(o.category for o in self.objects)

    def as_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping) -> Scene:
        """The inverse of `as_dict`."""
        objects = tuple(SceneObject(**o) for o in values["objects"])
        return cls(values["style"], values["background"], objects, values["seed"])


def relation(a: SceneObject, b: SceneObject, margin: float = 1.25) -> str | None:
    """Where `a` is as seen from `b`: "left of", "right of", "above" or "below".

    None if the two directions are too nearly equal (their ratio is below `margin`) or the two centres too near.
    """
    dx, dy = a.x - b.x, a.y - b.y
    if max(abs(dx), abs(dy)) < 0.1:
        return None
    if abs(dx) > margin * abs(dy):
        return "right of" if dx > 0 else "left of"
    if abs(dy) > margin * abs(dx):
        return "below" if dy > 0 else "above"
    return None


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _draw(rng: np.random.Generator, choices: Sequence, shares: Sequence[float]):
    """One of the choices, drawn by its share (Generator.choice does this ten times more slowly)."""
    u = rng.random() * sum(shares)
    for choice, share in zip(choices, shares, strict=True):
        u -= share
        if u < 0:
            return choice
    return choices[-1]


def _places(rng: np.random.Generator, n: int) -> list[tuple[float, float, float]]:
    """Centres and radii (x, y, r) of n objects inside the image that hardly overlap."""
    low, high = _RADII[n - 1]
    while True:
        placed: list[tuple[float, float, float]] = []
        for _ in range(12 * n):
            u = rng.random(3)
            r = low + (high - low) * float(u[0])
            reach = r * 1.04
            x, y = (float(reach + (1 - 2 * reach) * v) for v in u[1:])
            if all(math.hypot(x - a, y - b) > 0.98 * (r + q) for a, b, q in placed):
                placed.append((x, y, r))
                if len(placed) == n:
                    return placed


def sample_scene(
    rng: np.random.Generator,
    *,
    count: int | None = None,
    categories: Sequence[str] | None = None,
    pool: Sequence[str] = NAMES,
    style: str | None = None,
    styles: Mapping[str, float] | None = None,
    background: str | None = None,
    colours: Sequence[str] = COLOUR_WORDS,
    spread: float = 1.0,
) -> Scene:
    """A random scene; what is given is kept, the rest is drawn.

    Args:
        rng: the only source of randomness.
        count: number of objects, 1 to 4; drawn by COUNT_SHARES if None.
        categories: exactly these, in order (their number is the count).
        pool: the categories to draw from otherwise; all of them by default, the unseen ones too.
        style: one of STYLES.
        styles: style -> share, for drawing the style; photo and flat, 7 to 3, if None.
        background: one of BACKGROUNDS.
        colours: words of colours to draw from.
        spread: scales the variation of pose; above 1 the objects lean and stretch more than in pretraining.
    """
    if categories is not None:
        n, chosen = len(categories), list(categories)
    else:
        n = count or _draw(rng, (1, 2, 3, 4), COUNT_SHARES)
        chosen = [_pick(rng, pool) for _ in range(n)]
        if n > 1 and rng.random() < SAME_KIND:
            chosen = chosen[:1] * n
    if not 1 <= n <= len(_RADII):
        raise VlmlabError(f"a scene holds 1 to {len(_RADII)} objects, not {n}; ask for fewer")
    if style is None:
        styles = styles or {"photo": 0.7, "flat": 0.3}
        style = _draw(rng, tuple(styles), tuple(styles.values()))
    background = background or _pick(rng, BACKGROUNDS)
    one_colour = _pick(rng, colours) if n > 1 and len(set(chosen)) == 1 and rng.random() < 0.3 else None
    objects = []
    for name, (x, y, r) in zip(chosen, _places(rng, n), strict=True):
        objects.append(
            SceneObject(
                category=name,
                colour=one_colour or _pick(rng, colours),
                texture=_draw(rng, TEXTURES, TEXTURE_SHARES),
                x=round(x, 4),
                y=round(y, 4),
                radius=round(r, 4),
                rotation=round(float(np.clip(rng.normal(0, 12), -32, 32)) * spread, 2),
                aspect=round(math.exp(rng.uniform(-0.17, 0.17) * spread), 3),
                flip=bool(rng.random() < 0.5),
                seed=int(rng.integers(1 << 31)),
            )
        )
    return Scene(style, background, tuple(objects), int(rng.integers(1 << 31)))
