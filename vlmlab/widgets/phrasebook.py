"""Phrasebook: pairs of English and French sentences, and what a text tower that learned them makes of French names."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from vlmlab.studies.directions import languages
from vlmlab.views.directions import phrasebook_figure
from vlmlab.widgets.panel import LABEL, WIDE, Panel, Waiting, image_view

COUNTS = (0, 50, 200, 1000, 3000)
SAMPLE = 6


class Phrasebook(Panel):
    """Choose how many pairs are learned, what keeps English, and whether the Transformer learns too."""

    title = "Phrasebook"

    def __init__(self, pairs: int = 3000, steps: int = 50) -> None:
        """`pairs` is one of COUNTS; a run of fifty steps takes some ten seconds."""
        options = {"style": LABEL, "layout": WIDE}
        self.steps = steps
        self.pairs = widgets.SelectionSlider(
            options=COUNTS, value=pairs, description="pairs", continuous_update=False, **options
        )
        self.english = widgets.FloatSlider(
            0.3, min=0.0, max=0.9, step=0.1, description="English", continuous_update=False, **options
        )
        self.blocks = widgets.Checkbox(True, description="the Transformer learns, too", indent=False)
        self.controls = [self.pairs, self.english, self.blocks]
        for name in ("pairs", "english", "blocks"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.chart = image_view("pairs of sentences, and accuracy by French and English names")
        self.views = [self.chart]
        self.answer: dict[str, Any] = Waiting()
        super().__init__()
        for control in self.controls:
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.look()

    def look(self) -> None:
        """Ask for the run that the controls say."""
        chosen = (self.pairs.value, self.steps, self.english.value, self.blocks.value)
        self.ask(lambda cancelled: self._see(*chosen), self._show)

    def _see(self, count: int, steps: int, english: float, blocks: bool) -> dict[str, Any]:
        results = {"frozen": languages.run(0)[0]}
        if count:
            results[f"{count} pairs"] = languages.run(count, steps, english, blocks)[0]
        return {"sample": languages.pairs(max(count, SAMPLE))[:SAMPLE], "results": results}

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.paint(self.chart, self.static)

    def static(self) -> Figure:
        told = ", ".join(f"{name} {value} %" for name, value in self.facts().items())
        fig = phrasebook_figure(self.answer["sample"], self.answer["results"])
        return fig.described(f"English and French sentences, and accuracy by name after learning them: {told}")

    def facts(self) -> dict[str, Any]:
        """Accuracy to whole percent of the latest run."""
        return {name: round(value) for name, value in list(self.answer["results"].values())[-1].items()}
