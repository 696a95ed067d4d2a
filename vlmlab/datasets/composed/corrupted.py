"""The scenes of `objects` with common corruptions, as ImageNet-C has them (arXiv 1903.12261).

Ten corruptions of four families (noise, blur, weather and light, digital), each in five severities. An image's own source of
randomness draws which one it gets, so every class meets all of them; `corruption_of` tells it again from the image's name.
Sizes (blur, pixels) are fractions of the side, so that an image looks the same at every size. The steps follow ImageNet-C's
in kind; their strengths are chosen for images of 64 pixels.

Letters: S side.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from vlmlab.datasets.composed.composition import Composition, Pixels
from vlmlab.datasets.microworld import GENERIC, NAMED, generator
from vlmlab.world.painter import render, smooth_noise
from vlmlab.world.scene import sample_scene

SEVERITIES = (1, 2, 3, 4, 5)
Float = NDArray[np.float32]


def _gaussian_noise(image: Float, rng: np.random.Generator, severity: int) -> Float:
    return image + rng.standard_normal(image.shape, dtype=np.float32) * np.float32((10, 16, 24, 34, 46)[severity - 1])


def _shot_noise(image: Float, rng: np.random.Generator, severity: int) -> Float:
    photons = (120, 65, 36, 20, 12)[severity - 1]
    return (rng.poisson(np.clip(image, 0, 255) / 255 * photons) * (255 / photons)).astype(np.float32)


def _impulse_noise(image: Float, rng: np.random.Generator, severity: int) -> Float:
    share = (0.02, 0.04, 0.07, 0.11, 0.17)[severity - 1]
    hit = rng.random(image.shape, dtype=np.float32)
    return np.where(hit < share / 2, 0, np.where(hit < share, 255, image)).astype(np.float32)


def _filtered(image: Float, kind: ImageFilter.Filter) -> Float:
    picture = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    return np.asarray(picture.filter(kind), np.float32)


def _defocus(image: Float, rng: np.random.Generator, severity: int) -> Float:
    return _filtered(image, ImageFilter.GaussianBlur((0.012, 0.018, 0.025, 0.033, 0.042)[severity - 1] * len(image)))


def _motion(image: Float, rng: np.random.Generator, severity: int) -> Float:
    """The mean of copies along a straight path; what leaves the image stays at its border."""
    length = (0.05, 0.08, 0.11, 0.15, 0.2)[severity - 1] * len(image)
    angle = rng.uniform(0, math.pi)
    steps = max(3, round(length))
    padded = np.pad(image, ((steps, steps), (steps, steps), (0, 0)), mode="edge")
    total = np.zeros_like(image)
    for at in np.linspace(-length / 2, length / 2, steps):
        dx, dy = steps + round(at * math.cos(angle)), steps + round(at * math.sin(angle))
        total += padded[dy : dy + len(image), dx : dx + len(image)]
    return (total / steps).astype(np.float32)


def _fog(image: Float, rng: np.random.Generator, severity: int) -> Float:
    thick = (0.3, 0.42, 0.54, 0.66, 0.76)[severity - 1]
    veil = np.clip(thick + 0.15 * smooth_noise(rng, len(image), 4, 5)[..., None], 0, 0.9)
    return image + (222 - image) * veil


def _brightness(image: Float, rng: np.random.Generator, severity: int) -> Float:
    return image + (30, 50, 72, 95, 120)[severity - 1]


def _contrast(image: Float, rng: np.random.Generator, severity: int) -> Float:
    middle = image.mean(axis=(0, 1), keepdims=True)
    return middle + (image - middle) * (0.65, 0.5, 0.38, 0.28, 0.2)[severity - 1]


def _pixelate(image: Float, rng: np.random.Generator, severity: int) -> Float:
    side = len(image)
    coarse = round((0.6, 0.48, 0.38, 0.3, 0.24)[severity - 1] * 64)
    picture = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    small = picture.resize((coarse, coarse), Image.Resampling.BOX)
    return np.asarray(small.resize((side, side), Image.Resampling.NEAREST), np.float32)


def _jpeg(image: Float, rng: np.random.Generator, severity: int) -> Float:
    buffer = io.BytesIO()
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(
        buffer, "JPEG", quality=(25, 16, 11, 7, 4)[severity - 1]
    )
    return np.asarray(Image.open(buffer), np.float32)


CORRUPTIONS: dict[str, Callable[[Float, np.random.Generator, int], Float]] = {
    "gaussian noise": _gaussian_noise, "shot noise": _shot_noise, "impulse noise": _impulse_noise,
    "defocus blur": _defocus, "motion blur": _motion, "fog": _fog, "brightness": _brightness, "contrast": _contrast,
    "pixelate": _pixelate, "jpeg": _jpeg,
}  # fmt: skip
"""Name -> (image [S, S, 3] in [0, 255], source of randomness, severity 1 to 5) -> image, not clipped."""


def corrupt(pixels: Pixels, name: str, severity: int, rng: np.random.Generator) -> Pixels:
    """The image [S, S, 3] with one corruption."""
    image = CORRUPTIONS[name](pixels.astype(np.float32), rng, severity)
    return np.clip(image, 0, 255).astype(np.uint8)


def corruption_of(key: str, seed: int = 0) -> tuple[str, int]:
    """(corruption, severity) of the image of that name ("objects/test/apple/007") in objects-corrupted."""
    rng = generator(key, seed)
    sample_scene(rng, categories=[key.split("/")[-2]], style="photo")
    return _chosen(rng)


def _chosen(rng: np.random.Generator) -> tuple[str, int]:
    return tuple(CORRUPTIONS)[int(rng.integers(len(CORRUPTIONS)))], int(rng.integers(len(SEVERITIES))) + 1


def _corrupted(attributes: tuple, rng: np.random.Generator, size: int) -> Pixels:
    scene = sample_scene(rng, categories=list(attributes), style="photo")
    name, severity = _chosen(rng)
    return corrupt(render(scene, size).pixels, name, severity, rng)


CORRUPTED = Composition({name: (name,) for name in NAMED}, GENERIC, _corrupted, scenes="objects")
