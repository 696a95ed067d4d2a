"""From a scene graph to a picture with its masks and boxes.

Objects are polygons, drawn at twice the size and reduced, so that edges are soft; backgrounds are smooth fields over
the unit square. Everything random comes from the seeds of the scene and is drawn on grids that do not depend on the
size, so that one scene is the same picture at 64, 128 and 256 pixels (only the grain of the film is new at each size).

Dimension legend: S side of the picture in pixels, (h, w) crop around one object at twice the size, n objects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
Pixels = NDArray[np.uint8]

OVERSAMPLING = 2
_ROLE = {role: k for k, role in enumerate(ROLES)}
_INK = len(ROLES)


@dataclass(frozen=True)
class Picture:
    """A painted scene.

    Attributes:
        pixels: uint8 [S, S, 3].
        instances: uint8 [S, S]; k + 1 where object k of the scene is visible, else 0.
        boxes: int64 [n, 4], (x0, y0, x1, y1) in pixels around the visible mask, x1 and y1 exclusive; zeros if hidden.
        scene: what was painted.
    """

    pixels: Pixels
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
    """Centres of the pixels (x, y) [S, S] in [0, 1]."""
    c = (np.arange(size, dtype=np.float32) + 0.5) / size
    return np.broadcast_to(c, (size, size)), np.broadcast_to(c[:, None], (size, size))


def smooth_noise(rng: np.random.Generator, size: int, nx: int, ny: int | None = None) -> Field:
    """A random field [S, S] in about [-1, 1], smooth between nx by ny random values."""
    lattice = rng.random((ny or nx, nx), dtype=np.float32) * 2 - 1
    return np.asarray(Image.fromarray(lattice).resize((size, size), Image.Resampling.BICUBIC))


def _between(ramp: tuple, t: Field) -> Field:
    """Colours [S, S, 3] at t in [0, 1] between the two of the ramp."""
    a, b = np.asarray(ramp[0], np.float32), np.asarray(ramp[1], np.float32)
    return a + (b - a) * t[..., None]


def _line(phase: Field, width: float, soft: float) -> Field:
    """1 on lines at whole numbers of `phase`, `width` wide with an edge of `soft` (in units of phase), else 0."""
    away = np.abs(phase - np.round(phase))
    return np.clip((width / 2 + soft / 2 - away) / soft, 0, 1)


def _sky(rng: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    t = y * rng.uniform(0.7, 1.1)
    puffs = smooth_noise(rng, size, int(rng.integers(3, 6)), int(rng.integers(4, 9)))
    puffs = puffs + 0.5 * smooth_noise(rng, size, 9, 14)
    cloud = np.clip(puffs * rng.uniform(0.4, 1.1) - rng.uniform(-0.1, 0.35), 0, 0.85)
    return _between(_ramp(rng, "sky"), np.clip(t, 0, 1)) * (1 - cloud[..., None]) + 250 * cloud[..., None]


def _grass(rng: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    n = int(rng.integers(22, 44))
    blades = smooth_noise(rng, size, n, n // int(rng.integers(2, 5)))
    t = 0.5 + rng.uniform(0.25, 0.6) * blades + 0.3 * smooth_noise(rng, size, 4) + 0.25 * (y - 0.5)
    return _between(_ramp(rng, "grass"), t)


def _sand(rng: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    drift = smooth_noise(rng, size, 3, int(rng.integers(4, 9)))
    ripple = np.sin((y * rng.uniform(18, 40) + 2.5 * smooth_noise(rng, size, 4)).astype(np.float32))
    grains = smooth_noise(rng, size, 48)
    return _between(_ramp(rng, "sand"), 0.5 + 0.35 * drift + rng.uniform(0.05, 0.3) * ripple + 0.3 * grains)


def _water(rng: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    bend = rng.uniform(0.5, 1.4) * np.sin(6.28 * (rng.uniform(0.8, 2) * x + rng.random()))
    wave = np.sin(6.28 * rng.uniform(4, 9) * y + bend + 2.2 * smooth_noise(rng, size, 5))
    glint = np.clip(smooth_noise(rng, size, 10, 26) * wave - 0.35, 0, 1)
    t = 0.45 + rng.uniform(0.2, 0.5) * wave + 0.25 * smooth_noise(rng, size, 3)
    return _between(_ramp(rng, "water"), t) + (110 * glint)[..., None]


def _brick(rng: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    rows = rng.uniform(5, 11)
    columns, phase = rows * rng.uniform(0.42, 0.6), rng.random()
    v = y * rows + phase
    row = np.floor(v)
    u = x * columns + 0.5 * (row % 2) + phase
    shade = rng.random(1024, dtype=np.float32)[(np.floor(u) * 31 + row * 57).astype(np.int32) % 1024] - 0.5
    soft = rows * 1.5 / 64
    mortar = np.maximum(_line(v, 0.09, soft), _line(u, 0.05, soft * columns / rows))
    brick, joint = _ramp(rng, "brick")
    wall = np.asarray(brick, np.float32) + (rng.uniform(20, 60) * shade + 14 * smooth_noise(rng, size, 24))[..., None]
    return wall + (np.asarray(joint, np.float32) - wall) * mortar[..., None]


def _snow(rng: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    t = 0.55 + 0.55 * smooth_noise(rng, size, 3, 5) + 0.25 * smooth_noise(rng, size, 12, 18)
    sparkle = np.clip(smooth_noise(rng, size, 48) - 0.72, 0, 1)
    return _between(_ramp(rng, "snow"), t) + (60 * sparkle)[..., None]


def _wood(rng: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    if rng.random() < 0.5:
        x, y = y, x
    planks = rng.uniform(2.5, 5.5)
    u = x * planks + rng.random()
    plank = np.floor(u)
    shade = rng.random(16, dtype=np.float32)[plank.astype(np.int32) % 16]
    knots = smooth_noise(rng, size, 5)
    fibre = np.sin(6.28 * (rng.uniform(10, 16) * x + shade * 7 + rng.uniform(0.3, 0.9) * knots + 0.6 * y))
    gap = _line(u, 0.05, planks * 1.5 / 64)
    t = 0.3 + 0.45 * shade + 0.22 * fibre
    return _between(_ramp(rng, "wood"), t) * (1 - 0.55 * gap[..., None])


def _plain(rng: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    return np.broadcast_to(_backdrop(rng), (size, size, 3)).copy()


def _gradient(rng: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    a = rng.uniform(0, 2 * np.pi)
    t = np.clip(((x - 0.5) * math.cos(a) + (y - 0.5) * math.sin(a)) / 1.2 + 0.5, 0, 1)
    return _between((_backdrop(rng), _backdrop(rng)), t)


def _noise(rng: np.random.Generator, size: int, x: Field, y: Field) -> Field:
    t = 0.5 + 0.7 * smooth_noise(rng, size, int(rng.integers(4, 20))) + 0.3 * smooth_noise(rng, size, 40)
    return _between((_backdrop(rng), _backdrop(rng)), np.clip(t, 0, 1))


_BACKGROUNDS = {
    "sky": _sky, "grass": _grass, "sand": _sand, "water": _water, "brick": _brick, "snow": _snow, "wood": _wood,
    "plain": _plain, "gradient": _gradient, "noise": _noise,
}  # fmt: skip


def _ramp(rng: np.random.Generator, kind: str) -> tuple[Field, Field]:
    """One of the ramps of the stuff, with its hue, brightness and contrast varied."""
    ramps = STUFF_RAMPS[kind]
    a, b = np.asarray(ramps[int(rng.integers(len(ramps)))], np.float32)
    middle, half = (a + b) / 2, (b - a) / 2
    middle = middle * rng.uniform(0.84, 1.1) + rng.standard_normal(3, dtype=np.float32) * 8
    half = half * rng.uniform(0.7, 1.35)
    return middle - half, middle + half


def _backdrop(rng: np.random.Generator) -> NDArray[np.float32]:
    colour = np.asarray(BACKDROPS[int(rng.integers(len(BACKDROPS)))], np.float32)
    return colour * rng.uniform(0.85, 1.08) + rng.standard_normal(3, dtype=np.float32) * 9


def paint_background(kind: str, rng: np.random.Generator, size: int) -> Field:
    """A background [S, S, 3], float, about in [0, 255] (not clipped)."""
    if kind not in _BACKGROUNDS:
        raise unknown("background", kind, BACKGROUNDS)
    x, y = grid(size)
    return _BACKGROUNDS[kind](rng, size, x, y).astype(np.float32, copy=False)


# ----------------------------------------------------------------------------------------------------------- objects


def texture(kind: str, rng: np.random.Generator, u: Field, v: Field) -> Field:
    """Where a pattern is on: [h, w] in {0, 1}, at (u, v) in [-1, 1] across the object.

    Two to three and a half periods per object, so that the pattern is seen at 64 pixels.
    """
    f, phase = rng.uniform(1.5, 2.4), rng.random()
    if kind == "striped":
        return ((u * f + phase) % 1 < 0.5).astype(np.float32)
    if kind == "checked":
        return (((u * f + phase) % 1 < 0.5) ^ ((v * f + phase) % 1 < 0.5)).astype(np.float32)
    if kind == "dotted":
        du, dv = (u * f + phase) % 1 - 0.5, (v * f + phase) % 1 - 0.5
        return (du * du + dv * dv < 0.1).astype(np.float32)
    raise unknown("texture", kind, ("striped", "checked", "dotted"))


@dataclass(frozen=True)
class _Cut:
    """One object, drawn at twice the size on the smallest crop that holds it."""

    labels: NDArray[np.uint8]  # [h, w]; index into ROLES, 0 where it is not
    left: int  # of the crop in the picture, in pixels of the finished picture
    top: int
    u: Field  # [h, w]; coordinates along the object's own axes, [-1, 1] across it
    v: Field


def _cut(o: SceneObject, category: Category, rng: np.random.Generator, size: int, ink: float) -> _Cut | None:
    """Draw the parts of an object as labels; `ink` is the width of outlines as a fraction of the picture (0: none)."""
    parts = category.draw(rng)
    lengths = [len(p) for _, p in parts]
    p = np.concatenate([p for _, p in parts])
    # A slow ripple and a shear bend the whole figure a little: no two instances are congruent.
    a = rng.uniform(-1, 1, 5)
    x = p[:, 0] + 0.07 * a[0] * p[:, 1] + 0.03 * np.sin(3.1 * p[:, 1] + 3.14 * a[1])
    y = p[:, 1] + 0.03 * np.sin(3.1 * p[:, 0] + 3.14 * a[2])
    canvas = size * OVERSAMPLING
    stretch = math.sqrt(o.aspect)
    c, s = math.cos(math.radians(o.rotation)), math.sin(math.radians(o.rotation))
    rx, ry = o.radius * canvas * stretch * (-1 if o.flip else 1), o.radius * canvas / stretch
    px = x * (rx * c) - y * (ry * s) + o.x * canvas
    py = x * (rx * s) + y * (ry * c) + o.y * canvas
    pad = 1 + math.ceil(ink * canvas)
    left, right = _even_span(px, pad, canvas)
    top, bottom = _even_span(py, pad, canvas)
    if right <= left or bottom <= top:
        return None
    labels = Image.new("L", (right - left, bottom - top), 0)
    draw = ImageDraw.Draw(labels)
    q = np.stack([px - left, py - top], 1)
    width = max(1, round(ink * canvas))
    end = 0
    for (role, _), n in zip(parts, lengths, strict=True):
        corners = [tuple(xy) for xy in q[end : end + n].tolist()]
        end += n
        draw.polygon(corners, fill=_ROLE[role])
        if ink:
            draw.line([*corners, corners[0], corners[1]], fill=_INK, width=width)
    ix, iy = (rx * c, rx * s), (-ry * s, ry * c)
    h, w = bottom - top, right - left
    gx = (np.arange(left, right, dtype=np.float32) + np.float32(0.5 - o.x * canvas))[None]
    gy = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - o.y * canvas))[:, None]
    u = gx * np.float32(ix[0] / rx**2) + gy * np.float32(ix[1] / rx**2)
    v = gx * np.float32(iy[0] / ry**2) + gy * np.float32(iy[1] / ry**2)
    return _Cut(np.asarray(labels).reshape(h, w), left // OVERSAMPLING, top // OVERSAMPLING, u, v)


def _even_span(p: NDArray[np.float64], pad: int, canvas: int) -> tuple[int, int]:
    """The span of the coordinates, padded, on the canvas, and on whole pixels of the finished picture."""
    low = max(0, math.floor(float(p.min())) - pad)
    high = min(canvas, math.ceil(float(p.max())) + pad)
    return low - low % OVERSAMPLING, high + (-high) % OVERSAMPLING


def _object_palette(colour: str, rng: np.random.Generator, vary: float) -> NDArray[np.float32]:
    """Colours [roles + ink, 3] of the parts of one object."""
    body = np.asarray(COLOURS[colour], np.float32) + rng.standard_normal(3, dtype=np.float32) * 9 * vary
    body = body * (1 + 0.1 * vary * rng.standard_normal())
    palette = np.zeros((len(ROLES) + 1, 3), np.float32)
    palette[_ROLE["body"]] = body
    palette[_ROLE["dark"]] = body + (np.asarray(SHADE, np.float32) - body) * 0.42
    palette[_ROLE["light"]] = body + (np.asarray(LIGHT, np.float32) - body) * 0.58
    for role, value in FIXED.items():
        palette[_ROLE[role]] = np.asarray(value, np.float32) + rng.standard_normal(3, dtype=np.float32) * 5 * vary
    palette[_INK] = body * 0.2 + np.asarray(SHADE, np.float32) * 0.5
    return palette


def _textured(rgb: Field, cut: _Cut, o: SceneObject, body: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Pattern the body of an object, in place."""
    on_body = cut.labels == _ROLE["body"]
    if o.texture == "gradient":
        t = np.clip(cut.v * 0.6 + 0.5, 0, 1) * on_body
        other = body * 0.18 + np.asarray(SHADE, np.float32) * 0.6
    else:
        turn = (0.0, 0.5, 0.25, 0.75)[int(rng.integers(2 if o.texture == "checked" else 4))] * math.pi
        c, s = np.float32(math.cos(turn)), np.float32(math.sin(turn))
        t = texture(o.texture, rng, cut.u * c + cut.v * s, cut.v * c - cut.u * s) * on_body
        light = rng.random() < 0.6
        other = np.asarray(LIGHT if light else SHADE, np.float32) * 0.8 + body * 0.2
    rgb += t[..., None] * (other - body)


