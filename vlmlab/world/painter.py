"""From a scene graph to an image with its masks and boxes.

An object is a stack of polygons, drawn at twice the size as a map of labels (which part is where); patterns relabel its
body; a palette turns labels into colours; the reduction to the size of the image makes the edges soft; light is
smooth and comes last. Backgrounds are smooth fields over the unit square. Everything random comes from the seeds of the
scene and is drawn on grids that do not depend on the size, so that one scene is the same image at 64, 128 and 256
pixels (only the grain of the film is new at each size).

Dimension legend: S side of the image in pixels, (h, w) crop around one object, n objects. Colours are held channel
first while painting, [3, S, S], because numpy multiplies planes several times faster than interleaved pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from vlmlab.errors import VlmlabError, unknown
from vlmlab.world.category import Category
from vlmlab.world.objects import OBJECTS
from vlmlab.world.palette import BACKDROPS, COLOURS, FIXED, LIGHT, SHADE, STUFF, STUFF_RAMPS
from vlmlab.world.scene import BACKGROUNDS, STYLES, Scene, SceneObject
from vlmlab.world.shapes import ROLES

Field = NDArray[np.float32]
Labels = NDArray[np.uint8]

OVERSAMPLING = 2
MOSAIC_TILES = 16

_ROLE = {role: k for k, role in enumerate(ROLES)}
_BODY = _ROLE["body"]
# Labels beyond the roles: outlines, the second colour of a pattern, hatched parts of a sketch, steps of a gradient.
_INK = len(ROLES)
_PATTERN = _INK + 1
_HATCHED = {role: _PATTERN + 1 + k for k, role in enumerate(("dark", "brown", "black"))}
_RAMP = _PATTERN + 4
_STEPS = 48
_LABELS = _RAMP + _STEPS

_SHADE, _LIGHT = np.array(SHADE, np.float32), np.array(LIGHT, np.float32)
_BODIES = {name: np.array(value, np.float32) for name, value in COLOURS.items()}
_FIXED_AT = [_ROLE[role] for role in FIXED]
_FIXED = np.array(list(FIXED.values()), np.float32)
_BACKDROPS = np.array(BACKDROPS, np.float32)
_RAMPS = {kind: np.array(ramps, np.float32) for kind, ramps in STUFF_RAMPS.items()}


@dataclass(frozen=True)
class Picture:
    """A painted scene.

    Attributes:
        pixels: uint8 [S, S, 3].
        instances: uint8 [S, S]; k + 1 where object k of the scene is visible, else 0.
        boxes: int64 [n, 4], (x0, y0, x1, y1) in pixels around the visible mask, x1 and y1 exclusive; zeros if hidden.
        scene: what was painted.
    """

    pixels: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    boxes: NDArray[np.int64]
    scene: Scene

    def semantic(self, things: Sequence[str], stuff: Sequence[str] = STUFF, nothing: int = 255) -> NDArray[np.uint8]:
        """Class per pixel [S, S]: `things` by category, then `stuff` by background, `nothing` elsewhere."""
        index = {name: k for k, name in enumerate((*things, *stuff))}
        values = [index.get(name, nothing) for name in (self.scene.background, *self.scene.categories)]
        return np.asarray(values, np.uint8)[self.instances]


# ------------------------------------------------------------------------------------------------------- backgrounds


@cache
def grid(size: int) -> tuple[Field, Field]:
    """Centres of the pixels, x [1, S] and y [S, 1], in [0, 1]."""
    c = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    return c[None], c[:, None]


@cache
def _cubic(size: int, n: int) -> Field:
    """Weights [S, n] of Catmull-Rom interpolation from n values to `size`, with the outer values repeated."""
    at = (np.arange(size) + 0.5) / size * n - 0.5
    base = np.floor(at).astype(int)
    t = at - base
    taps = (
        -0.5 * t + t**2 - 0.5 * t**3,
        1 - 2.5 * t**2 + 1.5 * t**3,
        0.5 * t + 2 * t**2 - 1.5 * t**3,
        -0.5 * t**2 + 0.5 * t**3,
    )
    weights = np.zeros((size, n))
    for k, tap in enumerate(taps):
        np.add.at(weights, (np.arange(size), np.clip(base + k - 1, 0, n - 1)), tap)
    return weights.astype(np.float32)


def smooth_noise(rng: np.random.Generator, size: int, nx: int, ny: int | None = None) -> Field:
    """A random field [S, S] in about [-1, 1] that runs smoothly between nx by ny random values."""
    lattice = rng.random((ny or nx, nx), dtype=np.float32) * 2 - 1
    return (_cubic(size, ny or nx) @ lattice @ _cubic(size, nx).T).astype(np.float32, copy=False)


def _between(ramp: Sequence[Field], t: Field) -> Field:
    """Colours [3, S, S] at t between the two of the ramp (beyond them, for t outside [0, 1])."""
    a, b = ramp
    return a[:, None, None] + (b - a)[:, None, None] * t


def _line(phase: Field, width: float, soft: float) -> Field:
    """1 on lines at whole numbers of `phase`, `width` wide with an edge of `soft` (in units of phase), else 0."""
    away = np.abs(phase - np.round(phase))
    return np.clip((width / 2 + soft / 2 - away) / soft, 0, 1)


def _ramp(rng: np.random.Generator, kind: str) -> tuple[Field, Field]:
    """One of the ramps of the stuff, with its hue, brightness and contrast varied."""
    ramps = _RAMPS[kind]
    a, b = ramps[int(rng.integers(len(ramps)))]
    middle, half = (a + b) / 2, (b - a) / 2
    middle = middle * np.float32(rng.uniform(0.84, 1.1)) + rng.standard_normal(3, dtype=np.float32) * 8
    half = half * np.float32(rng.uniform(0.7, 1.35))
    return middle - half, middle + half


def _backdrop(rng: np.random.Generator) -> Field:
    colour = _BACKDROPS[int(rng.integers(len(_BACKDROPS)))]
    return colour * np.float32(rng.uniform(0.85, 1.08)) + rng.standard_normal(3, dtype=np.float32) * 9


def _sky(rng: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    puffs = smooth_noise(rng, size, int(rng.integers(3, 6)), int(rng.integers(4, 9)))
    puffs = puffs + 0.5 * smooth_noise(rng, size, 9, 14)
    cloud = np.clip(puffs * rng.uniform(0.4, 1.1) - rng.uniform(-0.1, 0.35), 0, 0.85)
    clear = _between(_ramp(rng, "sky"), np.clip(y * rng.uniform(0.7, 1.1), 0, 1))
    return clear + (250 - clear) * cloud


def _grass(rng: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    n = int(rng.integers(22, 44))
    blades = smooth_noise(rng, size, n, n // int(rng.integers(2, 5)))
    t = 0.5 + rng.uniform(0.25, 0.6) * blades + 0.3 * smooth_noise(rng, size, 4) + 0.25 * (y - 0.5)
    return _between(_ramp(rng, "grass"), t)


def _sand(rng: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    drift = smooth_noise(rng, size, 3, int(rng.integers(4, 9)))
    ripple = np.sin(y * rng.uniform(18, 40) + 2.5 * smooth_noise(rng, size, 4))
    grains = smooth_noise(rng, size, 48)
    return _between(_ramp(rng, "sand"), 0.5 + 0.35 * drift + rng.uniform(0.05, 0.3) * ripple + 0.3 * grains)


def _water(rng: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    bend = rng.uniform(0.5, 1.4) * np.sin(6.28 * (rng.uniform(0.8, 2) * x + rng.random()))
    wave = np.sin(6.28 * rng.uniform(4, 9) * y + bend + 2.2 * smooth_noise(rng, size, 5))
    glint = np.clip(smooth_noise(rng, size, 10, 26) * wave - 0.35, 0, 1)
    t = 0.45 + rng.uniform(0.2, 0.5) * wave + 0.25 * smooth_noise(rng, size, 3)
    return _between(_ramp(rng, "water"), t) + 110 * glint


def _brick(rng: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    rows = rng.uniform(5, 11)
    columns, phase = rows * rng.uniform(0.42, 0.6), rng.random()
    v = y * rows + phase
    row = np.floor(v)
    u = x * columns + 0.5 * (row % 2) + phase
    shade = rng.random(1024, dtype=np.float32)[(np.floor(u) * 31 + row * 57).astype(np.int32) % 1024] - 0.5
    # Joints stay a pixel and a half wide at 64 pixels however fine the wall is.
    soft = rows * 1.5 / 64
    joints = np.maximum(_line(v, 0.09, soft), _line(u, 0.05, soft * columns / rows))
    brick, joint = _ramp(rng, "brick")
    wall = brick[:, None, None] + (rng.uniform(20, 60) * shade + 14 * smooth_noise(rng, size, 24))
    return wall + (joint[:, None, None] - wall) * joints


def _snow(rng: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    t = 0.55 + 0.55 * smooth_noise(rng, size, 3, 5) + 0.25 * smooth_noise(rng, size, 12, 18)
    sparkle = np.clip(smooth_noise(rng, size, 48) - 0.72, 0, 1)
    return _between(_ramp(rng, "snow"), t) + 60 * sparkle


def _wood(rng: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    if rng.random() < 0.5:
        x, y = y, x
    planks = rng.uniform(2.5, 5.5)
    u = x * planks + rng.random()
    shade = rng.random(16, dtype=np.float32)[np.floor(u).astype(np.int32) % 16]
    knots = smooth_noise(rng, size, 5)
    fibre = np.sin(6.28 * (rng.uniform(10, 16) * x + shade * 7 + rng.uniform(0.3, 0.9) * knots + 0.6 * y))
    gap = _line(u, 0.05, planks * 1.5 / 64)
    return _between(_ramp(rng, "wood"), 0.3 + 0.45 * shade + 0.22 * fibre) * (1 - 0.55 * gap)


def _plain(rng: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    return np.broadcast_to(_backdrop(rng)[:, None, None], (3, size, size)).copy()


def _gradient(rng: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    a = rng.uniform(0, 2 * math.pi)
    t = np.clip(((x - 0.5) * math.cos(a) + (y - 0.5) * math.sin(a)) / 1.2 + 0.5, 0, 1)
    return _between((_backdrop(rng), _backdrop(rng)), t)


def _noise(rng: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    t = 0.5 + 0.7 * smooth_noise(rng, size, int(rng.integers(4, 20))) + 0.3 * smooth_noise(rng, size, 40)
    return _between((_backdrop(rng), _backdrop(rng)), np.clip(t, 0, 1))


_BACKGROUNDS: dict[str, Callable[[np.random.Generator, int, Field, Field], Field]] = {
    "sky": _sky, "grass": _grass, "sand": _sand, "water": _water, "brick": _brick, "snow": _snow, "wood": _wood,
    "plain": _plain, "gradient": _gradient, "noise": _noise,
}  # fmt: skip


def paint_background(kind: str, rng: np.random.Generator, size: int) -> Field:
    """A background [3, S, S], about in [0, 255], not clipped. VlmlabError if there is no such background."""
    if kind not in _BACKGROUNDS:
        raise unknown("background", kind, BACKGROUNDS)
    return _BACKGROUNDS[kind](rng, size, *grid(size))


# ----------------------------------------------------------------------------------------------------------- objects


@dataclass(frozen=True)
class _Cut:
    """One object, drawn at twice the size on the smallest crop that holds it."""

    labels: Image.Image  # L, [h, w]; index into ROLES or a label beyond them, 0 where it is not
    left: int  # of the crop in the image, in pixels of the finished image
    top: int
    axes: Field  # [2, 3]; rows give u and v in [-1, 1] along the object's own axes from (x, y, 1) on the crop

    def coordinates(self) -> tuple[Field, Field]:
        """u and v [h, w] across the object at every pixel of the crop."""
        w, h = self.labels.size
        x, y = np.arange(w, dtype=np.float32)[None], np.arange(h, dtype=np.float32)[:, None]
        (a, b, c), (d, e, f) = self.axes
        return (a * x + c) + b * y, (d * x + f) + e * y


def _cut(o: SceneObject, category: Category, rng: np.random.Generator, size: int, ink: float) -> _Cut | None:
    """Draw the parts of an object; `ink` is the width of outlines as a fraction of the image (0: none).

    None if the object lies outside the image.
    """
    parts = category.draw(rng)
    p = np.concatenate([outline for _, outline in parts])
    # A slow ripple and a shear bend the whole figure a little: no two instances are congruent.
    shear, phase, other_phase = rng.uniform(-1, 1, 3).tolist()
    x = p[:, 0] + 0.07 * shear * p[:, 1] + 0.03 * np.sin(3.1 * p[:, 1] + 3.14 * phase)
    y = p[:, 1] + 0.03 * np.sin(3.1 * p[:, 0] + 3.14 * other_phase)
    canvas = size * OVERSAMPLING
    stretch = math.sqrt(o.aspect)
    c, s = math.cos(math.radians(o.rotation)), math.sin(math.radians(o.rotation))
    rx, ry = o.radius * canvas * stretch * (-1 if o.flip else 1), o.radius * canvas / stretch
    cx, cy = o.x * canvas, o.y * canvas
    corners = np.empty_like(p)
    corners[:, 0] = x * (rx * c) - y * (ry * s) + cx
    corners[:, 1] = x * (rx * s) + y * (ry * c) + cy
    pad = 1 + math.ceil(ink * canvas)
    (x0, y0), (x1, y1) = corners.min(0).tolist(), corners.max(0).tolist()
    left, right = _even_span(x0, x1, pad, canvas)
    top, bottom = _even_span(y0, y1, pad, canvas)
    if right <= left or bottom <= top:
        return None
    labels = Image.new("L", (right - left, bottom - top), 0)
    draw = ImageDraw.Draw(labels)
    corners -= (left, top)
    # Only the outer half of an outline is left once its polygon is filled, and a polygon fills its border too.
    width = 1 + max(2, round(2 * ink * canvas))
    end, k = 0, 0
    # Neighbours of one role are one body: their outlines go below all of them, so that no line crosses it.
    while k < len(parts):
        role, run = parts[k][0], []
        while k < len(parts) and parts[k][0] == role:
            run.append(corners[end : end + len(parts[k][1])].ravel().tolist())
            end += len(parts[k][1])
            k += 1
        if ink:
            for flat in run:
                draw.line(flat + flat[:4], fill=_INK, width=width, joint="curve")
        for flat in run:
            draw.polygon(flat, fill=_ROLE[role])
    dx, dy = left + 0.5 - cx, top + 0.5 - cy
    axes = np.array([(c / rx, s / rx, (c * dx + s * dy) / rx), (-s / ry, c / ry, (c * dy - s * dx) / ry)], np.float32)
    return _Cut(labels, left // OVERSAMPLING, top // OVERSAMPLING, axes)


def _even_span(low: float, high: float, pad: int, canvas: int) -> tuple[int, int]:
    """The span, padded, cut at the canvas, and widened to whole pixels of the finished image."""
    a, b = max(0, math.floor(low) - pad), min(canvas, math.ceil(high) + pad)
    return a - a % OVERSAMPLING, b + (-b) % OVERSAMPLING


def pattern(kind: str, rng: np.random.Generator, u: Field, v: Field) -> NDArray[np.bool_]:
    """Where a striped, checked or dotted pattern is on [h, w], at (u, v) in [-1, 1] across the object.

    Three to five periods per object, so that the pattern survives at 64 pixels.
    """
    f, phase = np.float32(rng.uniform(1.5, 2.4)), np.float32(rng.random())
    a = (u * f + phase) % 1
    if kind == "striped":
        return a < 0.5
    b = (v * f + phase) % 1
    if kind == "checked":
        return (a < 0.5) ^ (b < 0.5)
    if kind == "dotted":
        return (a - 0.5) ** 2 + (b - 0.5) ** 2 < 0.1
    raise unknown("texture", kind, ("striped", "checked", "dotted"))


_TURNS = {"striped": (0.0, 0.25, 0.5, 0.75), "checked": (0.0, 0.25), "dotted": (0.0, 0.25)}


def _patterned(cut: _Cut, o: SceneObject, rng: np.random.Generator) -> Labels:
    """The labels [h, w] with the body relabelled by the object's texture."""
    labels = np.asarray(cut.labels)
    body = labels == _BODY
    u, v = cut.coordinates()
    if o.texture == "gradient":
        step = np.clip((v * 0.6 + 0.5) * _STEPS, 0, _STEPS - 1).astype(np.uint8)
        return np.where(body, step + np.uint8(_RAMP), labels)
    turns = _TURNS.get(o.texture)
    if turns is None:
        raise unknown("texture", o.texture, ("plain", *_TURNS, "gradient"))
    turn = turns[int(rng.integers(len(turns)))] * math.pi
    c, s = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    return np.where(body & pattern(o.texture, rng, u * c + v * s, v * c - u * s), np.uint8(_PATTERN), labels)


