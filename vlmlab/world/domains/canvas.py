"""The drawing board of the specialised domains: a square image painted at twice the size that is asked for.

Everything is drawn in the unit frame of the image (x to the right, y down, both in [-1, 1]), so that one set of random
parameters gives the same image at every size. A *pose* moves a figure that was drawn upright about the origin to its
place in the image.

Dimension legend: S side of the finished image in pixels, n corners of an outline, (h, w) cells of a backdrop.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFilter

from vlmlab.errors import VlmlabError
from vlmlab.world.domain import Pixels
from vlmlab.world.shapes import Outline, ellipse

Colour = tuple[float, float, float]
"""Red, green, blue in [0, 255]."""

OVERSAMPLING = 2
STYLES = ("photo", "flat")
FLAT_SHARE = 0.25
"""Share of flat, noiseless images in a domain's own mixture of styles."""

WHITE: Colour = (246, 245, 240)
BLACK: Colour = (28, 27, 31)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour `share` of the way from a to b."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def darker(colour: Colour, share: float = 0.3) -> Colour:
    """Towards a cool black, as shadows are."""
    return mix(colour, (18, 14, 38), share)


def lighter(colour: Colour, share: float = 0.35) -> Colour:
    """Towards a warm white."""
    return mix(colour, (255, 252, 240), share)


def varied(rng: np.random.Generator, colour: Colour, amount: float = 9.0) -> Colour:
    """The colour with a random tint and brightness (standard deviation `amount` for each)."""
    a, b, c, d = (rng.standard_normal(4) * amount).tolist()
    return (colour[0] + a + d, colour[1] + b + d, colour[2] + c + d)


def pick(rng: np.random.Generator, choices: tuple | list):
    """One of the choices, each as likely as the others (faster than Generator.choice, which makes an array of them)."""
    return choices[int(rng.integers(len(choices)))]


def _ink(colour: Colour, alpha: float) -> tuple[int, int, int, int]:
    r, g, b = colour
    return min(255, max(0, int(r))), min(255, max(0, int(g))), min(255, max(0, int(b))), int(255 * alpha)


@cache
def _noise(count: int) -> NDArray[np.float32]:
    """Standard normal noise from which every photo takes a stretch: far cheaper than drawing it again."""
    return np.random.default_rng(0).standard_normal(count, dtype=np.float32)


