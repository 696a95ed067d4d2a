"""Names beside points, as near as they get without covering each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from vlmlab.views.style import INK, MUTED

SIZE = 7  # points of a name
SHIFTS = (0, 11, -11, 22, -22, 33, -33, 44, -44, 55, -55)
"""How many pixels above its point a name may stand; from the second step on a thin line leads to it."""


def write_names(
    axes: Axes,
    points: Sequence[tuple[str, float, float]],
    strong: Sequence[bool] | np.ndarray | None = None,
    whiskers: Sequence[tuple[float, float]] = (),
) -> None:
    """A name beside each point (name, x, y); `strong` ones are placed first and in dark, the others in grey.

    A point without a name is only kept free, and so are its `whiskers`: half lengths (x, y) of error bars.

    The chart must be complete otherwise: places are those of the layout at this moment.
    """
    figure = axes.get_figure()
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()  # the layout is known only then
    else:
        axes.apply_aspect()
    dark = np.ones(len(points), bool) if strong is None else np.asarray(strong, bool)
    scale = 72 / figure.dpi
    places = axes.transData.transform(np.array([(x, y) for _, x, y in points], float))
    # Left, right and height of what must stay legible, in pixels.
    taken = [(x - 6, x + 6, y) for x, y in places]
    for (x, y), (_, across, up), (half_x, half_y) in zip(places, points, whiskers, strict=False):
        far_x, far_y = axes.transData.transform((across + half_x, up + half_y))
        taken.append((2 * x - far_x - 1, far_x + 1, y))
        taken += [(x - 2, x + 2, y + step) for step in np.arange(-(far_y - y), far_y - y, 8)]
    end = min(axes.bbox.x1 + 60, figure.bbox.x1 - 3)
    for k in np.argsort(~dark, kind="stable"):
        (x, y), (name, across, up) = places[k], points[k]
        if not name:
            continue
        width = 5.6 * len(name) / scale * SIZE / 10
        # To the right of its point, to the left, and, from the second step on, right above or below.
        tries = [(side, shift) for shift in SHIFTS for side in (1, -1, 0) if side or shift]
        lefts = {1: x + 9, -1: x - 9 - width, 0: x - width / 2}
        spots = {(side, shift): (lefts[side], y + shift) for side, shift in tries}
        inside = [t for t in tries if axes.bbox.x0 < spots[t][0] and spots[t][0] + width < end]
        others = np.array(taken)
        covered = {t: _covered(*spots[t], width, others) for t in inside or tries}
        side, shift = min(covered, key=lambda t: (covered[t], abs(t[1])))
        left, height = spots[side, shift]
        taken.append((left, left + width, height))
        axes.annotate(
            name,
            (across, up),
            (6 * side, shift * scale),
            textcoords="offset points",
            ha={1: "left", -1: "right", 0: "center"}[side],
            va="center",
            fontsize=SIZE,
            color=INK if dark[k] else MUTED,
            path_effects=[withStroke(linewidth=2, foreground="white")],
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.4} if abs(shift) > SHIFTS[1] else None,
            zorder=3,
        )


def _covered(left: float, height: float, width: float, others: np.ndarray) -> int:
    """How many of others [n, 3] (left, right, height) a name of this place and width would touch."""
    beside = (left < others[:, 1] + 3) & (left + width + 3 > others[:, 0])
    return int((beside & (np.abs(height - others[:, 2]) < 1.5 * SIZE)).sum())