def _coloured(o: SceneObject, rng: np.random.Generator, vary: float) -> Field:
    """Colours [labels, 3] of the parts of one object; `vary` scales how far they are from the named colour."""
    body = _BODIES.get(o.colour)
    if body is None:
        raise unknown("colour", o.colour, COLOURS)
    tint = rng.standard_normal(4, dtype=np.float32) * np.float32(vary)
    body = (body + 9 * tint[:3]) * (1 + np.float32(0.1) * tint[3])
    colours = np.zeros((_LABELS, 3), np.float32)
    colours[_FIXED_AT] = _FIXED + rng.standard_normal(3, dtype=np.float32) * np.float32(5 * vary)
    colours[_BODY] = body
    colours[_ROLE["dark"]] = body + (_SHADE - body) * np.float32(0.42)
    colours[_ROLE["light"]] = body + (_LIGHT - body) * np.float32(0.58)
    colours[_INK] = body * np.float32(0.2) + _SHADE * np.float32(0.5)
    if o.texture == "gradient":
        end = body * np.float32(0.15) + (_SHADE if rng.random() < 0.6 else _LIGHT) * np.float32(0.8)
        colours[_RAMP:] = body + (end - body) * np.linspace(0, 1, _STEPS, dtype=np.float32)[:, None]
    elif o.texture != "plain":
        colours[_PATTERN] = (_LIGHT if rng.random() < 0.6 else _SHADE) * np.float32(0.8) + body * np.float32(0.2)
    return colours


