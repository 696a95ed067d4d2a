"""Teachers: what several image towers say of the same images, what their sum says, and who is right."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from vlmlab.studies.directions import teachers
from vlmlab.views.directions import votes_figure
from vlmlab.widgets.panel import LABEL, WIDE, Panel, Waiting, image_view

SHOWN = 6
KINDS = ("in dispute", "all")
"""Images on which the teachers do not agree, or any."""


class Teachers(Panel):
    """Choose a dataset, and move through the images on which the teachers differ, or through all."""

    title = "Teachers"

    def __init__(
        self, dataset: str = "objects-mosaic", images: int = 200, show: str = "in dispute", page: int = 1
    ) -> None:
        """`images` test images are judged; six of them are shown on a page."""
        options = {"style": LABEL, "layout": WIDE}
        self.images = images
        self.dataset = widgets.Dropdown(options=teachers.DATASETS, value=dataset, description="dataset", **options)
        self.show = widgets.Dropdown(options=KINDS, value=show, description="show", **options)
        self.page = widgets.IntSlider(
            page, 1, max(1, images // SHOWN), description="page", continuous_update=False, **options
        )
        self.controls = [self.dataset, self.show, self.page]
        for name in ("dataset", "show", "page"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.chart = image_view("images with what each teacher says")
        self.note = widgets.HTML()
        self.views = [self.chart, self.note]
        self.answer: dict[str, Any] = Waiting()
        self._known: dict[str, dict[str, Any]] = {}
        super().__init__()
        for control in self.controls:
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.look()

    def look(self) -> None:
        """Ask for the votes on the dataset that is chosen."""
        dataset = self.dataset.value
        self.ask(lambda cancelled: self._see(dataset), self._show)

    def _see(self, dataset: str) -> dict[str, Any]:
        if dataset not in self._known:
            seen = teachers.views(dataset, self.images)
            features, words, scale = [one.features for one in seen], seen[0].words, seen[0].scale
            targets = {name: teachers.one_teacher(k) for k, name in enumerate(teachers.TEACHERS)}
            targets["sum"] = teachers.feature_sum
            said = {name: target(features, words, scale).argmax(-1) for name, target in targets.items()}
            self._known[dataset] = {"seen": seen, "said": said}
        return self._known[dataset]

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.paint(self.chart, self.static)
        told = ", ".join(f"{html.escape(name)} {value}" for name, value in self.facts().items())
        self.note.value = f"<small>Percent right of {len(answer['seen'][0].labels)} images: {told}.</small>"

    def places(self) -> list[int]:
        """Places of the images on the page; the last page may be filled up from the front."""
        said, own = self.answer["said"], range(len(self.answer["seen"][0].labels))
        first, second = (said[name] for name in teachers.TEACHERS)
        found = [i for i in own if self.show.value == "all" or first[i] != second[i]] or list(own)
        start = (self.page.value - 1) * SHOWN % len(found)
        return (found + found)[start : start + min(SHOWN, len(found))]

    def static(self) -> Figure:
        one, places = self.answer["seen"][0], self.places()
        votes = {
            name.removeprefix("micro-"): (
                [one.classes[said[i]] for i in places],
                [bool(said[i] == one.labels[i]) for i in places],
            )
            for name, said in self.answer["said"].items()
        }
        fig = votes_figure(one.images.images(places), [one.classes[one.labels[i]] for i in places], votes)
        told = ", ".join(f"{name} {value} %" for name, value in self.facts().items())
        return fig.described(f"images of {one.dataset} with what each teacher says; right: {told}")

    def facts(self) -> dict[str, Any]:
        """Percent right, of each teacher, their sum, and either of them."""
        labels = self.answer["seen"][0].labels
        right = {
            name: round(100 * float((said == labels).float().mean())) for name, said in self.answer["said"].items()
        }
        return {**right, "either": round(teachers.either(self.answer["seen"]))}
