"""Segmentation playground: type any words and see where in the image they lie, for any system that segments."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vlmlab.methods.dense.superpixels import snapped, superpixels
from vlmlab.views.live import word_colour
from vlmlab.views.pictures import heat, labelled, picture, resized
from vlmlab.views.style import figure, system_label
from vlmlab.widgets.menus import system_menu
from vlmlab.widgets.panel import LABEL, WIDE, Panel, PictureChooser, Waiting, image_view, jpeg, sample_pictures
from vlmlab.widgets.prompt_microscope import doubled, read_template, read_words
from vlmlab.widgets.segmenters import Segmenters, kind_of, offered

if TYPE_CHECKING:
    from vlmlab.methods.dense.segmenter import Segmenter

SIDE, WIDEST = 250, 284  # most pixels of an image on the page, down and across
SMALL = 92  # pixels of the map of one word
POINTS = 25  # rows and columns of points that can be asked about
MOST_WORDS = 20  # as many as there are colours
DENSE_SIDE = 448  # what a photograph's short side is brought to, so that a map has enough places


class SegmentationPlayground(Panel):
    """Type words, see the dense prediction and the map of each word; one cursor is marked in all of them."""

    title = "Segmentation playground"

    def __init__(
        self,
        words: Sequence[str] = ("cat", "dog", "sky", "grass", "wood", "water"),
        backbone: str = "micro-vit",
        pictures: list[tuple[str, np.ndarray]] | None = None,
        template: str = "a photo of a {}.",
        truth: Sequence[np.ndarray] | None = None,
        truth_words: Sequence[str] = (),
        system: str = "maskclip",
        segmenters: Mapping[str, Segmenter] | None = None,
    ) -> None:
        """`truth` are masks [H, W] per image whose values index `truth_words`; with them, IoU is shown. `segmenters` are
        fitted systems by key; any other of the menu is fitted to tableau when it is chosen, which takes a minute.
        """
        self.backbone_name, self.truth, self.truth_words = backbone, truth, list(truth_words)
        self.segmenters = Segmenters(segmenters, backbone)
        found = pictures or sample_pictures("photographs" if backbone == "photo" else "tableau", 10)
        self.words = widgets.Textarea(
            ", ".join(words), description="words", continuous_update=False, style=LABEL, layout=WIDE
        )
        self.template = widgets.Text(
            template, description="template", continuous_update=False, style=LABEL, layout=WIDE
        )
        self.kind = widgets.ToggleButtons(
            options=[("MaskCLIP's path", "value"), ("ordinary last layer", "plain")], style={"button_width": "150px"}
        )
        self.system = system_menu(list(dict.fromkeys([*offered(backbone), *(segmenters or {})])), system)
        self.snap = widgets.Checkbox(False, description="along superpixels", indent=False, layout=WIDE)
        self.strength = widgets.FloatSlider(
            0.6, min=0.0, max=1.0, step=0.1, description="tint", continuous_update=False, style=LABEL, layout=WIDE
        )
        self.chooser = PictureChooser(found, self.look, self.guarded)
        self.shown = image_view("the image; a click moves the point that is asked about", POINTS, POINTS)
        self.winner = image_view("the word that wins at every place; a click moves the point", POINTS, POINTS)
        self.shown.place = self.winner.place = (POINTS // 2, POINTS // 2)
        self.maps = widgets.HBox([], layout=widgets.Layout(flex_flow="row wrap"))
        self.note = widgets.HTML()
        for name in ("words", "template", "system", "kind", "snap", "strength", "shown", "winner"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        for control in (self.words, self.template):
            control.add_class("vlmlab-above")
        self.controls = [
            self.system,
            self.words,
            self.template,
            self.kind,
            *self.chooser.widgets,
            self.snap,
            self.strength,
        ]
        self.views = [widgets.HBox([self.shown, self.winner]), self.note, self.maps]
        self.answer: dict[str, Any] = Waiting()
        super().__init__()
        for control in (self.system, self.words, self.template, self.kind, self.snap):
            control.observe(self.guarded(lambda change: self.look()), "value")
        # What is computed already is only drawn again.
        self.strength.observe(self.guarded(lambda change: self._redraw()), "value")
        for view in (self.shown, self.winner):
            view.observe(self.guarded(lambda change: self.point(*change["new"])), "place")
        self.look()

    def point(self, row: int, column: int) -> None:
        """Ask about the point in this row and column, of POINTS x POINTS."""
        changed = self.shown.place != self.winner.place
        self.shown.place = self.winner.place = (row, column)
        if changed:
            self._redraw()

    @property
    def _at(self) -> tuple[float, float]:
        """The point, in shares of the image's height and width."""
        row, column = self.shown.place
        return (row + 0.5) / POINTS, (column + 0.5) / POINTS

    def look(self) -> None:
        """Ask for the view of what the controls say."""
        words, template = read_words(self.words.value, MOST_WORDS), read_template(self.template.value)
        number, kind, system, snap = self.chooser.number.value, self.kind.value, self.system.value, self.snap.value
        self.kind.disabled = system != "maskclip"  # the others have one path
        self.ask(lambda cancelled: self._see(words, template, number, kind, system, snap), self._show)

    @torch.no_grad()
    def _see(self, words: list[str], template: str, number: int, kind: str, system: str, snap: bool) -> dict[str, Any]:
        name, pixels = self.chooser.pictures[number]
        if system == "maskclip":
            scores = self._cosines(words, template, pixels, kind)
        else:
            (found,) = self.segmenters.asked(system, words, template).maps([pixels])
            scores = found.numpy()
        if snap:
            height, width = pixels.shape[:2]
            large = np.stack([resized(score, height, width) for score in scores])
            scores = snapped(large, superpixels(pixels))
        return {
            "picture": name, "number": number, "pixels": pixels, "words": words, "scores": scores, "system": system,
        }  # fmt: skip

    def _cosines(self, words: list[str], template: str, pixels: np.ndarray, kind: str) -> np.ndarray:
        """MaskCLIP's [words, h, w]; a photograph keeps its shape, and a backbone without a square of its own more places."""
        from vlmlab.studies.run import shared_bank

        backbone = shared_bank(self.backbone_name).backbone
        text = backbone.class_embeddings(words, [template])
        side = backbone.image_size if backbone.image.kind == "vit" else max(backbone.image_size, DENSE_SIDE)
        local = F.normalize(backbone.image.local_features(_whole(backbone, pixels, side), kind=kind), dim=1)
        return torch.einsum("behw,ce->bchw", local, text)[0].float().cpu().numpy()

    def _show(self, answer: dict[str, Any]) -> None:
        answer["winner"] = _winner(answer)
        self.answer = answer
        self._redraw()

    def _redraw(self) -> None:
        answer = self.answer
        if not answer:
            return
        pixels, words = answer["pixels"], answer["words"]
        self.shown.value = jpeg(pixels, self._side(pixels))
        self.winner.value = jpeg(labelled(pixels, answer["winner"], self.strength.value), self._side(pixels))
        if len(self.maps.children) != len(words):
            for box in self.maps.children:
                for child in box.children:
                    child.close()
                box.close()
            self.maps.children = [widgets.VBox([widgets.HTML(), image_view("where this word lies")]) for _ in words]
        cosines = self._at_cursor()
        for k, (box, word) in enumerate(zip(self.maps.children, words, strict=True)):
            label, view = box.children
            mark = f"<span style='color:{word_colour(k)}'>&#9632;</span>"
            told = f"{kind_of(word, answer['system'])}, {cosines[k]:.2f}"
            label.value = f"{mark} {html.escape(word)} <small>{told}</small>"
            view.value = jpeg(self._cursor(heat(pixels, answer["scores"][k])), min(SMALL, self._side(pixels)))
        best = words[int(np.argmax(cosines))]
        self.winner.alt = f"the word that wins at every place; at the point: {best}"
        line = (
            f"{html.escape(system_label(answer['system']))}, at the point (click another): <b>{html.escape(best)}</b>."
        )
        if self._iou():
            line += " IoU: " + ", ".join(f"{html.escape(w)} {100 * v:.0f} %" for w, v in self._iou().items())
        self.note.value = f"{line} {html.escape(doubled(self.words.value))}"
        self._repaint_done()

    def _side(self, pixels: np.ndarray) -> int:
        """The height of an image on the page, so that two stand side by side."""
        height, width = pixels.shape[:2]
        return min(SIDE, round(WIDEST * height / width))

    def _at_cursor(self) -> np.ndarray:
        scores = self.answer["scores"]
        row = min(int(self._at[0] * scores.shape[1]), scores.shape[1] - 1)
        column = min(int(self._at[1] * scores.shape[2]), scores.shape[2] - 1)
        return scores[:, row, column]

    def _cursor(self, pixels: np.ndarray) -> np.ndarray:
        drawn = pixels.copy()
        height, width = pixels.shape[:2]
        y, x = (min(round(v * n), n - 1) for v, n in zip(self._at, (height, width), strict=True))
        arm = max(2, height // 24)
        for line in ((slice(max(0, y - arm), y + arm + 1), x), (y, slice(max(0, x - arm), x + arm + 1))):
            drawn[line] = 255 - drawn[line]
        return drawn

    def _iou(self) -> dict[str, float]:
        """Intersection over union of the words that the ground truth has, where there is one for this image."""
        number = self.answer["number"]
        if self.truth is None or number >= len(self.truth):
            return {}
        mask, out = self.truth[number], {}
        for k, word in enumerate(self.answer["words"]):
            if word in self.truth_words:
                true, said = mask == self.truth_words.index(word), self.answer["winner"] == k
                if true.any():
                    out[word] = float((true & said).sum() / (true | said).sum())
        return out

    def static(self) -> Figure:
        answer = self.answer
        words, shown = answer["words"], min(4, len(answer["words"]))
        height, width = answer["pixels"].shape[:2]
        fig = figure(1.9 * (2 + shown), 0.65 + 1.85 * height / width)
        axes = fig.subplots(1, 2 + shown)
        picture(axes[0], answer["pixels"], f"image: {answer['picture']}")
        picture(axes[1], labelled(answer["pixels"], answer["winner"], self.strength.value), "the nearest word")
        share = np.bincount(answer["winner"].ravel(), minlength=len(words))
        for panel, k in zip(axes[2:], np.argsort(-share), strict=False):
            picture(panel, heat(answer["pixels"], answer["scores"][k]), f"map of '{words[k]}'")
        handles = [Patch(color=word_colour(k), label=w) for k, w in enumerate(words) if share[k]]
        fig.legend(handles=handles, loc="outside lower center", ncols=min(8, len(handles)), frameon=False, fontsize=8)
        return fig.described(
            f"{answer['picture']} by {system_label(answer['system'])}: the nearest of {', '.join(words)} at every place, and "
            "maps of the largest"
        )

    def facts(self) -> dict[str, Any]:
        """The system, the word with the largest share of the image, and its share in percent (to the nearest ten)."""
        winner, words = self.answer["winner"], self.answer["words"]
        share = np.bincount(winner.ravel(), minlength=len(words)) / winner.size
        best = int(share.argmax())
        return {"system": self.answer["system"], "largest": words[best], "share": 10 * round(10 * float(share[best]))}


def _winner(answer: dict[str, Any]) -> np.ndarray:
    """The best word [H, W] at every pixel, after the maps were enlarged to the image."""
    height, width = answer["pixels"].shape[:2]
    return np.stack([resized(score, height, width) for score in answer["scores"]]).argmax(0)


def _whole(backbone, pixels: np.ndarray, side: int) -> torch.Tensor:
    """The whole image, normalised, as [1, 3, h, w]: a ViT's square stretched over it, otherwise with its own shape."""
    x = torch.as_tensor(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 255
    height, width = pixels.shape[:2]
    scale = side / min(height, width)
    size = (side, side)
    if backbone.image.kind != "vit":
        size = (round(height * scale / 32) * 32, round(width * scale / 32) * 32)
    if (height, width) != size:
        x = F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    mean, std = (v.view(1, 3, 1, 1).float() for v in (backbone.mean, backbone.std))
    return ((x - mean) / std).to(backbone.device)


def tableau_pictures(count: int = 8) -> dict[str, Any]:
    """Arguments for the playground: test scenes of `tableau` with their masks and the words for these."""
    from vlmlab.datasets import load_dataset

    dataset = load_dataset("tableau")
    every = [*dataset.classes, *dataset.stuff]
    chosen = range(count)
    pictures, truth = [], []
    for i in chosen:
        shown = [dataset.classes[c] for c in dataset.test.labels[i].nonzero().flatten().tolist()]
        pictures.append((", ".join(shown), np.asarray(dataset.test.images(i)).copy()))
        truth.append(np.asarray(dataset.test.masks(i)[1]))
    present = [every[k] for k in np.unique(truth[0]).tolist() if 0 <= k < len(every)]
    others = [w for w in ("cat", "sky", "car") if w not in present]
    return {"pictures": pictures, "truth": truth, "truth_words": every, "words": [*present, *others[:2]]}
