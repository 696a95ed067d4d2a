"""One image as the prompt: CLIPSeg is shown a thing instead of being told its name, and looks for it in another image."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure

from vlmlab.errors import VlmlabError
from vlmlab.views.pictures import heat
from vlmlab.views.style import CLASSES, figure, picture
from vlmlab.widgets.masked_crop_lens import _outlined
from vlmlab.widgets.panel import LABEL, WIDE, Panel, PictureChooser, Waiting, image_view, jpeg, sample_pictures
from vlmlab.widgets.segmenters import fitted

if TYPE_CHECKING:
    from vlmlab.methods.segmentation.clipseg import CLIPSeg

POINTS, SIDE = 25, 200
FOUND = CLASSES[1]  # the colour of what was found


class ImagePrompt(Panel):
    """Click a thing in one image, choose another image, and mix in a sentence; see what is found."""

    title = "One image as the prompt"

    def __init__(
        self,
        backbone: str = "micro-vit",
        pictures: list[tuple[str, np.ndarray]] | None = None,
        truth: Sequence[np.ndarray] | None = None,
        truth_words: Sequence[str] = (),
        method: CLIPSeg | None = None,
        sentence: str = "a photo of a cat.",
        prompt: int = 0,
        target: int = 1,
        place: tuple[int, int] = (POINTS // 2, POINTS // 2),
        weight: float = 0.0,
    ) -> None:
        """`method` is a fitted CLIPSeg; without it, one is fitted to tableau (a minute). `truth` are masks [H, W] per image
        whose values index `truth_words`: the thing at a point is what has the point's class; an image without one is the
        prompt as a whole. `prompt` and `target` are the numbers of the first two images.
        """
        found = pictures or sample_pictures("tableau", 10)
        self.backbone_name, self.given = backbone, method
        self.truth, self.truth_words = truth, list(truth_words)
        self.prompt = PictureChooser(found, self.look, self.guarded)
        self.target = PictureChooser(found, self.look, self.guarded)
        self.prompt.number.value = min(prompt, len(found) - 1)
        self.target.number.value = min(target, len(found) - 1)
        self.sentence = widgets.Text(
            sentence, description="sentence", continuous_update=False, style=LABEL, layout=WIDE
        )
        self.weight = widgets.FloatSlider(
            weight, min=0.0, max=1.0, step=0.1, description="its weight", continuous_update=False, style=LABEL, layout=WIDE
        )  # fmt: skip
        self.threshold = widgets.FloatSlider(
            0.3, min=0.05, max=0.95, step=0.05, description="threshold", style=LABEL, layout=WIDE
        )
        self.shown = image_view("the image with the prompt outlined; a click chooses another thing", POINTS, POINTS)
        self.shown.place = place
        self.map, self.found = image_view("map of the other image"), image_view("what exceeds the threshold")
        self.note = widgets.HTML()
        for name in ("sentence", "weight", "threshold", "shown"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.sentence.add_class("vlmlab-above")
        self.controls = [
            widgets.HTML("show this"), *self.prompt.widgets, widgets.HTML("and look here"), *self.target.widgets,
            self.sentence, self.weight, self.threshold,
        ]  # fmt: skip
        self.views = [widgets.HBox([self.shown, self.map, self.found]), self.note]
        self.answer: dict[str, Any] = Waiting()
        super().__init__()
        for control in (self.sentence, self.weight):
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.threshold.observe(self.guarded(lambda change: self._redraw()), "value")
        self.shown.observe(self.guarded(lambda change: self.look()), "place")
        self.look()

    def look(self) -> None:
        """Ask for the map of what the controls say."""
        if not hasattr(self, "box"):
            return  # the choosers speak while the panel is made
        sentence = self.sentence.value.strip()
        if not sentence and self.weight.value:
            raise VlmlabError("the sentence is empty; write one, or give it the weight 0")
        numbers = (self.prompt.number.value, self.target.number.value)
        shown, target = self.prompt.pictures[numbers[0]], self.target.pictures[numbers[1]]
        place, weight = self.shown.place, self.weight.value
        self.ask(lambda cancelled: self._see(shown, target, numbers, place, sentence, weight), self._show)

    def _thing(self, number: int, pixels: np.ndarray, place: tuple[int, int]) -> tuple[np.ndarray, str]:
        """The mask [H, W] of what is shown, and its name if there is one."""
        if self.truth is None or number >= len(self.truth):
            return np.ones(pixels.shape[:2], bool), ""
        classes = self.truth[number]
        y, x = (min(int((v + 0.5) / POINTS * n), n - 1) for v, n in zip(place, classes.shape, strict=True))
        label = int(classes[y, x])
        known = 0 <= label < len(self.truth_words)
        return classes == label, self.truth_words[label] if known else "no class"

    @torch.no_grad()
    def _see(
        self,
        shown: tuple[str, np.ndarray],
        target: tuple[str, np.ndarray],
        numbers: tuple[int, int],
        place: tuple[int, int],
        sentence: str,
        weight: float,
    ) -> dict[str, Any]:
        method = self.given or fitted("clipseg", self.backbone_name)
        mask, name = self._thing(numbers[0], shown[1], place)
        images, (frame,) = method.framed([shown[1]])
        inside = frame.masks(torch.from_numpy(mask)[None]).to(images.device)
        if not inside.any():  # smaller than a pixel of the network's input
            inside = torch.ones_like(inside)
        by_image = method.image_prompts(images, inside)
        by_text = method.scaled(method.backbone.encode_text([sentence or " "]).float())
        image, (into,) = method.framed([target[1]])
        prompt = weight * by_text + (1 - weight) * by_image
        found = into.map_back(method.maps_by(image, prompt)[0].sigmoid().float().cpu())[0].numpy()
        return {
            "shown": shown[1], "mask": mask, "name": name, "pixels": target[1], "picture": target[0], "map": found,
            "target": numbers[1], "sentence": sentence, "weight": weight,
        }  # fmt: skip

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self._redraw()

    def _redraw(self) -> None:
        a = self.answer
        if not a:
            return
        self.shown.value = jpeg(_outlined(a["shown"], a["mask"]), SIDE)
        self.map.value = jpeg(heat(a["pixels"], a["map"], span=(0, 1)), SIDE)
        called = a["map"] > self.threshold.value
        self.found.value = jpeg(_outlined(a["pixels"], called), SIDE)
        name = f"Shown: <b>{html.escape(a['name'])}</b>. " if a["name"] else "Shown: the whole image. "
        mixed = (
            f"Mixed with {100 * a['weight']:.0f} % of &ldquo;{html.escape(a['sentence'])}&rdquo;. "
            if a["weight"]
            else ""
        )
        self.note.value = (
            f"<p>{name}{mixed}Looked for in {html.escape(a['picture'])}: {100 * called.mean():.0f} % of the pixels exceed "
            f"{self.threshold.value:.2f}.{self._told()}</p><small>click another thing in the first image</small>"
        )
        self._repaint_done()

    def _told(self) -> str:
        iou = self._iou()
        return "" if iou is None else f" IoU with what is {html.escape(self.answer['name'])} there: {100 * iou:.0f} %."

    def _iou(self) -> float | None:
        a = self.answer
        if self.truth is None or a["target"] >= len(self.truth) or a["name"] not in self.truth_words:
            return None
        true = self.truth[a["target"]] == self.truth_words.index(a["name"])
        called = a["map"] > self.threshold.value
        return float((true & called).sum() / max(1, (true | called).sum())) if true.any() else None

    # --- the other two lives ------------------------------------------------------------------------------------------

    def static(self) -> Figure:
        a = self.answer
        fig = figure(7.2, 2.7)
        axes = fig.subplots(1, 3)
        what = a["name"] or "the whole image"
        picture(axes[0], _outlined(a["shown"], a["mask"]), f"the prompt: {what}")
        sentence = f", {100 * a['weight']:.0f} % sentence" if a["weight"] else ""
        picture(axes[1], heat(a["pixels"], a["map"], span=(0, 1)), f"map{sentence}")
        iou = self._iou()
        picture(
            axes[2],
            _outlined(a["pixels"], a["map"] > self.threshold.value),
            f"above {self.threshold.value:.2f}" + ("" if iou is None else f", IoU {100 * iou:.0f} %"),
        )
        return fig.described(
            f"an image prompt ({what}), the map of {a['picture']} for it, and what exceeds {self.threshold.value:.2f}"
        )

    def facts(self) -> dict[str, Any]:
        """What is shown, the sentence's weight, and the percent of the pixels that are found (to the nearest ten)."""
        share = float((self.answer["map"] > self.threshold.value).mean())
        return {"shown": self.answer["name"], "weight": self.answer["weight"], "share": 10 * round(10 * share)}
