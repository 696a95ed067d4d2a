"""MicroWorld's composed sets: many classes, each a combination of attributes that captions say one by one.

| name | a class is | for instance |
|---|---|---|
| scattered | a colour, a thing and a ground | red car on snow |
| media | a thing and how it is shown | sketch of a cat |
| kinds | a fine kind under a poor camera | goldfinch |
| weather | a place in weather | foggy beach |
| land | land from above in a season | orchard in autumn |
| lit | a dish in coloured light | soup in blue light |
| neon | a vehicle in coloured light | sedan in red light |
| renditions | a flower and how it is shown | mosaic of a daisy |
| deeds | what a person does, in weather | running in the dark |
| objects-corrupted | a thing of `objects`, under common corruptions | apple |

The older sets of `microworld` have their source and the world's as part of their fingerprints, and stay as they are. A set of
this folder has the world's, and that of its own module (`source`).

Letters: C classes, S side.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np

from vlmlab.datasets.catalog import BY_NAME
from vlmlab.datasets.composed import composition, corrupted, kinds, lights, places, things
from vlmlab.datasets.composed.composition import Composition
from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.image_set import ArrayPictures, ImageSet
from vlmlab.datasets.microworld import SMALLEST, Arrays, generator, kept, load_microworld, program
from vlmlab.errors import VlmlabError
from vlmlab.files import cache_path

_MODULES = {
    things: {"scattered": things.SCATTERED, "media": things.MEDIUM},
    kinds: {"kinds": kinds.KINDS},
    places: {"weather": places.IN_WEATHER, "land": places.LAND},
    lights: {"lit": lights.LIT, "neon": lights.NEON, "renditions": lights.RENDERED, "deeds": lights.DEEDS},
    corrupted: {"objects-corrupted": corrupted.CORRUPTED},
}  # fmt: skip
_LEANS_ON = {kinds: (corrupted,), lights: (places,)}
"""Module -> others whose functions change its images."""
COMPOSED: dict[str, Composition] = {name: own for sets in _MODULES.values() for name, own in sets.items()}
"""Name -> set; see the table above."""


def load_composed(name: str, size: int = 64, seed: int = 0) -> Dataset:
    """One of the composed sets, drawn at `size` x `size` pixels when it is first looked at; `seed` makes another of its kind.

    Raises `VlmlabError` for a size at which nothing can be seen.
    """
    if size < SMALLEST:
        raise VlmlabError(f"a MicroWorld image of {size} pixels shows nothing; ask for a size of at least {SMALLEST}")
    own, info = COMPOSED[name], BY_NAME[name]
    scenes = own.scenes or name

    def images(split: str) -> ImageSet:
        per_class = info.splits[split] // info.classes
        keys = [(label, f"{scenes}/{split}/{label}/{k:03d}") for label in own.classes for k in range(per_class)]

        def make() -> Arrays:
            drawn = [own.draw(own.classes[label], generator(key, seed), size) for label, key in keys]
            return {"pixels": np.stack(drawn)}

        stem = f"{name}-{split}-{size}-{seed}"
        stored = cache(lambda: _kept(stem, name, make))
        pictures = ArrayPictures(lambda: stored()["pixels"], f"{program()} {source(name)} {name} {split} {size} {seed}")
        return ImageSet(pictures, np.repeat(np.arange(info.classes), per_class), [key for _, key in keys])

    return Dataset(
        name=name,
        classes=list(own.classes),
        templates=list(own.templates),
        train=images("train"),
        val=images("val"),
        test=images("test"),
        gap=info.gap,
        mirrors=info.mirrors,
        split_source="drawn",
        hierarchy=load_microworld("objects").hierarchy if name == "objects-corrupted" else {},
    )


@cache
def source(name: str) -> str:
    """Hash of the modules that draw the set: its images depend on them, beside the world's program."""
    module = next(module for module, sets in _MODULES.items() if name in sets)
    digest = hashlib.sha256()
    for part in (composition, module, *_LEANS_ON.get(module, ())):
        digest.update(Path(part.__file__).read_bytes())
    return digest.hexdigest()[:8]


def _kept(stem: str, name: str, make) -> Arrays:
    """As `microworld.kept`; what an older version of the module drew is removed."""
    arrays = kept(f"{stem}-{source(name)}", make)
    for old in cache_path("microworld").glob(f"{stem}-{'?' * 8}-{'?' * 16}.npz"):
        if f"-{source(name)}-" not in old.name:
            old.unlink(missing_ok=True)
    return arrays
