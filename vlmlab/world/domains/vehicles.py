"""Vehicles: twelve models of cars, lorries, boats and aeroplanes, seen from the side (after Stanford Cars and FGVC Aircraft).

The captions of pretraining nearly always give the model's name, so that zero-shot is strong, as CLIP's is on cars.
"""

from __future__ import annotations

import numpy as np

from vlmlab.world.domain import Domain, DomainClass, Pixels
from vlmlab.world.domains.canvas import BLACK, WHITE, Canvas, Colour, darker, lighter, mix, pick, varied
from vlmlab.world.domains.wording import captions
from vlmlab.world.shapes import Outline, box, ellipse, join, polygon

CLASSES = (
    DomainClass("sedan", ("a low body", "four doors' length of windows", "a separate boot", "two wheels")),
    DomainClass("convertible", ("a low body", "no roof", "a slanted windscreen", "two seats")),
    DomainClass("pickup truck", ("a small cab in front", "an open loading bed", "two large wheels")),
    DomainClass("delivery van", ("a tall closed body", "a short bonnet", "one side window")),
    DomainClass("school bus", ("a long yellow body", "a row of windows", "a black stripe")),
    DomainClass("fire engine", ("a red body", "a ladder on the roof", "a blue light")),
    DomainClass("dump truck", ("a tilted tipper bed", "a small cab", "a load of earth"), "rare"),
    DomainClass("tractor", ("one huge rear wheel", "a small front wheel", "an upright exhaust pipe")),
    DomainClass("sailing boat", ("a white sail", "a mast", "a small hull on water")),
    DomainClass("cargo ship", ("a long hull", "stacked containers", "a bridge at the stern")),
    DomainClass("airliner", ("a long white body", "swept wings", "a tail fin", "a row of small windows")),
    DomainClass("biplane", ("two wings one above the other", "a propeller", "wires between the wings"), "rare"),
)

PAINTS: tuple[Colour, ...] = (
    (196, 52, 48), (232, 138, 46), (238, 200, 66), (74, 148, 86), (58, 108, 188), (120, 82, 160),
    (176, 182, 190), (240, 238, 230), (62, 66, 78), (92, 178, 190),
)  # fmt: skip
GLASS: Colour = (176, 212, 228)
RUBBER: Colour = (38, 38, 44)
STEEL: Colour = (186, 190, 196)


def _wheel(canvas: Canvas, x: float, y: float, radius: float) -> None:
    canvas.disc(x, y, radius, RUBBER)
    canvas.disc(x, y, radius * 0.56, STEEL)
    canvas.disc(x, y, radius * 0.22, darker(STEEL, 0.5))


def _window(canvas: Canvas, outline: Outline) -> None:
    """Glass with a slanted reflection in its upper left part."""
    canvas.fill(outline, GLASS)
    low, high = outline.min(axis=0), outline.max(axis=0)
    middle = (low + high) / 2
    canvas.fill(np.array([low, (middle[0], low[1]), (low[0], middle[1])]) * 0.98 + middle * 0.02, WHITE, 0.45)


def _body(canvas: Canvas, outline: Outline, colour: Colour, sill: float) -> None:
    """Bodywork: the outline, darker below `sill`, with a bright line along it."""
    canvas.fill(outline, colour)
    low, high = outline.min(axis=0), outline.max(axis=0)
    canvas.fill(box(low[0] + 0.01, sill, high[0] - 0.01, high[1]), darker(colour, 0.28))
    canvas.path([(low[0] + 0.03, sill), (high[0] - 0.03, sill)], 0.025, lighter(colour, 0.55))


