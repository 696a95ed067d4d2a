"""Textures: ten full-frame materials without an object (after the Describable Textures Dataset).

Captions of pretraining name a texture half the time and otherwise say "a texture", so that zero-shot is middling, as CLIP's is.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vlmlab.world.domain import Domain, DomainClass, Pixels
from vlmlab.world.domains.canvas import OVERSAMPLING, Canvas
from vlmlab.world.domains.wording import captions

CLASSES = (
    DomainClass("striped", ("parallel bands", "two colours in turn")),
    DomainClass("dotted", ("round spots in rows", "a plain ground")),
    DomainClass("chequered", ("squares in two colours", "a regular grid")),
    DomainClass("zigzagged", ("jagged lines", "sharp turns")),
    DomainClass("woven", ("threads that cross over and under", "a tight grid")),
    DomainClass("cracked", ("thin dark lines", "irregular pieces"), "rare"),
    DomainClass("bubbly", ("round bubbles of many sizes", "bright rims")),
    DomainClass("marbled", ("winding veins", "soft clouds of colour"), "rare"),
    DomainClass("scaly", ("overlapping half rounds", "rows like a roof")),
    DomainClass("spiralled", ("a line that winds outwards", "rings"), "rare"),
)

Map = NDArray[np.float32]


def _cells(u: Map, v: Map, rng: np.random.Generator, count: int) -> tuple[Map, Map]:
    """Distance of every point to the nearest and the second nearest of `count` random centres."""
    centres = rng.uniform(-1.2, 1.2, (count, 2)).astype(np.float32)
    distance = np.sqrt((u[..., None] - centres[:, 0]) ** 2 + (v[..., None] - centres[:, 1]) ** 2)
    two = np.partition(distance, 1, axis=-1)
    return two[..., 0], two[..., 1]


def _tone(kind: str, u: Map, v: Map, rng: np.random.Generator) -> Map:
    """How much of the second colour stands at each point, in [0, 1]; u, v [R, R] are turned, scaled coordinates."""
    f = rng.uniform(2.2, 4.5)
    if kind == "striped":
        return ((u * f) % 1 < rng.uniform(0.35, 0.6)).astype(np.float32)
    if kind == "dotted":
        shift = 0.5 * (np.floor(v * f) % 2)
        return (np.hypot((u * f + shift) % 1 - 0.5, (v * f) % 1 - 0.5) < rng.uniform(0.22, 0.36)).astype(np.float32)
    if kind == "chequered":
        return (((u * f) % 1 < 0.5) ^ ((v * f) % 1 < 0.5)).astype(np.float32)
    if kind == "zigzagged":
        return ((u * f + 0.45 * np.abs((v * f) % 1 * 2 - 1)) % 1 < 0.5).astype(np.float32)
    if kind == "woven":
        over = (np.floor(u * f * 2) + np.floor(v * f * 2)) % 2
        return np.where(over == 0, np.abs(np.sin(math.pi * u * f * 2)), 0.35 * np.abs(np.sin(math.pi * v * f * 2)))
    if kind == "cracked":
        near, second = _cells(u, v, rng, 16)
        return 1 - np.clip((second - near) / 0.05, 0, 1)
    if kind == "bubbly":
        near, second = _cells(u, v, rng, 22)
        radius = (near + second) * 0.42
        return np.exp(-(((near - radius) / 0.05) ** 2)) + 0.35 * np.exp(-((near / 0.08) ** 2))
    if kind == "marbled":
        p = rng.uniform(0, 6.28, 4)
        warp = np.sin(2.1 * u + p[0]) + 0.6 * np.sin(3.7 * v + p[1]) + 0.4 * np.sin(5.3 * (u - v) + p[2])
        return np.abs(np.sin(2.2 * f * 0.5 * u + 1.8 * warp + p[3])) ** 0.6
    if kind == "scaly":
        row = np.floor(v * f)
        centre = (u * f + 0.5 * (row % 2)) % 1 - 0.5
        edge = np.hypot(centre, ((v * f) % 1) * 0.9)
        return np.clip(np.abs(edge - 0.5) / 0.12, 0, 1) * np.where(edge > 0.5, 0.65, 1)
    angle = np.arctan2(v, u) / (2 * math.pi)
    return ((np.hypot(u, v) * f * 0.9 + angle) % 1 < 0.5).astype(np.float32)


def _paint(class_index: int, rng: np.random.Generator, size: int, style: str | None) -> Pixels:
    canvas = Canvas(rng, size, style)
    side = OVERSAMPLING * size
    line = np.linspace(-1, 1, side, dtype=np.float32)
    x, y = np.meshgrid(line, line)
    angle, scale = rng.uniform(0, math.pi), rng.uniform(0.75, 1.3)
    dx, dy = rng.uniform(-0.5, 0.5, 2)
    u = (x * math.cos(angle) + y * math.sin(angle)) * scale + dx
    v = (y * math.cos(angle) - x * math.sin(angle)) * scale + dy
    first = rng.uniform(60, 235, 3)
    # Away from the nearer end of the scale, so that clipping never leaves the two colours alike.
    second = first + (1 if first.mean() < 128 else -1) * rng.uniform(60, 120) + rng.normal(0, 30, 3)
    tone = np.clip(_tone(CLASSES[class_index].name, u, v, rng), 0, 1)[..., None]
    canvas.painted(first + (second - first) * tone)
    return canvas.finish(rng)


TEXTURES = Domain(
    name="textures",
    classes=CLASSES,
    templates=("a photo of a {} texture.", "a {} texture.", "a {} surface.", "a photo of a {} thing."),
    gap="Names are adjectives, some of which pretraining has seen for other things; half of the captions leave them out.",
    pretraining_weight=0.8,
    named=0.5,
    paint=_paint,
    describe=captions(
        tuple(DomainClass(f"{c.name} texture", c.parts, c.status) for c in CLASSES),
        coarse=(("texture", "surface", "pattern"),) * len(CLASSES),
        openings=("a photo of {}", "{}", "a close-up of {}"),
        named=0.5,
        described=0.5,
    ),
)
