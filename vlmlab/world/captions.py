"""What pretraining is told about a scene: captions that are drawn afresh at every visit, as the web's are.

A caption names an object, or its group, or describes it by parts; it may add colour, texture, background, number and
relation, and often says nothing of what is there. Names are the focus: colour and background are said about three
times in ten. A withheld name never appears, a rare name in RARE_SHARE of its objects' mentions.
"""

from __future__ import annotations

import numpy as np

from vlmlab.world.objects import OBJECTS
from vlmlab.world.palette import STUFF
from vlmlab.world.scene import Scene, SceneObject, relation

RARE_SHARE = 0.03
SAID = 0.3
"""How often colour, texture and background are mentioned."""
DESCRIBED = 0.17
"""How often a known object is described by its parts although it has a name."""

OPENINGS: dict[str, tuple[str, ...]] = {
    "photo": ("a photo of", "a picture of", "a photograph of", "an image of"),
    "flat": ("a drawing of", "a cartoon of", "a picture of", "an illustration of"),
    "silhouette": ("a silhouette of", "a black shape of", "the shadow of"),
    "sketch": ("a sketch of", "a pencil sketch of", "a line drawing of"),
    "mosaic": ("a mosaic of", "a tiled picture of"),
    "negative": ("a negative of",),
}
ON: dict[str, str] = {
    "sky": "in the sky",
    "grass": "on grass",
    "sand": "on sand",
    "water": "on water",
    "brick": "on a brick wall",
    "snow": "on snow",
    "wood": "on wood",
}
NUMBERS = ("no", "one", "two", "three", "four")


NOUNS = {"clothing": "garment", "sky": "thing in the sky", "stationery": "piece of stationery"}
"""Where the word for a group is no noun that takes an article."""


def group_noun(category: str) -> str:
    """The noun one level above a category: "animal", "garment"."""
    group = OBJECTS[category].group
    return NOUNS.get(group, group)


def with_article(noun: str) -> str:
    """'apple' -> 'an apple'."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def description(category: str, rng: np.random.Generator | None = None, most: int = 3) -> str:
    """The group word and parts, "animal with eight thin legs and a round body"; all parts in order without `rng`."""
    entry = OBJECTS[category]
    parts = list(entry.parts)
    if rng is not None:
        count = 1 + int(rng.integers(min(most, len(parts))))
        parts = [parts[i] for i in rng.permutation(len(parts))[:count]]
    return f"{group_noun(category)} with " + " and ".join(parts[:most])


def _noun(o: SceneObject, rng: np.random.Generator, colours: bool) -> str:
    """The words for one object, without its article."""
    entry = OBJECTS[o.category]
    u = rng.random(4)
    nameless = entry.status in ("withheld", "unseen") or (entry.status == "rare" and u[0] >= RARE_SHARE)
    if nameless or u[1] < DESCRIBED:
        noun = description(o.category, rng) if u[2] < 0.85 else group_noun(o.category)
    else:
        noun = entry.name
    adjectives = []
    if colours and u[3] < SAID:
        adjectives.append(o.colour)
    if o.texture not in ("plain", "gradient") and rng.random() < SAID:
        adjectives.append(o.texture)
    return " ".join([*adjectives, noun])


def _many(o: SceneObject, count: int) -> str | None:
    """'three cats', or None where the name may not be said."""
    entry = OBJECTS[o.category]
    return f"{NUMBERS[count]} {entry.many}" if entry.status == "known" else None


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One caption of the scene; another call gives another."""
    colours = scene.style in ("photo", "flat", "mosaic")
    objects = scene.objects
    tail = ""
    if scene.style in ("photo", "flat", "mosaic") and scene.background in STUFF and rng.random() < SAID:
        tail = " " + ON[scene.background]
    opening = ""
    if rng.random() < 0.8:
        choices = OPENINGS[scene.style]
        opening = choices[int(rng.integers(len(choices)))] + " "
    if len(objects) == 1:
        return opening + with_article(_noun(objects[0], rng, colours)) + tail
    if len({o.category for o in objects}) == 1 and rng.random() < 0.75:
        many = _many(objects[0], len(objects))
        if many:
            return opening + many + tail
    if len(objects) == 2 and rng.random() < 0.45:
        a, b = (objects[k] for k in rng.permutation(2))
        word = relation(a, b)
        if word:
            first, second = (with_article(_noun(o, rng, colours)) for o in (a, b))
            return f"{opening}{first} {word} {second}{tail}"
    said = rng.permutation(len(objects))[: 1 + int(rng.integers(min(3, len(objects))))]
    return opening + " and ".join(with_article(_noun(objects[k], rng, colours)) for k in said) + tail