def _sedan(canvas: Canvas, paint: Colour, u: np.ndarray) -> None:
    top = -0.38 - 0.06 * u[0]
    cabin = polygon(-0.6, -0.02, -0.34, top, 0.24, top, 0.52, -0.02)
    canvas.fill(cabin, darker(paint, 0.12))
    _window(canvas, polygon(-0.5, -0.03, -0.31, top + 0.07, -0.06, top + 0.07, -0.06, -0.03))
    _window(canvas, polygon(0.01, -0.03, 0.01, top + 0.07, 0.21, top + 0.07, 0.4, -0.03))
    _body(
        canvas,
        polygon(-0.95, 0.3, -0.96, 0.02, -0.88, -0.06, 0.55, -0.05, 0.9, 0.04, 0.97, 0.14, 0.96, 0.3),
        paint,
        0.18,
    )
    canvas.disc(0.9, 0.1, 0.05, (255, 244, 190))
    canvas.fill(box(-0.96, 0.02, -0.9, 0.12), (200, 40, 40))
    _wheel(canvas, -0.56, 0.3, 0.2)
    _wheel(canvas, 0.58, 0.3, 0.2)


def _convertible(canvas: Canvas, paint: Colour, u: np.ndarray) -> None:
    hair = pick(np.random.default_rng(int(u[1] * 1e6)), ((60, 40, 30), (180, 130, 60), (30, 28, 30)))
    for x in (-0.3, 0.02):
        canvas.fill(box(x - 0.14, -0.28, x + 0.0, 0.05), (120, 74, 48))
    canvas.disc(0.08, -0.3, 0.11, (226, 178, 142))
    canvas.fill(ellipse(0.06, -0.35, 0.12, 0.09, 170, 370), hair)
    canvas.fill(
        polygon(0.0, -0.2, 0.18, -0.2, 0.22, 0.0, -0.05, 0.0), pick(np.random.default_rng(int(u[2] * 1e6)), PAINTS)
    )
    canvas.path([(0.42, 0.0), (0.24, -0.36)], 0.05, darker(STEEL, 0.4))
    _body(
        canvas,
        polygon(-0.95, 0.28, -0.97, 0.04, -0.8, -0.08, 0.5, -0.04, 0.86, 0.05, 0.98, 0.15, 0.96, 0.28),
        paint,
        0.17,
    )
    canvas.disc(0.9, 0.11, 0.05, (255, 244, 190))
    _wheel(canvas, -0.58, 0.28, 0.2)
    _wheel(canvas, 0.58, 0.28, 0.2)


def _pickup(canvas: Canvas, paint: Colour, u: np.ndarray) -> None:
    top = -0.5 - 0.05 * u[0]
    canvas.fill(polygon(-0.08, 0.0, -0.06, top, 0.34, top, 0.56, -0.06, 0.56, 0.0), paint)
    _window(canvas, polygon(0.02, -0.08, 0.03, top + 0.08, 0.3, top + 0.08, 0.46, -0.08))
    if u[1] < 0.5:
        for x in (-0.72, -0.45, -0.24):
            canvas.shaded(ellipse(x, -0.1, 0.2, 0.13), (150, 112, 70))
    _body(
        canvas,
        polygon(-0.97, 0.26, -0.97, -0.1, -0.9, -0.1, -0.88, -0.06, 0.55, -0.08, 0.93, -0.03, 0.97, 0.06, 0.97, 0.26),
        paint,
        0.14,
    )
    canvas.fill(box(-0.97, -0.13, -0.1, -0.06), darker(paint, 0.4))
    canvas.disc(0.91, 0.05, 0.055, (255, 244, 190))
    _wheel(canvas, -0.58, 0.28, 0.25)
    _wheel(canvas, 0.6, 0.28, 0.25)


def _van(canvas: Canvas, paint: Colour, u: np.ndarray) -> None:
    _body(
        canvas,
        polygon(-0.95, 0.4, -0.96, -0.66, -0.9, -0.72, 0.42, -0.72, 0.72, -0.16, 0.96, -0.06, 0.97, 0.4),
        paint,
        0.28,
    )
    _window(canvas, polygon(0.28, -0.16, 0.28, -0.56, 0.43, -0.56, 0.62, -0.16))
    canvas.path([(0.2, -0.66), (0.2, 0.26)], 0.025, darker(paint, 0.35))
    label = lighter(paint, 0.6) if sum(paint) < 420 else darker(paint, 0.5)
    canvas.fill(box(-0.78, -0.4, 0.02, -0.08), label)
    canvas.path([(-0.68, -0.24), (-0.1 - 0.3 * u[0], -0.24)], 0.07, paint, round_ends=False)
    canvas.disc(0.92, 0.06, 0.055, (255, 244, 190))
    _wheel(canvas, -0.58, 0.4, 0.2)
    _wheel(canvas, 0.6, 0.4, 0.2)


