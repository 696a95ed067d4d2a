"""Weather and season: landscapes in sun, darkness, fog, snow and rain, land from above in four seasons.

The world draws the places (`scenes`, `aerial`); weather comes over the finished image, as light and air do.
Pretraining names places in some captions, snow and night skies in a few; fog, rain, falling snow and seasons it never shows.

Letters: S side.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from vlmlab.datasets.composed.composition import Composition, Pixels
from vlmlab.world.domain import Domain
from vlmlab.world.domains import DOMAINS
from vlmlab.world.painter import smooth_noise

PLACES = ("beach", "forest path", "city street", "mountain", "desert", "farm")
WEATHER = ("sunny", "dark", "foggy", "snowy", "rainy")
Image = NDArray[np.float32]


def _grey(image: Image) -> Image:
    return image.mean(2, keepdims=True)


def _night(image: Image, rng: np.random.Generator, size: int) -> Image:
    moonlight = np.array([0.62, 0.74, 1.05], np.float32) * np.float32(rng.uniform(0.45, 0.75))
    image = (_grey(image) + (image - _grey(image)) * 0.55) * moonlight
    return image + rng.standard_normal((size, size, 1), dtype=np.float32) * 5


def _fog(image: Image, rng: np.random.Generator, size: int) -> Image:
    thick = rng.uniform(0.36, 0.64) + 0.12 * smooth_noise(rng, size, 4, 6)[..., None]
    return image + (np.array([214, 218, 222], np.float32) - image) * np.clip(thick, 0, 0.92)


def _flakes(image: Image, rng: np.random.Generator, size: int) -> Image:
    """White ground where the image was bright, and flakes of one to two pixels at 64 x 64."""
    image = image + (np.array([236, 241, 250], np.float32) - image) * rng.uniform(0.2, 0.4)
    line = (np.arange(size, dtype=np.float32) + 0.5) / size
    for x, y, r in rng.uniform((0, 0, 0.007), (1, 1, 0.02), (int(rng.integers(40, 90)), 3)).tolist():
        a, b = np.exp(-(((line - x) / r) ** 2)), np.exp(-(((line - y) / r) ** 2))
        image = image + (252 - image) * (0.9 * b[:, None] * a[None])[..., None]
    return image


def _rain(image: Image, rng: np.random.Generator, size: int) -> Image:
    """A dull, darker image behind slanted streaks."""
    image = (_grey(image) * 0.6 + image * 0.4) * np.float32(rng.uniform(0.62, 0.82))
    line = (np.arange(size, dtype=np.float32) + 0.5) / size
    slant = rng.uniform(-0.3, 0.3)
    along = line[None] + slant * line[:, None]
    for x, y, length in rng.uniform((-0.3, -0.1, 0.1), (1.3, 1, 0.25), (int(rng.integers(30, 55)), 3)).tolist():
        inside = ((line > y) & (line < y + length)).astype(np.float32)[:, None]
        image = image + (206 - image) * (0.55 * np.exp(-(((along - x) / 0.009) ** 2)) * inside)[..., None]
    return image


IN_WORDS = {"sunny": "on a clear day", "dark": "in the dark", "foggy": "in fog", "snowy": "in snow"}
"""Four weathers, and how they are said after a noun."""
_CHANGES = {"dark": _night, "foggy": _fog, "snowy": _flakes, "rainy": _rain}


def under_weather(domain: Domain, kind: str, weather: str, rng: np.random.Generator, size: int) -> Pixels:
    """One of the domain's classes [S, S, 3] in that weather; as it is if it is sunny."""
    index = next(k for k, c in enumerate(domain.classes) if c.name == kind)
    image = domain.sample(index, rng, size, "photo").astype(np.float32)
    if weather in _CHANGES:
        image = _CHANGES[weather](image, rng, size)
    return np.clip(image, 0, 255).astype(np.uint8)


def _in_weather(attributes: tuple, rng: np.random.Generator, size: int) -> Pixels:
    place, weather = attributes
    return under_weather(DOMAINS["scenes"], place, weather, rng, size)


IN_WEATHER = Composition(
    {f"{weather} {place}": (place, weather) for place, weather in itertools.product(PLACES, WEATHER)},
    ("a photo of a {}.", "a picture of a {}.", "a view of a {}."),
    _in_weather,
)

# ----------------------------------------------------------------------------------------------------------- land

LANDS = ("forest", "river", "highway", "residential buildings", "annual crop land", "pasture", "orchard")
SEASONS = {"spring": "in spring", "summer": "in summer", "autumn": "in autumn", "winter": "in snow"}


def _in_season(attributes: tuple, rng: np.random.Generator, size: int) -> Pixels:
    """Land from above whose greens are fresh, full or brown, or under snow that leaves roads and water free."""
    land, season = attributes
    domain = DOMAINS["aerial"]
    index = next(k for k, c in enumerate(domain.classes) if c.name == land)
    image = domain.sample(index, rng, size, "photo").astype(np.float32)
    green = np.clip((image[..., 1:2] - np.maximum(image[..., :1], image[..., 2:])) / 24, 0, 1)
    strength = np.float32(rng.uniform(0.55, 0.95))
    if season == "spring":
        image += green * strength * np.array([34, 52, 6], np.float32)
        blossom = np.clip(smooth_noise(rng, size, 40) - 0.45, 0, 1)[..., None] * green
        image += (np.array([246, 214, 228], np.float32) - image) * np.clip(2.2 * blossom, 0, 0.9)
    elif season == "autumn":
        leaves = 0.5 + 0.5 * smooth_noise(rng, size, 12)[..., None]
        tint = np.array([66, -6, -20], np.float32) + leaves * np.array([10, 34, 4], np.float32)
        image += green * strength * tint
    elif season == "winter":
        snow = np.clip(green + 0.35 + 0.4 * smooth_noise(rng, size, 9)[..., None], 0, 1)
        image += (np.array([232, 238, 248], np.float32) - image) * snow * strength * 0.85
    return np.clip(image, 0, 255).astype(np.uint8)


LAND = Composition(
    {f"{land} {said}": (land, season) for land, (season, said) in itertools.product(LANDS, SEASONS.items())},
    ("a photo of {} from above.", "an aerial photo of {}.", "a picture of {} from above."),
    _in_season,
)