def _pencilled(cut: _Cut, o: SceneObject, rng: np.random.Generator, paper: float, tone: float) -> tuple[Labels, Field]:
    """Labels and greys [labels, 3] of an object in pencil: outlines, hatching on dark parts and patterns, paper."""
    labels = np.asarray(cut.labels)
    u, v = cut.coordinates()
    hatched = np.arange(_LABELS, dtype=np.uint8)
    for role, label in _HATCHED.items():
        hatched[_ROLE[role]] = label
    if o.texture not in ("plain", "gradient"):
        labels = np.where((labels == _BODY) & pattern(o.texture, rng, u, v), np.uint8(_PATTERN), labels)
    labels = np.where((u * 6 + v * 6) % 1 < 0.45, hatched[labels], labels)
    greys = np.full((_LABELS, 3), paper + 3, np.float32)
    greys[_INK] = tone + 20
    greys[_ROLE["black"]] = paper - 70
    greys[_PATTERN] = paper - 75
    for role, darker in (("dark", 60), ("brown", 75), ("black", 190)):
        greys[_HATCHED[role]] = paper - darker
    return labels, greys


def _reduced(labels: Labels | Image.Image, colours: Field) -> tuple[Field, Field]:
    """Premultiplied colours [3, h, w] and coverage [h, w] of a crop at the size of the image."""
    cover = Image.fromarray((np.asarray(labels) > 0) * np.uint8(255)).reduce(OVERSAMPLING)
    colours[0] = 0
    indexed = labels if isinstance(labels, Image.Image) else Image.fromarray(labels)
    indexed.putpalette(np.clip(colours, 0, 255).astype(np.uint8).tobytes())
    rgb = np.asarray(indexed.convert("RGB").reduce(OVERSAMPLING))
    return rgb.transpose(2, 0, 1).astype(np.float32), np.asarray(cover) * np.float32(1 / 255)