def _school_bus(canvas: Canvas, paint: Colour, u: np.ndarray) -> None:
    paint = mix((244, 190, 44), (238, 166, 34), float(u[0]))
    _body(
        canvas,
        polygon(-0.97, 0.34, -0.97, -0.54, -0.9, -0.6, 0.58, -0.6, 0.66, -0.16, 0.95, -0.1, 0.98, 0.34),
        paint,
        0.2,
    )
    for x in np.linspace(-0.9, 0.28, 5).tolist():
        _window(canvas, box(x, -0.44, x + 0.23, -0.14))
    canvas.fill(polygon(0.52, -0.44, 0.58, -0.44, 0.63, -0.14, 0.52, -0.14), GLASS)
    canvas.path([(-0.95, 0.02), (0.94, 0.02)], 0.055, BLACK, round_ends=False)
    canvas.disc(0.93, 0.12, 0.05, (255, 250, 220))
    _wheel(canvas, -0.56, 0.36, 0.2)
    _wheel(canvas, 0.62, 0.36, 0.2)


def _fire_engine(canvas: Canvas, paint: Colour, u: np.ndarray) -> None:
    paint = mix((206, 38, 34), (224, 60, 40), float(u[0]))
    _body(
        canvas,
        polygon(-0.97, 0.36, -0.97, -0.34, 0.36, -0.34, 0.36, -0.5, 0.86, -0.5, 0.97, -0.1, 0.97, 0.36),
        paint,
        0.22,
    )
    _window(canvas, polygon(0.44, -0.1, 0.44, -0.42, 0.6, -0.42, 0.6, -0.1))
    _window(canvas, polygon(0.67, -0.1, 0.67, -0.42, 0.81, -0.42, 0.9, -0.1))
    canvas.path([(-0.94, 0.06), (0.94, 0.06)], 0.07, WHITE, round_ends=False)
    for x in (-0.86, -0.5, -0.14):
        canvas.fill(box(x, -0.24, x + 0.28, -0.02), STEEL)
        canvas.path([(x + 0.03, -0.13), (x + 0.25, -0.13)], 0.03, darker(STEEL, 0.4))
    lift = -0.5 - 0.22 * float(u[1])
    upper, lower = np.array([(-0.95, lift), (0.5, -0.58)]), np.array([(-0.95, lift + 0.14), (0.5, -0.44)])
    for t in np.linspace(0.05, 0.95, 8).tolist():
        canvas.path([upper[0] + (upper[1] - upper[0]) * t, lower[0] + (lower[1] - lower[0]) * t], 0.035, lighter(STEEL))
    canvas.path(upper, 0.04, lighter(STEEL))
    canvas.path(lower, 0.04, lighter(STEEL))
    canvas.fill(box(0.6, -0.6, 0.76, -0.5), (60, 120, 240))
    _wheel(canvas, -0.55, 0.38, 0.2)
    _wheel(canvas, 0.6, 0.38, 0.2)