def _lit(rgb: Field, mask: NDArray[np.bool_], cut: _Cut, light: float, relief: float) -> Field:
    """Light from direction `light` (radians, in the picture): a slope across the object, and a rounded edge."""
    h, w = mask.shape
    lx, ly = math.cos(light), math.sin(light)
    slope = (np.arange(w, dtype=np.float32) - w / 2) * (lx / w) + ((np.arange(h, dtype=np.float32) - h / 2) * (ly / h))[:, None]
    # The blurred mask falls towards the outline; its slope along the light is bright on the lit side, dark beyond.
    r = max(1.0, 0.1 * max(h, w))
    soft = np.asarray(Image.fromarray(mask.view(np.uint8) * np.uint8(255)).filter(ImageFilter.BoxBlur(r)), np.float32)
    d = max(1, round(r * 0.6))
    dx, dy = round(lx * d), round(ly * d)
    rim = np.roll(soft, (dy, dx), (0, 1))
    rim -= np.roll(soft, (-dy, -dx), (0, 1))
    return rgb * (1 + relief * (0.5 * slope + rim * np.float32(0.7 / 255)))[..., None]


def _reduced(rgb: Field, mask: NDArray[np.bool_]) -> tuple[Field, Field]:
    """Premultiplied colours [h/2, w/2, 3] and coverage [h/2, w/2, 1] of a crop at the size of the picture."""
    rgba = np.empty((*mask.shape, 4), np.uint8)
    np.clip(rgb, 0, 255, out=rgb)
    rgba[..., :3] = rgb
    rgba[..., 3] = mask.view(np.uint8) * np.uint8(255)
    small = np.asarray(Image.fromarray(rgba, "RGBX").reduce(OVERSAMPLING), np.float32)
    return small[..., :3], small[..., 3:] / 255


