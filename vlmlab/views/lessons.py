"""Charts that chapters of the book draw. Accuracies are in percent; each function returns a figure that shows itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vlmlab.views.names import write_names
from vlmlab.views.style import (
    GRID,
    INK,
    LINES,
    MARKERS,
    MUTED,
    SPLITS,
    VALUE,
    Still,
    colour_of,
    figure,
    tidy,
)


def accuracy_bars(rows: Sequence[tuple[str, float, float, float]], title: str = "") -> Still:
    """One bar per row (name, accuracy, half of its interval, chance), in the given order; a tick marks chance."""
    fig = figure(6.6, 0.9 + 0.32 * len(rows))
    axes = fig.subplots()
    for y, (_, accuracy, half, chance) in enumerate(rows):
        axes.barh(y, accuracy, xerr=half, color=SPLITS["all"], height=0.66, alpha=0.85, error_kw={"ecolor": INK})
        axes.plot([chance, chance], [y - 0.42, y + 0.42], color=INK, linewidth=2.2)
        axes.text(min(accuracy + half + 1.5, 101), y, f"{accuracy:.0f}", va="center", fontsize=8.5, color=INK)
    axes.plot([], [], color=INK, linewidth=2.2, label="chance")
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 108)
    tidy(axes, title, "accuracy (%), with its 95 % interval", "")
    axes.grid(axis="y", visible=False)
    axes.legend(frameon=False, fontsize=8.5, loc="lower right")
    return fig


def dots(groups: Mapping[str, Mapping[str, float]], title: str = "", x: str = "accuracy (%)", star: str = "") -> Still:
    """A row of dots per group, label -> value; every label has its colour and mark, the label `star` a dark star."""
    labels = list(next(iter(groups.values())))
    rows = -(-len(labels) // 5)  # of the legend
    fig = figure(8.2, 1.25 + 0.25 * rows + 0.42 * len(groups))
    axes = fig.subplots()
    for y, points in enumerate(groups.values()):
        axes.plot([min(points.values()), max(points.values())], [y, y], color=GRID, linewidth=3, zorder=0)
    for k, label in enumerate(labels):
        look = {"color": colour_of(label, k), "marker": MARKERS[k % len(MARKERS)], "markersize": 6}
        if label == star:
            look = {"color": INK, "marker": "*", "markersize": 11}
        values = [points[label] for points in groups.values()]
        axes.plot(values, range(len(values)), linestyle="", alpha=0.85, label=label, **look)
    axes.set_yticks(range(len(groups)), list(groups))
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlim(-3, 103)
    axes.set_xticks(range(0, 101, 20))
    tidy(axes, title, x, "")
    axes.grid(axis="y", visible=False)
    columns = -(-len(labels) // rows)
    fig.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=8.5, handletextpad=0.1)
    return fig


def surface(
    alphas: np.ndarray,
    betas: np.ndarray,
    accuracy: np.ndarray,
    marks: Mapping[str, tuple[float, float]],
    title: str = "",
) -> Still:
    """Accuracy [betas, alphas] of every pair of settings as a map; `marks` are named (alpha, beta) points."""
    fig = figure(5.2, 3.6)
    axes = fig.subplots()
    extent = (float(alphas[0]), float(alphas[-1]), float(betas[0]), float(betas[-1]))
    image = axes.imshow(accuracy, origin="lower", aspect="auto", extent=extent, cmap="cividis")
    for (name, (alpha, beta)), marker in zip(marks.items(), "oD^s", strict=False):
        axes.plot(
            alpha,
            beta,
            marker,
            color="white",
            markeredgecolor=INK,
            markersize=9,
            linestyle="",
            label=name,
            clip_on=False,
        )
    tidy(axes, title, "alpha, weight of the vote", "beta, sharpness of the kernel")
    axes.grid(visible=False)
    fig.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
    fig.colorbar(image, ax=axes).set_label("accuracy (%)", color=MUTED)
    return fig


def lines(
    x: Sequence[float],
    curves: Mapping[str, Sequence[Sequence[float]]],
    title: str = "",
    across: str = "",
    up: str = "accuracy (%)",
    levels: Mapping[str, float] | None = None,
    markers: bool = True,
    twins: int = 1,
) -> Still:
    """Curves over x with a band of one standard deviation; each curve is a list of runs [seeds][len(x)].

    `levels` are horizontal lines of reference. So many `twins` in a row share a colour, and differ in their lines. Base and new
    classes (or seen and unseen) have the colours that they have everywhere.
    """
    fig = figure(6.6, 3.6)
    axes = fig.subplots()
    for (name, level), style in zip((levels or {}).items(), ("--", ":", "-."), strict=False):
        axes.axhline(level, color=INK, linestyle=style, linewidth=1.3, label=name)
    for k, (name, runs) in enumerate(curves.items()):
        colour = colour_of(name, k // twins)
        marker, line = MARKERS[k // twins % len(MARKERS)], LINES[k % twins]
        values = np.asarray(runs, float)
        mean, spread = values.mean(0), values.std(0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
        axes.plot(x, mean, line, color=colour, marker=marker if markers else "", markersize=5, label=name)
        axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
    tidy(axes, title, across, up)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def scatter(
    panels: Mapping[str, Sequence[tuple[str, float, float]]], x: str = "", y: str = "accuracy (%)", log: bool = False
) -> Still:
    """Named points (name, x, y) in one panel per title, with a common vertical axis; `log` is the scale of x."""
    fig = figure(4.6 * len(panels) if len(panels) > 1 else 6.6, 3.9)
    for axes, (title, points) in zip(fig.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        axes.scatter([p[1] for p in points], [p[2] for p in points], color=VALUE, s=34, zorder=2)
        tidy(axes, title, x, y if title == next(iter(panels)) else "")
        axes.set_xscale("log" if log else "linear")
        if log:
            axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.margins(x=0.2, y=0.1)
    for axes, points in zip(fig.axes, panels.values(), strict=True):  # after both, because names need the final layout
        write_names(axes, points)
    return fig


def room(
    rows: Sequence[tuple[str, float, float]], title: str = "", start: str = "zero-shot", end: str = "ceiling"
) -> Still:
    """One bar per row (name, start, end): how much there is, and, lighter, how much there could be."""
    fig = figure(6.6, 1.2 + 0.32 * len(rows))
    axes = fig.subplots()
    for y, (_, low, high) in enumerate(rows):
        axes.barh(y, max(low, high), color=SPLITS["all"], height=0.66, alpha=0.35, label=end if not y else None)
        axes.barh(y, low, color=SPLITS["all"], height=0.66, alpha=0.9, label=start if not y else None)
        axes.text(max(low, high) + 1.5, y, f"{round(high - low):+d}", va="center", fontsize=8.5, color=INK)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 110)
    tidy(axes, title, "accuracy (%)", "")
    axes.grid(axis="y", visible=False)
    fig.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
    return fig


def matrix(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str = "",
    unit: str = "",
    signed: bool = False,
) -> Still:
    """Numbers [rows, columns], written into their cells; what was not measured (NaN) stays empty.

    `signed` numbers are white at zero and take a colour to either side.
    """
    width = max(2.6 + 0.55 * len(columns), 0.085 * len(title))  # of one column, too, the title is read whole
    fig = figure(width, 1.9 + 0.21 * len(rows))
    axes = fig.subplots()
    low, high = np.nanmin(values), np.nanmax(values)
    if signed:
        low, high = -max(-low, high), max(-low, high)
    image = axes.imshow(values, cmap="PuOr" if signed else "cividis", vmin=low, vmax=high, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    for i, j in zip(*np.nonzero(~np.isnan(values)), strict=True):
        red, green, blue, _ = image.cmap(image.norm(values[i, j]))
        shade = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"
        axes.text(j, i, f"{values[i, j]:.0f}", ha="center", va="center", fontsize=7, color=shade)
    fig.suptitle(title, x=0.02, ha="left", fontsize=10, color=INK)
    fig.colorbar(image, ax=axes, shrink=0.8).set_label(unit, color=MUTED)
    return fig