def _light_on(cover: Field, light: float, relief: float) -> Field:
    """Brightness [h, w] under light from direction `light` (radians): a slope across the object, a rounded edge."""
    h, w = cover.shape
    lx, ly = math.cos(light), math.sin(light)
    x, y = np.arange(w, dtype=np.float32)[None], np.arange(h, dtype=np.float32)[:, None]
    slope = (x - w / 2) * np.float32(0.5 * lx / w) + (y - h / 2) * np.float32(0.5 * ly / h)
    # The blurred mask falls towards the outline; its slope along the light is bright on the lit side, dark beyond.
    r = max(0.8, 0.09 * max(h, w))
    soft = np.asarray(Image.fromarray((cover * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(r)), np.float32)
    d = max(1, round(r * 0.7))
    padded = np.zeros((h + 2 * d, w + 2 * d), np.float32)
    padded[d:-d, d:-d] = soft
    dx, dy = round(lx * d), round(ly * d)
    rim = padded[d - dy : d - dy + h, d - dx : d - dx + w] - padded[d + dy : d + dy + h, d + dx : d + dx + w]
    return 1 + np.float32(relief) * (slope + rim * np.float32(0.6 / 255))


def _shadow(cover: Field, top: int, left: int, size: int, light: float, length: float) -> Field:
    """Soft shadow [S, S] in [0, 1] that the object throws away from the light."""
    sheet = Image.new("L", (size, size), 0)
    dx, dy = round(-math.cos(light) * length * size), round(-math.sin(light) * length * size)
    sheet.paste(Image.fromarray((cover * 255).astype(np.uint8)), (left + dx, top + dy))
    return np.asarray(sheet.filter(ImageFilter.BoxBlur(0.018 * size))) * np.float32(1 / 255)


# ------------------------------------------------------------------------------------------------------------ styles


def _to_image(planes: Field) -> Image.Image:
    return Image.fromarray(_to_pixels(planes))


def _to_pixels(planes: Field) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.clip(planes, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def _film(image: Field, rng: np.random.Generator, size: int) -> Field:
    """What a camera adds: uneven light, focus, exposure, white balance, grain."""
    image = image * (1 + rng.uniform(0.05, 0.28) * smooth_noise(rng, size, 2))
    unsharp, strength = rng.random() < 0.4, rng.uniform(0.003, 0.011)
    if unsharp:
        blurred = _to_image(image).filter(ImageFilter.GaussianBlur(strength * size))
        image = np.asarray(blurred).transpose(2, 0, 1).astype(np.float32)
    contrast, exposure, grain = rng.uniform(0.78, 1.08), rng.uniform(0.8, 1.16), rng.uniform(1.0, 7.5)
    balance = np.float32(exposure) * (1 + np.float32(0.035) * rng.standard_normal(3, dtype=np.float32))
    gain = balance * np.float32(contrast)
    image = image * gain[:, None, None] + (122 * (balance - gain))[:, None, None]
    return image + rng.standard_normal((size, size), dtype=np.float32) * np.float32(grain)


def _tiled(image: Field, rng: np.random.Generator, size: int) -> Field:
    """Tiles of one slightly wrong colour each, with dark joints."""
    n = MOSAIC_TILES
    tiny = np.asarray(_to_image(image).resize((n, n), Image.Resampling.BOX), np.float32)
    tiny = tiny + 9 * rng.standard_normal((n, n, 1), dtype=np.float32)
    x, y = grid(size)
    tiles = tiny.transpose(2, 0, 1)[:, (y * n).astype(int), (x * n).astype(int)]
    return tiles * np.where((x * n % 1 < 0.25) | (y * n % 1 < 0.25), np.float32(0.74), np.float32(1))


def render(scene: Scene, size: int = 64, catalogue: Mapping[str, Category] = OBJECTS) -> Picture:
    """Paint a scene.

    Args:
        scene: what to paint.
        size: side S of the image in pixels, at least 16.
        catalogue: name -> category, for the names that stand in the scene.

    Raises:
        VlmlabError: a name in the scene is unknown, or the size is too small.
    """
    if size < 16:
        raise VlmlabError(f"a MicroWorld image of {size} pixels shows nothing; ask for a size of at least 16")
    if scene.style not in STYLES:
        raise unknown("style", scene.style, STYLES)
    style = scene.style
    rng = np.random.Generator(np.random.PCG64(scene.seed))
    light, relief, shadow, shadow_length, tone, paper, ink_width, u = rng.random(8).tolist()
    light = -2.7 + 2.25 * light
    relief, shadow, shadow_length = 0.35 + 0.35 * relief, 0.2 + 0.3 * shadow, 0.02 + 0.025 * shadow_length
    tone, paper = 14 + 32 * tone, 232 + 18 * paper
    ink = 0.0
    image = paint_background(scene.background, rng, size)
    if style == "silhouette":
        image = image * np.float32(0.42) + 140
    elif style == "sketch":
        wash = 0.12 * (image.mean(0) - 190)
        image = np.broadcast_to(paper + wash + 3.5 * smooth_noise(rng, size, 40), (3, size, size)).astype(np.float32)
        ink = 0.01 + 0.007 * ink_width
    elif style == "flat" and u < 0.45:
        ink = 0.011

    instances = np.zeros((size, size), np.uint8)
    for k, o in enumerate(scene.objects):
        if o.category not in catalogue:
            raise unknown("category", o.category, catalogue)
        own = np.random.Generator(np.random.PCG64(o.seed))
        cut = _cut(o, catalogue[o.category], own, size, ink)
        if cut is None:
            continue
        labels: Labels | Image.Image = cut.labels
        if style == "silhouette":
            colours = np.full((_LABELS, 3), tone, np.float32)
        elif style == "sketch":
            labels, colours = _pencilled(cut, o, own, paper, tone)
        else:
            colours = _coloured(o, own, 0.5 if style == "flat" else 1.0)
            if o.texture != "plain":
                labels = _patterned(cut, o, own)
        paint, cover = _reduced(labels, colours)
        if style in ("photo", "negative"):
            paint *= _light_on(cover, light, relief)
        if style in ("photo", "negative", "mosaic"):
            image *= 1 - np.float32(shadow) * _shadow(cover, cut.top, cut.left, size, light, shadow_length)
        h, w = cover.shape
        rows, columns = slice(cut.top, cut.top + h), slice(cut.left, cut.left + w)
        there = image[:, rows, columns]
        there *= 1 - cover
        there += paint
        instances[rows, columns][cover >= 0.5] = k + 1

    if style == "photo":
        image = _film(image, rng, size)
    elif style == "mosaic":
        image = _tiled(image, rng, size)
    elif style == "negative":
        image = 255 - np.clip(image, 0, 255)
    return Picture(_to_pixels(image), instances, _boxes(instances, len(scene.objects)), scene)


def _boxes(instances: NDArray[np.uint8], n: int) -> NDArray[np.int64]:
    boxes = np.zeros((n, 4), np.int64)
    for k in range(n):
        mask = instances == k + 1
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        if len(columns):
            boxes[k] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes
