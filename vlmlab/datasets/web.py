"""A web to search: images of MicroWorld that nobody labelled, sorted or checked, for systems that retrieve by name.

They show anything that the world can draw, in several styles, one thing or four, so a search finds wrong images, too.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from vlmlab.datasets.image_set import ArrayPictures, ImageSet
from vlmlab.datasets.microworld import generator, kept, program
from vlmlab.world.painter import render
from vlmlab.world.scene import sample_scene


def web(count: int, size: int = 64, seed: int = 0) -> ImageSet:
    """`count` images of `size` pixels, drawn when they are first looked at; their labels are out of reach."""
    keys = [f"web/{i:05d}" for i in range(count)]

    def draw() -> dict:
        return {"pixels": np.stack([render(sample_scene(generator(key, seed)), size).pixels for key in keys])}

    stored = cache(lambda: kept(f"web-{count}-{size}-{seed}", draw))
    pictures = ArrayPictures(lambda: stored()["pixels"], f"{program()} web {count} {size} {seed}")
    return ImageSet(pictures, [0] * count, keys).unlabelled()
