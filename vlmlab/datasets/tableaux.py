"""tableau's relatives: scenes with boxes, masks and captions in which one thing differs from tableau.

| name | what differs |
|---|---|
| tableau-paired | some things never come without their companion, others stand on one ground alone |
| tableau-cluttered | five to eight small objects that overlap, many of them elongated and leaning |
| tableau-silhouette | tableau's own scenes as black shapes; the templates still say photo, which fits them badly |
| tableau-many | tableau with 2,400 training scenes, of which the first 600 are its own |
| tableau-128 | tableau's scenes at 128 x 128 pixels, whatever size the backbone takes |

Classes, novel categories and templates are tableau's. Of `tableau-paired` tableau itself is the control: there the casts are
dealt independently and every ground is as likely behind every thing. Novel categories stand in all training scenes, where
`Task` hides their boxes and masks, and captions may name them.

tableau is drawn by `microworld`, whose source is part of its fingerprint; the source of this file is part of the fingerprints
of the scenes that are drawn here, and of no others.

Letters: N images, C classes, S side, n objects in a scene.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from vlmlab.datasets.catalog import BY_NAME
from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.image_set import ArrayPictures, ImageSet
from vlmlab.datasets.microworld import (
    TABLEAU_COUNTS,
    TABLEAU_SHARES,
    UNDRAWN,
    Arrays,
    generator,
    kept,
    load_microworld,
    program,
)
from vlmlab.datasets.truth import NOTHING, Truth
from vlmlab.files import cache_path
from vlmlab.world.captions import caption
from vlmlab.world.objects import KNOWN
from vlmlab.world.painter import render
from vlmlab.world.palette import STUFF
from vlmlab.world.scene import Scene, sample_scene

COMPANIONS = {
    "cup": "table", "hat": "shirt", "drum": "guitar", "banana": "apple", "castle": "flag", "umbrella": "cloud",
    "candle": "book", "moon": "star", "hammer": "scissors", "pizza": "bottle",
}  # fmt: skip
"""Things of tableau-paired that stand side by side in every scene that shows one of them: six pairs of a novel and a base
category, four of two base ones."""

GROUNDS = {
    "boat": "water", "fish": "water", "bird": "sky", "plane": "sky", "balloon": "sky", "crab": "sand",
    "snail": "grass", "flower": "grass", "mushroom": "grass", "car": "brick", "bus": "brick", "windmill": "snow",
    "clock": "wood",
}  # fmt: skip
"""Things of tableau-paired that stand on one ground alone. The ground is behind scenes without them, too."""

CLUTTER_COUNTS, CLUTTER_SHARES = (5, 6, 7, 8), (0.25, 0.25, 0.25, 0.25)
CLUTTER_RADII = (0.07, 0.17)
"""Half the extent of an object of tableau-cluttered, as a share of the side: 9 to 22 of 64 pixels for the whole."""
CLUTTER_NEAR = 0.5
"""Two objects keep half the distance at which they would not overlap, so that hardly any is hidden."""
ELONGATED, STRETCH = 0.6, (1.6, 2.6)
"""Share of the objects that are stretched, and by how much."""

SIDE = 128
TRIES = 200  # places that are tried for a companion, or for an object among the others


@dataclass(frozen=True)
class Kind:
    """How the scenes of one relative are made.

    Attributes:
        scenes: the set whose casts and keys it shares, so that images of equal name show the same scene.
        cards: what is dealt together: tuples of one or two categories.
        counts, shares: numbers of objects in a scene, and how often.
        grounds: category -> the one background that it stands on.
        compose: (cast, background or None, source of randomness) -> scene.
    """

    scenes: str
    compose: Callable[[Sequence[str], str | None, np.random.Generator], Scene]
    cards: tuple[tuple[str, ...], ...] = tuple((name,) for name in sorted(KNOWN))
    counts: tuple[int, ...] = TABLEAU_COUNTS
    shares: tuple[float, ...] = TABLEAU_SHARES
    grounds: dict[str, str] | None = None


def load_tableaux(name: str, size: int = 64, seed: int = 0) -> Dataset:
    """One of tableau's relatives by its name, at `size` x `size` pixels; `seed` makes another of its kind.

    Raises `VlmlabError` for a size at which nothing can be seen.
    """
    info = BY_NAME[name]
    like = load_microworld("tableau", SIDE if name == "tableau-128" else size, seed)
    like = replace(like, name=name, gap=info.gap, mirrors=info.mirrors)
    if name == "tableau-128":
        return like
    drawn = ("train",) if name == "tableau-many" else ("train", "val", "test")
    return replace(like, **{split: _images(name, split, info.splits[split], like, size, seed) for split in drawn})


def _images(name: str, split: str, count: int, like: Dataset, size: int, seed: int) -> ImageSet:
    """The images of one split, drawn when their pixels or boxes are first asked for."""
    kind = KINDS[name]
    number = {label: k for k, label in enumerate(like.classes)}
    keys = [f"{kind.scenes}/{split}/{i:04d}" for i in range(count)]
    casts = deal(kind, count, generator(f"{kind.scenes}/{split}", seed))

    def scene(i: int) -> Scene:
        ground = (
            next((kind.grounds[label] for label in casts[i] if label in kind.grounds), None) if kind.grounds else None
        )
        return kind.compose(casts[i], ground, generator(keys[i], seed))

    def make() -> Arrays:
        pictures = [render(scene(i), size) for i in range(count)]
        most = max(kind.counts)
        return {
            "pixels": np.stack([p.pixels for p in pictures]),
            "instances": np.stack([p.instances for p in pictures]),
            "semantic": np.stack([p.semantic(like.classes, STUFF) for p in pictures]),
            "boxes": np.stack([np.pad(p.boxes, ((0, most - len(p.boxes)), (0, 0))) for p in pictures]),
        }

    stem = f"{name}-{split}-{size}-{seed}"
    stored = cache(lambda: _kept(stem, make))

    def annotate(i: int) -> Truth:
        arrays = stored()
        boxes = arrays["boxes"][i][: len(casts[i])].astype(np.float32)
        # An object that others hide, or that has left the image, has nothing to be found.
        visible = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
        return Truth(
            boxes=boxes[visible],
            labels=np.array([number[casts[i][k]] for k in visible], dtype=np.int64),
            instances=arrays["instances"][i] == (visible + 1)[:, None, None],
            semantic=np.where(arrays["semantic"][i] == UNDRAWN, NOTHING, arrays["semantic"][i].astype(np.int16)),
        )

    labels = np.zeros((count, len(like.classes)), dtype=np.int64)
    for i, cast in enumerate(casts):
        labels[i, [number[label] for label in cast]] = 1
    pictures = ArrayPictures(lambda: stored()["pixels"], f"{program()} {source()} {name} {split} {size} {seed}")
    return ImageSet(
        pictures, labels, keys, annotate, caption=lambda i: caption(scene(i), generator(f"{keys[i]}/caption", seed))
    )


# ------------------------------------------------------------------------------------------------- casts and scenes


def deal(kind: Kind, scenes: int, rng: np.random.Generator) -> list[list[str]]:
    """The categories of each scene, dealt from shuffled decks of the kind's cards, so that all appear about equally often.

    No scene shows a category twice, and things of different grounds never meet. Single cards without grounds are dealt as
    `microworld.deal` deals them.
    """
    grounds = kind.grounds or {}
    deck: list[tuple[str, ...]] = []
    casts = []
    for _ in range(scenes):
        count = int(rng.choice(kind.counts, p=kind.shares))
        cast: list[str] = []

        def fits(card: tuple[str, ...], cast=cast, count=count) -> bool:
            if len(cast) + len(card) > count or set(card) & set(cast):
                return False
            return len({grounds[label] for label in (*cast, *card) if label in grounds}) < 2

        while len(cast) < count:
            if not any(map(fits, deck)):
                deck = [*(kind.cards[k] for k in rng.permutation(len(kind.cards))), *deck]
            cast += deck.pop(max(k for k, card in enumerate(deck) if fits(card)))
        casts.append(cast)
    return casts


def _as_photo(cast: Sequence[str], ground: str | None, rng: np.random.Generator) -> Scene:
    return sample_scene(rng, categories=cast, style="photo")


def _as_silhouette(cast: Sequence[str], ground: str | None, rng: np.random.Generator) -> Scene:
    return sample_scene(rng, categories=cast, style="silhouette")


def _side_by_side(cast: Sequence[str], ground: str | None, rng: np.random.Generator) -> Scene:
    """A scene whose companions touch each other, wherever there is room for that."""
    scene = sample_scene(rng, categories=cast, style="photo", background=ground)
    objects = list(scene.objects)
    for k, thing in enumerate(objects):
        other = COMPANIONS.get(thing.category)
        if other is None:
            continue
        at = next(j for j, o in enumerate(objects) if o.category == other)
        mate = objects[at]
        reach = thing.radius + mate.radius
        for angle in rng.uniform(0, 2 * math.pi, TRIES).tolist():
            x, y = thing.x + 0.98 * reach * math.cos(angle), thing.y + 0.98 * reach * math.sin(angle)
            inside = min(x, y) > mate.radius and max(x, y) < 1 - mate.radius
            others = (o for j, o in enumerate(objects) if j not in (k, at))
            if inside and all(math.hypot(x - o.x, y - o.y) > 0.9 * (mate.radius + o.radius) for o in others):
                objects[at] = replace(mate, x=round(x, 4), y=round(y, 4))
                break
    return replace(scene, objects=tuple(objects))


def _cluttered(cast: Sequence[str], ground: str | None, rng: np.random.Generator) -> Scene:
    """A scene of any number of small objects, one behind the other."""
    objects = []
    for label in cast:
        scene = sample_scene(rng, categories=[label], style="photo", spread=2.0)
        (thing,) = scene.objects
        radius = float(rng.uniform(*CLUTTER_RADII))
        for _ in range(TRIES):
            x, y = (float(v) for v in rng.uniform(radius, 1 - radius, 2))
            if all(math.hypot(x - o.x, y - o.y) > CLUTTER_NEAR * (radius + o.radius) for o in objects):
                break
        if rng.random() < ELONGATED:
            stretch = float(rng.uniform(*STRETCH))
            thing = replace(thing, aspect=round(stretch if rng.random() < 0.5 else 1 / stretch, 3))
        objects.append(replace(thing, x=round(x, 4), y=round(y, 4), radius=round(radius, 4)))
    return replace(scene, objects=tuple(objects))


_PAIRED = {name for pair in COMPANIONS.items() for name in pair}
KINDS: dict[str, Kind] = {
    "tableau-paired": Kind(
        "tableau-paired", _side_by_side, grounds=GROUNDS,
        cards=(*COMPANIONS.items(), *((name,) for name in sorted(KNOWN) if name not in _PAIRED)),
    ),
    "tableau-cluttered": Kind("tableau-cluttered", _cluttered, counts=CLUTTER_COUNTS, shares=CLUTTER_SHARES),
    "tableau-silhouette": Kind("tableau", _as_silhouette),
    "tableau-many": Kind("tableau", _as_photo),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------- drawing once


@cache
def source() -> str:
    """Hash of this file: what is drawn here depends on it, beside the world's program."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]


def _kept(stem: str, make: Callable[[], Arrays]) -> Arrays:
    """As `microworld.kept`; what an older version of this file drew is removed."""
    arrays = kept(f"{stem}-{source()}", make)
    for old in cache_path("microworld").glob(f"{stem}-{'?' * 8}-{'?' * 16}.npz"):
        if f"-{source()}-" not in old.name:
            old.unlink(missing_ok=True)
    return arrays
