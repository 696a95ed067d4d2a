"""Bag of regions: the neighbourhood of a proposal as BARON reads it, and what the teacher says of the place as a whole."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure

from vlmlab.methods.dense.crops import crop_embeddings
from vlmlab.methods.detection.baron import neighbourhood, neighbours, spanned
from vlmlab.randomness import LocalRandom
from vlmlab.views.boxes import KINDS, draw_boxes, top_words
from vlmlab.views.style import INK, MUTED, figure, picture
from vlmlab.widgets.panel import LABEL, WIDE, Panel, PictureChooser, Waiting, image_view

ALPHA, CUT_OFF = 3.0, 0.3  # of the release


class BagOfRegions(Panel):
    """A scene, one of its proposals, and a draw: which neighbours join, what spans them, and their order as words."""

    title = "Bag of regions"

    def __init__(self, dataset: str = "tableau", count: int = 6, words: int = 2, draw: int = 3) -> None:
        """`count` test scenes are shown; a region has so many pseudo-`words`; `draw` is the seed of the first bag."""
        from vlmlab.studies.few_scenes import scenes

        self.dataset, self.n_words = scenes(test=count, dataset=dataset), words
        found = []
        for i in range(len(self.dataset.test)):
            shown = [self.dataset.classes[c] for c in self.dataset.test.truth(i).labels.tolist()]
            found.append((", ".join(shown), np.asarray(self.dataset.test.images(i)).copy()))
        slow = {"style": LABEL, "layout": WIDE, "continuous_update": False}
        self.proposal = widgets.IntSlider(1, 1, 8, description="proposal", **slow)
        self.draw = widgets.IntSlider(draw, 1, 20, description="draw", **slow)
        self.gap = widgets.FloatSlider(-0.1, min=-0.5, max=0.5, step=0.1, description="gap", **slow)
        self.chance = widgets.FloatSlider(0.3, min=0.0, max=1.0, step=0.05, description="chance", **slow)
        self.chooser = PictureChooser(found, self.look, self.guarded)
        self.chart = image_view("the bag around a proposal")
        self.note = widgets.HTML()
        for name in ("proposal", "draw", "gap", "chance", "chart"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.controls = [self.proposal, self.draw, self.gap, self.chance, *self.chooser.widgets]
        self.views = [self.chart, self.note]
        self.answer: dict[str, Any] = Waiting()
        self._teacher: Any = None
        super().__init__()
        for control in (self.proposal, self.draw, self.gap, self.chance):
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.look()

    def look(self) -> None:
        """Ask for the bag that the controls say."""
        asked = (self.chooser.number.value, self.proposal.value, self.draw.value, self.gap.value, self.chance.value)
        self.ask(lambda cancelled: self._see(*asked), self._show)

    @torch.no_grad()
    def _see(self, number: int, proposal: int, draw: int, gap: float, chance: float) -> dict[str, Any]:
        from vlmlab.studies.few_scenes import learned, twin

        if self._teacher is None:
            self._teacher = twin(learned("region_clip").method)  # it learns nothing
        teacher = self._teacher
        name, pixels = self.chooser.pictures[number]
        images, frames = teacher.framed([pixels])
        found = teacher.tested.find(images)
        side = float(images.shape[-1])
        box = found.boxes[0, min(proposal, int(found.there[0].sum())) - 1][None]
        nine = neighbourhood(box, gap).clamp(0, side)  # [1, 9, 4]
        chances = neighbours(box, side, ALPHA, chance, CUT_OFF, gap)
        with LocalRandom(draw):
            chosen = torch.rand_like(chances) < chances
            order = torch.randperm(9)
        span = spanned(nine, chosen)
        asked = torch.cat([box, span])
        seen = crop_embeddings(teacher.backbone, images, asked[None], (1.0,), "stretched")[0]
        says = (teacher.backbone.logit_scale * seen @ teacher.text.T).softmax(-1).cpu().numpy()
        return {
            "picture": name,
            "pixels": pixels,
            "nine": frames[0].boxes_back(nine[0].cpu()),
            "chances": chances[0].cpu(),
            "chosen": chosen[0].cpu(),
            "order": [k for k in order.tolist() if chosen[0, k]],
            "span": frames[0].boxes_back(span.cpu())[0],
            "says": says,
            "classes": teacher.classes,
        }

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.paint(self.chart, self.static)
        self.note.value = f"<small>{html.escape(self._told())}</small>"

    def _told(self) -> str:
        a = self.answer
        words = [" ".join(f"w{k + 1}.{n + 1}" for n in range(self.n_words)) for k in a["order"]]
        return (
            f"{len(a['order'])} of 9 places are in the bag. What the text tower reads: [start] {' '.join(words)} [end] "
            f"(each word plus its position; place 5 is the proposal itself)."
        )

    def static(self) -> Figure:
        a = self.answer
        fig = figure(9.6, 3.1)
        left, middle, right, last = fig.subplots(1, 4, width_ratios=[1.2, 0.9, 1, 1])
        picture(left, a["pixels"], "the bag (solid)")
        for k in range(9):
            joined = bool(a["chosen"][k])
            if float(a["chances"][k]) > 0:
                text = f"{k + 1}: {100 * float(a['chances'][k]):.0f} %"
                colour = "#FFFFFF" if joined else MUTED
                draw_boxes(left, a["nine"][k][None].numpy(), [colour], (), "-" if joined else ":", 1.8)
                x0, y0 = a["nine"][k][:2].tolist()
                plate = {"facecolor": "white", "alpha": 0.7, "pad": 0.3, "edgecolor": "none"}
                left.text(x0, y0 + 1, text, fontsize=6, color=INK, va="top", bbox=plate)
        draw_boxes(left, a["span"][None].numpy(), ["#E69F00"], (), "--", 2.0)
        x0, y0, x1, y1 = a["span"].round().int().tolist()
        picture(middle, a["pixels"][y0 : max(y0 + 1, y1), x0 : max(x0 + 1, x1)], "its span")
        colours = [KINDS["new" if c in self.dataset.novel else "base"] for c in a["classes"]]
        top_words(right, a["classes"], a["says"][0], colours, "teacher, of\nthe proposal")
        top_words(last, a["classes"], a["says"][1], colours, "teacher, of\nthe span")
        return fig.described(f"a scene with {a['picture']}. {self._told()}")

    def facts(self) -> dict[str, Any]:
        """How many places are in the bag, and what the teacher calls the proposal and the whole place."""
        a = self.answer
        alone, whole = (a["classes"][int(row.argmax())] for row in a["says"])
        return {"places": len(a["order"]), "proposal": alone, "whole": whole}
