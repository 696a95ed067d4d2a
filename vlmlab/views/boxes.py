"""Boxes on images, as still figures and as pixels for live panels. A colour says what kind of word a box bears."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.font_manager import findfont
from matplotlib.patches import Patch, Rectangle
from PIL import Image, ImageDraw, ImageFont

from vlmlab.views.style import GRID, INK, MUTED, RIGHT, SPLITS, VALUE, WRONG, Still, figure, picture, tidy

KINDS = {"base": SPLITS["base"], "new": SPLITS["new"], "invented": "#CC79A7"}
"""What a word is to a detector: a class with boxes, one without, or a word that the dataset does not have."""


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont("DejaVu Sans"), size)


def boxed(
    pixels: np.ndarray,
    boxes: np.ndarray,
    texts: Sequence[str],
    colours: Sequence[str],
    side: int = 384,
    chosen: int = -1,
) -> np.ndarray:
    """Pixels [H, W, 3] uint8, enlarged so that the longer side has `side` pixels, with boxes [n, 4] and a text in each.

    The first box lies on top; `chosen` has a second line around it. Takes some milliseconds, for panels that repaint.
    """
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    image = Image.fromarray(np.ascontiguousarray(pixels)).resize((round(width * scale), round(height * scale)), how)
    pen, font = ImageDraw.Draw(image), _font(13)
    rows = list(zip(np.asarray(boxes, float).reshape(-1, 4) * scale, texts, colours, range(len(texts)), strict=True))
    for (x0, y0, x1, y1), _, colour, n in reversed(rows):
        if n == chosen:
            pen.rectangle((x0 - 3, y0 - 3, x1 + 3, y1 + 3), outline="white", width=2)
        pen.rectangle((x0, y0, x1, y1), outline=colour, width=3)
    for (x0, y0, _, _), text, colour, _ in reversed(rows):
        wide, high = pen.textbbox((0, 0), text, font=font)[2:]
        x, y = min(max(0, x0), image.width - wide - 5), max(0, y0 - high - 3)
        pen.rectangle((x, y, x + wide + 5, y + high + 3), fill=colour)
        dark = sum(w * c for w, c in zip((0.3, 0.59, 0.11), to_rgb(colour), strict=True)) < 0.6
        pen.text((x + 2, y), text, fill="white" if dark else "black", font=font)
    return np.asarray(image)


def side_by_side(tiles: Sequence[np.ndarray], gap: int = 6) -> np.ndarray:
    """Images [H, W, 3] of one height in a row, with white between them."""
    white = np.full((tiles[0].shape[0], gap, 3), 255, np.uint8)
    return np.concatenate([part for tile in tiles for part in (tile, white)][:-1], axis=1)


def draw_boxes(
    axes: Axes,
    boxes: np.ndarray,
    colours: Sequence[str],
    texts: Sequence[str] = (),
    style: str = "-",
    width: float = 1.8,
) -> None:
    """Boxes [n, 4] over an image that the axes show, each in its colour, with a small text above if there are any."""
    for n, (x0, y0, x1, y1) in enumerate(np.asarray(boxes, float).reshape(-1, 4)):
        colour = colours[n]
        # The pixel at 0 is drawn from -0.5 to 0.5.
        axes.add_patch(
            Rectangle(
                (x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=width, linestyle=style
            )
        )
        if texts:
            look = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}
            axes.text(x0 - 0.5, y0 - 1, texts[n], fontsize=6.5, color=colour, va="bottom", bbox=look, clip_on=True)


def scenes_with_boxes(rows: Sequence[Mapping], columns: int = 4, legend: Mapping[str, str] | None = None) -> Still:
    """Images with boxes: rows are {"pixels", "title", "boxes" [n, 4], "colours", and if wanted "texts"}.

    `legend` is {what: colour}, below.
    """
    lines = -(-len(rows) // columns)
    longest = max((row["title"].count("\n") for row in rows), default=0)  # lines of a title beyond the first
    fig = figure(2.35 * columns, (2.65 + 0.16 * longest) * lines + (0.35 if legend else 0.1))
    grid = fig.subplots(lines, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, row in zip(grid.flat, rows, strict=False):
        picture(axes, row["pixels"], row["title"])
        draw_boxes(axes, row["boxes"], row["colours"], row.get("texts", ()), row.get("style", "-"))
    if legend:
        handles = [
            Patch(facecolor="none", edgecolor=colour, linewidth=2, label=name) for name, colour in legend.items()
        ]
        fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    above = 0.06 * longest / fig.get_size_inches()[1]  # above an image of fixed shape the layout leaves too little
    fig.set_layout_engine("constrained", rect=(0, 0, 1, 1 - above))
    return fig


def top_words(axes: Axes, words: Sequence[str], shares: Sequence[float], colours: Sequence[str], title: str) -> None:
    """Bars of the largest shares (0 to 1), the largest above, each in the colour of its kind of word."""
    order = np.argsort(-np.asarray(shares))[:5]
    for y, k in enumerate(order):
        axes.barh(y, 100 * shares[k], color=colours[k], alpha=0.6)
        axes.text(2, y, f"{words[k]}  {100 * shares[k]:.0f} %", va="center", fontsize=8, color=INK)
    axes.set_xlim(0, 100)
    axes.set_ylim(max(len(order), 5) - 0.4, -0.6)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=9, color=INK, loc="left")


def group_bars(
    rows: Mapping[str, Mapping[str, float]],
    title: str = "",
    up: str = "AP50 (%)",
    groups: Sequence[str] = ("base", "new"),
) -> Still:
    """Two bars per row, {name: {"base", "new"}} in percent, in the colours of the groups."""
    fig = figure(7.2, 0.9 + 0.42 * len(rows))
    axes = fig.subplots()
    high = 0.8 / len(groups)
    for y, values in enumerate(rows.values()):
        for k, group in enumerate(groups):
            at = y + high * (k - (len(groups) - 1) / 2)
            axes.barh(at, values[group], height=0.9 * high, color=SPLITS[group], alpha=0.85, label=None if y else group)
            axes.text(values[group] + 1, at, f"{values[group]:.0f}", va="center", fontsize=7.5, color=INK)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=9)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 105)
    tidy(axes, title, up, "")
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    fig.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(groups), frameon=False, fontsize=9
    )
    return fig


def recall_curves(
    counts: Sequence[int], recall: Mapping[str, Sequence[float]], chosen: int, title: str = "", crops: str = ""
) -> Still:
    """Recall in percent over the number of proposals, a line per group ("base", "new"); a vertical line at `chosen`."""
    fig = figure(5.2, 3.2)
    axes = fig.subplots()
    axes.axvline(chosen, color=MUTED, linestyle=":", linewidth=1.3)
    for group, marker in (("base", "o"), ("new", "s")):
        axes.plot(counts, recall[group], color=SPLITS[group], marker=marker, markersize=5, label=f"{group} objects")
    axes.set_ylim(0, 104)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.minorticks_off()
    tidy(axes, title, crops or "proposals of an image", "recall (%)")
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return fig


def pseudo_box_quality(
    thresholds: np.ndarray,
    precision: np.ndarray,
    recall: np.ndarray,
    scores: np.ndarray,
    kinds: np.ndarray,
    threshold: float,
) -> Still:
    """Left: precision and recall (percent) of pseudo boxes over the threshold. Right: how many candidates have which score, by what
    they are: 0 right, 1 the wrong name, 2 no object of a new class."""
    fig = figure(7.6, 3.0)
    left, right = fig.subplots(1, 2)
    left.plot(thresholds, precision, color=RIGHT, label="precision")
    left.plot(thresholds, recall, color=INK, linestyle="--", label="recall")
    left.axvline(threshold, color=MUTED, linestyle=":", linewidth=1.3)
    left.set_ylim(0, 104)
    tidy(left, "over the threshold", "threshold on the score", "%")
    left.legend(frameon=False, fontsize=8.5, loc="lower left")
    bins = np.linspace(0, 1, 21)
    stacks = [scores[kinds == k] for k in range(3)]
    right.hist(stacks, bins, stacked=True, color=[RIGHT, WRONG, VALUE], label=["right", "wrong name", "no new object"])
    right.axvline(threshold, color=MUTED, linestyle=":", linewidth=1.3)
    tidy(right, "candidates", "score", "boxes")
    right.legend(frameon=False, fontsize=8.5, loc="upper left")
    return fig
