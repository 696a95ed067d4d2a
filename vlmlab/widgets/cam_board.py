"""CAM board: where CLIP looks for a name; plain, with a softmax against other words, and spread by attention (CLIP-ES)."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vlmlab.errors import VlmlabError
from vlmlab.views.live import word_colour
from vlmlab.views.pictures import heat, labelled
from vlmlab.views.style import figure, picture
from vlmlab.widgets.panel import LABEL, WIDE, Panel, PictureChooser, Waiting, image_view, jpeg, sample_pictures
from vlmlab.widgets.prompt_microscope import read_words

STEPS = ("plain Grad-CAM", "softmax", "softmax, affinity")
SIDE, MOST_WORDS = 150, 8
GROUNDS = "grass, sky, water, sand, snow, brick, wood, wall, floor, ground, sea, field, desert, road"


class CamBoard(Panel):
    """Say which things an image shows; see their maps in three steps, and what a threshold makes of them."""

    title = "CAM board"

    def __init__(
        self,
        words: Sequence[str] = ("cat", "dog"),
        backbone: str = "micro-vit",
        pictures: list[tuple[str, np.ndarray]] | None = None,
        template: str = "a photo of a {}.",
        truth: Sequence[np.ndarray] | None = None,
        truth_words: Sequence[str] = (),
        background: str = GROUNDS,
        threshold: float = 0.5,
    ) -> None:
        """`words` are the things that the image is said to show, as its label would. With `truth`, masks [H, W] per image
        whose values index `truth_words`, choosing an image writes its things in, and IoU is shown; ground is everything else.
        """
        self.backbone_name, self.template = backbone, template
        self.truth, self.truth_words = truth, list(truth_words)
        self.words = widgets.Textarea(
            ", ".join(words), description="things", continuous_update=False, style=LABEL, layout=WIDE
        )
        self.background = widgets.Textarea(
            background, description="background", continuous_update=False, style=LABEL, layout=WIDE
        )
        self.pooling = widgets.ToggleButtons(
            options=[("class token", "class"), ("mean of places", "places")], style={"button_width": "110px"}
        )
        self.threshold = widgets.FloatSlider(
            threshold, min=0.0, max=1.0, step=0.05, description="threshold", continuous_update=True, style=LABEL, layout=WIDE
        )  # fmt: skip
        self.word = widgets.Dropdown(options=list(words), description="map of", style=LABEL, layout=WIDE)
        self.chooser = PictureChooser(pictures or sample_pictures("tableau", 10), self._chosen, self.guarded)
        self.shown = image_view("the image")
        self.maps = [image_view(f"map, {step}") for step in STEPS]
        self.called = [image_view(f"what exceeds the threshold, {step}") for step in STEPS]
        self.lines = [widgets.HTML() for _ in STEPS]
        self.note = widgets.HTML()
        for name in ("words", "background", "pooling", "threshold", "word"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        for control in (self.words, self.background):
            control.add_class("vlmlab-above")
        self.controls = [
            self.words, self.word, self.threshold, self.background, self.pooling, *self.chooser.widgets,
        ]  # fmt: skip
        columns = [
            widgets.VBox([widgets.HTML(f"<b>{step}</b>"), one, called, line])
            for step, one, called, line in zip(STEPS, self.maps, self.called, self.lines, strict=True)
        ]
        self.views = [widgets.HBox([self.shown, self.note]), widgets.HBox(columns)]
        self.answer: dict[str, Any] = Waiting()
        self._writing = False
        super().__init__()
        for control in (self.words, self.background, self.pooling):
            control.observe(self.guarded(lambda change: None if self._writing else self.look()), "value")
        for control in (self.threshold, self.word):  # the maps are there already
            control.observe(self.guarded(lambda change: None if self._writing else self._redraw()), "value")
        self._chosen()

    def _chosen(self) -> None:
        """Another image: its label is what the ground truth shows, where there is one."""
        there = self._things(self.chooser.number.value)
        if there:
            self._writing = True
            self.words.value = ", ".join(there)
            self._writing = False
        self.look()

    def _things(self, number: int) -> list[str]:
        from vlmlab.world.palette import STUFF

        if self.truth is None or number >= len(self.truth):
            return []
        shown = [self.truth_words[k] for k in np.unique(self.truth[number]) if 0 <= k < len(self.truth_words)]
        return [word for word in shown if word not in STUFF][:MOST_WORDS]

    def look(self) -> None:
        """Ask for the maps of what the controls say."""
        words = read_words(self.words.value, MOST_WORDS)
        grounds, pooling, number = self.background.value, self.pooling.value, self.chooser.number.value
        self.ask(lambda cancelled: self._see(words, grounds, pooling, number), self._show)

    def _see(self, words: list[str], grounds: str, pooling: str, number: int) -> dict[str, Any]:
        from vlmlab.methods.segmentation.clip_es import CLIPES
        from vlmlab.studies.run import shared_bank

        backbone = shared_bank(self.backbone_name).backbone
        name, pixels = self.chooser.pictures[number]
        found: list[torch.Tensor] = []
        for target in ("logit", "background"):
            config = CLIPES.configure(
                backbone, target=target, pooling=pooling, background_words=grounds, threshold=0.5, templates="dataset"
            )
            method = CLIPES(backbone, config)
            method.set_classes(words, [self.template])
            method.grounds = []
            method.set_map_words()
            images, (frame,) = method.framed([pixels])
            _, plain, wide = method.maps_of(images, torch.ones(1, len(words), dtype=torch.bool, device=images.device))
            found += [plain] if target == "logit" else [plain, wide]
        side = images.shape[-2:]
        large = [torch.nn.functional.interpolate(one[None].cpu(), size=side, mode="bilinear")[0] for one in found]
        maps = np.stack([frame.map_back(one).numpy() for one in large])  # [3, words, H, W]
        return {"picture": name, "number": number, "pixels": pixels, "words": words, "maps": maps}

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        if list(self.word.options) != answer["words"]:
            self._writing = True
            self.word.options = answer["words"]
            self._writing = False
        self._redraw()

    def _redraw(self) -> None:
        a = self.answer
        if not a:
            return
        k = a["words"].index(self.word.value) if self.word.value in a["words"] else 0
        self.shown.value = jpeg(a["pixels"], SIDE)
        for step, (one, called, line) in enumerate(zip(self.maps, self.called, self.lines, strict=True)):
            one.value = jpeg(heat(a["pixels"], a["maps"][step, k], span=(0, 1)), SIDE)
            called.value = jpeg(labelled(a["pixels"], self._called(step)), SIDE)
            iou = self._iou(step)
            line.value = "<br>".join(f"{html.escape(w)} {100 * v:.0f} %" for w, v in iou.items())
        marks = " ".join(
            f"<span style='color:{word_colour(j)}'>&#9632;</span> {html.escape(word)}" for j, word in enumerate(a["words"])
        )  # fmt: skip
        told = (
            "IoU of each thing stands below its maps." if self._iou(0) else "There is no ground truth for this image."
        )
        self.note.value = (
            f"<p>{marks}</p><p>Above: the map of <b>{html.escape(a['words'][k])}</b>, dark 0, bright 1. Below: the thing "
            f"whose map is highest, where that exceeds {self.threshold.value:.2f}; the rest is ground.</p>"
            f"<small>{told}</small>"
        )
        self._repaint_done()

    def _called(self, step: int) -> np.ndarray:
        """The number of the word at every pixel, -1 for ground."""
        maps = self.answer["maps"][step]
        return np.where(maps.max(0) > self.threshold.value, maps.argmax(0), -1)

    def _iou(self, step: int) -> dict[str, float]:
        number, out = self.answer["number"], {}
        if self.truth is None or number >= len(self.truth):
            return {}
        called = self._called(step)
        for k, word in enumerate(self.answer["words"]):
            if word in self.truth_words:
                true = self.truth[number] == self.truth_words.index(word)
                out[word] = float((true & (called == k)).sum() / max(1, (true | (called == k)).sum()))
        return out

    # --- the other two lives ------------------------------------------------------------------------------------------

    def static(self) -> Figure:
        a = self.answer
        k = a["words"].index(self.word.value) if self.word.value in a["words"] else 0
        fig = figure(8.4, 4.6)
        grid = fig.subplots(2, 4)
        picture(grid[0, 0], a["pixels"], f"image: {a['picture']}")
        grid[1, 0].set_axis_off()
        for step, name in enumerate(STEPS):
            picture(grid[0, step + 1], heat(a["pixels"], a["maps"][step, k], span=(0, 1)), f"{name}: {a['words'][k]}")
            iou = ", ".join(f"{w} {100 * v:.0f} %" for w, v in self._iou(step).items())
            picture(grid[1, step + 1], labelled(a["pixels"], self._called(step)), iou and f"IoU {iou}")
        handles = [Patch(color=word_colour(j), label=word) for j, word in enumerate(a["words"])]
        grid[1, 0].legend(handles=handles, loc="center", frameon=False, fontsize=8)
        return fig.described(
            f"maps of {a['words'][k]} in {a['picture']}: {', '.join(STEPS)}; below, what exceeds {self.threshold.value:.2f}"
        )

    def facts(self) -> dict[str, Any]:
        """The things, and the percent of the image that exceeds the threshold in each step (to the nearest ten)."""
        if not self.answer:
            raise VlmlabError("the panel has nothing to show yet; wait() until its first answer has come")
        share = [10 * round(10 * float((self._called(step) >= 0).mean())) for step in range(len(STEPS))]
        return {"things": ", ".join(self.answer["words"])} | dict(zip(STEPS, share, strict=True))
