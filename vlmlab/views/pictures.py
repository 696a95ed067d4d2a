"""Images with what a model sees in them: attention, predictions for words, dense maps. Each returns a Figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from vlmlab.views.style import CLASSES, INK, MUTED, VALUE, figure, picture, tidy


def resized(values: np.ndarray, height: int, width: int, smooth: bool = True) -> np.ndarray:
    """A map [h, w] of floats at the size of its image, bilinearly or (smooth=False) in blocks."""
    method = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(np.asarray(values, np.float32)).resize((width, height), method))


def heat(
    pixels: np.ndarray, values: np.ndarray, strength: float = 0.65, span: tuple[float, float] | None = None
) -> np.ndarray:
    """Pixels [H, W, 3] uint8 with a map [h, w] laid over: dark where it is low, warm where it is high.

    `span` are the values of darkest and brightest, for maps to be compared; the map's own extremes, if there is none.
    """
    from matplotlib import colormaps

    low, high = span or (float(np.min(values)), float(np.max(values)))
    scaled = resized((values - low) / max(high - low, 1e-9), *pixels.shape[:2])
    warm = colormaps["inferno"](np.clip(scaled, 0, 1))[..., :3] * 255
    return (pixels * (1 - strength) + warm * strength).round().astype(np.uint8)


def labelled(pixels: np.ndarray, labels: np.ndarray, strength: float = 0.6) -> np.ndarray:
    """Pixels [H, W, 3] uint8 tinted with one colour per label of the map [H, W] of integers; -1 stays untinted."""
    colours = np.array([to_rgb(c) for c in CLASSES])[labels % len(CLASSES)] * 255
    mixed = pixels * (1 - strength) + colours * strength
    return np.where((labels >= 0)[..., None], mixed, pixels).round().astype(np.uint8)


def attention_grid(pixels: Sequence[np.ndarray], maps: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    """One row per image: the image, then the attention of each head of the last layer from the class token.

    pixels: images [H, W, 3] uint8; maps: per image [heads, h, w].
    """
    heads = maps[0].shape[0]
    fig = figure(1.5 * (heads + 2), 1.65 * len(pixels))
    grid = fig.subplots(len(pixels), heads + 2, squeeze=False)
    for row, image, heads_maps, title in zip(grid, pixels, maps, titles, strict=True):
        picture(row[0], image, title)
        picture(row[1], heat(image, heads_maps.mean(0)), "mean")
        for axes, one, number in zip(row[2:], heads_maps, range(1, heads + 1), strict=True):
            picture(axes, heat(image, one), f"head {number}")
    return fig


def word_predictions(
    pixels: Sequence[np.ndarray],
    names: Sequence[str],
    probabilities: np.ndarray,
    words: Sequence[str],
    top: int = 5,
    columns: int = 3,
) -> Figure:
    """Each image with its `top` most probable words as bars; probabilities [n, words] sum to 1 over the words."""
    rows = -(-len(pixels) // columns)
    fig = figure(4.4 * columns, 2.1 * rows)
    grid = fig.subplots(rows, 2 * columns, squeeze=False, width_ratios=[1.25, 1] * columns)
    for axes in grid.flat:
        axes.set_axis_off()
    for i, (image, name) in enumerate(zip(pixels, names, strict=True)):
        row, column = divmod(i, columns)
        picture(grid[row, 2 * column], image, name)
        axes = grid[row, 2 * column + 1]
        axes.set_axis_on()
        order = np.argsort(-probabilities[i])[:top][::-1]
        axes.barh(range(len(order)), 100 * probabilities[i][order], color=VALUE, alpha=0.55)
        for y, k in enumerate(order):
            axes.text(2, y, f"{words[k]}  {100 * probabilities[i][k]:.0f} %", va="center", fontsize=8, color=INK)
        axes.set_xlim(0, 100)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
    return fig


def dense_maps(
    pixels: Sequence[np.ndarray], names: Sequence[str], scores: Sequence[np.ndarray], words: Sequence[str]
) -> Figure:
    """Per image: the image, the word that wins at every pixel, and the map of the word that wins most.

    scores: per image [words, H, W] (any scale: only their order and contrast are shown).
    """
    n = len(pixels)
    fig = figure(2.9 * n, 6.6)
    grid = fig.subplots(3, n, squeeze=False)
    used: set[int] = set()
    for column, (image, name, score) in enumerate(zip(pixels, names, scores, strict=True)):
        winner = score.argmax(0)
        counts = np.bincount(winner.ravel(), minlength=len(words))
        used |= {int(k) for k in np.flatnonzero(counts > 0.02 * winner.size)}
        best = int(counts.argmax())
        picture(grid[0, column], image, name)
        winners = ", ".join(words[k] for k in np.argsort(-counts)[:3] if counts[k])
        picture(grid[1, column], labelled(image, winner), winners)
        picture(grid[2, column], heat(image, score[best]), f"map of '{words[best]}'")
    handles = [Patch(color=CLASSES[k % len(CLASSES)], label=words[k]) for k in sorted(used)]
    fig.legend(handles=handles, loc="outside lower center", ncols=min(8, max(1, len(used))), frameon=False, fontsize=9)
    return fig


def contact_sheet(
    pixels: Sequence[np.ndarray], titles: Sequence[str], columns: int = 8, colours: Sequence[str] | None = None
) -> Figure:
    """Small images in rows with a word under each; `colours` (optional) tint the words."""
    rows = -(-len(pixels) // columns)
    fig = figure(1.25 * columns, 1.55 * rows)
    grid = fig.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for i, (axes, image) in enumerate(zip(grid.flat, pixels, strict=False)):
        axes.imshow(image)
        axes.set_title(titles[i], fontsize=8, color=colours[i] if colours else INK, y=-0.22)
    return fig


def calibration(confidence: np.ndarray, correct: np.ndarray, title: str = "", bins: int = 10) -> Figure:
    """Reliability diagram: how often predictions of a given confidence (0 to 1) are right; the diagonal is perfect."""
    fig = figure(3.6, 3.2)
    axes = fig.subplots()
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.digitize(confidence, edges) - 1, 0, bins - 1)
    for b in np.unique(which):
        inside = which == b
        axes.bar(
            (edges[b] + edges[b + 1]) / 2,
            100 * correct[inside].mean(),
            0.9 / bins,
            color=VALUE,
            alpha=0.25 + 0.75 * float(inside.mean()),
        )
    axes.plot([0, 1], [0, 100], color=MUTED, linestyle="--", linewidth=1)
    tidy(axes, title, "confidence", "right (%)")
    return fig