class Canvas:
    """An image under way.

    Args:
        rng: draws the style (if it is None), the direction of the light and, in `finish`, exposure and noise.
        size: side S of the finished image in pixels.
        style: "photo" (light, blur, noise), "flat" (none of them), or None for one of the two.

    Raises:
        VlmlabError: for any other style.
    """

    def __init__(self, rng: np.random.Generator, size: int, style: str | None = None) -> None:
        if style not in (None, *STYLES):
            raise VlmlabError(
                f"the domains have no style {style!r}; choose one of {', '.join(STYLES)}, or None for a mixture"
            )
        drawn = "flat" if rng.random() < FLAT_SHARE else "photo"
        self.style = style or drawn
        self.size = size
        self.side = OVERSAMPLING * size
        self.light = math.radians(rng.uniform(-150, -30))
        self._image = Image.new("RGB", (self.side, self.side))
        self._draw = ImageDraw.Draw(self._image, "RGBA")
        self.unpose()

    # -- where the next figure goes

    def pose(
        self, x: float = 0, y: float = 0, scale: float = 1, turn: float = 0, flip: bool = False, wide: float = 1
    ) -> None:
        """Places what is drawn next: mirrored, stretched to `wide` times its width, turned by degrees, scaled, moved."""
        c, s = math.cos(math.radians(turn)) * scale, math.sin(math.radians(turn)) * scale
        w = -wide if flip else wide
        half = self.side / 2
        self._matrix = np.array([[c * w, s * w], [-s, c]]) * half
        self._offset = np.array([(x + 1) * half - 0.5, (y + 1) * half - 0.5])
        self._scale = scale

    def unpose(self) -> None:
        """Back to the frame of the image."""
        self.pose()

    def _pixels(self, points: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(points, dtype=float) @ self._matrix + self._offset

    # -- marks

    def fill(self, points: ArrayLike, colour: Colour, alpha: float = 1) -> None:
        """A filled outline [n, 2]."""
        self._draw.polygon(self._pixels(points).ravel().tolist(), fill=_ink(colour, alpha))

    def shaded(self, points: Outline, colour: Colour, depth: float = 0.3, gloss: float = 0.0) -> None:
        """A filled outline with a shaded rim away from the light and, with gloss > 0, a highlight towards it.

        The lit part is the outline itself, shrunk and shifted, so that it suits outlines that are about convex.
        """
        q = self._pixels(points)
        centre = q.mean(axis=0)
        reach = (q.max(axis=0) - q.min(axis=0)) * 0.5
        toward = np.array([math.cos(self.light), math.sin(self.light)]) * reach
        self._draw.polygon(q.ravel().tolist(), fill=_ink(darker(colour, depth), 1))
        inner = centre + (q - centre) * 0.84 + toward * 0.13
        self._draw.polygon(inner.ravel().tolist(), fill=_ink(colour, 1))
        if gloss:
            spot = centre + (q - centre) * 0.34 + toward * 0.42
            self._draw.polygon(spot.ravel().tolist(), fill=_ink((255, 255, 250), gloss))

    def path(self, points: ArrayLike, width: float, colour: Colour, alpha: float = 1, round_ends: bool = True) -> None:
        """A line through points [n, 2], `width` in the units of the pose."""
        q = self._pixels(points)
        thick = width * self._scale * self.side / 2
        ink = _ink(colour, alpha)
        self._draw.line(q.ravel().tolist(), fill=ink, width=max(1, round(thick)), joint="curve" if thick > 2 else None)
        if round_ends and thick > 3:
            r = thick / 2 - 0.5
            for x, y in (q[0].tolist(), q[-1].tolist()):
                self._draw.ellipse((x - r, y - r, x + r, y + r), fill=ink)

    def disc(self, x: float, y: float, radius: float, colour: Colour, alpha: float = 1) -> None:
        """A disc of the given radius in the units of the pose."""
        (cx, cy), r = self._pixels((x, y)).tolist(), radius * self._scale * self.side / 2
        self._draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=_ink(colour, alpha))

    def shadow(self, x: float, y: float, rx: float, ry: float, strength: float = 0.3) -> None:
        """A soft-edged shadow on the ground."""
        for grow in (1.0, 0.75):
            self.fill(ellipse(x, y, rx * grow, ry * grow), (20, 18, 40), strength * 0.6)

    # -- backdrops

    def backdrop(self, cells: ArrayLike) -> None:
        """Fills the image with a colour map [h, w, 3], enlarged smoothly."""
        tiny = np.clip(np.asarray(cells), 0, 255).astype(np.uint8)
        self._image.paste(Image.fromarray(tiny).resize((self.side, self.side), Image.Resampling.BICUBIC))

    def mottled(self, rng: np.random.Generator, stops: Iterable[Colour], amount: float = 12.0, cells: int = 8) -> None:
        """A backdrop that runs through the stops from top to bottom, with soft irregular patches."""
        colours = np.array(list(stops), dtype=float)
        at = np.linspace(0, len(colours) - 1, cells)
        low = np.minimum(at.astype(int), max(len(colours) - 2, 0))
        high = np.minimum(low + 1, len(colours) - 1)
        rows = colours[low] + (colours[high] - colours[low]) * (at - low)[:, None]
        patches = (
            rng.standard_normal((cells, cells, 1)) * amount + rng.standard_normal((cells, cells, 3)) * amount * 0.35
        )
        self.backdrop(rows[:, None, :] + patches)

    def bokeh(self, rng: np.random.Generator, near: Colour, far: Colour, spots: int = 7) -> None:
        """An out-of-focus backdrop: soft patches and discs of light."""
        self.mottled(rng, (far, near), amount=16, cells=6)
        for x, y, r, a in rng.random((spots, 4)).tolist():
            self.disc(2 * x - 1, 2 * y - 1, 0.08 + 0.24 * r, lighter(mix(near, far, y), 0.45), 0.12 + 0.2 * a)

    def painted(self, pixels: NDArray[np.floating]) -> None:
        """Replaces the image by an array [2S, 2S, 3] that was computed point by point."""
        self._image.paste(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)))

    # -- the end

    def finish(self, rng: np.random.Generator) -> Pixels:
        """The image [S, S, 3]; the photo style adds a ramp of light, slight blur, exposure, tint and noise."""
        small = self._image.reduce(OVERSAMPLING)
        u = rng.random(7).tolist()
        tint = 1 + 0.03 * rng.standard_normal(3)
        if self.style == "flat":
            return np.asarray(small)
        if u[0] < 0.35:
            small = small.filter(ImageFilter.GaussianBlur((0.3 + 0.45 * u[1]) * self.size / 64))
        side = self.size
        axis = np.linspace(-1, 1, side)
        slope, contrast, gain = 0.05 + 0.12 * u[2], 0.86 + 0.22 * u[3], 0.88 + 0.28 * u[4]
        columns = np.outer(1 + slope * math.cos(self.light) * axis, gain * tint).astype(np.float32)
        rows = (1 + slope * math.sin(self.light) * axis).astype(np.float32)
        out = np.asarray(small, dtype=np.float32).reshape(side, side * 3)
        out = (out + np.float32(128 / contrast - 128)) * (columns.reshape(-1) * np.float32(contrast))
        out *= rows[:, None]
        count = out.size
        start = int(u[6] * count)
        out += _noise(2 * count)[start : start + count].reshape(out.shape) * np.float32(1.5 + 5 * u[5])
        return out.clip(0, 255).astype(np.uint8).reshape(side, side, 3)
