"""Outlines from which everything in MicroWorld is drawn.

All functions return a float array [n, 2] of (x, y) corners in the unit frame of one object: x to the right, y down,
both in [-1, 1]. A *part* of an object is a pair (role, outline); the role says how the painter colours the outline,
and parts are painted in order, the later over the earlier.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Outline = NDArray[np.float64]
"""Corners [n, 2] of one closed polygon."""

Part = tuple[str, Outline]
"""(role, outline); see ROLES."""

ROLES = ("hole", "body", "dark", "light", "black", "white", "brown", "green", "yellow", "red")
"""hole cuts out what lies below it; body, dark and light follow the colour of the object; the others are fixed."""


@lru_cache(maxsize=4096)
def _arc(start: float, end: float, points: int) -> Outline:
    """Corners [points, 2] on the unit circle; kept, because most figures are made of the same few arcs."""
    angle = np.radians(np.linspace(start, end, points))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def ellipse(
    cx: float,
    cy: float,
    rx: float,
    ry: float | None = None,
    start: float = 0,
    end: float = 360,
    points: int = 22,
) -> Outline:
    """Ellipse about (cx, cy), or its chord-closed arc from `start` to `end` degrees (0 is right, 90 is down)."""
    return _arc(start, end, points) * (rx, rx if ry is None else ry) + (cx, cy)


def box(x0: float, y0: float, x1: float, y1: float) -> Outline:
    """Rectangle with sides along the axes."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=float)


def polygon(*xy: float) -> Outline:
    """Corners given flat: polygon(x0, y0, x1, y1, ...)."""
    return np.array(xy, dtype=float).reshape(-1, 2)


def stroke(x0: float, y0: float, x1: float, y1: float, width: float = 0.09) -> Outline:
    """A straight line of the given width, with square ends."""
    dx, dy = x1 - x0, y1 - y0
    half = width / 2 / max(math.hypot(dx, dy), 1e-9)
    nx, ny = -dy * half, dx * half
    return np.array([(x0 + nx, y0 + ny), (x1 + nx, y1 + ny), (x1 - nx, y1 - ny), (x0 - nx, y0 - ny)], dtype=float)


def star(points: int, outer: float, inner: float, phase: float = -90) -> Outline:
    """Star about the origin with `points` tips; the first tip lies at `phase` degrees (-90 is up)."""
    k = np.arange(2 * points)
    angle = np.radians(phase + k * 180 / points)
    radius = np.where(k % 2 == 0, outer, inner)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def rotate(p: Outline, degrees: float, cx: float = 0, cy: float = 0) -> Outline:
    """The outline turned clockwise (as seen, for y points down) about (cx, cy)."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = p[:, 0] - cx, p[:, 1] - cy
    turned = np.empty_like(p)
    turned[:, 0], turned[:, 1] = x * c - y * s + cx, x * s + y * c + cy
    return turned


def join(*ps: Outline) -> Outline:
    """One outline that runs through the given ones in order."""
    return np.concatenate(ps)
