"""Charts of published figures: one point per figure and source, a table with what is known of its cells, a cloud and its line."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from vlmlab.studies.differ import STATUS
from vlmlab.views.names import write_names
from vlmlab.views.style import GRID, INK, MARKERS, MUTED, OKABE_ITO, Still, figure, tidy

MOST_ROWS = 24
"""Systems that one chart has room for."""
CELLS = {
    "differs": ("#EAAE80", "!"),
    "protocol": ("#E6BCD3", "p"),
    "question": ("#9ED3F2", "?"),
    "equal": ("#7FCFB8", "="),
    "unchecked": ("#FFFFFF", ""),
}
"""Status of a printed cell -> its colour, and the sign that says the same without colour."""


def system_dots(rows: pd.DataFrame, colours: str = "protocol", title: str = "", across: str = "") -> Still:
    """A line per system, best first, a point per row of `all_published`; the column `colours` decides colour and marker."""
    order = rows.groupby("system")["value"].max().sort_values(ascending=False)
    names = list(order.index[:MOST_ROWS])
    fig = figure(7.2, 1.5 + 0.24 * len(names))
    axes = fig.subplots()
    for k, (kind, own) in enumerate(rows[rows["system"].isin(names)].groupby(colours)):
        axes.scatter(
            own["value"],
            [names.index(name) for name in own["system"]],
            color=OKABE_ITO[k % len(OKABE_ITO)],
            marker=MARKERS[k % len(MARKERS)],
            s=34,
            alpha=0.85,
            label=textwrap.shorten(str(kind), 46, placeholder="..."),
        )
    axes.set_yticks(range(len(names)), [textwrap.shorten(name, 34, placeholder="...") for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    tidy(axes, title, across, "")
    if rows[colours].nunique() > 1:
        fig.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    fig.spots = [
        (axes, row.value, names.index(row.system), f"{row.system}: {row.value:g}\n{row.source}, {row.source_table}")
        for row in rows[rows["system"].isin(names)].itertuples()
    ]
    return fig


def refusal(text: str, title: str) -> Still:
    """A chart that is not drawn, and why."""
    fig = figure(7.2, 2.6)
    axes = fig.subplots()
    axes.set_axis_off()
    axes.text(0, 1, title, fontsize=12, color=INK, va="top", weight="bold", transform=axes.transAxes)
    axes.text(0, 0.78, textwrap.fill(text, 96), fontsize=9.5, color=INK, va="top", transform=axes.transAxes)
    return fig.described(f"{title} {text}")


def status_table(found: pd.DataFrame, title: str = "") -> Still:
    """Printed cells (`vlmlab.studies.differ.cells`) as a table; a cell has its value, and colour and sign of its status."""
    rows, columns = list(dict.fromkeys(found["row"])), list(dict.fromkeys(found["column"]))
    fig = figure(2.1 + 0.62 * len(columns), 1.4 + 0.225 * len(rows))
    axes = fig.subplots()
    for cell in found.itertuples():
        i, j = rows.index(cell.row), columns.index(cell.column)
        colour, sign = CELLS[cell.status]
        axes.add_patch(_square(j, i, colour))
        axes.text(j, i, f"{cell.value:g}{' ' + sign if sign else ''}", ha="center", va="center", fontsize=7, color=INK)
    short = [name.replace("OV-", "").replace("AP_", "AP ") for name in columns]
    axes.set_xticks(range(len(columns)), short, rotation=40, ha="left", rotation_mode="anchor", fontsize=8)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    handles = [_square(0, 0, colour, sign) for colour, sign in CELLS.values()]
    labels = [f"{sign}  {STATUS[status]}".strip() for status, (_, sign) in CELLS.items()]
    fig.legend(handles, labels, loc="outside lower left", ncols=2, frameon=False, fontsize=8)
    fig.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    return fig


def short_number(value: float) -> str:
    """A large number as one writes it: 30M, 1B."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.999 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:g}"


