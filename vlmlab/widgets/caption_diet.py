"""Caption diet: an image, its captions under each diet, and how well a tower names objects that was fed with them."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure

from vlmlab.studies.directions.captions import DIETS, arm, diet, locked
from vlmlab.views.directions import diet_figure
from vlmlab.watch import told
from vlmlab.widgets.panel import LABEL, WIDE, Panel, Waiting, image_view
from vlmlab.world.painter import render

DRAWN = 2  # captions shown of each diet


class CaptionDiet(Panel):
    """Choose diets and an image; every diet trains a small text tower on the same locked images."""

    title = "Caption diet"

    def __init__(
        self,
        diets: tuple[str, ...] = ("one caption", "everything"),
        image: int = 0,
        steps: int = 200,
        images: int = 1000,
    ) -> None:
        """`steps` of training on so many locked images; a first arm of a diet takes a few seconds."""
        options = {"style": LABEL, "layout": WIDE}
        self.steps, self.images = steps, images
        self.diets = widgets.SelectMultiple(options=DIETS, value=diets, description="diets", rows=len(DIETS), **options)
        self.image = widgets.IntSlider(image, 0, images - 1, description="image", continuous_update=False, **options)
        self.invented = widgets.FloatSlider(
            0.5, min=0.0, max=1.0, step=0.25, description="invented", continuous_update=False, **options
        )
        self.controls = [self.diets, self.image, self.invented]
        for name in ("diets", "image", "invented"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.chart = image_view("an image, its captions, and accuracy over steps")
        self.note = widgets.HTML()
        self.views = [self.chart, self.note]
        self.answer: dict[str, Any] = Waiting()
        super().__init__()
        for control in self.controls:
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.look()

    def look(self) -> None:
        """Ask for the diets that are chosen."""
        chosen = (tuple(self.diets.value) or DIETS[:1], self.image.value, self.invented.value)
        self.ask(lambda cancelled: self._see(*chosen), self._show)

    def _see(self, diets: tuple[str, ...], image: int, invented: float) -> dict[str, Any]:
        scene, curves = locked(self.images).scenes[image], {}
        for k, name in enumerate(diets):
            told("training", k, len(diets))
            curves[name] = arm(name, self.steps, self.images, invented=invented)
        rng = np.random.default_rng(image)
        said = {name: [diet(name, invented)(scene, rng) for _ in range(DRAWN)] for name in diets}
        return {"scene": scene, "curves": curves, "captions": said}

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.paint(self.chart, self.static)
        ends = ", ".join(f"{html.escape(name)} {value} %" for name, value in self.facts().items())
        self.note.value = f"<small>Zero-shot accuracy after {self.steps} steps: {ends}.</small>"

    def static(self) -> Figure:
        a = self.answer
        fig = diet_figure(render(a["scene"]).pixels, a["captions"], a["curves"])
        ends = ", ".join(f"{name} {value} %" for name, value in self.facts().items())
        return fig.described(f"an image with its captions, and accuracy of a tower on each diet: {ends}")

    def facts(self) -> dict[str, Any]:
        """Diet -> accuracy at the end, to whole percent."""
        return {name: round(curve[-1][1]) for name, curve in self.answer["curves"].items()}
