"""Section board: every system of a section at once, any metric of the table against any other."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter

from vlmlab.errors import VlmlabError
from vlmlab.registry import registry
from vlmlab.studies.table import read_table
from vlmlab.views.names import write_names
from vlmlab.views.style import DPI, FAMILIES, INK, MARKERS, figure, system_label, tidy
from vlmlab.widgets.panel import LABEL, ROOM, WIDE, Panel, image_view, nothing_yet

METRICS = {
    "accuracy": ("accuracy, all classes (%)", "all", "mean", "sd"),
    "gain": ("accuracy above zero-shot (points)", "all", "gain", "sd"),
    "base": ("accuracy on base classes (%)", "base", "base", "base_sd"),
    "new": ("accuracy on new classes (%)", "base", "new", "new_sd"),
    "harmonic mean": ("harmonic mean of base and new (%)", "base", "harmonic_mean", "harmonic_mean_sd"),
    "before shift": ("accuracy on the images learned on (%)", "shift", "mean", "sd"),
    "shift": ("accuracy under shift (%)", "shift", "shift", "shift_sd"),
    "parameters": ("learned parameters", "all", "trainable_parameters", ""),
    "seconds": ("processor seconds to adapt and evaluate", "all", "seconds", ""),
    "memory": ("peak memory (MB)", "all", "peak_mb", ""),
}
"""Name -> what stands at the axis, the split whose rows have it, its column, and the column of its deviation."""

LOGARITHMIC = ("parameters", "seconds", "memory")
# Where names or descriptions fail on a dataset, CuPL and VCD fall so far that all other points would be squeezed.
FAR = 3.0
"""Beyond so many times the distance of the quartiles (Tukey's outer fence) a point is not drawn, but listed over the chart."""
CROWD = 16
"""A board of fewer points has room for all of them."""


def board(
    table: pd.DataFrame,
    x: str,
    y: str,
    shots: int,
    datasets: tuple[str, ...] | None = None,
    backbone: str = "micro-vit",
) -> pd.DataFrame:
    """One row per system: x, y, their deviations x_sd and y_sd (over seeds, averaged over datasets), family, name.

    A point is the mean over those datasets for which every system has it, so that none is compared on easier ones; a
    system that was measured on half of the datasets or fewer is left out. Systems that take no shots are always there,
    the others with `shots` (base, new and shift: with the most that were measured, if these were not). `attrs` of the
    result holds the names of the datasets.
    Raises `VlmlabError` for an unknown metric, and if no row is left.
    """
    for name in (x, y):
        if name not in METRICS:
            raise VlmlabError(f"there is no metric '{name}' on the board; choose among {', '.join(METRICS)}")
    columns = {}
    used: dict[str, list[str]] = {}
    for axis, name in (("x", x), ("y", y)):
        columns[axis], used[axis] = _figure(table, name, shots, datasets, backbone)
    both = columns["x"].join(columns["y"], lsuffix="_x", rsuffix="_y", how="inner")
    if both.empty:
        raise VlmlabError(f"no system of the table has both {x} and {y} at {shots} shots; choose others")
    both.columns = ["x", "x_sd", "y", "y_sd"]
    info = registry()
    both["family"] = [info[key].family if key in info else "other" for key in both.index]
    both["name"] = [system_label(key).partition(" (")[0] for key in both.index]  # short, many stand side by side
    both.attrs |= used
    return both


def _figure(
    table: pd.DataFrame, name: str, shots: int, datasets: tuple[str, ...] | None, backbone: str
) -> tuple[pd.DataFrame, list[str]]:
    _, split, column, deviation = METRICS[name]
    rows = table[(table.backbone == backbone) & (table.split == split) & (table.metric == "accuracy")]
    rows = rows.assign(gain=rows["mean"] - rows["zero_shot"])
    rows = rows[rows[column].notna()]
    if split != "all" and len(rows) and shots not in set(rows.shots):
        shots = rows.shots.max()
    rows = rows[rows.shots.isin([0, shots])]
    if datasets:
        rows = rows[rows.dataset.isin(datasets)]
    have = rows.groupby("system").dataset.nunique()
    rows = rows[rows.system.isin(have.index[have * 2 > (have.max() if len(have) else 0)])]
    if rows.empty:
        raise VlmlabError(f"the table has no {name} at {shots} shots with {backbone}; choose another metric")
    counts = rows.groupby("dataset").system.nunique()
    shared = sorted(counts.index[counts == rows.system.nunique()]) or [counts.idxmax()]
    rows = rows[rows.dataset.isin(shared)]
    found = pd.DataFrame({"value": rows[column].astype(float), "sd": rows[deviation] if deviation else 0.0})
    return found.assign(system=rows.system).groupby("system")[["value", "sd"]].mean(), shared


def frontier(x: np.ndarray, y: np.ndarray, smaller_x: bool) -> np.ndarray:
    """Which points no other point beats in both: x small (or large), y large."""
    x = x if smaller_x else -x
    better = (x[None] <= x[:, None]) & (y[None] >= y[:, None]) & ((x[None] < x[:, None]) | (y[None] > y[:, None]))
    return np.logical_not(better.any(1))


def far_out(values: np.ndarray) -> np.ndarray:
    """Which of `values` [N] are farther from the quartiles than `FAR` times the distance of these; none of a few."""
    low, high = np.percentile(values, (25, 75))
    room = FAR * (high - low)
    if not room or len(values) < CROWD:
        return np.zeros(len(values), bool)
    return (values < low - room) | (values > high + room)


def _has(rows: pd.DataFrame, name: str) -> bool:
    """Whether the table has any value of a metric."""
    _, split, column, _ = METRICS[name]
    column = "mean" if column == "gain" else column
    return bool(rows[rows.split == split][column].notna().any())


def _logarithmic(axes: Axes, axis: Axis, name: str) -> None:
    """A logarithmic axis with ticks that a person would write; parameters may be none at all."""
    (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("symlog" if name == "parameters" else "log")
    if name == "parameters":
        axis.set_major_locator(FixedLocator([0, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000]))
        axis.set_major_formatter(lambda value, _: _short(value))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"


class SectionBoard(Panel):
    """Choose what stands on the axes, the shots and the datasets; every system is a point in its family's colour."""

    title = "Section board"

    def __init__(
        self,
        table: pd.DataFrame | None = None,
        x: str = "parameters",
        y: str = "accuracy",
        shots: int = 0,
        dataset: str = "",
        backbone: str = "",
    ) -> None:
        """`table` as `read_table` gives it (that of section 6 by default); `shots` 0: the most that it has.

        `dataset` empty: the mean over all. Raises `VlmlabError` for a metric, dataset or backbone that it has not.
        """
        self.table = read_table() if table is None else table
        rows = self.table[self.table.metric == "accuracy"]
        if rows.empty:
            raise VlmlabError(
                "the table has no accuracy of any system; make one from a sweep over classification datasets"
            )
        backbones = list(dict.fromkeys(rows.backbone))
        many = [k for k in sorted(rows[rows.split == "all"].shots.unique()) if k] or [1]
        names = list(dict.fromkeys(rows.dataset))
        for what, value, known in (("dataset", dataset, names), ("backbone", backbone, backbones)):
            if value and value not in known:
                raise VlmlabError(f"the table has no {what} '{value}'; it has {', '.join(known)}")
        options = {"style": LABEL, "layout": WIDE}
        for name in (x, y):
            if name not in METRICS:
                raise VlmlabError(f"there is no metric '{name}' on the board; choose among {', '.join(METRICS)}")
        there = [name for name in METRICS if name in (x, y) or _has(rows, name)]
        self.x = widgets.Dropdown(options=there, value=x, description="across", **options)
        self.y = widgets.Dropdown(options=there, value=y, description="up", **options)
        self.shots = widgets.SelectionSlider(
            options=[int(k) for k in many], value=int(shots or many[-1]), description="shots", **options
        )
        self.dataset = widgets.Dropdown(
            options=[("all datasets", ""), *((n, n) for n in names)], value=dataset, description="dataset", **options
        )
        self.backbone = widgets.Dropdown(
            options=backbones, value=backbone or backbones[0], description="backbone", **options
        )
        families = [f for f in FAMILIES if any(registry()[k].family == f for k in set(rows.system) if k in registry())]
        self.ticks = {f: widgets.Checkbox(True, description=f.replace("_", " "), indent=False) for f in families}
        for name in ("x", "y", "shots", "dataset", "backbone"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        for name, tick in self.ticks.items():
            tick.add_class(f"vlmlab-family-{name}")
        self.chart = image_view("every system as a point")
        self.note = widgets.HTML()
        self.controls = [self.x, self.y, self.shots, self.dataset, self.backbone, *self.ticks.values()]
        self.views = [self.chart, self.note]
        self.points = pd.DataFrame()
        self._boards: dict[tuple, pd.DataFrame] = {}
        super().__init__()
        for control in self.controls:
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.look()

    def look(self) -> None:
        """Ask for the chart that the controls say."""
        state = (self.x.value, self.y.value, self.shots.value, self.dataset.value, self.backbone.value)
        families = [f for f, tick in self.ticks.items() if tick.value]
        self.ask(lambda cancelled: self._see(*state, families=families), self._show)

    def _see(self, x: str, y: str, shots: int, dataset: str, backbone: str, families: list[str]) -> pd.DataFrame:
        state = (x, y, shots, dataset, backbone)
        if state not in self._boards:  # the table does not change, and its means cost a tenth of a repaint
            self._boards[state] = board(self.table, x, y, shots, (dataset,) if dataset else None, backbone)
        points = self._boards[state]
        points = points[points.family.isin(families) | (points.index == "zero_shot")]
        if points.empty:
            raise VlmlabError("no system of the ticked families is in the table; tick another family")
        points.attrs |= {"axes": (x, y)}
        return points

    def _show(self, points: pd.DataFrame) -> None:
        self.points = points
        self.paint(self.chart, lambda: self._chart((self.chart.room or ROOM) / DPI, 4.6, live=True))
        self.note.value = f"<small>{html.escape(self._told())}</small>"

    def _told(self) -> str:
        p, (x, y) = self.points, self.points.attrs["axes"]
        best = p.iloc[p.y.argmax()]
        over = {name: ", ".join(p.attrs[axis]) for axis, name in (("x", x), ("y", y))}
        same = len(set(over.values())) == 1
        means = (
            f"Mean over {over[x]}" if same else "; ".join(f"{name}: mean over {sets}" for name, sets in over.items())
        )
        beyond = " Hollow marks over the chart lie beyond its axes." if self._far().any() else ""
        return f"{len(p)} systems. Highest {y}: {best['name']}, {best.y:.1f}. {means}.{beyond}"

    def _far(self) -> np.ndarray:
        """Which points are too far out on one of the axes to be drawn; zero-shot, which all are held against, never."""
        p, metrics = self.points, self.points.attrs["axes"]
        far = np.zeros(len(p), bool)
        for name, values in zip(metrics, (p.x, p.y), strict=True):
            far |= name not in LOGARITHMIC and far_out(values.to_numpy(float))
        return far & (p.index != "zero_shot")

    def _frontier(self) -> np.ndarray:
        p, (x, _) = self.points, self.points.attrs["axes"]
        return frontier(p.x.to_numpy(float), p.y.to_numpy(float), x in LOGARITHMIC)

    def static(self) -> Figure:
        return self._chart(8.6, 6.0)

    def _chart(self, width: float, height: float, live: bool = False) -> Figure:
        """The board in inches; live, only the frontier is named, because hovering tells the others' names."""
        if self.points.empty:
            raise nothing_yet()
        p, (x, y) = self.points.copy(), self.points.attrs["axes"]
        p.attrs = {}  # pandas would copy them with every column that is read
        # Arrays: to read a cell of a table costs twenty times as much.
        across, up, across_sd, up_sd = (p[name].to_numpy(float) for name in ("x", "y", "x_sd", "y_sd"))
        family_of, is_zero = p.family.to_numpy(), (p.index == "zero_shot")
        fig = figure(width, height)
        axes = fig.subplots()
        if live:  # solving for the best layout costs more than all the drawing
            fig.set_layout_engine(None)
            fig.foreign = False
            fig.subplots_adjust(left=0.11, right=0.985, top=0.86 if self._far().any() else 0.97, bottom=0.24)
        best, far = self._frontier(), self._far()
        for k, (family, colour) in enumerate(FAMILIES.items()):
            own = (family_of == family) & ~is_zero & ~far
            if own.any():
                axes.errorbar(
                    across[own],
                    up[own],
                    up_sd[own],
                    across_sd[own] if x not in LOGARITHMIC else None,
                    linestyle="",
                    marker=MARKERS[k],
                    color=colour,
                    markersize=6.5,
                    elinewidth=0.8,
                    alpha=0.85,
                    label=family.replace("_", " "),
                )
        if "zero_shot" in p.index:
            zero = p.loc["zero_shot"]
            axes.plot(zero.x, zero.y, "X", color=INK, markersize=9, label="zero-shot")
            axes.axhline(zero.y, color=INK, linewidth=1, linestyle="--", zorder=0)
        tidy(axes, "", METRICS[x][0], METRICS[y][0])
        axes.margins(0.09)
        for axis, name in ((axes.xaxis, x), (axes.yaxis, y)):
            if name in LOGARITHMIC:
                _logarithmic(axes, axis, name)
        if far.any():
            self._list_beyond(axes, p[far], 3 if live else 5)
        handles, labels = axes.get_legend_handles_labels()
        # Of the error bars only the marks, which are drawn in half of the time.
        handles = [handle[0] if isinstance(handle, ErrorbarContainer) else handle for handle in handles]
        if live:
            small = {"columnspacing": 1.0, "handletextpad": 0.3}
            fig.legend(handles, labels, loc="lower center", ncols=3, frameon=False, fontsize=8.5, **small)
        else:
            fig.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=8.5)
        # The legend names zero-shot, and its line would cross a name.
        told = best if live else np.ones(len(p), bool)
        names = [name if told[i] and not is_zero[i] else "" for i, name in enumerate(p["name"])]
        near = np.flatnonzero(~far)
        whiskers = [(0.0 if x in LOGARITHMIC else across_sd[i], up_sd[i]) for i in near]
        write_names(axes, [(names[i], across[i], up[i]) for i in near], best[near], whiskers)
        fig.spots = [
            (axes, q.x, q.y, f"{q.name}\n{x}: {q.x:,.4g}\n{y}: {q.y:.1f} \u00b1 {q.y_sd:.1f}")
            for q in p[~far].itertuples()
        ]
        return fig.described(f"{METRICS[y][0]} over {METRICS[x][0]} of every system. {self._told()}")

    def _list_beyond(self, axes: Axes, far: pd.DataFrame, columns: int) -> None:
        """What is not drawn, as a strip over the chart."""
        marks = []
        for point in far.itertuples():
            look = {"marker": MARKERS[list(FAMILIES).index(point.family)], "color": FAMILIES[point.family]}
            hollow = look | {"markerfacecolor": "white", "linestyle": ""}
            marks.append(Line2D([], [], **hollow, label=f"{point.name} ({point.x:.1f}, {point.y:.1f})"))
        small = {"fontsize": 8, "title": "beyond the axes (across, up)", "title_fontsize": 8, "alignment": "left"}
        axes.legend(
            handles=marks,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=columns,
            frameon=False,
            handletextpad=0.2,
            **small,
        )

    def facts(self) -> dict[str, Any]:
        """How many systems there are, the one that is highest, and those that no other beats on both axes."""
        p = self.points
        if p.empty:
            raise nothing_yet()
        return {
            "systems": len(p),
            "highest": p.y.idxmax(),
            "frontier": sorted(p.index[self._frontier()]),
        }
