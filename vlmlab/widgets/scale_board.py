"""Scale board: accuracy over data, images seen, compute and size; a cloud of models, or only pairs that differ in one thing."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from vlmlab.errors import VlmlabError, unknown
from vlmlab.studies.scale import bootstrap, controlled, line, models, pairs_of_table_6
from vlmlab.views.published import cloud
from vlmlab.widgets.panel import LABEL, WIDE, Panel, image_view, nothing_yet

ACROSS = {
    "pairs": "image-text pairs, as table 6 of the survey prints them",
    "seen": "images seen in pretraining",
    "distinct": "distinct pairs (LAION-400M and LAION-2B)",
    "flops": "operations for one image and its text",
    "parameters": "parameters of both towers",
}
UP = {"imagenet": "zero-shot accuracy on ImageNet (%)", "average": "mean over 38 datasets (%)"}
FIXED = {"seen": ("name", "set"), "distinct": ("name",), "flops": ("set", "seen"), "parameters": ("set", "seen")}
"""What two models share when they differ in one thing: architecture and data; architecture; data and images seen."""
FAMILIES = {"ViT": "ViT", "RN": "ResNet", "convnext": "ConvNeXt", "EVA": "EVA"}


class ScaleBoard(Panel):
    """Choose the axes; the dashed line is least squares, its band what other draws of the same models would have given."""

    title = "Scale"

    def __init__(
        self, x: str = "pairs", y: str = "imagenet", alone: bool = False, without: tuple[str, ...] = ()
    ) -> None:
        """`alone`: only pairs of models that differ in `x` alone; `without`: names of systems that are left out.

        Raises `VlmlabError` for an axis or a name that there is not.
        """
        for what, value, known in (("axis", x, ACROSS), ("axis", y, UP)):
            if value not in known:
                raise unknown(what, value, known)
        self.table, self.models = pairs_of_table_6(), models()
        for name in without:
            if name not in set(self.table["system"]):
                raise unknown("system of table 6", name, list(self.table["system"]))
        options = {"style": LABEL, "layout": WIDE}
        self.x = widgets.Dropdown(options=list(ACROSS), value=x, description="across", **options)
        self.y = widgets.Dropdown(options=list(UP), value=y, description="up", **options)
        self.alone = widgets.Checkbox(alone, description="only what differs in one thing", indent=False)
        self.without = widgets.SelectMultiple(
            options=list(self.table["system"]), value=without, description="leave out", rows=6, **options
        )
        for name in ("x", "y", "alone", "without"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.chart = image_view("accuracy over scale")
        self.note = widgets.HTML()
        self.controls = [self.x, self.y, self.alone, self.without]
        self.views = [self.chart, self.note]
        self.points = pd.DataFrame()
        self.pairs: list[tuple[Any, Any]] = []
        self.lines = np.zeros((0, 2))
        super().__init__()
        for control in self.controls:
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.look()

    def look(self) -> None:
        """Ask for the chart that the controls say."""
        state = (self.x.value, self.y.value, self.alone.value, tuple(self.without.value))
        self.ask(lambda cancelled: self._see(*state), self._show)

    def _see(self, x: str, y: str, alone: bool, without: tuple[str, ...]) -> tuple[pd.DataFrame, list, np.ndarray]:
        if x == "pairs":
            if alone or y != "imagenet":
                raise VlmlabError(
                    "table 6 has no two rows that differ in pairs alone, and ImageNet for all; choose another axis"
                )
            rows = self.table[~self.table["system"].isin(without)]
            points = pd.DataFrame(
                {"name": rows["system"], "group": "table 6", "x": rows["pairs"], "y": rows["accuracy"]}
            )
            return points, [], bootstrap(points["x"], points["y"])
        rows = self.models[self.models[x].notna()]
        group = rows["name"].map(lambda name: next((v for k, v in FAMILIES.items() if name.startswith(k)), "other"))
        points = pd.DataFrame({"name": rows["name"] + " " + rows["data"], "group": group, "x": rows[x], "y": rows[y]})
        if alone:
            pairs = controlled(rows, x, FIXED[x])
            points = points.loc[sorted({i for pair in pairs for i in pair})]
            return points, pairs, np.zeros((0, 2))
        return points, [], bootstrap(points["x"], points["y"])

    def _show(self, found: tuple[pd.DataFrame, list, np.ndarray]) -> None:
        self.points, self.pairs, self.lines = found
        self.paint(self.chart, self.static)
        self.note.value = f"<small>{html.escape(self._told())}</small>"

    def _told(self) -> str:
        p = self.points
        if self.pairs:
            gains = [p.at[j, "y"] - p.at[i, "y"] for i, j in self.pairs]
            return (
                f"{len(self.pairs)} pairs that differ in {self.x.value} alone: the larger one is better in "
                f"{sum(gain > 0 for gain in gains)}, by {np.median(gains):.1f} points at the median"
            )
        slope = line(p["x"], p["y"])[1]
        low, high = np.quantile(self.lines[:, 1], [0.025, 0.975])
        r = np.corrcoef(np.log10(p["x"]), p["y"])[0, 1]
        return f"{len(p)} models: {slope:.1f} points per decade (95 percent: {low:.1f} to {high:.1f}), r = {r:.2f}"

    def static(self) -> Figure:
        p, x = self.points, self.x.value
        if p.empty:
            raise nothing_yet()
        named = set(p["name"]) if x == "pairs" else set()
        groups = {
            group: [
                (name if name in named else "", a, b) for name, a, b in own[["name", "x", "y"]].itertuples(index=False)
            ]
            for group, own in p.groupby("group", sort=False)
        }
        ends = [((p.at[i, "x"], p.at[i, "y"]), (p.at[j, "x"], p.at[j, "y"])) for i, j in self.pairs]
        fit = None if self.pairs else line(p["x"], p["y"])
        chart = cloud(groups, ACROSS[x], UP[self.y.value], fit, self.lines if len(self.lines) else None, ends)
        return chart.described(f"{UP[self.y.value]} over {ACROSS[x]}. {self._told()}")

    def facts(self) -> dict[str, Any]:
        if self.points.empty:
            raise nothing_yet()
        if self.pairs:
            return {"models": len(self.points), "pairs": len(self.pairs)}
        return {"models": len(self.points), "slope": round(line(self.points["x"], self.points["y"])[1], 1)}
