"""Creatures: twelve small birds that differ in beak, crest, tail and plumage (after Oxford Pets and CUB).

Pretraining mostly says "a bird" and describes the plumage: the names are known weakly, the parts well.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vlmlab.world.domain import Domain, DomainClass, Pixels
from vlmlab.world.domains.canvas import BLACK, WHITE, Canvas, Colour, darker, lighter, mix, pick, varied
from vlmlab.world.domains.wording import captions
from vlmlab.world.shapes import ellipse, polygon, rotate


class Plumage(NamedTuple):
    """Colours of back, belly and head; beak "short", "long", "hooked" or "thick"; crest; tail "short", "long", "forked"."""

    back: Colour
    belly: Colour
    head: Colour
    beak: str
    crest: bool
    tail: str
    words: tuple[str, ...]


BLUE, GREEN, RED, GREY = (62, 112, 190), (84, 148, 82), (202, 62, 52), (128, 130, 138)
BROWN, YELLOW, ORANGE = (136, 98, 66), (240, 206, 74), (232, 134, 56)

SPECIES: dict[str, Plumage] = {
    "robin": Plumage(BROWN, ORANGE, BROWN, "short", False, "short", ("a brown back", "an orange breast")),
    "bluebird": Plumage(BLUE, ORANGE, BLUE, "short", False, "short", ("a blue back", "an orange breast")),
    "cardinal": Plumage(RED, RED, RED, "thick", True, "long", ("a red body", "a pointed crest")),
    "canary": Plumage(YELLOW, YELLOW, YELLOW, "short", False, "short", ("a yellow body", "a short beak")),
    "blackbird": Plumage(BLACK, BLACK, BLACK, "short", False, "long", ("a black body", "a yellow beak")),
    "magpie": Plumage(BLACK, WHITE, BLACK, "thick", False, "long", ("a black back", "a white belly", "a long tail")),
    "swallow": Plumage(
        (50, 62, 104), WHITE, (50, 62, 104), "short", False, "forked", ("a dark blue back", "a forked tail")
    ),
    "parrot": Plumage(GREEN, GREEN, RED, "hooked", False, "long", ("a green body", "a red head", "a hooked beak")),
    "cockatoo": Plumage(WHITE, WHITE, WHITE, "hooked", True, "short", ("a white body", "a crest", "a hooked beak")),
    "heron": Plumage(GREY, WHITE, GREY, "long", True, "short", ("a grey back", "a long beak", "a crest")),
    "kingfisher": Plumage(
        BLUE, ORANGE, BLUE, "long", False, "short", ("a blue back", "an orange breast", "a long beak")
    ),
    "goldfinch": Plumage(
        BROWN, YELLOW, RED, "thick", False, "forked", ("a brown back", "a red head", "a yellow belly")
    ),
}
RARE_NAMES = {"goldfinch", "bluebird", "cockatoo", "magpie", "kingfisher"}
CLASSES = tuple(DomainClass(n, p.words, "rare" if n in RARE_NAMES else "known") for n, p in SPECIES.items())
BEAK: Colour = (238, 186, 66)


def _bird(canvas: Canvas, plumage: Plumage, rng: np.random.Generator) -> None:
    back, belly, head = (varied(rng, c, 6) for c in (plumage.back, plumage.belly, plumage.head))
    for x in (-0.06, 0.14):
        canvas.path([(x, 0.42), (x - 0.03, 0.78)], 0.05, darker(BEAK, 0.45))
    tail = {
        "short": polygon(0.38, -0.02, 0.78, 0.1, 0.74, 0.24, 0.36, 0.22),
        "long": polygon(0.36, 0.0, 1.05, 0.38, 0.95, 0.52, 0.32, 0.26),
        "forked": polygon(0.36, 0.0, 1.0, 0.06, 0.7, 0.2, 1.0, 0.4, 0.32, 0.26),
    }[plumage.tail]
    canvas.fill(tail, darker(back, 0.25))
    canvas.shaded(ellipse(0.02, 0.12, 0.5, 0.36), back, 0.25)
    canvas.fill(ellipse(-0.12, 0.22, 0.36, 0.25), belly)
    droop = rng.uniform(-6, 14)
    canvas.fill(rotate(ellipse(0.2, 0.06, 0.36, 0.18), droop, 0.0, 0.0), darker(back, 0.3))
    canvas.fill(rotate(ellipse(0.16, 0.03, 0.3, 0.12), droop, 0.0, 0.0), lighter(back, 0.12))
    if plumage.crest:
        canvas.fill(polygon(-0.56, -0.46, -0.3, -0.92, -0.24, -0.42), head)
        canvas.fill(polygon(-0.44, -0.48, -0.1, -0.82, -0.18, -0.34), darker(head, 0.15))
    canvas.shaded(ellipse(-0.4, -0.28, 0.27), head, 0.22)
    beak = {
        "short": polygon(-0.63, -0.34, -0.84, -0.24, -0.62, -0.18),
        "long": polygon(-0.62, -0.33, -1.12, -0.2, -0.62, -0.17),
        "thick": polygon(-0.6, -0.42, -0.86, -0.25, -0.6, -0.1),
        "hooked": polygon(-0.6, -0.42, -0.82, -0.36, -0.86, -0.08, -0.72, -0.2, -0.6, -0.16),
    }[plumage.beak]
    canvas.fill(beak, BEAK)
    canvas.disc(-0.46, -0.34, 0.075, WHITE)
    canvas.disc(-0.47, -0.34, 0.045, (16, 14, 18))


def _paint(class_index: int, rng: np.random.Generator, size: int, style: str | None) -> Pixels:
    canvas = Canvas(rng, size, style)
    far = varied(rng, pick(rng, ((150, 190, 220), (120, 160, 110), (200, 190, 160), (170, 180, 190))), 12)
    canvas.bokeh(rng, mix(far, (70, 100, 60), 0.45), far, 5)
    flip = bool(rng.random() < 0.5)
    x, y, scale = rng.uniform(-0.15, 0.15), rng.uniform(-0.15, 0.1), rng.uniform(0.6, 0.85)
    branch = y + 0.76 * scale
    canvas.path(
        [(-1.2, branch + rng.uniform(-0.12, 0.12)), (x, branch), (1.2, branch + rng.uniform(-0.12, 0.12))],
        0.1,
        (98, 72, 54),
    )
    canvas.pose(x, y, scale, rng.normal(0, 5), flip, rng.uniform(0.92, 1.08))
    _bird(canvas, SPECIES[CLASSES[class_index].name], rng)
    return canvas.finish(rng)


CREATURES = Domain(
    name="creatures",
    classes=CLASSES,
    templates=("a photo of a {}, a type of bird.", "a photo of a {}.", "a {} on a branch.", "a picture of the {}."),
    gap="Fine-grained: captions mostly say 'bird' and describe the plumage; five species are hardly ever named.",
    pretraining_weight=0.9,
    named=0.12,
    paint=_paint,
    describe=captions(
        CLASSES,
        coarse=(("bird", "small bird"),) * len(CLASSES),
        openings=("a photo of {}", "a picture of {}", "{}", "{} on a branch"),
        named=0.12,
        described=0.6,
    ),
)