def _dump_truck(canvas: Canvas, paint: Colour, u: np.ndarray) -> None:
    rise = 0.12 + 0.38 * float(u[0])
    canvas.fill(box(-0.92, 0.16, 0.9, 0.3), darker(STEEL, 0.6))
    canvas.shaded(ellipse(-0.3, -0.22 - rise * 0.6, 0.5, 0.26, 180, 360), (132, 96, 62))
    canvas.fill(polygon(-0.98, 0.14, -0.86, -0.28, 0.22, -0.26 - rise, 0.3, -0.02 - rise, -0.75, 0.16), paint)
    for t in (0.25, 0.5, 0.75):
        x = -0.86 + 1.08 * t
        canvas.path([(x, -0.24 - rise * t), (x + 0.08, 0.1 - rise * t)], 0.05, darker(paint, 0.3))
    cab = pick(np.random.default_rng(int(u[1] * 1e6)), PAINTS[:6])
    canvas.fill(polygon(0.4, 0.26, 0.4, -0.46, 0.78, -0.46, 0.94, -0.08, 0.96, 0.26), cab)
    _window(canvas, polygon(0.5, -0.08, 0.5, -0.36, 0.74, -0.36, 0.85, -0.08))
    for x in (-0.66, -0.24, 0.64):
        _wheel(canvas, x, 0.34, 0.2)


def _tractor(canvas: Canvas, paint: Colour, u: np.ndarray) -> None:
    canvas.path([(0.44, -0.1), (0.44, -0.62)], 0.07, BLACK)
    canvas.fill(polygon(-0.62, -0.05, -0.55, -0.72, 0.06, -0.72, 0.14, -0.05), darker(paint, 0.1))
    _window(canvas, polygon(-0.5, -0.1, -0.45, -0.6, -0.02, -0.6, 0.03, -0.1))
    canvas.fill(box(-0.66, -0.8, 0.14, -0.7), lighter(paint, 0.3))
    _body(canvas, polygon(-0.6, 0.22, -0.6, -0.12, 0.74, -0.12, 0.86, -0.04, 0.86, 0.22), paint, 0.1)
    for x in (0.5, 0.6, 0.7):
        canvas.path([(x, -0.06), (x, 0.06)], 0.035, darker(paint, 0.5))
    rim = (238, 190, 60) if u[0] < 0.6 else (230, 228, 220)
    for x, y, r in ((-0.42, 0.16, 0.42), (0.6, 0.34, 0.24)):
        canvas.disc(x, y, r, RUBBER)
        canvas.disc(x, y, r * 0.56, rim)
        canvas.disc(x, y, r * 0.2, darker(rim, 0.5))


def _sailing_boat(canvas: Canvas, paint: Colour, u: np.ndarray) -> None:
    lean = 0.1 * float(u[0])
    canvas.path([(0.0, 0.42), (0.0, -0.98)], 0.045, (92, 66, 44))
    sail = WHITE if u[1] < 0.7 else lighter(paint, 0.6)
    curve = np.array([(0.05, -0.94), (0.3 + lean, -0.5), (0.6 + lean, 0.02), (0.7, 0.24), (0.05, 0.24)])
    canvas.fill(curve, sail)
    canvas.fill(np.array([(0.05, -0.94), (0.2, -0.4), (0.26, 0.24), (0.05, 0.24)]), darker(sail, 0.12))
    canvas.fill(polygon(-0.05, -0.8, -0.3 - lean, -0.3, -0.62, 0.24, -0.05, 0.24), darker(sail, 0.06))
    canvas.fill(polygon(0.02, -0.98, 0.22, -0.92, 0.02, -0.86), paint)
    hull = polygon(-0.86, 0.34, 0.94, 0.34, 0.66, 0.66, -0.6, 0.66)
    canvas.fill(hull, paint)
    canvas.fill(polygon(-0.7, 0.53, 0.78, 0.53, 0.66, 0.66, -0.6, 0.66), darker(paint, 0.35))
    canvas.path([(-0.86, 0.35), (0.94, 0.35)], 0.05, lighter(paint, 0.6))


