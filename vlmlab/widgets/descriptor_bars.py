"""Descriptor bars: VCD's explanation. How near an image is to each descriptor of two classes; edit them and look again."""

from __future__ import annotations

import textwrap
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from vlmlab.errors import VlmlabError
from vlmlab.lists import entries
from vlmlab.views.pictures import picture
from vlmlab.views.style import INK, SYSTEMS, VALUE, figure, tidy
from vlmlab.widgets.panel import LABEL, WIDE, Panel, PictureChooser, Waiting, image_view, sample_pictures

MOST = 12  # descriptors of a class that one can type
COLOURS = (VALUE, SYSTEMS[0])


class DescriptorBars(Panel):
    """Choose an image and two classes; each descriptor is a bar, and the mean of a class's bars is its score."""

    title = "Descriptor bars"

    def __init__(
        self,
        dataset: str = "aerial",
        backbone: str = "micro-vit",
        first: str = "",
        second: str = "",
        pictures: list[tuple[str, np.ndarray]] | None = None,
        descriptions: str = "",
    ) -> None:
        """`first` and `second` are classes; empty: the two that score highest for each image.

        `descriptions`: a .json file {class: [descriptor, ...]}; empty: those of the dataset.
        Raises `VlmlabError` for a class that the dataset has not.
        """
        from vlmlab.studies.experiment import Experiment
        from vlmlab.studies.run import construct

        ready = construct(Experiment("vcd", dataset, backbone, 0, config={"descriptions": descriptions}))
        task = ready.task
        for name in (first, second):
            if name and name not in task.classes:
                raise VlmlabError(f"{dataset} has no class '{name}'; choose among {', '.join(task.classes[:8])} ...")
        self.method = ready.prepare()
        self.chooser = PictureChooser(pictures or sample_pictures(dataset, 20), self.look, self.guarded)
        options = [("the highest score", ""), *((name, name) for name in task.classes)]
        self.first = widgets.Dropdown(options=options, value=first, description="class", style=LABEL, layout=WIDE)
        options = [("the next highest", ""), *options[1:]]
        self.second = widgets.Dropdown(options=options, value=second, description="against", style=LABEL, layout=WIDE)
        self.own = widgets.Textarea(
            "",
            continuous_update=False,
            description="descriptors",
            style=LABEL,
            layout=widgets.Layout(width="360px", height="130px"),
        )
        self.own.tooltip = "descriptors, one per line or separated by commas; they replace those of the first class"
        self.restore = widgets.Button(description="as they were", icon="undo")
        for name in ("first", "second", "own", "restore"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.chart = image_view("the image and its similarity to each descriptor of two classes")
        self.note = widgets.HTML()
        self.controls = [*self.chooser.widgets, self.first, self.second, self.own, self.restore]
        self.views = [self.chart, self.note]
        self.answer: dict[str, Any] = Waiting()
        self._written = {name: list(own) for name, own in zip(self.method.classes, self.method.own, strict=True)}
        self._filling = False
        super().__init__()
        for control in (self.first, self.second):
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.own.observe(self.guarded(lambda change: self._typed()), "value")
        self.restore.on_click(self.guarded(lambda button: self._replace(self._written)))
        self.look()

    def _typed(self) -> None:
        if self._filling or not self.answer:
            return
        lines = [entry for entry in entries(self.own.value) if entry]
        if not lines:
            raise VlmlabError("a class needs at least one descriptor; write some, one per line or separated by commas")
        if len(lines) > MOST:
            raise VlmlabError(f"{len(lines)} descriptors are too many to read; write at most {MOST}")
        self._replace({self.answer["names"][0]: lines})

    def _replace(self, texts: dict[str, list[str]]) -> None:
        """Give classes other descriptors."""
        state = (self.chooser.name, self.chooser.pixels, self.first.value, self.second.value)
        self.ask(lambda cancelled: self._see(*state, replaced=texts), self._show)

    def look(self) -> None:
        """Ask for the view of what the controls say."""
        self._replace({})

    @torch.no_grad()
    def _see(
        self, name: str, pixels: np.ndarray, first: str, second: str, replaced: dict[str, list[str]]
    ) -> dict[str, Any]:
        method, backbone = self.method, self.method.backbone
        if replaced:
            method.descriptors = dict(zip(method.classes, method.own, strict=True)) | replaced
            method.set_classes(method.classes, method.templates)
        f = F.normalize(backbone.encode_image(backbone.preprocess(pixels).to(backbone.device)), dim=-1)[0]
        cosines = method.similarities(f[None])[0].float().cpu()  # [D]
        scores = np.array([float(cosines[method.owner == c].mean()) for c in range(len(method.classes))])
        order = [method.classes[c] for c in np.argsort(-scores)]
        first = first or next(c for c in order if c != second)
        second = second or next(c for c in order if c != first)
        names = [first, second]
        return {
            "picture": name,
            "pixels": pixels,
            "names": names,
            "bars": [method.explain(f, method.classes.index(c)) for c in names],
            "scores": [scores[method.classes.index(c)] for c in names],
            "predicted": order[0],
            "others": float(scores.mean()),
        }

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self._filling = True
        self.own.value = "\n".join(self.method.own[self.method.classes.index(answer["names"][0])])
        self._filling = False
        self.paint(self.chart, self.static)
        self.note.value = f"<small>{self._told()}</small>"

    def _told(self) -> str:
        a = self.answer
        (one, two), (s, t) = a["names"], a["scores"]
        best = a["bars"][0][0][0]
        return f"Predicted: {a['predicted']}. Mean cosine {s:.3f} with {one}, {t:.3f} with {two}. It speaks most for {one}: {best}."

    def static(self) -> Figure:
        a = self.answer
        labels, values, colours, rows = [], [], [], []
        y = 0.0
        for own, colour in zip(a["bars"], COLOURS, strict=True):
            for text, cosine in own:
                labels.append(textwrap.shorten(text, 46, placeholder=" …"))
                values.append(cosine)
                colours.append(colour)
                rows.append(y)
                y += 1
            y += 0.9
        fig = figure(7.6, max(2.6, 0.9 + 0.27 * y))
        left, right = fig.subplots(1, 2, width_ratios=[1, 2.1])
        picture(left, a["pixels"], f"image: {a['picture']}")
        left.text(
            0.5, -0.04, f"predicted: {a['predicted']}", transform=left.transAxes, ha="center", va="top", fontsize=9
        )
        right.barh(rows, values, color=colours, height=0.72, alpha=0.85)
        for name, score, colour in zip(a["names"], a["scores"], COLOURS, strict=True):
            mine = [r for r, c in zip(rows, colours, strict=True) if c == colour]
            right.plot([score] * 2, [mine[0] - 0.45, mine[-1] + 0.45], color=INK, linewidth=1.6)
            right.plot([], [], color=colour, linewidth=6, label=f"{name}: mean {score:.3f}")
        right.plot([], [], color=INK, linewidth=1.6, label="mean of the class")
        right.set_yticks(rows, labels, fontsize=8)
        right.set_ylim(y - 1.2, -0.7)
        low = min(0.0, *values)
        right.set_xlim(low, max(values) * 1.04)
        tidy(right, "", "cosine of the image with the descriptor", "").grid(axis="y", visible=False)
        fig.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
        return fig.described(f"an image of {a['picture']} against descriptors of two classes. {self._told()}")

    def facts(self) -> dict[str, Any]:
        """What is predicted, which two classes are compared, and the descriptor that speaks most for the first."""
        a = self.answer
        return {
            "picture": a["picture"],
            "predicted": a["predicted"],
            "compared": list(a["names"]),
            "strongest": a["bars"][0][0][0],
        }
