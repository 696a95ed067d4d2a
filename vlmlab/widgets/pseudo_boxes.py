"""Inspector of pseudo boxes: which are kept at a threshold, which are rejected, which are wrong, and what a threshold buys."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure

from vlmlab.methods.dense.boxes import iou
from vlmlab.methods.dense.pseudo_labels import PseudoLabels, as_labels, quality
from vlmlab.views.boxes import boxed, pseudo_box_quality, side_by_side
from vlmlab.views.style import RIGHT, WRONG
from vlmlab.widgets.panel import LABEL, WIDE, Panel, Waiting, image_view, jpeg

THRESHOLDS = np.linspace(0, 0.98, 15)
SHOWN, TILE = 3, 180  # scenes, and their pixels
REJECTED = "#BFBFBF"


class PseudoBoxInspector(Panel):
    """VL-PLM's pseudo boxes of new classes in training scenes, against the truth that the detector is not granted."""

    title = "Pseudo-box inspector"

    def __init__(self, train: int = 300, threshold: float = 0.8, objectness: float = 0.5, rounds: int = 3) -> None:
        """Of `train` scenes; `objectness` is its share in the score, `rounds` how often proposals are refined before."""
        self.train = train
        slow = {"style": LABEL, "layout": WIDE, "continuous_update": False}
        self.threshold = widgets.FloatSlider(threshold, min=0.0, max=1.0, step=0.02, description="threshold", **slow)
        self.objectness = widgets.FloatSlider(objectness, min=0.0, max=1.0, step=0.1, description="objectness", **slow)
        self.rounds = widgets.IntSlider(rounds, 0, 5, description="rounds", **slow)
        self.first = widgets.IntSlider(0, 0, max(0, train - SHOWN), SHOWN, description="scene", **slow)
        self.chart = image_view("precision and recall of the pseudo boxes over the threshold")
        self.sheet = image_view("scenes with pseudo boxes: kept and right, kept and wrong, rejected")
        self.note = widgets.HTML()
        for name in ("threshold", "objectness", "rounds", "first", "chart", "sheet"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.controls = [self.threshold, self.objectness, self.rounds, self.first]
        self.views = [self.chart, self.note, self.sheet]
        self.answer: dict[str, Any] = Waiting()
        self._found: dict[int, tuple] = {}
        super().__init__()
        for control in (self.objectness, self.rounds):
            control.observe(self.guarded(lambda change: self.look()), "value")
        for control in (self.threshold, self.first):
            control.observe(self.guarded(lambda change: self._redraw()), "value")
        self.look()

    def look(self) -> None:
        """Ask for the candidates that the controls say."""
        objectness, rounds = self.objectness.value, self.rounds.value
        self.ask(lambda cancelled: self._see(objectness, rounds), self._show)

    @torch.no_grad()
    def _see(self, objectness: float, rounds: int) -> dict[str, Any]:
        from vlmlab.studies.few_scenes import prepared, task_of

        if rounds not in self._found:
            task = task_of(self.train)
            method = prepared("vl_plm", task, rounds=rounds)
            images = task.dataset.train
            truths = [frame.truth(images.truth(i)) for i, frame in enumerate(method.frames_of)]
            self._found[rounds] = (
                method,
                method.closer(method.learns_from(task.seen_by("open-vocabulary"))),
                truths,
                task,
            )
        method, regions, truths, task = self._found[rounds]
        method.config.objectness = objectness
        every = self._labels(method, regions, -1.0)  # one candidate per proposal that lies on no base object
        curve = [quality(self._labels(method, regions, t), truths, task.new) for t in THRESHOLDS]
        known = as_labels(truths, "cpu")
        new = torch.isin(known.labels, torch.tensor(task.new)) & known.there
        overlap = iou(every.boxes, known.boxes) * new[:, None]
        hit = overlap >= 0.5
        right = (hit & (every.labels[..., None] == known.labels[:, None])).any(-1)
        return {
            "candidates": every,
            "kinds": torch.where(right, 0, torch.where(hit.any(-1), 1, 2)),
            "curve": curve,
            "task": task,
            "method": method,
            "regions": regions,
            "truths": truths,
        }

    @staticmethod
    def _labels(method, regions, threshold: float) -> PseudoLabels:
        method.config.threshold = threshold
        found = method.pseudo_labels(regions).off(method.granted, method.config.off_base)
        return PseudoLabels(*(part.cpu() for part in (found.boxes, found.labels, found.weights, found.there)))

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self._redraw()

    def _redraw(self) -> None:
        if not self.answer:
            return
        self.paint(self.chart, self.static)
        self.sheet.value = jpeg(self._scenes())
        marks = {"kept and right": RIGHT, "kept and wrong": WRONG, "rejected": REJECTED}
        legend = " &nbsp; ".join(f"<span style='color:{c}'>&#9632;</span> {what}" for what, c in marks.items())
        self.note.value = f"<small>{html.escape(self._told())} {legend}</small>"
        self._repaint_done()

    def _kept(self) -> torch.Tensor:
        every = self.answer["candidates"]
        return every.there & (every.weights > self.threshold.value)

    def measured(self) -> dict[str, float]:
        """`quality` of what the present threshold keeps."""
        a, kept = self.answer, self._kept()
        every = a["candidates"]
        own = PseudoLabels(every.boxes, every.labels, every.weights, kept)
        return quality(own, a["truths"], a["task"].new)

    def _told(self) -> str:
        found, a = self.measured(), self.answer
        kinds = a["kinds"][self._kept()]
        return (
            f"{found['boxes']} boxes are kept: {int((kinds == 0).sum())} right, {int((kinds == 1).sum())} on a new object "
            f"with the wrong name, {int((kinds == 2).sum())} on no new object. Precision {found['precision']:.0f} %, "
            f"recall {found['recall']:.0f} %."
        )

    def _scenes(self) -> np.ndarray:
        """Scenes with candidates: kept and right, kept and wrong, rejected."""
        a, kept, tiles = self.answer, self._kept(), []
        every, classes = a["candidates"], a["task"].classes
        for i in range(self.first.value, min(self.first.value + SHOWN, len(every.boxes))):
            there = every.there[i].nonzero().flatten().tolist()
            there = sorted(there, key=lambda k, i=i: not kept[i, k])  # the kept ones on top
            colours = [(RIGHT if a["kinds"][i, k] == 0 else WRONG) if kept[i, k] else REJECTED for k in there]
            texts = [
                f"{classes[int(every.labels[i, k])]} {float(every.weights[i, k]):.2f}" if kept[i, k] else ""
                for k in there
            ]
            boxes = a["method"].frames_of[i].boxes_back(every.boxes[i, there]).numpy()
            pixels = np.asarray(a["task"].dataset.train.images(i))
            tiles.append(boxed(pixels, boxes, texts, colours, TILE))
        return side_by_side(tiles)

    # --- the other two lives ------------------------------------------------------------------------------------------

    def static(self) -> Figure:
        a = self.answer
        every, there = a["candidates"], a["candidates"].there
        fig = pseudo_box_quality(
            THRESHOLDS,
            np.array([row["precision"] for row in a["curve"]]),
            np.array([row["recall"] for row in a["curve"]]),
            every.weights[there].numpy(),
            a["kinds"][there].numpy(),
            self.threshold.value,
        )
        return fig.described(f"pseudo boxes of VL-PLM at threshold {self.threshold.value:.2f}. {self._told()}")

    def facts(self) -> dict[str, Any]:
        """How many boxes are kept, and their precision and recall (percent, to the nearest ten)."""
        found = self.measured()
        return {"kept": found["boxes"], **{name: 10 * round(found[name] / 10) for name in ("precision", "recall")}}
