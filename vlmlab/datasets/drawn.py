"""MicroWorld as an image generator that is asked by name, as SuS-X (arXiv 2211.16198) asks Stable Diffusion.

Letters: S side.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from vlmlab.datasets.image_set import ArrayPictures, ImageSet, Pixels
from vlmlab.datasets.microworld import generator, program
from vlmlab.errors import VlmlabError
from vlmlab.world.domains import DOMAINS
from vlmlab.world.objects import OBJECTS
from vlmlab.world.painter import render
from vlmlab.world.scene import sample_scene


def draw_named(names: Sequence[str], count: int, size: int = 64, seed: int = 0) -> ImageSet:
    """`count` images [S, S, 3] for each of these names, labelled by their order; drawn when they are first looked at.

    Objects come as photos, whatever style the task has; classes of a domain (birds, dishes, land from above, ...) in the
    domain's own manner. No image is one of the suite's. Raises `VlmlabError` for a name that MicroWorld cannot draw.
    """
    domains = {c.name: (domain, k) for domain in DOMAINS.values() for k, c in enumerate(domain.classes)}
    strange = [name for name in names if name not in OBJECTS and name not in domains]
    if strange:
        raise VlmlabError(
            f"MicroWorld cannot draw '{strange[0]}' ({len(strange)} of {len(names)} names); use source=retrieved"
        )

    def draw(name: str, rng: np.random.Generator) -> Pixels:
        if name in OBJECTS:
            return render(sample_scene(rng, categories=[name], style="photo"), size).pixels
        domain, k = domains[name]
        return domain.sample(k, rng, size)

    keys = [(name, f"drawn by name/{name}/{k:03d}") for name in names for k in range(count)]
    pixels = cache(lambda: np.stack([draw(name, generator(key, seed)) for name, key in keys]))
    pictures = ArrayPictures(pixels, f"{program()} drawn by name {list(names)} {count} {size} {seed}")
    return ImageSet(pictures, np.repeat(np.arange(len(names)), count), [key for _, key in keys])