def _shadow(cover: Field, top: int, left: int, size: int, light: float, length: float) -> Field:
    """Soft shadow [S, S, 1] in [0, 1] that the crop throws away from the light."""
    sheet = Image.new("L", (size, size), 0)
    dx, dy = round(-math.cos(light) * length * size), round(-math.sin(light) * length * size)
    sheet.paste(Image.fromarray((cover[..., 0] * 255).astype(np.uint8)), (left + dx, top + dy))
    return np.asarray(sheet.filter(ImageFilter.BoxBlur(0.018 * size)), np.float32)[..., None] / 255


# ------------------------------------------------------------------------------------------------------------ styles


def _film(image: Field, rng: np.random.Generator, size: int) -> Field:
    """What a camera adds: uneven light, focus, exposure, white balance, grain."""
    image = image * (1 + rng.uniform(0.05, 0.28) * smooth_noise(rng, size, 2))[..., None]
    blur, strength = rng.random(), rng.uniform(0.003, 0.011)
    if blur < 0.4:
        sharp = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
        image = np.asarray(sharp.filter(ImageFilter.GaussianBlur(strength * size)), np.float32)
    contrast, exposure = rng.uniform(0.78, 1.08), rng.uniform(0.8, 1.16)
    balance = np.float32(exposure) * (1 + 0.035 * rng.standard_normal(3, dtype=np.float32))
    image = ((image - 122) * np.float32(contrast) + 122) * balance
    grain = rng.uniform(1.0, 7.5)
    return image + rng.standard_normal((size, size, 1), dtype=np.float32) * np.float32(grain)


