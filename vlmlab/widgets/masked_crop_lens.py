"""Masked crop lens: three ways to ask CLIP about a part of an image, and what it says to each.

The crop has the surroundings in it, the masked crop has them painted over with the mean colour, and mask pooling takes the
whole image's places that lie under the mask (MaskCLIP's local features) and averages them.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from vlmlab.methods.dense.mask_crops import SHAPES, cut
from vlmlab.methods.dense.naming import mask_pooled
from vlmlab.methods.dense.superpixels import superpixels
from vlmlab.views.style import CLASSES, INK, VALUE, figure, picture
from vlmlab.widgets.bars import word_bars
from vlmlab.widgets.panel import LABEL, WIDE, Panel, PictureChooser, Waiting, image_view, jpeg, sample_pictures
from vlmlab.widgets.prompt_microscope import read_template, read_words

POINTS, SIDE, SMALL = 25, 220, 110
MOST_WORDS, SHOWN = 60, 5
WAYS = ("crop", "masked crop", "mask-pooled places")
BORDER = CLASSES[1]  # the colour of the chosen part's outline


class MaskedCropLens(Panel):
    """Click a part of an image; see it as a crop, as a masked crop and as pooled places, with CLIP's words for each."""

    title = "Masked crop lens"

    def __init__(
        self,
        words: Sequence[str] = ("cat", "dog", "sky", "grass", "wood", "water"),
        backbone: str = "micro-vit",
        pictures: list[tuple[str, np.ndarray]] | None = None,
        template: str = "a photo of a {}.",
        truth: Sequence[np.ndarray] | None = None,
        truth_words: Sequence[str] = (),
        place: tuple[int, int] = (POINTS // 2, POINTS // 2),
    ) -> None:
        """`truth` are masks [H, W] per image whose values index `truth_words`; the part at a point is what has the point's
        class there. An image without one falls into superpixels.
        """
        self.backbone_name, self.truth, self.truth_words = backbone, truth, list(truth_words)
        self.words = widgets.Textarea(
            ", ".join(words), description="words", continuous_update=False, style=LABEL, layout=WIDE
        )
        self.template = widgets.Text(
            template, description="template", continuous_update=False, style=LABEL, layout=WIDE
        )
        self.expand = widgets.FloatSlider(
            1.25, min=1.0, max=3.0, step=0.25, description="side", continuous_update=False, style=LABEL, layout=WIDE
        )
        self.shape = widgets.ToggleButtons(options=[(s, s) for s in reversed(SHAPES)], style={"button_width": "110px"})
        self.chooser = PictureChooser(pictures or sample_pictures("tableau", 10), self.look, self.guarded)
        self.shown = image_view("the image with the chosen part outlined; a click chooses another", POINTS, POINTS)
        self.shown.place = place
        self.tiles = [image_view(f"what CLIP sees of the part: {way}") for way in WAYS]
        self.bars = [widgets.HTML() for _ in WAYS]
        self.note = widgets.HTML()
        for name in ("words", "template", "expand", "shape", "shown"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        for control in (self.words, self.template):
            control.add_class("vlmlab-above")
        self.controls = [self.words, self.template, self.expand, self.shape, *self.chooser.widgets]
        columns = [
            widgets.VBox([widgets.HTML(f"<b>{way}</b>"), tile, bars], layout=widgets.Layout(width="31%"))
            for way, tile, bars in zip(WAYS, self.tiles, self.bars, strict=True)
        ]
        self.views = [widgets.HBox([self.shown, self.note]), widgets.HBox(columns)]
        self.answer: dict[str, Any] = Waiting()
        super().__init__()
        for control in (self.words, self.template, self.expand, self.shape):
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.shown.observe(self.guarded(lambda change: self.look()), "place")
        self.look()

    def look(self) -> None:
        """Ask about the part at the point."""
        words, template = read_words(self.words.value, MOST_WORDS), read_template(self.template.value)
        number, place = self.chooser.number.value, self.shown.place
        how = (self.expand.value, self.shape.value)
        self.ask(lambda cancelled: self._see(words, template, number, place, *how), self._show)

    def _part(self, number: int, place: tuple[int, int]) -> tuple[np.ndarray, str]:
        """The mask [H, W] of the part at the point, and what it is, if the ground truth says so."""
        pixels = self.chooser.pictures[number][1]
        y, x = (min(int((v + 0.5) / POINTS * n), n - 1) for v, n in zip(place, pixels.shape[:2], strict=True))
        if self.truth is not None and number < len(self.truth):
            classes = self.truth[number]
            label = int(classes[y, x])
            known = 0 <= label < len(self.truth_words)
            return classes == label, self.truth_words[label] if known else "no class"
        regions = superpixels(pixels, 30)
        return regions == regions[y, x], ""

    @torch.no_grad()
    def _see(
        self, words: list[str], template: str, number: int, place: tuple[int, int], expand: float, shape: str
    ) -> dict[str, Any]:
        from vlmlab.geometry import Frame
        from vlmlab.studies.run import shared_bank

        backbone = shared_bank(self.backbone_name).backbone
        name, pixels = self.chooser.pictures[number]
        mask, what = self._part(number, place)
        frame = Frame.letterbox(mask.shape, backbone.image_size)
        fill = [round(255 * value) for value in backbone.mean.tolist()]
        images = backbone.preprocess(frame.pixels(pixels, fill)[None]).to(backbone.device)
        inside = frame.masks(torch.from_numpy(mask)[None]).to(images.device)
        if not inside.any():  # smaller than a pixel of the network's input
            inside = torch.ones_like(inside)
        crops = torch.cat([cut(images, inside, images.shape[-1], expand, shape, paint) for paint in (False, True)])
        local = backbone.image.local_features(images)
        under = F.adaptive_avg_pool2d(inside[None].float(), local.shape[-2:])
        pooled = mask_pooled(F.normalize(local, dim=1).float(), under)[0]
        features = F.normalize(torch.cat([backbone.encode_image(crops).float(), pooled]), dim=-1)
        text = backbone.class_embeddings(words, [template])
        said = (backbone.logit_scale * features @ text.T).softmax(-1).cpu().numpy()
        mean, std = (v.to(crops).view(1, 3, 1, 1).float() for v in (backbone.mean, backbone.std))
        tiles = (255 * (crops.float() * std + mean)).clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        weights = frame.map_back(F.interpolate(under, images.shape[-2:], mode="nearest")[0].cpu())[0].numpy()
        dim = (pixels * (0.25 + 0.75 * weights[..., None])).astype(np.uint8)
        return {
            "picture": name, "pixels": pixels, "mask": mask, "what": what, "words": words, "said": said,
            "tiles": [tiles[0], tiles[1], dim],
        }  # fmt: skip

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.shown.value = jpeg(_outlined(answer["pixels"], answer["mask"]), SIDE)
        for tile, bars, pixels, said in zip(self.tiles, self.bars, answer["tiles"], answer["said"], strict=True):
            tile.value = jpeg(pixels, SMALL)
            best = np.argsort(-said)[:SHOWN]
            bars.value = word_bars([answer["words"][k] for k in best], said[best])
        says = ", ".join(f"{way}: <b>{html.escape(word)}</b>" for way, word in zip(WAYS, self._words(), strict=True))
        true = f"The part is <b>{html.escape(answer['what'])}</b>. " if answer["what"] else ""
        share = 100 * float(answer["mask"].mean())
        self.note.value = f"<p>{true}It has {share:.0f} % of the image. {says}.</p><small>click another part</small>"

    def _words(self) -> list[str]:
        return [self.answer["words"][int(said.argmax())] for said in self.answer["said"]]

    # --- the other two lives ------------------------------------------------------------------------------------------

    def static(self) -> Figure:
        a = self.answer
        fig = figure(9.6, 3.6)
        grid = fig.subplots(2, 4, height_ratios=[1.25, 1])
        picture(grid[0, 0], _outlined(a["pixels"], a["mask"]), f"the part: {a['what'] or a['picture']}")
        grid[1, 0].set_axis_off()
        for column, (way, tile, said) in enumerate(zip(WAYS, a["tiles"], a["said"], strict=True), 1):
            picture(grid[0, column], tile, way)
            axes = grid[1, column]
            best = np.argsort(-said)[:4][::-1]
            axes.barh(range(len(best)), 100 * said[best], color=VALUE, alpha=0.55)
            for y, k in enumerate(best):
                axes.text(2, y, f"{a['words'][k]} {100 * said[k]:.0f} %", va="center", fontsize=8, color=INK)
            axes.set_xlim(0, 100)
            axes.set_axis_off()
        says = "; ".join(f"{way}: {word}" for way, word in zip(WAYS, self._words(), strict=True))
        return fig.described(f"a part of an image ({a['what'] or a['picture']}) shown to CLIP in three ways. {says}")

    def facts(self) -> dict[str, Any]:
        """What the part is, and the first word of each way."""
        return {"what": self.answer["what"]} | dict(zip(WAYS, self._words(), strict=True))


def _outlined(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image with the border of the mask in one colour, wide enough to be seen."""
    from matplotlib.colors import to_rgb
    from scipy.ndimage import binary_dilation, binary_erosion

    width = max(1, min(mask.shape) // 60)
    rim = binary_dilation(mask, iterations=width) & ~binary_erosion(mask, iterations=width)
    drawn = pixels.copy()
    drawn[rim] = [round(255 * v) for v in to_rgb(BORDER)]
    return drawn
