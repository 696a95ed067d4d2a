"""Figures of section 9's panels: a stream with its cache, several teachers, diets of captions, a phrasebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vlmlab.views.style import INK, RIGHT, SYSTEMS, WRONG, Still, figure, picture, tidy

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
        good, bad = cache[name]
        bars.barh(y, good, color=RIGHT, height=0.7, label="right" if not y else None)
        bars.barh(y, bad, left=good, color=WRONG, height=0.7, hatch="//", label="wrong" if not y else None)
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
    fig.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8.5
    )
    return fig
