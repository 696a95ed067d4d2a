"""MicroWorld's suite: small drawn datasets that stand for the field's benchmark.

An image is drawn from a generator whose seed is a hash of the image's own name ("objects/test/apple/007"). So the
splits share no image, none is shared with pretraining (whose seeds are counted numbers), and an image stays the same
whatever else is drawn. The sketches, silhouettes and mosaics show the very scenes of `objects` in another style.

A split is drawn when its pixels are first asked for, and then cached on the user's disk, under a hash of the program
that drew it.

Letters: N images, C classes, S side, n objects in a scene.
"""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from vlmlab.datasets.catalog import BY_NAME
from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.image_set import ArrayPictures, ImageSet, Pixels
from vlmlab.datasets.truth import NOTHING, Truth
from vlmlab.errors import VlmlabError
from vlmlab.files import cache_path, write_atomically
from vlmlab.world.captions import caption
from vlmlab.world.domains import DOMAINS
from vlmlab.world.objects import HIERARCHY, KNOWN, NOVEL, RARE, UNSEEN, WITHHELD
from vlmlab.world.painter import render
from vlmlab.world.palette import STUFF
from vlmlab.world.scene import Scene, sample_scene

SMALLEST = 16
"""Side in pixels below which MicroWorld shows nothing."""

Arrays = dict[str, NDArray]

GENERIC = ("a photo of a {}.", "a picture of a {}.", "an image of a {}.")


@dataclass(frozen=True)
class ObjectSet:
    """One member of the `objects` family: names, style, and the sentences that suit it (custom prompts, as in CoOp)."""

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    style: str = "photo"
    scenes: str = "objects"
    """The set whose scenes it shows."""


NAMED = tuple(sorted((*KNOWN, *RARE)))
OBJECT_SETS: dict[str, ObjectSet] = {
    "objects": ObjectSet(NAMED, GENERIC),
    "objects-v2": ObjectSet(NAMED, GENERIC, scenes="objects-v2"),
    "objects-sketch": ObjectSet(
        NAMED, ("a sketch of a {}.", "a pencil sketch of a {}.", "a line drawing of a {}."), "sketch"
    ),
    "objects-silhouette": ObjectSet(
        NAMED, ("a silhouette of a {}.", "a black shape of a {}.", "the shadow of a {}."), "silhouette"
    ),
    "objects-mosaic": ObjectSet(NAMED, ("a mosaic of a {}.", "a tiled picture of a {}.", "a photo of a {}."), "mosaic"),
    "objects-unnamed": ObjectSet(tuple(sorted((*WITHHELD, *UNSEEN))), GENERIC, scenes="objects-unnamed"),
}

V2_BACKGROUNDS = ("brick", "wood", "water", "grass", "noise")
V2_SPREAD = 1.7
V2_SHRINK = (0.55, 0.8)
"""How objects-v2 departs from objects: busy backgrounds, more lean and stretch, smaller and off centre."""

TABLEAU_COUNTS, TABLEAU_SHARES = (2, 3, 4), (0.4, 0.35, 0.25)
"""Objects in a scene of tableau, and how often; always of different categories."""


def load_microworld(name: str, size: int = 64, seed: int = 0) -> Dataset:
    """One of the suite's datasets, drawn at `size` x `size` pixels; `seed` makes another of its kind.

    Raises `VlmlabError` for a size at which nothing can be seen, or a name that is no drawn dataset.
    """
    if size < SMALLEST:
        raise VlmlabError(f"a MicroWorld image of {size} pixels shows nothing; ask for a size of at least {SMALLEST}")
    if name == "tableau":
        return _tableau(size, seed)
    if name in OBJECT_SETS:
        own = OBJECT_SETS[name]
        return _classified(
            name, own.scenes, own.classes, own.templates, lambda label, rng: _object(own, label, rng, size), size, seed
        )
    if name in DOMAINS:
        domain = DOMAINS[name]
        index = {c.name: k for k, c in enumerate(domain.classes)}
        classes = tuple(sorted(index))
        return _classified(
            name, name, classes, domain.templates, lambda label, rng: domain.sample(index[label], rng, size), size, seed
        )
    raise VlmlabError(f"'{name}' is not drawn by MicroWorld; see vlmlab datasets")


