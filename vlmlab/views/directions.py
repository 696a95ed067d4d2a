"""Figures of section 9's panels: a stream with its cache, several teachers, diets of captions, a phrasebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vlmlab.views.style import INK, MARKERS, RIGHT, SYSTEMS, WRONG, Still, figure, picture, tidy

SHORT = 14  # letters of a class name under an image


def _short(name: str) -> str:
    return name if len(name) <= SHORT else f"{name[: SHORT - 1]}…"


def stream_figure(
    images: Sequence[np.ndarray],
    said: Sequence[str],
    right: Sequence[bool],
    curves: Mapping[str, np.ndarray],
    arrived: int,
    cache: Mapping[str, tuple[int, int]],
    places: int,
) -> Still:
    """The latest images, accuracy so far over the images that have arrived, and how many of each class's cache are right.

    Args:
        images: the latest ones, with what was `said` of them and whether that was right.
        curves: name -> accuracy (%) after each image of the whole stream [N]; drawn to `arrived`.
        cache: class name -> (cached images whose pseudo label is right, wrong); a class has so many `places`.
    """
    fig = figure(9.2, 4.6)
    top, below = fig.subfigures(2, 1, height_ratios=[1, 2.2])
    row = top.subplots(1, max(len(images), 1), squeeze=False)[0]
    for axes, image, name, good in zip(row, images, said, right, strict=False):
        picture(axes, image)
        axes.set_title(_short(name), fontsize=7.5, color=RIGHT if good else WRONG, y=-0.34)
    left, bars = below.subplots(1, 2, width_ratios=[1.5, 1])
    steps = np.arange(1, arrived + 1)
    for k, (name, curve) in enumerate(curves.items()):
        look = {"color": INK, "linestyle": "--"} if k == 0 else {"color": SYSTEMS[0]}
        left.plot(steps, curve[:arrived], linewidth=1.6, label=f"{name}: {curve[arrived - 1]:.1f}", **look)
    left.set_xlim(0, max(len(c) for c in curves.values()))
    settled = [curve[min(20, arrived - 1) : arrived] for curve in curves.values()]  # the first few images jump
    left.set_ylim(max(0.0, min(float(c.min()) for c in settled) - 12), 103)
    tidy(left, "accuracy so far", "images that have arrived", "accuracy (%)")
    left.legend(frameon=False, fontsize=8.5, loc="lower right")
    names = list(cache)
    for y, name in enumerate(names):
        own, others = cache[name]
        bars.barh(y, own, color=RIGHT, height=0.7, label="right" if not y else None)
        bars.barh(y, others, left=own, color=WRONG, height=0.7, hatch="//", label="wrong" if not y else None)
    bars.set_yticks(range(len(names)), [_short(name) for name in names], fontsize=8)
    bars.set_ylim(len(names) - 0.4, -0.6)
    bars.set_xlim(0, max(places, 1))
    bars.set_xticks(range(0, max(places, 1) + 1, max(1, places // 4)))
    tidy(bars, "cached pseudo labels", "images", "")
    bars.grid(axis="y", visible=False)
    handles, labels = bars.get_legend_handles_labels()
    bars.legend(handles, labels, frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


def grouped_bars(
    groups: Mapping[str, Mapping[str, tuple[float, float]]],
    title: str = "",
    up: str = "accuracy (%)",
    level: float | None = None,
) -> Still:
    """Bars in groups: group -> label -> (value, spread); `level` is a horizontal line of reference."""
    labels = list(next(iter(groups.values())))
    fig = figure(max(6.6, 1.1 + 0.95 * len(groups)), 3.4)
    axes = fig.subplots()
    width = 0.8 / len(labels)
    for k, label in enumerate(labels):
        at = np.arange(len(groups)) + (k - (len(labels) - 1) / 2) * width
        values, spreads = zip(*(own[label] for own in groups.values()), strict=True)
        axes.bar(
            at, values, width, yerr=spreads, color=SYSTEMS[k % len(SYSTEMS)], label=label, error_kw={"ecolor": INK}
        )
    if level is not None:
        axes.axhline(level, color=INK, linewidth=1)
    turned = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if len(groups) > 5 else {}
    axes.set_xticks(range(len(groups)), list(groups), fontsize=9, **turned)
    tidy(axes, title, "", up)
    columns = len(labels) if len(labels) < 5 else -(-len(labels) // 2)
    fig.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False, fontsize=8.5
    )
    return fig


def votes_figure(
    images: Sequence[np.ndarray], truth: Sequence[str], votes: Mapping[str, tuple[Sequence[str], Sequence[bool]]]
) -> Still:
    """A row of images with the right name above each, and below it what every teacher says: name -> (words, right or not)."""
    fig = figure(1.5 * len(images), 1.75 + 0.22 * len(votes))
    grid = fig.subplots(2, len(images), squeeze=False, height_ratios=[1.5, 0.22 * len(votes)])
    for i, (image, name) in enumerate(zip(images, truth, strict=True)):
        picture(grid[0, i], image, _short(name))
        grid[1, i].set_axis_off()
        for k, (teacher, (words, right)) in enumerate(votes.items()):
            said = f"{'+' if right[i] else '-'} {teacher}: {words[i]}"
            grid[1, i].text(
                0, 1 - k / len(votes), said[:30], fontsize=7.5, color=RIGHT if right[i] else WRONG, va="top"
            )
    return fig


def diet_figure(
    image: np.ndarray, captions: Mapping[str, Sequence[str]], curves: Mapping[str, Sequence[tuple[int, float]]]
) -> Still:
    """An image, its captions under each diet, and accuracy (%) over steps of a tower on that diet."""
    fig = figure(9.6, 3.6)
    left, middle, right = fig.subplots(1, 3, width_ratios=[0.8, 1.7, 1.5])
    picture(left, image)
    middle.set_axis_off()
    lines = [(name, text) for name, own in captions.items() for text in own]
    for k, (name, text) in enumerate(lines):
        first = k == 0 or lines[k - 1][0] != name
        colour = SYSTEMS[list(captions).index(name) % len(SYSTEMS)]
        cut = text if len(text) <= 52 else f"{text[:51]}…"
        middle.text(0, 1 - k / max(len(lines), 8), f"{name}:" if first else "", fontsize=7.5, color=colour, va="top")
        middle.text(0.0, 1 - (k + 0.45) / max(len(lines), 8), cut, fontsize=7.5, color=INK, va="top")
    for k, (name, curve) in enumerate(curves.items()):
        look = {"color": SYSTEMS[k % len(SYSTEMS)], "marker": MARKERS[k % len(MARKERS)], "markersize": 4}
        right.plot(*zip(*curve, strict=True), label=f"{name}: {curve[-1][1]:.0f}", **look)
    tidy(right, "zero-shot accuracy", "steps", "accuracy (%)")
    fig.legend(frameon=False, fontsize=8, loc="outside lower right", ncols=len(curves))
    return fig


def phrasebook_figure(sample: Sequence[tuple[str, str]], results: Mapping[str, Mapping[str, float]]) -> Still:
    """Pairs of sentences beside accuracy (%): arm -> what is measured -> value."""
    fig = figure(9.2, 3.4)
    left, right = fig.subplots(1, 2, width_ratios=[1.2, 1])
    left.set_axis_off()
    for k, (english, french) in enumerate(sample):
        left.text(0, 1 - k / len(sample), english, fontsize=8.5, color=INK, va="top")
        left.text(0.03, 1 - (k + 0.42) / len(sample), french, fontsize=8.5, color=SYSTEMS[0], va="top")
    names = list(next(iter(results.values())))
    width = 0.8 / len(results)
    for k, (arm, own) in enumerate(results.items()):
        at = np.arange(len(names)) + (k - (len(results) - 1) / 2) * width
        bars = right.bar(at, [own[name] for name in names], width, color=SYSTEMS[k % len(SYSTEMS)], label=arm)
        right.bar_label(bars, fmt="%.0f", fontsize=7.5, color=INK)
    right.set_xticks(range(len(names)), names)
    right.set_ylim(0, 112)
    tidy(right, "images of objects, by name", "", "accuracy (%)")
    fig.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
    return fig
