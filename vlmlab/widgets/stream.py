"""Stream: test images arrive one after the other, TDA's cache fills, and its accuracy runs beside zero-shot prediction's."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure

from vlmlab.studies.directions.encoded import zero_shot
from vlmlab.studies.directions.test_time import KNOWN, ORDERS, SHIFTED, stream, tda
from vlmlab.views.directions import stream_figure
from vlmlab.widgets.panel import LABEL, WIDE, Panel, Waiting, image_view

LATEST, CLASSES = 10, 10
"""Images of the row, and classes whose cache is drawn: those with the most pseudo labels so far."""


class Stream(Panel):
    """Choose dataset, order and the cache's settings; move through the stream and see what each image adds."""

    title = "Stream"

    def __init__(
        self,
        dataset: str = "textures",
        order: str = "shuffled",
        arrived: int = 400,
        places: int = 3,
        weight: float = 2.0,
        images: int = 400,
    ) -> None:
        """`arrived` of the `images` of the stream are shown; `places` and `weight` are those of TDA's positive cache.

        Raises `VlmlabError` (in the error line, or in strict mode) for an order that there is not.
        """
        options = {"style": LABEL, "layout": WIDE}
        self.images = images
        self.dataset = widgets.Dropdown(options=SHIFTED + KNOWN, value=dataset, description="dataset", **options)
        self.order = widgets.Dropdown(options=ORDERS, value=order, description="order", **options)
        self.seed = widgets.IntSlider(0, 0, 9, description="seed", continuous_update=False, **options)
        self.arrived = widgets.IntSlider(arrived, 1, images, description="arrived", continuous_update=False, **options)
        self.places = widgets.IntSlider(places, 1, 16, description="places", continuous_update=False, **options)
        self.weight = widgets.FloatSlider(
            weight, min=0.0, max=10.0, step=0.5, description="weight", continuous_update=False, **options
        )
        self.controls = [self.dataset, self.order, self.seed, self.arrived, self.places, self.weight]
        for name in ("dataset", "order", "seed", "arrived", "places", "weight"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.chart = image_view("accuracy over the stream, and what is in the cache")
        self.note = widgets.HTML()
        self.views = [self.chart, self.note]
        self.answer: dict[str, Any] = Waiting()
        self._known: dict[tuple, dict[str, Any]] = {}
        super().__init__()
        for control in self.controls:
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.look()

    def look(self) -> None:
        """Ask for the stream that the controls say."""
        chosen = (self.dataset.value, self.order.value, self.seed.value, self.places.value, self.weight.value)
        self.ask(lambda cancelled: self._see(*chosen), self._show)

    def _see(self, *chosen) -> dict[str, Any]:
        if chosen not in self._known:
            dataset, order, seed, places, weight = chosen
            one = stream(dataset, order, seed, self.images)
            logits = {
                "zero-shot": zero_shot(one.features, one.words, one.scale),
                "TDA": tda(positive_shots=places, positive_weight=weight)(one.features, one.words, one.scale),
            }
            p = logits["zero-shot"].softmax(-1)
            entropy = torch.special.entr(p).sum(-1)
            self._known[chosen] = {"one": one, "logits": logits, "entropy": entropy, "pseudo": p.argmax(-1)}
        return self._known[chosen]

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.arrived.max = len(answer["one"].labels)
        self.paint(self.chart, self.static)
        found = self.facts()
        self.note.value = (
            f"<small>After {found['arrived']} images of {html.escape(answer['one'].dataset)}: TDA is "
            f"<b>{self._gain():+.1f}</b> points from zero-shot prediction; {found['cached']} images are cached, "
            f"{found['right']} % of them under the right name.</small>"
        )

    def _curves(self) -> dict[str, np.ndarray]:
        labels = self.answer["one"].labels
        seen = torch.arange(1, len(labels) + 1)
        return {
            name: (100 * (logits.argmax(-1) == labels).cumsum(0) / seen).numpy()
            for name, logits in self.answer["logits"].items()
        }

    def _gain(self) -> float:
        base, own = (curve[self.arrived.value - 1] for curve in self._curves().values())
        return float(own - base)

    def cached(self) -> dict[int, list[int]]:
        """Class -> places in the stream of the images that its cache holds now: those of lowest entropy so far."""
        pseudo, entropy = (self.answer[name][: self.arrived.value] for name in ("pseudo", "entropy"))
        held = {}
        for c in pseudo.unique().tolist():
            own = (pseudo == c).nonzero().flatten()
            held[c] = own[entropy[own].argsort()[: self.places.value]].tolist()
        return held

    def static(self) -> Figure:
        one, arrived = self.answer["one"], self.arrived.value
        latest = list(range(max(0, arrived - LATEST), arrived))
        predicted = self.answer["logits"]["TDA"].argmax(-1)
        held = self.cached()
        right = {c: int((one.labels[places] == c).sum()) for c, places in held.items()}
        count = torch.bincount(self.answer["pseudo"][:arrived], minlength=len(one.classes))
        shown = sorted(sorted(held, key=lambda c: -int(count[c]))[:CLASSES])
        curves = self._curves()
        fig = stream_figure(
            one.images.images(latest),
            [one.classes[predicted[i]] for i in latest],
            (predicted == one.labels)[latest].tolist(),
            curves,
            arrived,
            {one.classes[c]: (right[c], len(held[c]) - right[c]) for c in shown},
            self.places.value,
        )
        said = ", ".join(f"{name} {curve[arrived - 1]:.1f} %" for name, curve in curves.items())
        return fig.described(f"a stream of {one.dataset}, {self.order.value}, after {arrived} images: {said}")

    def facts(self) -> dict[str, Any]:
        """How many images have arrived and are cached, and the percent of the cached ones that have the right label."""
        held, labels = self.cached(), self.answer["one"].labels
        cached = sum(map(len, held.values()))
        right = sum(int((labels[places] == c).sum()) for c, places in held.items())
        return {"arrived": self.arrived.value, "cached": cached, "right": round(100 * right / cached)}
