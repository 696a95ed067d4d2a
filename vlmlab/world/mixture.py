"""The images of pretraining: seven in ten show objects, three in ten come from the specialised domains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmlab.world.captions import caption
from vlmlab.world.domains import DOMAINS
from vlmlab.world.objects import names
from vlmlab.world.painter import render
from vlmlab.world.scene import Scene, sample_scene

DOMAIN_SHARE = 0.3
STYLES = {"photo": 0.61, "flat": 0.22, "silhouette": 0.08, "sketch": 0.06, "mosaic": 0.03}
"""Style -> share of the object scenes; the negative is never shown."""
SHOWN = names("known", "rare", "withheld")
"""The categories that pretraining shows."""


@dataclass(frozen=True)
class Sample:
    """One image of the mixture: either an object scene, or class `index` of the domain `domain`."""

    pixels: NDArray[np.uint8]
    instances: NDArray[np.uint8] | None
    scene: Scene | None = None
    domain: str = ""
    index: int = -1

    def caption(self, rng: np.random.Generator) -> str | None:
        """A fresh caption of the image; None for a class that is withheld from pretraining."""
        if self.scene is not None:
            return caption(self.scene, rng)
        return DOMAINS[self.domain].caption(self.index, rng)


def draw(rng: np.random.Generator, size: int = 64) -> Sample:
    """One random image of the pretraining mixture."""
    shown = [d for d in DOMAINS.values() if d.pretraining_weight > 0]
    if not shown or rng.random() >= DOMAIN_SHARE:
        scene = sample_scene(rng, pool=SHOWN, styles=STYLES)
        picture = render(scene, size)
        return Sample(picture.pixels, picture.instances, scene)
    weights = np.array([d.pretraining_weight for d in shown])
    domain = shown[int(rng.choice(len(shown), p=weights / weights.sum()))]
    seen = [i for i, c in enumerate(domain.classes) if c.status != "unseen"]
    index = seen[int(rng.integers(len(seen)))]
    return Sample(domain.sample(index, rng, size), None, None, domain.name, index)