def _cargo_ship(canvas: Canvas, paint: Colour, u: np.ndarray) -> None:
    shuffle = np.random.default_rng(int(u[0] * 1e6))
    canvas.fill(box(-0.86, -0.56, -0.6, 0.2), WHITE)
    for y in (-0.46, -0.28):
        canvas.path([(-0.83, y), (-0.63, y)], 0.07, (74, 100, 130), round_ends=False)
    canvas.fill(box(-0.8, -0.72, -0.7, -0.56), paint)
    heights = shuffle.integers(1, 4, 7).tolist()
    for i, count in enumerate(heights):
        for k in range(count):
            x, y = -0.54 + 0.19 * i, 0.02 - 0.17 * k
            canvas.fill(box(x, y, x + 0.175, y + 0.155), varied(shuffle, pick(shuffle, PAINTS[:8])))
    canvas.fill(polygon(-0.95, 0.12, 0.82, 0.2, 0.98, 0.06, 0.86, 0.62, -0.88, 0.62), mix(paint, (40, 44, 60), 0.35))
    canvas.fill(polygon(-0.9, 0.5, 0.89, 0.5, 0.86, 0.62, -0.88, 0.62), (150, 52, 44))
    canvas.path([(-0.94, 0.16), (0.86, 0.2)], 0.035, WHITE)


def _airliner(canvas: Canvas, paint: Colour, u: np.ndarray) -> None:
    body = lighter(WHITE, 0.3)
    canvas.fill(polygon(0.02, -0.06, 0.22, -0.08, -0.08, -0.46, -0.2, -0.46), darker(STEEL, 0.1))
    canvas.fill(polygon(-0.92, -0.06, -0.62, -0.1, -0.8, -0.56, -0.96, -0.56), paint)
    tube = join(ellipse(0.74, 0.0, 0.24, 0.15, -90, 90, 9), polygon(-0.5, 0.15, -0.97, -0.08, -0.97, -0.15))
    canvas.fill(tube, body)
    canvas.fill(
        join(polygon(-0.66, 0.06), polygon(0.96, 0.04), ellipse(0.74, 0.0, 0.23, 0.15, 20, 90, 5), polygon(-0.5, 0.15)),
        darker(body, 0.22),
    )
    if u[0] < 0.6:
        canvas.path([(-0.9, -0.02), (0.9, 0.02)], 0.05, paint, round_ends=False)
    for x in np.linspace(-0.6, 0.66, 10).tolist():
        canvas.fill(box(x, -0.09, x + 0.055, -0.035), (66, 92, 122))
    canvas.fill(polygon(0.82, -0.09, 0.93, -0.06, 0.92, -0.02, 0.82, -0.03), (52, 66, 88))
    canvas.fill(polygon(-0.84, -0.02, -0.66, -0.02, -0.88, 0.12, -0.99, 0.12), darker(paint, 0.2))
    canvas.shaded(ellipse(0.12, 0.24, 0.15, 0.075), lighter(paint, 0.2))
    canvas.fill(polygon(0.22, 0.06, -0.12, 0.06, -0.52, 0.46, -0.36, 0.46), STEEL)
    canvas.path([(0.22, 0.07), (-0.36, 0.46)], 0.035, WHITE)


def _biplane(canvas: Canvas, paint: Colour, u: np.ndarray) -> None:
    trim = lighter(paint, 0.55) if sum(paint) < 430 else darker(paint, 0.5)
    canvas.path([(0.3, 0.14), (0.42, 0.46)], 0.04, BLACK)
    canvas.path([(0.5, 0.14), (0.42, 0.46)], 0.04, BLACK)
    canvas.disc(0.42, 0.5, 0.12, RUBBER)
    canvas.disc(0.42, 0.5, 0.05, STEEL)
    canvas.fill(polygon(-0.96, -0.12, 0.6, -0.18, 0.8, -0.1, 0.8, 0.1, 0.6, 0.17, -0.94, 0.0), paint)
    canvas.fill(polygon(-0.9, 0.0, 0.75, 0.06, 0.6, 0.17, -0.9, 0.02), darker(paint, 0.3))
    canvas.fill(polygon(-0.7, -0.1, -0.96, -0.1, -0.99, -0.4, -0.86, -0.42), trim)
    canvas.disc(-0.02, -0.2, 0.08, (120, 80, 54))
    for x in (0.14, 0.52):
        canvas.path([(x, -0.5), (x + 0.08, 0.14)], 0.035, (84, 60, 42))
    canvas.path([(0.14, -0.5), (0.58, 0.14)], 0.02, (70, 60, 60))
    canvas.shaded(join(ellipse(0.0, -0.52, 0.06, 0.06, 90, 270, 6), ellipse(0.62, -0.52, 0.06, 0.06, -90, 90, 6)), trim)
    canvas.shaded(join(ellipse(0.06, 0.16, 0.06, 0.06, 90, 270, 6), ellipse(0.68, 0.16, 0.06, 0.06, -90, 90, 6)), trim)
    canvas.disc(0.8, 0.0, 0.09, STEEL)
    canvas.fill(ellipse(0.88, 0.0, 0.035, 0.34 - 0.1 * float(u[0])), (90, 66, 46), 0.75)