def _classified(
    name: str,
    scenes: str,
    classes: tuple[str, ...],
    templates: tuple[str, ...],
    draw: Callable[[str, np.random.Generator], Pixels],
    size: int,
    seed: int,
) -> Dataset:
    """A dataset with one label per image; `draw(class name, generator)` gives pixels [S, S, 3]."""
    info = BY_NAME[name]

    def images(split: str) -> ImageSet:
        per_class = info.splits[split] // info.classes
        keys = [(label, f"{scenes}/{split}/{label}/{k:03d}") for label in classes for k in range(per_class)]

        def make() -> Arrays:
            return {"pixels": np.stack([draw(label, generator(key, seed)) for label, key in keys])}

        stored = cache(lambda: kept(f"{name}-{split}-{size}-{seed}", make))
        pictures = ArrayPictures(lambda: stored()["pixels"], f"{program()} {name} {split} {size} {seed}")
        labels = np.repeat(np.arange(len(classes)), per_class)
        return ImageSet(pictures, labels, [key for _, key in keys])

    return Dataset(
        name=name,
        classes=list(classes),
        templates=list(templates),
        train=images("train"),
        val=images("val"),
        test=images("test"),
        gap=info.gap,
        mirrors=info.mirrors,
        split_source="drawn",
        hierarchy=_above(classes),
    )


def _object(chosen: ObjectSet, label: str, rng: np.random.Generator, size: int) -> Pixels:
    if chosen.scenes == "objects-v2":
        return render(_v2_scene(label, rng), size).pixels
    return render(sample_scene(rng, categories=[label], style=chosen.style), size).pixels


def _v2_scene(label: str, rng: np.random.Generator) -> Scene:
    """A scene of objects-v2: what ImageNetV2 is to ImageNet, the same question asked of other images."""
    background = V2_BACKGROUNDS[int(rng.integers(len(V2_BACKGROUNDS)))]
    scene = sample_scene(rng, categories=[label], style="photo", background=background, spread=V2_SPREAD)
    (thing,) = scene.objects
    radius = thing.radius * rng.uniform(*V2_SHRINK)
    x, y = rng.uniform(radius, 1 - radius, 2)
    return replace(scene, objects=(replace(thing, x=float(x), y=float(y), radius=float(radius)),))


def _above(classes: tuple[str, ...]) -> dict[str, dict[str, tuple[str, ...]]]:
    """The part of the category hierarchy that these classes belong to."""
    kept_groups = {
        top: {group: tuple(n for n in names if n in classes) for group, names in groups.items()}
        for top, groups in HIERARCHY.items()
    }
    pruned = {top: {g: names for g, names in groups.items() if names} for top, groups in kept_groups.items()}
    return {top: groups for top, groups in pruned.items() if groups}


# --------------------------------------------------------------------------------------------------------- tableau


UNDRAWN = 255  # value of a drawn mask where there is no class


