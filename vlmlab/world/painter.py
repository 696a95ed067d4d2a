"""From a scene graph to pixels, masks and boxes.

A scene is painted at twice the size and averaged down, so that edges are soft. All that is random in painting comes from
the scene's seed and is drawn in units of the picture, so the same scene at 64 and at 256 pixels shows the same picture.

Legend: S side of the finished picture, R = 2 S side of the canvas, n objects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from vlmlab.errors import VlmlabError
from vlmlab.world.objects import OBJECTS
from vlmlab.world.palette import COLOURS, FIXED
from vlmlab.world.scene import STUFF, STYLES, Scene, SceneObject
from vlmlab.world.shapes import ROLES

OVERSAMPLING = 2
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Picture:
    """A painted scene.

    Attributes:
        pixels: [S, S, 3] uint8.
        instances: [S, S] uint8, 0 for the background, k + 1 where object k is visible.
        boxes: [n, 4] int, x0, y0, x1, y1 in pixels around the visible part of each object (x1, y1 excluded).
        scene: what was painted.
    """

    pixels: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    boxes: NDArray[np.int64]
    scene: Scene

    def semantic(self, things: tuple[str, ...], stuff: tuple[str, ...] = STUFF, nothing: int = 255) -> NDArray[np.uint8]:
        """[S, S] class index per pixel: `things` by category, then `stuff` by background, `nothing` elsewhere."""
        known = {name: i for i, name in enumerate((*things, *stuff))}
        values = [known.get(name, nothing) for name in (self.scene.background, *self.scene.categories)]
        return np.array(values, np.uint8)[self.instances]


@cache
def _axes(side: int) -> tuple[Floats, Floats]:
    """x [1, side] and y [side, 1] of the pixel centres, in [0, 1]."""
    line = ((np.arange(side, dtype=np.float32) + 0.5) / side).astype(np.float32)
    return line[None, :], line[:, None]


@cache
def _grain(side: int) -> Floats:
    """A bank of standard normal noise [2 side, 2 side], from which every picture takes a window: cheaper than new noise."""
    return np.random.default_rng(7).standard_normal((2 * side, 2 * side), dtype=np.float32)


def _cloud(rng: np.random.Generator, cells: int, side: int) -> Floats:
    """Smooth noise [side, side] in about [-1, 1] with `cells` bumps across."""
    tiny = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    return np.asarray(tiny.resize((side, side), Image.Resampling.BICUBIC)) * np.float32(0.8)


_STUFF_COLOURS = {
    "sky": (122, 174, 230),
    "grass": (92, 148, 70),
    "sand": (222, 194, 142),
    "water": (58, 118, 172),
    "brick": (164, 92, 72),
    "snow": (232, 237, 244),
    "wood": (164, 120, 78),
}


def _background(kind: str, rng: np.random.Generator, side: int) -> Floats:
    """The background [side, side, 3] in [0, 255]; hue, contrast and scale vary, as they do outdoors."""
    x, y = _axes(side)
    tint = rng.normal(0, 13, 3) + rng.normal(0, 12)
    scale = math.exp(rng.uniform(-0.35, 0.35))
    contrast = rng.uniform(0.5, 1.3)
    phase = rng.uniform(0, 6.28, 3)
    if kind in _STUFF_COLOURS:
        base = np.array(_STUFF_COLOURS[kind], np.float32) + tint.astype(np.float32)
    else:
        base = rng.uniform(70, 240, 3).astype(np.float32)
    if kind == "plain":
        tone = np.zeros((side, side), np.float32)
    elif kind == "gradient":
        other = rng.uniform(70, 240, 3).astype(np.float32)
        ramp = np.clip((x - 0.5) * math.cos(phase[0]) + (y - 0.5) * math.sin(phase[0]) + 0.5, 0, 1)
        return base + (other - base) * ramp[..., None]
    elif kind == "noise":
        tone = 34 * _cloud(rng, int(rng.integers(6, 22)), side)
    elif kind == "sky":
        tone = 46 * (y - 0.5) + 40 * contrast * np.maximum(_cloud(rng, 5, side), 0)
    elif kind == "grass":
        blades = np.asarray(
            Image.fromarray(rng.standard_normal((int(14 * scale) + 4, int(44 * scale)), dtype=np.float32)).resize(
                (side, side), Image.Resampling.BILINEAR
            )
        )
        tone = 17 * contrast * blades + 10 * _cloud(rng, 4, side)
    elif kind == "sand":
        tone = 7 * contrast * np.sin(34 * scale * (y + 0.05 * np.sin(9 * x + phase[0])) + phase[1]) + 12 * _cloud(rng, 5, side)
    elif kind == "water":
        tone = 19 * contrast * np.sin(38 * scale * y + 3.5 * np.sin(8 * x + phase[0]) + phase[1]) + 8 * _cloud(rng, 4, side)
    elif kind == "brick":
        rows = 7 * scale
        row = np.floor(y * rows)
        mortar = ((y * rows) % 1 < 0.14) | ((x * rows / 2 + (row % 2) / 2 + phase[0]) % 1 < 0.07)
        out = base + (10 * contrast * _cloud(rng, 9, side))[..., None]
        return np.where(mortar[..., None], base * 0.35 + 140, out).astype(np.float32)
    elif kind == "snow":
        tone = 11 * contrast * _cloud(rng, 5, side) - 12 * (y - 0.5)
    else:  # wood
        grain = np.sin(52 * scale * x + 2.5 * np.sin(3 * y + phase[0]) + phase[1]) + 0.5 * np.sin(17 * scale * x + phase[2])
        plank = np.abs((x * 3.5 * scale + phase[0]) % 1) < 0.035
        tone = 11 * contrast * grain - 46 * plank
    return base + np.broadcast_to(tone, (side, side))[..., None]


def _pattern(kind: str, rng: np.random.Generator, o: SceneObject, x: Floats, y: Floats) -> Floats:
    """Where (0 to 1) a texture shows its second colour; about four periods across the object, to be seen at 64 pixels."""
    angle = math.radians(o.turn) + (0.0, 0.785, 1.571)[int(rng.integers(3))]
    u = ((x - o.x) * math.cos(angle) + (y - o.y) * math.sin(angle)) / o.radius
    v = ((y - o.y) * math.cos(angle) - (x - o.x) * math.sin(angle)) / o.radius
    f = rng.uniform(1.6, 2.3)
    if kind == "striped":
        return ((u * f) % 1 < 0.46).astype(np.float32)
    if kind == "dotted":
        return (((u * f) % 1 - 0.5) ** 2 + ((v * f) % 1 - 0.5) ** 2 < 0.085).astype(np.float32)
    if kind == "checked":
        return (((u * f) % 1 < 0.5) ^ ((v * f) % 1 < 0.5)).astype(np.float32)
    return np.clip((y - o.y) / (2 * o.radius) + 0.5, 0, 1)


def _object(o: SceneObject, rng: np.random.Generator, side: int, photo: bool, light: float):
    """One object: (x0, y0, colour [h, w, 3], coverage [h, w] bool) of the window of the canvas that it covers; None if empty."""
    parts = OBJECTS[o.category].draw(rng)
    angle = math.radians(o.turn)
    c, s = math.cos(angle), math.sin(angle)
    rx, ry = o.radius * math.sqrt(o.aspect) * side, o.radius / math.sqrt(o.aspect) * side
    shear = rng.normal(0, 0.05)
    flip = -1.0 if o.flip else 1.0
    placed = []
    for role, p in parts:
        px, py = (p[:, 0] + shear * p[:, 1]) * flip * rx, p[:, 1] * ry
        placed.append((role, np.stack([px * c - py * s + o.x * side, px * s + py * c + o.y * side], 1)))
    everything = np.concatenate([q for _, q in placed])
    x0, y0 = np.maximum(np.floor(everything.min(0)).astype(int) - 1, 0)
    x1, y1 = np.minimum(np.ceil(everything.max(0)).astype(int) + 2, side)
    if x1 <= x0 or y1 <= y0:
        return None
    roles = Image.new("L", (int(x1 - x0), int(y1 - y0)), 0)
    draw = ImageDraw.Draw(roles)
    corner = np.array([x0, y0])
    for role, q in placed:
        draw.polygon((q - corner).ravel().tolist(), fill=ROLES.index(role))
    role_map = np.asarray(roles)
    colour = np.array(COLOURS[o.colour], np.float32) + rng.normal(0, 9, 3).astype(np.float32)
    table = np.zeros((len(ROLES), 3), np.float32)
    table[ROLES.index("body")] = colour
    table[ROLES.index("dark")] = colour * 0.64
    table[ROLES.index("light")] = colour * 0.4 + 150
    shift = rng.normal(0, 5, 3).astype(np.float32)
    for role, fixed in FIXED.items():
        table[ROLES.index(role)] = np.array(fixed, np.float32) + shift
    rgb = table[role_map]
    x, y = _axes(side)
    x, y = x[:, x0:x1], y[y0:y1]
    if o.texture != "plain":
        on_body = role_map == ROLES.index("body")
        share = _pattern(o.texture, rng, o, x, y) * on_body
        second = colour * 0.45 if rng.random() < 0.5 else colour * 0.3 + 172
        rgb = rgb + share[..., None] * (second - colour)
    if photo:
        shade = ((x - o.x) * math.cos(light) + (y - o.y) * math.sin(light)) / o.radius
        rgb = rgb * (1 + 0.26 * np.clip(shade, -1.2, 1.2))[..., None]
    return int(x0), int(y0), rgb, role_map > 0


def render(scene: Scene, size: int = 64) -> Picture:
    """Paint a scene at `size` pixels a side.

    Raises `VlmlabError` for a style that does not exist or a size under 16.
    """
    if scene.style not in STYLES:
        raise VlmlabError(f"MicroWorld has no style '{scene.style}'; choose one of {', '.join(STYLES)}")
    if size < 16:
        raise VlmlabError(f"a MicroWorld picture of {size} pixels shows nothing; ask for 16 or more")
    rng = np.random.Generator(np.random.PCG64(scene.seed))
    side = OVERSAMPLING * size
    style = scene.style
    photo = style in ("photo", "negative")
    light = rng.uniform(-2.6, -0.5)
    canvas = _background(scene.background, rng, side)
    if style == "sketch":
        canvas = canvas * 0.12 + 205
    inside = np.zeros((side, side), np.uint8)
    for k, o in enumerate(scene.objects):
        window = _object(o, np.random.Generator(np.random.PCG64([scene.seed, k])), side, photo, light)
        if window is None:
            continue
        x0, y0, rgb, cover = window
        h, w = cover.shape
        if photo:  # a soft shadow on the side away from the light
            dx, dy = round(-math.cos(light) * side * 0.03), round(-math.sin(light) * side * 0.03)
            ys, xs = max(y0 + dy, 0), max(x0 + dx, 0)
            ye, xe = min(y0 + dy + h, side), min(x0 + dx + w, side)
            fallen = cover[ys - y0 - dy : ye - y0 - dy, xs - x0 - dx : xe - x0 - dx]
            canvas[ys:ye, xs:xe] *= (1 - 0.34 * fallen)[..., None]
        np.copyto(canvas[y0 : y0 + h, x0 : x0 + w], rgb, where=cover[..., None], casting="same_kind")
        inside[y0 : y0 + h, x0 : x0 + w][cover] = k + 1
    if style == "silhouette":
        tone = rng.uniform(8, 44)
        canvas = np.where((inside > 0)[..., None], np.float32(tone), np.clip(canvas * 0.45 + 120, 0, 255))
    elif style == "sketch":
        canvas = _pencil(canvas, inside, rng, side)
    canvas8 = np.clip(canvas, 0, 255).astype(np.uint8)
    small = Image.fromarray(canvas8).reduce(OVERSAMPLING)
    if photo:
        out = _exposure(small, rng, size)
    elif style == "mosaic":
        out = _tiles(small, rng, size)
    else:
        out = np.asarray(small)
    if style == "negative":
        out = 255 - out
    # The instance of a pixel is that of the upper left of the four canvas pixels under it: no averaging of labels.
    instances = inside[::OVERSAMPLING, ::OVERSAMPLING].copy()
    return Picture(np.ascontiguousarray(out), instances, _boxes(instances, len(scene.objects)), scene)


def _boxes(instances: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    boxes = np.zeros((count, 4), np.int64)
    for k in range(count):
        rows, columns = np.flatnonzero((instances == k + 1).any(1)), np.flatnonzero((instances == k + 1).any(0))
        if len(rows):
            boxes[k] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def _pencil(canvas: Floats, inside: NDArray[np.uint8], rng: np.random.Generator, side: int) -> Floats:
    """Dark lines where brightness or object changes, hatching where the objects are dark, paper elsewhere."""
    grey = canvas.mean(2)
    edge = np.abs(np.diff(grey, axis=0, prepend=grey[:1])) + np.abs(np.diff(grey, axis=1, prepend=grey[:, :1]))
    covered = inside > 0
    outline = np.zeros_like(covered)
    outline[1:] |= inside[1:] != inside[:-1]
    outline[:, 1:] |= inside[:, 1:] != inside[:, :-1]
    line = np.maximum(np.clip(edge / rng.uniform(22, 42), 0, 1) * covered, outline)
    wide = Image.fromarray((line * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(3))
    line = np.asarray(wide, np.float32) / 255
    x, y = _axes(side)
    hatching = (((x + y) * 20) % 1 < 0.3) * covered * np.clip((150 - grey) / 150, 0, 1)
    paper = rng.uniform(228, 250) + 4 * _grain(side)[:side, :side]
    tone = paper - line * rng.uniform(140, 200) - hatching * 55
    return np.repeat(tone[..., None].astype(np.float32), 3, 2)


def _exposure(small: Image.Image, rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """What a camera adds: slight blur, contrast, brightness, a tint, grain."""
    if rng.random() < 0.4:
        small = small.filter(ImageFilter.GaussianBlur(rng.uniform(0.35, 0.8) * size / 64))
    contrast, gain, noise = rng.uniform(0.78, 1.1), rng.uniform(0.8, 1.18), rng.uniform(1.5, 7)
    tint = (gain * (1 + 0.03 * rng.standard_normal(3))).astype(np.float32)
    dx, dy = rng.integers(0, size, 2)
    out = (np.asarray(small, np.float32) - 128) * np.float32(contrast) + 128
    out *= tint
    out += _grain(size)[dy : dy + size, dx : dx + size, None] * np.float32(noise)
    return np.clip(out, 0, 255).astype(np.uint8)


def _tiles(small: Image.Image, rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Sixteen by sixteen tiles with dark joints, each tile of one slightly wrong colour."""
    tiles = 16
    step = size // tiles
    tiny = np.asarray(small.resize((tiles, tiles), Image.Resampling.BOX), np.float32) + rng.normal(0, 8, (tiles, tiles, 1))
    out = np.repeat(np.repeat(tiny, step, 0), step, 1)
    joint = max(1, size // 64)
    for k in range(joint):
        out[k::step] *= 0.72
        out[:, k::step] *= 0.72
    whole = np.clip(out, 0, 255).astype(np.uint8)
    if whole.shape[0] != size:  # sizes that are no multiple of 16
        whole = np.asarray(Image.fromarray(whole).resize((size, size), Image.Resampling.NEAREST))
    return whole