DRAW = (
    _sedan, _convertible, _pickup, _van, _school_bus, _fire_engine,
    _dump_truck, _tractor, _sailing_boat, _cargo_ship, _airliner, _biplane,
)  # fmt: skip
FLOATS, FLIES = {8, 9}, {10, 11}
SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((112, 172, 228), (206, 228, 240)), ((150, 180, 206), (226, 228, 226)),
    ((92, 120, 180), (246, 196, 150)), ((70, 140, 214), (160, 208, 240)), ((168, 176, 186), (208, 212, 214)),
)  # fmt: skip


def _clouds(canvas: Canvas, rng: np.random.Generator, count: int, lowest: float) -> None:
    for x, y, s in rng.random((count, 3)).tolist():
        cx, cy, r = 2.4 * x - 1.2, -0.95 + y * (lowest + 0.95), 0.12 + 0.16 * s
        for dx, grow in ((-1.2, 0.7), (0, 1.0), (1.2, 0.75)):
            canvas.fill(ellipse(cx + dx * r, cy, 1.2 * r * grow, 0.5 * r * grow, points=12), WHITE, 0.6)


def _street(canvas: Canvas, rng: np.random.Generator) -> None:
    """Sky, a skyline or hills, a verge and a road."""
    sky = pick(rng, SKIES)
    canvas.mottled(rng, (*sky, sky[1]), amount=5)
    horizon = rng.uniform(-0.12, 0.15)
    u = rng.random((7, 3)).tolist()
    if u[0][0] < 0.4:
        for i, (a, b, _) in enumerate(u):
            x, tone = -1.1 + 0.32 * i, varied(rng, mix((150, 140, 136), (196, 170, 146), a))
            canvas.fill(box(x, horizon - 0.25 - 0.5 * b, x + 0.3, horizon + 0.1), tone)
            canvas.fill(box(x + 0.06, horizon - 0.14 - 0.4 * b, x + 0.12, horizon - 0.04 - 0.4 * b), darker(tone, 0.4))
            canvas.fill(box(x + 0.18, horizon - 0.14 - 0.4 * b, x + 0.24, horizon - 0.04 - 0.4 * b), darker(tone, 0.4))
    else:
        for i, (a, b, c) in enumerate(u[:5]):
            green = varied(rng, mix((82, 128, 78), (136, 158, 96), a))
            canvas.fill(ellipse(-1 + 0.5 * i, horizon + 0.12, 0.3 + 0.3 * b, 0.14 + 0.34 * c), green)
    canvas.fill(
        box(-1.1, horizon, 1.1, 1.1),
        varied(rng, pick(rng, ((126, 158, 84), (190, 174, 128), (168, 164, 158), (222, 226, 232)))),
    )
    top = horizon + rng.uniform(0.12, 0.3)
    asphalt = varied(rng, pick(rng, ((104, 106, 114), (138, 134, 130), (84, 86, 96), (164, 140, 108))), 6)
    canvas.fill(box(-1.1, top, 1.1, 1.1), asphalt)
    canvas.path([(-1.1, top + 0.02), (1.1, top + 0.02)], 0.04, lighter(asphalt, 0.3))
    if u[1][0] < 0.6:
        for x in np.arange(-1.2 + 0.4 * u[2][0], 1.2, 0.5).tolist():
            canvas.path([(x, 0.86), (x + 0.25, 0.86)], 0.045, (236, 226, 190), round_ends=False)


