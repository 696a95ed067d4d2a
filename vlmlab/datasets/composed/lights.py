"""Known kinds as pretraining never showed them: in coloured light, in other media, in weather.

The world draws the kinds (`food`, `vehicles`, `flowers`, `actions`); captions name colours and media, but never with these.

Letters: S side.
"""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
from PIL import Image, ImageFilter

from vlmlab.datasets.composed.composition import Composition, Pixels
from vlmlab.datasets.composed.places import IN_WORDS, under_weather
from vlmlab.world.domain import Domain
from vlmlab.world.domains import DOMAINS

# ------------------------------------------------------------------------------------------------------------ lit, neon

LIGHTS = {
    "red": (1.25, 0.42, 0.38),
    "yellow": (1.2, 1.05, 0.36),
    "green": (0.42, 1.15, 0.45),
    "blue": (0.38, 0.55, 1.3),
}
"""What coloured light leaves of red, green and blue."""


def _names(domain: str) -> tuple[str, ...]:
    return tuple(c.name for c in DOMAINS[domain].classes)


def _kind(domain: Domain, name: str, rng: np.random.Generator, size: int) -> Pixels:
    return domain.sample(next(k for k, c in enumerate(domain.classes) if c.name == name), rng, size, "photo")


def _in_light(domain: str, attributes: tuple, rng: np.random.Generator, size: int) -> Pixels:
    """One of a domain's kinds in coloured light of varying purity, which leaves one side of the image darker."""
    kind, light = attributes
    image = _kind(DOMAINS[domain], kind, rng, size).astype(np.float32)
    purity, angle = rng.uniform(0.6, 1.0), rng.uniform(0, 2 * np.pi)
    line = np.linspace(-1, 1, size, dtype=np.float32)
    fall = 1 - rng.uniform(0.1, 0.4) * (0.5 + 0.5 * (line[None] * np.cos(angle) + line[:, None] * np.sin(angle)))
    tint = 1 + (np.array(LIGHTS[light], np.float32) - 1) * np.float32(purity)
    return np.clip(image * tint * fall[..., None], 0, 255).astype(np.uint8)


def _of(domain: str) -> dict[str, tuple]:
    return {f"{kind} in {light} light": (kind, light) for kind, light in itertools.product(_names(domain), LIGHTS)}


LIT = Composition(
    _of("food"), ("a photo of {}.", "a picture of {}.", "a photo of {}, a type of food."), partial(_in_light, "food")
)
NEON = Composition(
    _of("vehicles"), ("a photo of a {}.", "a picture of a {}.", "an image of a {}."), partial(_in_light, "vehicles")
)

# ----------------------------------------------------------------------------------------------------- renditions

RENDITIONS = ("photo", "mosaic", "sketch", "negative")
TILES = 16


def _rendered(attributes: tuple, rng: np.random.Generator, size: int) -> Pixels:
    """A flower as it is, in 16 by 16 tiles, as grey lines on paper, or with light and dark exchanged."""
    flower, rendition = attributes
    pixels = _kind(DOMAINS["flowers"], flower, rng, size)
    if rendition == "mosaic":
        tiles = Image.fromarray(pixels).resize((TILES, TILES), Image.Resampling.BOX)
        at = (np.arange(size) + 0.5) / size * TILES
        joints = np.where((at[None] % 1 < 0.25) | (at[:, None] % 1 < 0.25), 0.74, 1)[..., None]
        return (np.asarray(tiles)[at.astype(int)][:, at.astype(int)] * joints).astype(np.uint8)
    if rendition == "sketch":
        lines = (
            Image.fromarray(pixels)
            .convert("L")
            .filter(ImageFilter.GaussianBlur(size / 45))
            .filter(ImageFilter.FIND_EDGES)
        )
        grey = 246 - np.clip(np.asarray(lines, np.float32) * rng.uniform(5, 8) * size / 64, 0, 215)
        grey[[0, -1]] = grey[:, [0, -1]] = 246
        return np.repeat(grey[..., None], 3, 2).astype(np.uint8)
    return 255 - pixels if rendition == "negative" else pixels


RENDERED = Composition(
    {
        f"{rendition} of a {flower}": (flower, rendition)
        for flower, rendition in itertools.product(_names("flowers"), RENDITIONS)
    },
    ("a {}.", "the {}.", "a {}, a type of flower."),
    _rendered,
)

# ---------------------------------------------------------------------------------------------------------- deeds


def _deed(attributes: tuple, rng: np.random.Generator, size: int) -> Pixels:
    deed, weather = attributes
    return under_weather(DOMAINS["actions"], deed, weather, rng, size)


DEEDS = Composition(
    {
        f"{deed} {said}": (deed, weather)
        for deed, (weather, said) in itertools.product(_names("actions"), IN_WORDS.items())
    },
    ("a photo of a person {}.", "a picture of a person {}.", "a person {}."),
    _deed,
)
