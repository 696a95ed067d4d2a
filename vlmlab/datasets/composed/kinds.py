"""Fine kinds under a poor camera: birds, flowers, vehicles and dishes that have to be told apart in noise, blur and haze.

The world draws them (`creatures`, `flowers`, `vehicles`, `food`); the corruptions are those of `corrupted`, from the third
severity on.

Letters: S side.
"""

from __future__ import annotations

import numpy as np

from vlmlab.datasets.composed.composition import Composition, Pixels
from vlmlab.datasets.composed.corrupted import corrupt
from vlmlab.world.domains import DOMAINS

FAMILIES = ("creatures", "flowers", "vehicles", "food")
FLAWS = ("gaussian noise", "shot noise", "defocus blur", "motion blur", "fog", "contrast")
SEVERITIES = (3, 4, 5)


def _kind(attributes: tuple, rng: np.random.Generator, size: int) -> Pixels:
    domain, index = attributes
    image = DOMAINS[domain].sample(index, rng, size, "photo")
    flaw, severity = FLAWS[int(rng.integers(len(FLAWS)))], SEVERITIES[int(rng.integers(len(SEVERITIES)))]
    return corrupt(image, flaw, severity, rng)


KINDS = Composition(
    {c.name: (domain, k) for domain in FAMILIES for k, c in enumerate(DOMAINS[domain].classes)},
    ("a photo of a {}.", "a picture of a {}.", "a blurry photo of a {}."),
    _kind,
)
