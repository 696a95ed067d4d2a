"""Attention viewer: which places a head asks, from the class token or from any patch, layer by layer."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure

from vlmlab.errors import VlmlabError
from vlmlab.views.pictures import heat, picture
from vlmlab.views.style import figure
from vlmlab.widgets.panel import LABEL, WIDE, Panel, PictureChooser, Waiting, image_view, jpeg, sample_pictures

SIDE = 286  # pixels of an image on the page


def rollout(layers: list[torch.Tensor]) -> torch.Tensor:
    """Attention rollout [T, T] of attention maps [heads, T, T] per layer (Abnar and Zuidema, arXiv:2005.00928).

    Heads are averaged, half of every layer is the residual stream, and the layers are multiplied.
    """
    joint = torch.eye(layers[0].shape[-1])
    for attention in layers:
        mixed = 0.5 * attention.mean(0) + 0.5 * torch.eye(attention.shape[-1])
        joint = mixed / mixed.sum(-1, keepdim=True) @ joint
    return joint


class AttentionViewer(Panel):
    """Pick an image, a layer, a head and the place that asks; see where it looks."""

    title = "Attention viewer"

    def __init__(
        self,
        backbone: str = "micro-vit",
        pictures: list[tuple[str, np.ndarray]] | None = None,
        layer: int = 0,
        head: int = 0,
    ) -> None:
        """`layer` and `head` count from 1; 0 is the last layer, and the mean of the heads.

        Raises `VlmlabError` for a backbone without attention over patches.
        """
        from vlmlab.studies.run import shared_bank

        self.bank_backbone = shared_bank(backbone).backbone
        if "attention" not in self.bank_backbone.image.supports or self.bank_backbone.image.kind != "vit":
            raise VlmlabError(
                f"{backbone} has no attention over patches to look at; choose micro-vit, or a ViT of open_clip"
            )
        depth, heads = self.bank_backbone.image.depth, self.bank_backbone.image.heads
        self.chooser = PictureChooser(pictures or sample_pictures("tableau", 12), self.look, self.guarded)
        self.layer = widgets.IntSlider(layer or depth, 1, depth, description="layer", style=LABEL, layout=WIDE)
        options = [("mean of the heads", 0), *((f"head {h}", h) for h in range(1, heads + 1)), ("rollout", -1)]
        self.head = widgets.Dropdown(options=options, value=head, description="head", style=LABEL, layout=WIDE)
        self.asks = widgets.ToggleButtons(options=[("class token", "class"), ("a patch", "patch")])
        side = self.bank_backbone.image.grid(self.bank_backbone.image_size, self.bank_backbone.image_size)
        self.grid = side
        self.shown = image_view("the image; a click makes a patch ask", *side)
        self.map = image_view("where it looks")
        self.note = widgets.HTML()
        for name in ("layer", "head", "asks", "shown", "map"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.controls = [*self.chooser.widgets, self.layer, self.head, self.asks]
        self.views = [widgets.HBox([self.shown, self.map]), self.note]
        self.answer: dict[str, Any] = Waiting()
        self._kept: dict[int, list[torch.Tensor]] = {}
        super().__init__()
        for control in (self.layer, self.head, self.asks):
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.shown.observe(self.guarded(lambda change: self._picked()), "place")
        self.look()

    def pick(self, row: int, column: int) -> None:
        """Let the patch at (row, column) ask."""
        self.shown.place = (row, column)

    def _picked(self) -> None:
        if self.shown.place == (-1, -1):
            return
        if self.asks.value == "patch":
            self.look()
        else:
            self.asks.value = "patch"

    def look(self) -> None:
        """Ask for the view of what the controls say."""
        if self.asks.value == "class":
            self.shown.place = (-1, -1)
        elif self.shown.place == (-1, -1):  # the middle, until another one is chosen
            self.shown.place = (self.grid[0] // 2, self.grid[1] // 2)
            return
        state = (self.layer.value, self.head.value, self.asks.value, *self.shown.place)
        name, pixels = self.chooser.name, self.chooser.pixels
        self.ask(lambda cancelled: self._see(name, pixels, *state), self._show)

    @torch.no_grad()
    def _see(
        self, name: str, pixels: np.ndarray, layer: int, head: int, asks: str, row: int, column: int
    ) -> dict[str, Any]:
        layers = self._attention(pixels)
        joint = rollout(layers) if head < 0 else layers[layer - 1].mean(0) if head == 0 else layers[layer - 1][head - 1]
        token = 0 if asks == "class" else 1 + row * self.grid[1] + column
        weights = joint[token, 1:]
        weights = (weights / weights.sum().clamp(min=1e-9)).reshape(self.grid)
        entropy = -(weights * weights.clamp(min=1e-12).log2()).sum()
        return {
            "picture": name,
            "pixels": _square(pixels),
            "map": weights.numpy(),
            "patch": None if asks == "class" else (row, column),
            "places": 2 ** float(entropy),
        }

    def _attention(self, pixels: np.ndarray) -> list[torch.Tensor]:
        key = id(pixels)
        if key not in self._kept:
            layers = self.bank_backbone.image.attention(self.bank_backbone.preprocess(pixels))
            self._kept = {
                key: [layer[0].float().cpu() for layer in layers]
            }  # of one image: the others are a blink away
        return self._kept[key]

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.shown.value = jpeg(answer["pixels"], SIDE)  # the page draws the frame of the patch
        self.map.value = jpeg(heat(_enlarged(answer["pixels"]), answer["map"]), SIDE)
        self.shown.alt = f"{answer['picture']}; asking: {self._asker()}"
        self.map.alt = f"where the {self._asker()} looks, spread over about {answer['places']:.0f} places"
        self.note.value = (
            f"<small>The {self._asker()} asks (click a place of the image). The attention is spread over about "
            f"{answer['places']:.0f} of {answer['map'].size} places.</small>"
        )

    def static(self) -> Figure:
        fig = figure(6.4, 3.3)
        one, two = fig.subplots(1, 2)
        picture(one, _marked(self.answer, self.grid), self.answer["picture"])
        head = dict((v, k) for k, v in self.head.options)[self.head.value]
        where = "all layers" if self.head.value < 0 else f"layer {self.layer.value}"
        picture(two, heat(_enlarged(self.answer["pixels"]), self.answer["map"]), f"{where}, {head}")
        return fig.described(f"{self.answer['picture']}: attention of the {self._asker()} in {where}, {head}")

    def _asker(self) -> str:
        patch = self.answer["patch"]
        return "class token" if patch is None else f"patch in row {patch[0]}, column {patch[1]}"

    def facts(self) -> dict[str, Any]:
        """Who asks, and over how many places (2 to the entropy, a whole number) its attention is spread."""
        return {"asks": self._asker(), "places": round(self.answer["places"])}


def _square(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    times = max(1, SIDE // pixels.shape[0])
    return pixels.repeat(times, 0).repeat(times, 1)


def _marked(answer: dict[str, Any], grid: tuple[int, int]) -> np.ndarray:
    pixels = _enlarged(answer["pixels"]).copy()
    if answer["patch"] is not None:
        height, width = pixels.shape[0] / grid[0], pixels.shape[1] / grid[1]
        top, left = round(answer["patch"][0] * height), round(answer["patch"][1] * width)
        bottom, right = round(top + height) - 1, round(left + width) - 1
        for edge in (slice(top, top + 3), slice(bottom - 2, bottom + 1)):
            pixels[edge, left : right + 1] = (213, 94, 0)
        for edge in (slice(left, left + 3), slice(right - 2, right + 1)):
            pixels[top : bottom + 1, edge] = (213, 94, 0)
    return pixels