def _tiled(image: Field, rng: np.random.Generator, size: int) -> Field:
    """16 by 16 tiles with joints."""
    n = 16
    small = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).resize((n, n), Image.Resampling.BOX)
    tiles = np.asarray(small, np.float32) + 9 * rng.standard_normal((n, n, 1), dtype=np.float32)
    big = np.asarray(Image.fromarray(np.clip(tiles, 0, 255).astype(np.uint8)).resize((size, size), Image.Resampling.NEAREST))
    x, y = grid(size)
    joint = np.maximum(x * n % 1 < 0.25, y * n % 1 < 0.25)
    return big * np.where(joint, np.float32(0.74), np.float32(1))[..., None]


def render(scene: Scene, size: int = 64, catalogue: Mapping[str, Category] = OBJECTS) -> Picture:
    """Paint a scene.

    Args:
        scene: what to paint.
        size: side S of the picture in pixels, at least 16.
        catalogue: name -> category, for the names that stand in the scene.

    Raises:
        VlmlabError: a name in the scene is unknown, or the size is too small.
    """
    if size < 16:
        raise VlmlabError(f"a MicroWorld picture of {size} pixels shows nothing; ask for a size of at least 16")
    if scene.style not in STYLES:
        raise unknown("style", scene.style, STYLES)
    style = scene.style
    rng = np.random.Generator(np.random.PCG64(scene.seed))
    light = rng.uniform(-2.7, -0.45)
    relief, shadow, shadow_length = rng.uniform(0.35, 0.7), rng.uniform(0.2, 0.5), rng.uniform(0.02, 0.045)
    outlined, tone, paper = rng.random() < 0.45, rng.uniform(14, 46), rng.uniform(232, 250)
    image = paint_background(scene.background, rng, size)
    ink = 0.0
    if style == "silhouette":
        image = image * 0.42 + 140
    elif style == "sketch":
        image = _paper(image, paper, rng, size)
        ink = float(rng.uniform(0.009, 0.016))
    elif style == "flat" and outlined:
        ink = 0.011

    instances = np.zeros((size, size), np.uint8)
    for k, o in enumerate(scene.objects):
        if o.category not in catalogue:
            raise unknown("category", o.category, catalogue)
        own = np.random.Generator(np.random.PCG64(o.seed))
        cut = _cut(o, catalogue[o.category], own, size, ink)
        if cut is None:
            continue
        mask = cut.labels > 0
        if style == "silhouette":
            rgb = mask[..., None] * np.full(3, tone, np.float32)
        elif style == "sketch":
            rgb = _pencilled(cut, o, own, paper, tone)
        else:
            palette = _object_palette(o.colour, own, 0.5 if style == "flat" else 1.0)
            rgb = palette[cut.labels]
            if o.texture != "plain":
                _textured(rgb, cut, o, palette[_ROLE["body"]], own)
            if style in ("photo", "negative"):
                rgb = _lit(rgb, mask, cut, light, relief)
        colours, cover = _reduced(rgb, mask)
        if style in ("photo", "negative", "mosaic"):
            image *= 1 - shadow * _shadow(cover, cut.top, cut.left, size, light, shadow_length)
        h, w = cover.shape[:2]
        there = np.s_[cut.top : cut.top + h, cut.left : cut.left + w]
        image[there] *= 1 - cover
        image[there] += colours
        instances[there][cover[..., 0] >= 0.5] = k + 1

    if style == "photo":
        image = _film(image, rng, size)
    elif style == "mosaic":
        image = _tiled(image, rng, size)
    elif style == "negative":
        image = 255 - np.clip(image, 0, 255)
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    return Picture(pixels, instances, _boxes(instances, len(scene.objects)), scene)