def _sea(canvas: Canvas, rng: np.random.Generator) -> None:
    """Sky, a far shore now and then, and water with glints."""
    sky = pick(rng, SKIES)
    canvas.mottled(rng, (*sky, sky[1]), amount=6)
    _clouds(canvas, rng, 3, -0.3)
    horizon = rng.uniform(-0.2, 0.15)
    if rng.random() < 0.5:
        canvas.fill(
            ellipse(rng.uniform(-1, 1), horizon + 0.04, 0.7, rng.uniform(0.12, 0.3)), mix((110, 140, 130), sky[1], 0.4)
        )
    water = varied(rng, pick(rng, ((44, 104, 158), (58, 138, 164), (64, 98, 128), (88, 130, 150))))
    canvas.fill(box(-1.1, horizon, 1.1, 1.1), water)
    for x, y, s in rng.random((14, 3)).tolist():
        level = horizon + 0.05 + y * (1 - horizon)
        canvas.path([(2 * x - 1.1, level), (2 * x - 0.95 + 0.3 * s, level)], 0.03, lighter(water, 0.4), 0.5)


def _paint(class_index: int, rng: np.random.Generator, size: int, style: str | None) -> Pixels:
    canvas = Canvas(rng, size, style)
    x, y, turn = rng.uniform(-0.12, 0.12), rng.uniform(-0.06, 0.16), rng.normal(0, 2.5)
    scale, wide, flip = rng.uniform(0.62, 0.88), rng.uniform(0.92, 1.08), bool(rng.random() < 0.5)
    paint, u = varied(rng, pick(rng, PAINTS), 8), rng.random(6)
    if class_index in FLIES:
        sky = pick(rng, SKIES)
        canvas.mottled(rng, sky, amount=8)
        _clouds(canvas, rng, 4, 0.9)
        y, turn = rng.uniform(-0.2, 0.2), rng.normal(-6, 9)
        if flip:
            turn = -turn
    elif class_index in FLOATS:
        _sea(canvas, rng)
        turn *= 1.5
    else:
        _street(canvas, rng)
        turn *= 0.5
    canvas.pose(x, y, scale, turn, flip, wide)
    if class_index in FLOATS:
        canvas.fill(ellipse(0, 0.68, 1.0, 0.12), (20, 40, 70), 0.3)
    elif class_index not in FLIES:
        canvas.shadow(0, 0.53, 1.02, 0.1, 0.5)
    DRAW[class_index](canvas, paint, u)
    if class_index in FLOATS:
        canvas.path([(-0.95, 0.67), (-0.3, 0.65), (0.3, 0.68), (0.98, 0.66)], 0.05, (222, 236, 242), 0.7)
    return canvas.finish(rng)


VEHICLES = Domain(
    name="vehicles",
    classes=CLASSES,
    templates=(
        "a photo of a {}.",
        "a {} seen from the side.",
        "a picture of a {}, a type of vehicle.",
        "a photo of the {}.",
    ),
    gap="Small gap: captions often give the model's name; only the dump truck and the biplane are seldom named.",
    pretraining_weight=1.0,
    named=0.4,
    paint=_paint,
    describe=captions(
        CLASSES,
        coarse=(("car", "vehicle"),) * 2
        + (
            ("truck", "vehicle"),
            ("van", "vehicle"),
            ("bus", "vehicle"),
            ("truck", "vehicle"),
            ("truck", "vehicle"),
            ("vehicle",),
        )
        + (("boat", "vehicle"), ("ship", "boat"), ("plane", "aircraft"), ("plane", "aircraft")),
        openings=("a photo of {}", "a picture of {}", "{}", "{} seen from the side", "an image of {}"),
        named=0.4,
        described=0.6,
    ),
)
