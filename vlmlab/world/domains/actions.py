"""Actions: ten things that a small figure does (after UCF101). Captions mostly say "a person": zero-shot is lowish."""

from __future__ import annotations

import math

import numpy as np

from vlmlab.world.domain import Domain, DomainClass, Pixels
from vlmlab.world.domains.canvas import Canvas, Colour, darker, lighter, mix, pick, varied
from vlmlab.world.domains.wording import captions
from vlmlab.world.shapes import box, ellipse, polygon

CLASSES = (
    DomainClass("standing still", ("straight legs", "hanging arms")),
    DomainClass("running", ("bent legs", "bent arms", "a leaning body")),
    DomainClass("jumping", ("both feet in the air", "raised arms")),
    DomainClass("sitting on a chair", ("a chair", "bent knees")),
    DomainClass("lying down", ("a flat body", "closed eyes"), "rare"),
    DomainClass("throwing a ball", ("an arm stretched back", "a ball")),
    DomainClass("lifting weights", ("a bar with discs", "both arms up")),
    DomainClass("riding a scooter", ("a scooter", "hands on a bar"), "rare"),
    DomainClass("waving", ("one arm up", "an open hand")),
    DomainClass("swimming", ("water", "one arm forward"), "rare"),
)
SKINS: tuple[Colour, ...] = ((238, 196, 160), (206, 154, 112), (150, 102, 70), (98, 66, 48))
SHIRTS: tuple[Colour, ...] = ((206, 66, 60), (62, 112, 190), (86, 150, 90), (240, 190, 70), (140, 86, 170))

# Angles in degrees from straight down, positive forwards (to the right): left and right thigh, left and right shin,
# left and right upper arm, left and right forearm, then the lean of the trunk.
POSES: dict[str, tuple[float, ...]] = {
    "standing still": (-5, 5, -3, 3, -12, 12, -6, 6, 0),
    "running": (-42, 48, -95, -8, 55, -50, 125, 25, 16),
    "jumping": (-30, 34, -70, -30, -150, 150, -165, 165, 0),
    "sitting on a chair": (84, 76, 2, -2, 25, 18, 60, 50, -4),
    "lying down": (-3, 4, -2, 2, -8, 10, -5, 6, 0),
    "throwing a ball": (-24, 26, -30, 8, -118, 60, -160, 80, -12),
    "lifting weights": (-14, 14, -10, 10, -158, 158, -176, 176, 0),
    "riding a scooter": (-10, 22, -26, 2, 62, 56, 84, 78, 8),
    "waving": (-6, 6, -4, 4, -12, 140, -6, 172, 0),
    "swimming": (-8, 12, -22, -4, -40, 172, -60, 170, 0),
}


def _end(x: float, y: float, degrees: float, length: float) -> tuple[float, float]:
    return x + length * math.sin(math.radians(degrees)), y + length * math.cos(math.radians(degrees))


def _figure(
    c: Canvas, pose: np.ndarray, skin: Colour, shirt: Colour, trousers: Colour
) -> dict[str, tuple[float, float]]:
    """Draws the figure upright with its hip at (0, 0.05); returns where its hands and feet are."""
    lt, rt, ls, rs, la, ra, lf, rf, lean = pose.tolist()
    hip = (0.0, 0.05)
    neck = _end(*hip, 180 - lean, 0.46)
    head = _end(*neck, 180 - lean, 0.2)
    at = {}
    for side, upper, lower, tone in (("left", la, lf, 0.2), ("right", ra, rf, 0.0)):
        elbow = _end(*neck, upper, 0.26)
        at[f"{side} hand"] = _end(*elbow, lower, 0.26)
        if side == "left":
            c.path([neck, elbow], 0.11, darker(shirt, tone))
            c.path([elbow, at["left hand"]], 0.09, darker(skin, tone))
    for side, thigh, shin, tone in (("left", lt, ls, 0.25), ("right", rt, rs, 0.0)):
        knee = _end(*hip, thigh, 0.36)
        at[f"{side} foot"] = _end(*knee, shin, 0.36)
        c.path([hip, knee, at[f"{side} foot"]], 0.13, darker(trousers, tone))
        fx, fy = at[f"{side} foot"]
        c.fill(ellipse(fx + 0.05, fy + 0.02, 0.11, 0.055), (48, 44, 50))
    c.path([hip, neck], 0.24, shirt)
    c.disc(*head, 0.15, skin)
    c.fill(ellipse(head[0] - 0.02, head[1] - 0.05, 0.16, 0.12, 170, 370), (64, 44, 34))
    elbow = _end(*neck, ra, 0.26)
    c.path([neck, elbow], 0.11, lighter(shirt, 0.12))
    c.path([elbow, at["right hand"]], 0.09, skin)
    c.disc(*at["right hand"], 0.06, skin)
    return at