def _paper(image: Field, paper: float, rng: np.random.Generator, size: int) -> Field:
    """Paper with a faint wash of the background."""
    wash = image.mean(2, keepdims=True)
    fibre = 3.5 * smooth_noise(rng, size, 40)[..., None]
    return np.float32(paper) + 0.12 * (wash - 190) + fibre + np.zeros(3, np.float32)


def _pencilled(cut: _Cut, o: SceneObject, rng: np.random.Generator, paper: float, tone: float) -> Field:
    """An object in pencil: ink on the outlines, hatching on dark parts and patterns, paper elsewhere."""
    tones = np.full(len(ROLES) + 1, paper + 3, np.float32)
    hatched = np.zeros(len(ROLES) + 1, np.float32)
    hatched[[_ROLE["dark"], _ROLE["brown"], _ROLE["black"]]] = (55, 70, 150)
    tones[_ROLE["black"]] = paper - 60
    tones[_INK] = tone + 20
    grey = tones[cut.labels]
    stripes = ((cut.u * 7 + cut.v * 7) % 1 < 0.4).astype(np.float32)
    grey = grey - stripes * hatched[cut.labels]
    if o.texture in ("striped", "checked", "dotted"):
        pattern = texture(o.texture, rng, cut.u, cut.v) * (cut.labels == _ROLE["body"])
        grey = grey - 70 * pattern
    return (grey * (cut.labels > 0))[..., None] * np.ones(3, np.float32)


def _boxes(instances: NDArray[np.uint8], n: int) -> NDArray[np.int64]:
    boxes = np.zeros((n, 4), np.int64)
    for k in range(n):
        mask = instances == k + 1
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        if len(columns):
            boxes[k] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes
