"""What pretraining is told about a scene: captions that are drawn afresh at every visit, as the web's are.

A caption names an object, or its group, or describes it by parts; it may add colour, texture, background, number and
relation, and often leaves out most of what is there. Names are the focus: colour, texture and background are each said
about three times in ten, and only where the style shows them. What a caption says is true of its scene. A withheld or
unseen name never appears, a rare name in RARE_SHARE of its objects' mentions.
"""

from __future__ import annotations

import numpy as np

from vlmlab.world.objects import OBJECTS
from vlmlab.world.scene import Scene, SceneObject, relation

RARE_SHARE = 0.03
SAID = 0.3
"""How often colour, texture and background are each mentioned."""
DESCRIBED = 0.17
"""How often a known object is described by its parts, or called by its group, although it has a name."""
RELATED = 0.45
"""How often a scene of several kinds is told as a relation between two of its objects."""

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
"""Stuff -> how a caption says that it is behind."""

GROUP_NOUNS: dict[str, tuple[str, str]] = {
    "furniture": ("piece of furniture", "pieces of furniture"),
    "clothing": ("piece of clothing", "pieces of clothing"),
    "stationery": ("piece of stationery", "pieces of stationery"),
    "sky": ("thing in the sky", "things in the sky"),
    "dish": ("dish", "dishes"),
}
"""Singular and plural of the groups that are not simply counted with an "s"."""

PAIRS = ("scissors", "glasses")
"""Names that are plural already, and take no article."""

NUMBERS = ("no", "one", "two", "three", "four")
COLOURED = ("photo", "flat", "mosaic")
"""Styles in which colour and background can be seen."""
PATTERNED = ("photo", "flat", "sketch")
"""Styles in which the texture of an object can be seen."""


def group_noun(category: str, many: bool = False) -> str:
    """The noun one level above a category: "animal", "piece of furniture"."""
    group = OBJECTS[category].group
    return GROUP_NOUNS.get(group, (group, f"{group}s"))[many]


def with_article(noun: str) -> str:
    """'apple' -> 'an apple'."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def description(category: str, rng: np.random.Generator | None = None, most: int = 3) -> str:
    """The group word and parts, "animal with eight thin legs and a round body"; all parts in order without `rng`."""
    return f"{group_noun(category)} with {_parts(category, rng, most)}"


def _parts(category: str, rng: np.random.Generator | None, most: int) -> str:
    parts = list(OBJECTS[category].parts)
    if rng is not None:
        count = 1 + int(rng.integers(min(most, len(parts))))
        parts = [parts[i] for i in rng.permutation(len(parts))[:count]]
    return " and ".join(parts[:most])


def _mention(objects: list[SceneObject], style: str, rng: np.random.Generator) -> str:
    """Words for all given objects, which are of one category: "a red cat", "two animals with whiskers"."""
    first = objects[0]
    entry = OBJECTS[first.category]
    nameless, described, grouped, coloured, patterned = rng.random(5).tolist()
    many = len(objects) > 1
    tail = ""
    if (
        entry.status in ("withheld", "unseen")
        or (entry.status == "rare" and nameless >= RARE_SHARE)
        or described < DESCRIBED
    ):
        noun = group_noun(first.category, many)
        if grouped < 0.85:
            tail = f" with {_parts(first.category, rng, 3)}"
    else:
        noun = entry.many if many else entry.name
    words = []
    if style in COLOURED and coloured < SAID and len({o.colour for o in objects}) == 1:
        words.append(first.colour)
    textures = {o.texture for o in objects}
    if style in PATTERNED and patterned < SAID and len(textures) == 1 and not textures & {"plain", "gradient"}:
        words.append(first.texture)
    phrase = " ".join([*words, noun]) + tail
    if many:
        return f"{NUMBERS[len(objects)]} {phrase}"
    return phrase if noun in PAIRS else with_article(phrase)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One caption of the scene; another call gives another."""
    opening = tail = ""
    if rng.random() < 0.8:
        choices = OPENINGS[scene.style]
        opening = choices[int(rng.integers(len(choices)))] + " "
    if scene.style in COLOURED and scene.background in ON and rng.random() < SAID:
        tail = f" {ON[scene.background]}"
    kinds: dict[str, list[SceneObject]] = {}
    for o in scene.objects:
        kinds.setdefault(o.category, []).append(o)
    if len(kinds) > 1 and rng.random() < RELATED:
        a, b = (scene.objects[k] for k in rng.permutation(len(scene.objects))[:2])
        word = relation(a, b)
        if word is not None and a.category != b.category:
            return f"{opening}{_mention([a], scene.style, rng)} {word} {_mention([b], scene.style, rng)}{tail}"
    groups = list(kinds.values())
    said = rng.permutation(len(groups))[: 1 + int(rng.integers(min(3, len(groups))))]
    return opening + " and ".join(_mention(groups[k], scene.style, rng) for k in said) + tail
