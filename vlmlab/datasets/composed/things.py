"""Sets of things: in a colour and on a ground, in a medium.

Captions of pretraining say each of these attributes, seldom two of them together (see `vlmlab.world.captions`). What makes the
images hard is what makes photographs hard: things are small, off the centre, lean and stretch more than in pretraining.

Letters: S side.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from vlmlab.datasets.composed.composition import Composition, Pixels, with_article
from vlmlab.world.captions import ON
from vlmlab.world.painter import render
from vlmlab.world.scene import Scene, sample_scene

PHOTOS = ("a photo of a {}.", "a picture of a {}.", "an image of a {}.")
SPREAD = 1.4
"""How much further than in pretraining things lean and stretch."""


def _moved(scene: Scene, rng: np.random.Generator, low: float, high: float) -> Scene:
    """The scene's one thing `low` to `high` times as large, anywhere in the image."""
    (thing,) = scene.objects
    radius = thing.radius * rng.uniform(low, high)
    x, y = rng.uniform(radius, 1 - radius, 2)
    thing = replace(thing, x=float(x), y=float(y), radius=float(radius))
    return replace(scene, objects=(thing,))


# --------------------------------------------------------------------------------------------------------- media

MEDIA = {"photo": "photo", "drawing": "flat", "silhouette": "silhouette", "sketch": "sketch", "mosaic": "mosaic"}
"""What a work is called -> the world's style."""
PORTRAYED = ("apple", "cat", "star", "key", "car", "cup", "heart", "fish", "hat", "tree")


def _portrayed(attributes: tuple, rng: np.random.Generator, size: int) -> Pixels:
    thing, medium = attributes
    scene = sample_scene(rng, categories=[thing], style=MEDIA[medium], spread=SPREAD)
    return render(_moved(scene, rng, 0.65, 0.95), size).pixels


MEDIUM = Composition(
    {f"{medium} of {with_article(thing)}": (thing, medium) for thing, medium in itertools.product(PORTRAYED, MEDIA)},
    ("a {}.", "the {}.", "a small {}."),
    _portrayed,
)

# ----------------------------------------------------------------------------------------------------- scattered

SCATTERED_THINGS, SCATTERED_COLOURS = ("bird", "car", "house"), ("red", "yellow", "blue", "purple")
SCATTERED_GROUNDS = ("grass", "water", "snow", "wood")


def _scattered(attributes: tuple, rng: np.random.Generator, size: int) -> Pixels:
    thing, colour, ground = attributes
    scene = sample_scene(rng, categories=[thing], style="photo", colours=[colour], background=ground, spread=SPREAD)
    return render(_moved(scene, rng, 0.4, 0.7), size).pixels


SCATTERED = Composition(
    {
        f"{colour} {thing} {ON[ground]}": (thing, colour, ground)
        for thing, colour, ground in itertools.product(SCATTERED_THINGS, SCATTERED_COLOURS, SCATTERED_GROUNDS)
    },
    PHOTOS,
    _scattered,
)