def _tableau(size: int, seed: int) -> Dataset:
    """Scenes of two to four objects with boxes and masks; the novel categories are the world's own."""
    info = BY_NAME["tableau"]
    classes = tuple(sorted(KNOWN))
    number = {label: k for k, label in enumerate(classes)}

    def images(split: str) -> ImageSet:
        keys = [f"tableau/{split}/{i:04d}" for i in range(info.splits[split])]
        casts = deal(classes, len(keys), generator(f"tableau/{split}", seed))

        most = max(TABLEAU_COUNTS)

        def make() -> Arrays:
            pictures = [
                render(sample_scene(generator(key, seed), categories=cast, style="photo"), size)
                for key, cast in zip(keys, casts, strict=True)
            ]
            return {
                "pixels": np.stack([p.pixels for p in pictures]),
                "instances": np.stack([p.instances for p in pictures]),
                "semantic": np.stack([p.semantic(classes, STUFF) for p in pictures]),
                "boxes": np.stack([np.pad(p.boxes, ((0, most - len(p.boxes)), (0, 0))) for p in pictures]),
            }

        stored = cache(lambda: kept(f"tableau-{split}-{size}-{seed}", make))

        def annotate(i: int) -> Truth:
            arrays = stored()
            boxes = arrays["boxes"][i][: len(casts[i])].astype(np.float32)
            # An object may be hidden behind later ones, or leave the image: there is nothing of it to find then.
            visible = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
            return Truth(
                boxes=boxes[visible],
                labels=np.array([number[casts[i][k]] for k in visible], dtype=np.int64),
                instances=arrays["instances"][i] == (visible + 1)[:, None, None],
                semantic=np.where(arrays["semantic"][i] == UNDRAWN, NOTHING, arrays["semantic"][i].astype(np.int16)),
            )

        labels = np.zeros((len(keys), len(classes)), dtype=np.int64)
        for i, cast in enumerate(casts):
            labels[i, [number[label] for label in cast]] = 1
        pictures = ArrayPictures(lambda: stored()["pixels"], f"{program()} tableau {split} {size} {seed}")

        def say(i: int) -> str:
            scene = sample_scene(generator(keys[i], seed), categories=casts[i], style="photo")
            return caption(scene, generator(f"{keys[i]}/caption", seed))

        return ImageSet(pictures, labels, keys, annotate, caption=say)

    return Dataset(
        name="tableau",
        classes=list(classes),
        templates=list(GENERIC),
        train=images("train"),
        val=images("val"),
        test=images("test"),
        tasks=info.tasks,
        gap=info.gap,
        mirrors=info.mirrors,
        split_source="drawn",
        novel=tuple(sorted(NOVEL)),
        stuff=STUFF,
        hierarchy=_above(classes),
    )


def deal(classes: tuple[str, ...], scenes: int, rng: np.random.Generator) -> list[list[str]]:
    """The categories of each scene, dealt like cards from shuffled decks, so that all appear about equally often.

    No scene shows a category twice, so of fewer than four there are fewer in a scene.
    """
    deck: list[str] = []
    casts = []
    for _ in range(scenes):
        count = min(int(rng.choice(TABLEAU_COUNTS, p=TABLEAU_SHARES)), len(classes))
        cast: list[str] = []
        while len(cast) < count:
            if not any(label not in cast for label in deck):
                deck = [*(classes[k] for k in rng.permutation(len(classes))), *deck]
            # The next card that is not in this scene already.
            at = max(k for k, label in enumerate(deck) if label not in cast)
            cast.append(deck.pop(at))
        casts.append(cast)
    return casts


# ------------------------------------------------------------------------------------------------- drawing once


def generator(key: str, seed: int) -> np.random.Generator:
    """The source of randomness of one image: depends on its name and the dataset's seed, and on nothing else."""
    digest = hashlib.blake2b(f"MicroWorld suite\0{seed}\0{key}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


@cache
def program() -> str:
    """Hash of everything that decides what an image looks like: the world's source, this file, NumPy and Pillow."""
    digest = hashlib.sha256(f"{np.__version__} {PIL.__version__}".encode())
    world = Path(__file__).parent.parent / "world"
    for source in [*sorted(world.rglob("*.py")), Path(__file__)]:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def kept(stem: str, make: Callable[[], Arrays]) -> Arrays:
    """What `make` gives, from the user's cache if the same program made it before.

    A file that cannot be read is made again, one of an older program is removed, and a cache that cannot be written
    costs a warning and time, nothing else.
    """
    path = cache_path("microworld", f"{stem}-{program()}.npz")
    try:
        with np.load(path) as stored:
            return dict(stored)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        arrays = make()
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    try:
        write_atomically(path, buffer.getvalue())
    except VlmlabError as error:
        warnings.warn(f"the drawn images are not kept: {error}", stacklevel=2)
        return arrays
    for old in path.parent.glob(f"{stem}-{'?' * 16}.npz"):
        if old != path:
            old.unlink(missing_ok=True)
    return arrays
