"""WiSE-FT frontier: walk from the zero-shot to the fine-tuned weights, and see accuracy and accuracy under shift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure

from vlmlab.errors import VlmlabError
from vlmlab.views.style import INK, MUTED, SPLITS, SYSTEMS, figure, tidy
from vlmlab.widgets.panel import LABEL, WIDE, Panel, image_view, nothing_yet

ALPHAS = tuple(round(k / 10, 1) for k in range(11))


class WiseFTFrontier(Panel):
    """Fine-tunes once, then measures every mixing weight; the slider marks one of them."""

    title = "WiSE-FT frontier"
    moved = ("alpha", ALPHAS)

    def __init__(
        self,
        dataset: str = "objects-v2",
        shifted: Sequence[str] = ("objects-sketch", "objects-mosaic"),
        backbone: str = "micro-vit",
        shots: int = 4,
        seed: int = 1,
        alpha: float = 0.5,
        pictures: int = 270,
        alphas: Sequence[float] = ALPHAS,
        config: dict[str, Any] | None = None,
    ) -> None:
        """`pictures`: about how many test images of every set are measured, equally many of every class.

        Raises `VlmlabError` if `alpha` is not among `alphas`.
        """
        if alpha not in alphas:
            raise VlmlabError(f"alpha {alpha} is not measured; choose one of {', '.join(map(str, alphas))}")
        self.names = (dataset, tuple(shifted), backbone, shots, seed, pictures)
        self.config = dict(config or {})
        self.alpha = widgets.SelectionSlider(
            options=list(alphas), value=alpha, description="alpha", style=LABEL, layout=WIDE
        )
        self.alpha.add_class("vlmlab-alpha")
        self.again = widgets.Button(description="fine-tune again", icon="refresh")
        self.again.add_class("vlmlab-fit")
        self.told = widgets.HTML()
        self.chart = image_view("accuracy on shifted images over accuracy on images of the same kind")
        self.controls = [self.alpha, self.again, self.told]
        self.views = [self.chart]
        self.rows: list[dict[str, Any]] = []  # one per measured alpha
        self._wanted = len(alphas)
        super().__init__()
        self.alpha.observe(self.guarded(lambda change: self._redraw()), "value")
        self.again.on_click(self.guarded(lambda button: self.learn()))
        self.learn()

    def learn(self) -> None:
        """Fine-tune, then measure along the line; points are drawn as they come."""
        self.ask(self._learn, self._show)

    def _learn(self, cancelled) -> list[dict[str, Any]]:
        from vlmlab.learning.evaluate import evaluate
        from vlmlab.studies.experiment import Experiment
        from vlmlab.studies.run import adapt, dataset_for, some

        dataset, shifted, backbone, shots, seed, pictures = self.names
        self.told.value = f"<small>fine-tuning on {shots} images of every class of {dataset} …</small>"
        experiment = Experiment("wise_ft", dataset, backbone, shots, seed, config=tuple(self.config.items()))
        adapted = adapt(experiment, should_stop=cancelled)
        method, rows = adapted.method, []
        others = {name: dataset_for(adapted.bank, name) for name in shifted}
        for name, other in others.items():
            if list(other.classes) != list(adapted.task.classes):
                raise VlmlabError(f"{name} has other classes than {dataset}; a shift keeps the classes")
        same = some(adapted.task.test, pictures)
        for alpha in _ends_first(self.alpha.options):
            if cancelled():
                break
            method.blend(alpha)
            per_set = {name: evaluate(method, some(o.test, pictures))["accuracy"] for name, o in others.items()}
            rows.append(
                {
                    "alpha": alpha,
                    "same": evaluate(method, same)["accuracy"],
                    "shifted": float(np.mean([*per_set.values()])),
                }
                | per_set
            )
            rows.sort(key=lambda row: row["alpha"])
            if not cancelled():
                self._show(list(rows))
        return rows

    def _show(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self._redraw()

    def _redraw(self) -> None:
        if self.rows:
            self.paint(self.chart, self.static)
            self.told.value = self._table()
            self._repaint_done()

    def _chosen(self) -> dict[str, Any] | None:
        return next((row for row in self.rows if row["alpha"] == self.alpha.value), None)

    def _table(self) -> str:
        row = self._chosen()
        if row is None:
            return f"<small>{len(self.rows)} of {self._wanted} points are measured; this one is not yet.</small>"
        lines = [(f"{self.names[0]}, the kind that was learned", row["same"])]
        lines += [(name, row[name]) for name in self.names[1]]
        cells = "".join(
            f"<tr><td>{name}</td><td style='white-space: nowrap'>&nbsp;{value:.1f} %</td></tr>" for name, value in lines
        )
        return f"<table >{cells}</table>"

    def static(self) -> Figure:
        if not self.rows:
            raise nothing_yet()
        fig = figure(7.6, 3.5)
        plane, over = fig.subplots(1, 2)
        dataset, shifted = self.names[:2]
        x, y = [row["same"] for row in self.rows], [row["shifted"] for row in self.rows]
        alphas, row = [r["alpha"] for r in self.rows], self._chosen()
        plane.plot(x, y, color=MUTED, linewidth=1.3, marker="o", markersize=4, zorder=1)
        for k, (name, offset) in ((0, ("zero-shot", 8)), (-1, ("fine-tuned", -14))):
            plane.annotate(
                name, (x[k], y[k]), (0, offset), textcoords="offset points", ha="center", fontsize=8.5, color=INK
            )
        plane.margins(0.18)
        over.plot(alphas, x, color=SPLITS["all"], marker="o", markersize=4, label=f"{dataset} (learned)")
        over.plot(alphas, y, color=SYSTEMS[0], marker="s", markersize=4, label=f"mean of {', '.join(shifted)}")
        if row is not None:
            plane.plot(row["same"], row["shifted"], "*", color=SYSTEMS[0], markeredgecolor=INK, markersize=15, zorder=2)
            over.axvline(row["alpha"], color=INK, linewidth=1.2, linestyle="--")
        tidy(plane, "the frontier", f"accuracy on {dataset} (%)", "accuracy under shift (%)")
        tidy(over, "along the line", "alpha: 0 zero-shot, 1 fine-tuned", "accuracy (%)")
        over.set_xlim(-0.03, 1.03)
        fig.legend(*over.get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False, fontsize=8.5)
        ends = f"zero-shot {x[0]:.1f} and {y[0]:.1f} %, fine-tuned {x[-1]:.1f} and {y[-1]:.1f} %"
        chosen = f"; alpha {row['alpha']:g}: {row['same']:.1f} and {row['shifted']:.1f} %" if row else ""
        return fig.described(f"accuracy on {dataset} and under shift: {ends}{chosen}")

    def facts(self) -> dict[str, Any]:
        """Where along the line each accuracy is highest, and whether the best under shift lies inside."""
        if not self.rows:
            raise nothing_yet()
        best = {name: max(self.rows, key=lambda row, name=name: row[name])["alpha"] for name in ("same", "shifted")}
        return best | {"inside": 0 < best["shifted"] < 1}


def _ends_first(alphas: Sequence[float]) -> list[float]:
    """0 and 1, then what lies between: the two ends frame the image from the start."""
    low, high = min(alphas), max(alphas)
    return list(dict.fromkeys([low, high, *alphas]))
