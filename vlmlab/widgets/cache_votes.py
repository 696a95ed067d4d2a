"""Cache votes: Tip-Adapter's cache as an image. Which labelled images vote for a test image, and how much."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image

from vlmlab.views.pictures import picture
from vlmlab.views.style import FAMILIES, INK, MUTED, figure, tidy
from vlmlab.widgets.panel import Panel, PictureChooser, Waiting, image_view, sample_pictures
from vlmlab.widgets.support import SLOW, cache_over, support_sliders

ROWS = 12  # classes shown, those with the largest logits
TILE = 40  # pixels of one cached image


class CacheVotes(Panel):
    """Choose a test image, shots, alpha and beta: the cache fades where it has no say, and the bars add up the rest."""

    title = "Cache votes"
    moved = ("beta", (0.0, 1.0, 3.0, 5.5, 10.0, 20.0))

    def __init__(
        self,
        dataset: str = "digits",
        backbone: str = "micro-vit",
        shots: int = 4,
        seed: int = 1,
        alpha: float = 1.0,
        beta: float = 5.5,
        pictures: list[tuple[str, np.ndarray]] | None = None,
    ) -> None:
        """`pictures` are (class, pixels [H, W, 3]); test images of every class if there are none."""
        self.names = (dataset, backbone)
        self.chooser = PictureChooser(pictures or sample_pictures(dataset, 20), self.look, self.guarded)
        self.shots, self.seed = support_sliders(shots, seed)
        self.alpha = widgets.FloatSlider(alpha, min=0, max=30, step=0.5, description="alpha", **SLOW)
        self.beta = widgets.FloatSlider(beta, min=0, max=20, step=0.5, description="beta", **SLOW)
        for name in ("alpha", "beta"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.chart = image_view("the test image, the cache faded by its votes, and the logits of every class")
        self.note = widgets.HTML()
        self.controls = [*self.chooser.widgets, self.shots, self.seed, self.alpha, self.beta]
        self.views = [self.chart, self.note]
        self.answer: dict[str, Any] = Waiting()
        super().__init__()
        for control in (self.shots, self.seed, self.alpha, self.beta):
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.look()

    def look(self) -> None:
        """Ask for the votes that the controls say."""
        state = (self.shots.value, self.seed.value, self.alpha.value, self.beta.value)
        name, pixels = self.chooser.name, self.chooser.pixels
        self.ask(lambda cancelled: self._see(name, pixels, *state), self._show)

    @torch.no_grad()
    def _see(self, name: str, pixels: np.ndarray, shots: int, seed: int, alpha: float, beta: float) -> dict[str, Any]:
        method, task = cache_over(*self.names, shots, seed)
        backbone = method.backbone
        f = F.normalize(backbone.encode_image(backbone.preprocess(pixels).to(backbone.device)), dim=-1)
        weights = (-beta * (1 - f @ method.keys.T)).exp()[0]  # of every key [N]
        zero_shot, votes = method.zero_shot(f)[0], alpha * method.vote(f, beta)[0]  # [C]
        return {
            "picture": name,
            "pixels": pixels,
            "classes": list(method.classes),
            "support": task.support,
            "owner": task.support.labels.numpy(),
            "weights": weights.cpu().numpy(),
            "zero_shot": zero_shot.float().cpu().numpy(),
            "votes": votes.float().cpu().numpy(),
        }

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.paint(self.chart, self.static)
        self.note.value = f"<small>{self._told()}</small>"

    def _told(self) -> str:
        a = self.answer
        names, order = a["classes"], np.argsort(-a["weights"])[:3]
        first, last = int(a["zero_shot"].argmax()), int((a["zero_shot"] + a["votes"]).argmax())
        loud = ", ".join(f"{names[a['owner'][i]]} ({a['weights'][i]:.2f})" for i in order)
        share = a["weights"][a["owner"] == last].sum() / a["weights"].sum()
        return (
            f"Zero-shot says {names[first]}, with the cache it is {names[last]}. The three nearest keys: {loud}. "
            f"{names[last]} has {100 * share:.0f} % of all votes."
        )

    def _sheet(self, shown: np.ndarray) -> np.ndarray:
        """The cached images [rows, most per class] of the classes in `shown`, faded by what they weigh."""
        a, rows = self.answer, []
        most = max(int((a["owner"] == c).sum()) for c in shown)
        strongest = max(float(a["weights"].max()), 1e-12)
        for c in shown:
            own = np.flatnonzero(a["owner"] == c)
            own = own[np.argsort(-a["weights"][own])]
            tiles = [_tile(np.asarray(a["support"].images(int(i))), a["weights"][i] / strongest) for i in own]
            tiles += [np.full((TILE, TILE, 3), 255, np.uint8)] * (most - len(tiles))
            rows.append(np.concatenate(tiles, 1))
        return np.concatenate(rows)

    def static(self) -> Figure:
        a = self.answer
        total = a["zero_shot"] + a["votes"]
        shown = np.argsort(-total)[:ROWS]
        sheet, names = self._sheet(shown), [a["classes"][c] for c in shown]
        fig = figure(7.6, 1.3 + 0.3 * len(shown))
        left, middle, right = fig.subplots(1, 3, width_ratios=[0.8, max(0.6, 0.3 * sheet.shape[1] / TILE), 1.6])
        picture(left, a["pixels"], f"test image: {a['picture']}")
        middle.imshow(sheet, aspect="equal")
        middle.set_yticks([TILE * (k + 0.5) for k in range(len(shown))], names, fontsize=8.5)
        middle.set_xticks([])
        middle.set_title("the cache, faded by its votes", fontsize=9, color=INK)
        for spine in middle.spines.values():
            spine.set_visible(False)
        floor = float(a["zero_shot"][shown].min())
        y = range(len(shown))
        zero = a["zero_shot"][shown] - floor
        right.barh(y, zero, color=MUTED, height=0.7, label="zero-shot, above the lowest")
        right.barh(y, a["votes"][shown], left=zero, color=FAMILIES["adapter"], height=0.7, label="votes, times alpha")
        right.set_yticks(y, names, fontsize=8.5)
        right.set_ylim(len(shown) - 0.5, -0.5)
        tidy(right, "", "logit", "").grid(axis="y", visible=False)
        fig.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False, fontsize=8.5)
        return fig.described(f"a test image of {a['picture']} and the cache that votes for it. {self._told()}")

    def facts(self) -> dict[str, Any]:
        """The class without and with the cache, and the class of the nearest key."""
        a = self.answer
        names = a["classes"]
        return {
            "picture": a["picture"],
            "zero_shot": names[int(a["zero_shot"].argmax())],
            "with_cache": names[int((a["zero_shot"] + a["votes"]).argmax())],
            "nearest": names[int(a["owner"][int(a["weights"].argmax())])],
        }


def _tile(pixels: np.ndarray, weight: float) -> np.ndarray:
    """A small image, white where it weighs nothing and as it is where it weighs most."""
    small = np.asarray(Image.fromarray(pixels).convert("RGB").resize((TILE - 4, TILE - 4)), float)
    shown = (255 + (small - 255) * (0.08 + 0.92 * float(weight))).round().astype(np.uint8)
    return np.pad(shown, ((2, 2), (2, 2), (0, 0)), constant_values=255)
