"""View selection: of which views of one image TPT is sure, which it keeps, and what one step makes of the prediction."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image

from vlmlab.views.style import Still, picture
from vlmlab.views.without_labels import view_entropies
from vlmlab.widgets.panel import LABEL, WIDE, Panel, PictureChooser, Waiting, image_view, jpeg, sample_pictures

COLUMNS, TILE = 16, 46  # of the sheet of views, in pixels of the page
FRAME = (0, 114, 178)


class ViewSelection(Panel):
    """Pick an image, the share of views that is kept and the number of steps; see entropy and prediction change."""

    title = "View selection"

    def __init__(
        self,
        dataset: str = "objects-mosaic",
        backbone: str = "micro-vit",
        n_views: int = 32,
        pictures: list[tuple[str, np.ndarray]] | None = None,
    ) -> None:
        """`pictures` are (name, pixels); test images of the dataset, whose classes are the words, if none are given.

        Raises `VlmlabError` (in the error line, or in strict mode) for a backbone that TPT does not run on.
        """
        self.names = (dataset, backbone, n_views)
        self.chooser = PictureChooser(pictures or sample_pictures(dataset, 24), self.look, self.guarded)
        self.share = widgets.FloatSlider(
            0.1, min=0.03, max=1.0, step=0.01, description="share kept", readout_format=".2f", style=LABEL, layout=WIDE,
            continuous_update=False,
        )  # fmt: skip
        self.steps = widgets.IntSlider(
            1, 0, 8, description="steps", style=LABEL, layout=WIDE, continuous_update=False
        )  # a step costs a pass through the text tower and back
        self.seed = widgets.IntSlider(1, 0, 9, description="seed", style=LABEL, layout=WIDE, continuous_update=False)
        for name in ("share", "steps", "seed"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.shown = image_view("the image")
        self.sheet = image_view("the views, surest first; the kept ones have a frame")
        self.chart = image_view("entropy of the views, and the prediction before and after")
        self.note = widgets.HTML()
        self.controls = [*self.chooser.widgets, self.share, self.steps, self.seed]
        self.views = [widgets.HBox([self.shown, self.sheet]), self.chart, self.note]
        self.answer: dict[str, Any] = Waiting()
        self.method: Any = None
        self._seen: dict[tuple[int, int], tuple[np.ndarray, torch.Tensor]] = {}
        super().__init__()
        for control in (self.share, self.steps, self.seed):
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.look()

    def look(self) -> None:
        """Ask for the views and the prediction of what the controls say."""
        name, pixels = self.chooser.name, self.chooser.pixels
        chosen = (self.share.value, self.steps.value, self.seed.value)
        self.ask(lambda cancelled: self._see(name, pixels, *chosen), self._show)

    @torch.no_grad()
    def _see(self, name: str, pixels: np.ndarray, share: float, steps: int, seed: int) -> dict[str, Any]:
        from vlmlab.methods.text_prompt.tpt import averaged_entropy, confident

        method = self._method()
        crops, f = self._views(pixels, seed)
        method.config.selection, method.config.steps = share, steps
        before = method.scores(f, method.start[None])  # [1, V, C]
        after = method.scores(f, method.tune(f))
        order = confident(before[0], 1.0)  # all of them, lowest entropy first
        kept = confident(before[0], share)
        log_p = before[0].log_softmax(-1)
        entropy = -(log_p.exp() * log_p).sum(-1)
        said = before[0].argmax(-1)[order].cpu().numpy()
        truth = method.classes.index(name) if name in method.classes else None
        return {
            "picture": name,
            "pixels": pixels,
            "crops": crops[order.cpu().numpy()],
            "entropy": entropy[order].cpu().numpy(),
            "kept": len(kept),
            "right": None if truth is None else said == truth,
            "before": before[0, 0].softmax(-1).cpu().numpy(),
            "after": after[0, 0].softmax(-1).cpu().numpy(),
            "loss": (float(averaged_entropy(before[0][kept])), float(averaged_entropy(after[0][kept]))),
        }

    def _method(self):
        """TPT on the dataset's classes, made once."""
        if self.method is None:
            from vlmlab.studies.experiment import Experiment
            from vlmlab.studies.run import construct

            dataset, backbone, n_views = self.names
            self.method = construct(Experiment("tpt", dataset, backbone, 0, 1, config={"n_views": n_views})).prepare()
        return self.method

    def _views(self, pixels: np.ndarray, seed: int) -> tuple[np.ndarray, torch.Tensor]:
        """The views of an image as small images [V, TILE, TILE, 3], and their unit features [1, V, e]."""
        key = (id(pixels), seed)
        if key not in self._seen:
            backbone = self.method.backbone
            images = self.method.views([pixels], [seed])[0]  # [V, 3, S, S]
            mean, std = (v.to(images).view(1, 3, 1, 1).float() for v in (backbone.mean, backbone.std))
            colours = (255 * (images.float() * std + mean)).clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
            tiles = np.stack([np.asarray(Image.fromarray(c).resize((TILE, TILE))) for c in colours])
            self._seen = {key: (tiles, F.normalize(backbone.encode_image(images), dim=-1)[None])}
        return self._seen[key]

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.shown.value = jpeg(answer["pixels"], 80)
        self.sheet.value = jpeg(_sheet(answer))
        self.paint(self.chart, self._chart)
        low, high = answer["loss"]
        first = [html.escape(self.method.classes[int(answer[k].argmax())]) for k in ("before", "after")]
        self.note.value = (
            f"<small>Views, surest first; framed: kept. Entropy of their mean prediction: {low:.2f} before, {high:.2f} "
            f"after. First word: <b>{first[0]}</b> before, <b>{first[1]}</b> after; shown is "
            f"{html.escape(answer['picture'])}.</small>"
        )

    def _chart(self) -> Still:
        a = self.answer
        truth = a["picture"] if a["right"] is not None else ""
        return view_entropies(
            a["entropy"], a["kept"], self.method.classes, a["before"], a["after"], a["right"], truth
        ).described(f"entropy of {len(a['entropy'])} views of {a['picture']}, and the prediction before and after TPT")

    # --- the other two lives ------------------------------------------------------------------------------------------

    def static(self) -> Figure:
        fig = self._chart()
        alt = fig.alt
        fig.set_size_inches(9.2, 4.4)
        left, bars = fig.axes
        grid = fig.add_gridspec(2, 2, height_ratios=[0.42, 1], width_ratios=[1.25, 1])
        left.set_subplotspec(grid[1, 0])
        bars.set_subplotspec(grid[1, 1])
        picture(fig.add_subplot(grid[0, :]), _sheet(self.answer), "views, surest first; framed: kept")
        return fig.described(alt)

    def facts(self) -> dict[str, Any]:
        """How many views are kept of how many, the first word before and after, and whether the entropy fell."""
        a = self.answer
        return {
            "picture": a["picture"],
            "kept": a["kept"],
            "views": len(a["entropy"]),
            "before": self.method.classes[int(a["before"].argmax())],
            "after": self.method.classes[int(a["after"].argmax())],
            "sharper": a["loss"][1] < a["loss"][0],
        }


def _sheet(answer: dict[str, Any]) -> np.ndarray:
    """The views in rows, surest first; those that are kept have a frame."""
    tiles = []
    for k, crop in enumerate(answer["crops"]):
        tile = np.pad(crop, ((4, 4), (4, 4), (0, 0)), constant_values=255)
        if k < answer["kept"]:
            tile[:3], tile[-3:], tile[:, :3], tile[:, -3:] = FRAME, FRAME, FRAME, FRAME
        tiles.append(tile)
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % COLUMNS)
    rows = [np.concatenate(tiles[k : k + COLUMNS], 1) for k in range(0, len(tiles), COLUMNS)]
    return np.concatenate(rows)