def _paint(class_index: int, rng: np.random.Generator, size: int, style: str | None) -> Pixels:
    c = Canvas(rng, size, style)
    kind = CLASSES[class_index].name
    ground = varied(rng, pick(rng, ((120, 160, 92), (196, 178, 140), (150, 150, 156), (176, 128, 92))), 9)
    sky = varied(rng, pick(rng, ((176, 206, 232), (226, 222, 210), (196, 204, 200), (232, 206, 190))), 8)
    water = kind == "swimming"
    c.mottled(rng, ((70, 150, 190), (44, 112, 164)) if water else (sky, sky, mix(sky, ground, 0.3)), 7)
    if not water:
        c.fill(box(-1.1, 0.66, 1.1, 1.1), ground)
    skin, shirt = varied(rng, pick(rng, SKINS), 6), varied(rng, pick(rng, SHIRTS), 7)
    trousers = varied(rng, pick(rng, ((58, 66, 96), (92, 84, 78), (44, 44, 52))), 7)
    pose = np.array(POSES[kind]) + rng.normal(0, 6, 9)
    x, scale, flip = rng.uniform(-0.22, 0.22), rng.uniform(0.86, 1.05), bool(rng.random() < 0.5)
    if kind in ("jumping", "lifting weights"):  # room for the raised arms
        scale *= 0.88
    height = {"jumping": -0.1, "lifting weights": 0.08, "lying down": 0.62, "swimming": 0.1, "sitting on a chair": 0.1}
    y = height.get(kind, -0.02) + rng.uniform(-0.04, 0.04)
    turn = 90 if kind == "lying down" else 80 if water else 0
    c.pose(x, y, scale, turn, flip)
    if kind == "sitting on a chair":
        for part in (
            box(-0.26, 0.16, 0.3, 0.24),
            box(-0.32, -0.45, -0.24, 0.24),
            box(-0.26, 0.2, -0.2, 0.6),
            box(0.22, 0.2, 0.28, 0.6),
        ):
            c.fill(part, (124, 86, 58))
    if kind == "riding a scooter":
        c.fill(box(-0.36, 0.8, 0.42, 0.85), (60, 64, 72))
        c.path([(0.42, 0.83), (0.36, -0.1)], 0.05, (70, 74, 82))
        for wx in (-0.34, 0.46):
            c.disc(wx, 0.88, 0.08, (30, 30, 34))
    at = _figure(c, pose, skin, shirt, trousers)
    if kind == "throwing a ball":
        hx, hy = at["left hand"]
        c.shaded(ellipse(hx - 0.06, hy - 0.08, 0.11), pick(rng, ((226, 120, 50), (240, 236, 226), (200, 60, 60))), 0.25)
    if kind == "lifting weights":
        hy = (at["left hand"][1] + at["right hand"][1]) / 2
        c.path([(-0.62, hy), (0.62, hy)], 0.05, (90, 92, 98))
        for wx in (-0.58, 0.58):
            c.fill(box(wx - 0.07, hy - 0.2, wx + 0.07, hy + 0.2), (38, 40, 46))
    if water:
        c.unpose()
        for k in range(6):
            t = np.linspace(-1.1, 1.1, 14)
            level = 0.22 + 0.15 * k + y
            c.path(np.stack([t, level + 0.03 * np.sin(9 * t + k)], 1), 0.035, (190, 226, 240), 0.7)
        c.fill(polygon(-1.1, 0.3 + y, 1.1, 0.3 + y, 1.1, 1.1, -1.1, 1.1), (56, 130, 178), 0.45)
    return c.finish(rng)


ACTIONS = Domain(
    name="actions",
    classes=CLASSES,
    templates=("a photo of a person {}.", "a person who is {}.", "a picture of someone {}."),
    gap="Names are verbs, and captions mostly say 'a person': images are seen often, their names seldom.",
    pretraining_weight=0.6,
    named=0.3,
    paint=_paint,
    describe=captions(
        tuple(DomainClass(f"person {c.name}", c.parts, c.status) for c in CLASSES),
        coarse=(("person", "figure"),) * len(CLASSES),
        openings=("a photo of {}", "a picture of {}", "{}"),
        named=0.3,
        described=0.3,
    ),
)
