"""Few-shot board: the labelled images themselves, and what each ticked system makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from vlmlab.registry import registry
from vlmlab.studies.experiment import Experiment
from vlmlab.views.charts import few_shot_curves
from vlmlab.views.style import figure, system_label
from vlmlab.widgets.panel import Panel, image_view, jpeg
from vlmlab.widgets.support import SHOTS, support_sliders

TILE = 27  # pixels of one support image on the page
ROWS = 12  # classes shown


class FewShotBoard(Panel):
    """Move shots and seed: the support set changes, and the curves of the ticked systems grow."""

    title = "Few-shot board"

    def __init__(
        self,
        systems: Sequence[str] = ("zero_shot", "tip_adapter"),
        dataset: str = "digits",
        backbone: str = "micro-vit",
        shots: int = 4,
        seed: int = 1,
        offered: Sequence[str] = (),
    ) -> None:
        """`systems` are ticked at first, `offered` can be ticked (all that classify from labelled images or none, if empty)."""
        self.dataset_name, self.backbone_name = dataset, backbone
        keys = offered or [
            key
            for key, info in registry().items()
            if "classification" in info.tasks and (info.takes_shots or info.setup == "zero-shot")
        ]
        keys = list(dict.fromkeys([*systems, *keys]))
        self.ticks = {
            key: widgets.Checkbox(key in systems, description=system_label(key), indent=False) for key in keys
        }
        self.shots, self.seed = support_sliders(shots, seed)
        for key, tick in self.ticks.items():
            tick.add_class(f"vlmlab-tick-{key}")
        self.support = image_view("the labelled images, one row per class")
        self.chart = image_view("accuracy over shots of the ticked systems")
        self.controls = [self.shots, self.seed, *self.ticks.values()]
        self.views = [self.support, self.chart]
        self.results: dict[Experiment, dict] = {}
        super().__init__()
        for control in (self.shots, self.seed, *self.ticks.values()):
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.look()

    def look(self) -> None:
        """Show the support set now and ask for the curves."""
        shots, seed = self.shots.value, self.seed.value
        ticked = [key for key, tick in self.ticks.items() if tick.value]
        self.ask(lambda cancelled: self._measure(ticked, shots, seed, cancelled), self._show)

    def _measure(self, ticked: list[str], shots: int, seed: int, cancelled) -> list[dict]:
        from vlmlab.studies.run import run_experiment

        self.support.value = jpeg(self._sheet(shots, seed))
        for key in ticked:
            for k in [k for k in SHOTS if k <= shots] if registry()[key].takes_shots else [0]:
                one = Experiment(key, self.dataset_name, self.backbone_name, k, seed)
                if one not in self.results:
                    result = run_experiment(one, should_stop=cancelled)
                    if cancelled():  # a fit that was cut short is no result
                        return []
                    self.results[one] = result
                    if not cancelled():
                        self._show(self._wanted(ticked, shots))
        return self._wanted(ticked, shots)

    def _wanted(self, ticked: Sequence[str], shots: int) -> list[dict]:
        """What has been measured so far for the ticked systems, over all seeds that were visited."""
        return [r for e, r in self.results.items() if e.system in ticked and e.shots <= shots]

    def _sheet(self, shots: int, seed: int) -> np.ndarray:
        from vlmlab.datasets import Task
        from vlmlab.studies.run import shared_dataset

        task = Task(None, shared_dataset(self.dataset_name), shots, seed)
        rows = []
        for c in range(min(ROWS, len(task.classes))):
            own = (task.support.labels == c).nonzero().flatten().tolist()
            tiles = [_tile(np.asarray(task.support.images(i))) for i in own]
            rows.append(np.concatenate([*tiles, np.full((TILE, TILE * (16 - len(tiles)), 3), 255, np.uint8)], 1))
        return np.concatenate(rows)

    def _show(self, results: list[dict]) -> None:
        if results:
            self.paint(self.chart, self.static, 290)

    def static(self) -> Figure:
        ticked = [key for key, tick in self.ticks.items() if tick.value]
        results = self._wanted(ticked, self.shots.value)
        if not results:
            return figure().described("nothing has been measured yet")
        names = ", ".join(system_label(key) for key in ticked)
        return few_shot_curves(results).described(f"accuracy over shots on {self.dataset_name}: {names}")

    def facts(self) -> dict[str, Any]:
        """Accuracy in percent (nearest whole number) per ticked system at the most shots, over the visited seeds."""
        out = {}
        for key, tick in self.ticks.items():
            rows = [
                (e.shots, r["metrics"]["accuracy"]) for e, r in self.results.items() if e.system == key and tick.value
            ]
            if rows:
                most = max(k for k, _ in rows)
                out[key] = round(float(np.mean([a for k, a in rows if k == most])))
        return out


def _tile(pixels: np.ndarray) -> np.ndarray:
    small = Image.fromarray(pixels).convert("RGB").resize((TILE - 2, TILE - 2))
    return np.pad(np.asarray(small), ((1, 1), (1, 1), (0, 0)), constant_values=255)