def _square(x: float, y: float, colour: str, sign: str = "") -> Rectangle:
    return Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor=GRID, linewidth=0.8, label=sign)


def _places(ranked: pd.DataFrame) -> dict[str, tuple[int, float]]:
    return {
        str(row): (k, float(value)) for k, (row, value) in enumerate(zip(ranked["row"], ranked["value"], strict=True))
    }


def two_ranks(before: pd.DataFrame, after: pd.DataFrame, titles: tuple[str, str], unit: str) -> Still:
    """Two rankings of the same rows (`vlmlab.studies.differ.ranking`) with a line from place to place."""
    fig = figure(7.0, 1.1 + 0.26 * len(before))
    axes = fig.subplots()
    left, right = _places(before), _places(after)
    order = {name: k for k, name in enumerate(name for name in left if name in right)}
    for name, (k, value) in left.items():
        axes.text(-0.03, k, f"{name}  {value:g}", ha="right", va="center", fontsize=8.5, color=INK)
        if name in right:
            moved = right[name][0] != order[name]
            axes.plot([0, 1], [k, right[name][0]], color=OKABE_ITO[1] if moved else MUTED, linewidth=2 if moved else 1)
    for name, (k, value) in right.items():
        axes.text(1.03, k, f"{value:g}  {name}", ha="left", va="center", fontsize=8.5, color=INK)
    axes.set_xlim(-0.9, 1.9)
    axes.set_ylim(max(len(left), len(right)) - 0.4, -1.3)
    for x, title, side in ((-0.03, titles[0], "right"), (1.03, titles[1], "left")):
        axes.text(x, -0.95, title, ha=side, fontsize=9.5, color=INK, weight="bold")
    axes.set_axis_off()
    fig.supxlabel(unit, fontsize=9, color=MUTED)
    return fig


def cloud(
    groups: Mapping[str, Sequence[tuple[str, float, float]]],
    across: str,
    up: str,
    line: tuple[float, float] | None = None,
    band: np.ndarray | None = None,
    pairs: Sequence[tuple[tuple[float, float], tuple[float, float]]] = (),
    title: str = "",
) -> Still:
    """Named points (name, x, y) by group over a logarithmic axis, a line y = a + b log10 x, and pairs joined by a stroke.

    `band` [draws, 2] are lines (a, b) of resampled points: the middle 95 percent of them is shaded. A name "" is not written.
    """
    fig = figure(7.2, 4.4)
    axes = fig.subplots()
    for k, (name, points) in enumerate(groups.items()):
        colour, marker = OKABE_ITO[k % len(OKABE_ITO)], MARKERS[k % len(MARKERS)]
        axes.scatter([p[1] for p in points], [p[2] for p in points], color=colour, marker=marker, s=30, label=name)
    for one, two in pairs:
        axes.plot([one[0], two[0]], [one[1], two[1]], color=INK, linewidth=1.2, zorder=0)
    axes.set_xscale("log")
    across_of = [p[1] for points in groups.values() for p in points]
    narrow = max(across_of) < 10 * min(across_of)  # one and three would be a single tick
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 4) if narrow else (1, 3)))
    axes.xaxis.set_major_formatter(lambda value, _: short_number(value))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if line is not None:
        ends = np.array([p[1] for points in groups.values() for p in points])
        x = np.geomspace(ends.min(), ends.max(), 60)
        axes.plot(x, line[0] + line[1] * np.log10(x), color=INK, linewidth=1.6, linestyle="--", label="least squares")
        if band is not None:
            low, high = np.quantile(band[:, :1] + band[:, 1:] * np.log10(x)[None], [0.025, 0.975], axis=0)
            axes.fill_between(x, low, high, color=MUTED, alpha=0.18, linewidth=0)
    tidy(axes, title, across, up)
    fig.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8.5)
    write_names(axes, [p for points in groups.values() for p in points])
    fig.spots = [(axes, p[1], p[2], f"{p[0]}: {p[2]:g}") for points in groups.values() for p in points if p[0]]
    return fig
