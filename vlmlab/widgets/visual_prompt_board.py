"""Visual-prompt board: put a learned frame or patch onto an image, move it, and watch the probabilities."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from vlmlab.errors import VlmlabError
from vlmlab.views.pictures import heat, picture
from vlmlab.views.style import INK, VALUE, figure, tidy
from vlmlab.widgets.bars import word_bars
from vlmlab.widgets.panel import LABEL, WIDE, Panel, PictureChooser, Waiting, image_view, jpeg, sample_pictures

SIDE = 260  # pixels of an image on the page
PLACES = 8  # rows and columns of places that a patch can be put to
KINDS = {"frame": ("padding", 1 / 8), "patch": ("fixed_patch", 3 / 8)}
"""What is put on the image -> VP's kind, and its width as a share of the image's side."""


class VisualPromptBoard(Panel):
    """Choose an image, a frame or a patch, noise or what VP learned; move the patch and change its strength."""

    title = "Visual-prompt board"

    def __init__(
        self,
        dataset: str = "digits",
        backbone: str = "micro-vit",
        shots: int = 4,
        seed: int = 1,
        kind: str = "frame",
        pattern: str = "learned",
    ) -> None:
        """`kind` is "frame" or "patch"; `pattern` is "learned" (VP is fitted when it is first asked for) or "noise".

        Raises `VlmlabError` for another kind or pattern, and for a dataset that VP cannot learn on.
        """
        if kind not in KINDS or pattern not in ("learned", "noise"):
            raise VlmlabError(f"a prompt is a frame or a patch, learned or noise, not '{kind}', '{pattern}'")
        self.names = (dataset, backbone, shots, seed)
        self.chooser = PictureChooser(sample_pictures(dataset, 12), self.look, self.guarded)
        self.kind = widgets.ToggleButtons(options=list(KINDS), value=kind, style={"button_width": "110px"})
        self.pattern = widgets.ToggleButtons(
            options=["noise", "learned"], value=pattern, style={"button_width": "110px"}
        )
        self.strength = widgets.FloatSlider(
            1.0, min=0.0, max=2.0, step=0.1, description="strength", continuous_update=False, style=LABEL, layout=WIDE
        )
        self.shown = image_view("the image with the prompt on it; a click puts the patch there", PLACES, PLACES)
        self.map = image_view("how probable the true class is with the patch at every place", PLACES, PLACES)
        self.bars = widgets.HTML()
        self.note = widgets.HTML()
        for name in ("kind", "pattern", "strength", "shown", "map"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.controls = [*self.chooser.widgets, self.kind, self.pattern, self.strength]
        self.views = [widgets.HBox([self.shown, self.map]), self.note, self.bars]
        self.answer: dict[str, Any] = Waiting()
        self._asked = (-1, -1)
        self._fitted: dict[str, Any] = {}  # kind -> VP, learned
        super().__init__()
        for control in (self.kind, self.pattern, self.strength):
            control.observe(self.guarded(lambda change: self.look()), "value")
        for view in (self.shown, self.map):
            view.observe(self.guarded(lambda change: self.put(*change["new"])), "place")
        self.look()

    def put(self, row: int, column: int) -> None:
        """Put the patch at one of PLACES x PLACES places; (-1, -1) is none, for a frame."""
        if self.shown.place == self.map.place == (row, column) and self._asked == (row, column):
            return
        self._asked = self.shown.place = self.map.place = (row, column)
        if row < 0:
            return
        if self.kind.value == "patch":
            self.look()
        else:
            self.kind.value = "patch"

    def look(self) -> None:
        """Ask for the view of what the controls say."""
        if self.kind.value == "frame":
            self.put(-1, -1)
        elif self.shown.place == (-1, -1):
            self.put(0, 0)  # which looks
            return
        state = (self.kind.value, self.pattern.value, self.strength.value, *self.shown.place)
        self.ask(
            lambda cancelled: self._see(self.chooser.name, self.chooser.pixels, *state, cancelled=cancelled), self._show
        )

    def _method(self, kind: str, pattern: str, cancelled) -> Any:
        """VP with its pattern, learned or as it starts: noise of deviation 1."""
        from vlmlab.studies.experiment import Experiment
        from vlmlab.studies.run import construct, shared_bank

        key = f"{kind} {pattern}"
        if key not in self._fitted:
            dataset, backbone, shots, seed = self.names
            name, share = KINDS[kind]
            settings = {"kind": name, "size": round(share * shared_bank(backbone).backbone.image_size)}
            ready = construct(Experiment("vp", dataset, backbone, shots, seed, config=settings))
            method = ready.method
            if pattern == "noise":
                ready.prepare()
            else:
                self.note.value = f"<small>VP is learning a {kind} from {shots} images of every class …</small>"
                record = ready.learn(should_stop=cancelled).record
                if record.stopped:  # by a newer request: what is half learned is not kept
                    return method
            self._fitted[key] = method
        return self._fitted[key]

    @torch.no_grad()
    def _see(
        self, name: str, pixels: np.ndarray, kind: str, pattern: str, strength: float, row: int, column: int, cancelled
    ) -> dict[str, Any]:
        with torch.enable_grad():
            method = self._method(kind, pattern, cancelled)
        backbone = method.backbone
        image = backbone.preprocess(pixels).to(backbone.device)  # [1, 3, S, S]
        free = backbone.image_size - method.config.size
        places = [
            (round(r * free / (PLACES - 1)), round(c * free / (PLACES - 1))) for r, c in np.ndindex(PLACES, PLACES)
        ]
        at = places[row * PLACES + column]
        prompted = image + strength * method.pattern(at)
        every = [image, prompted]
        if kind == "patch":
            every += [image + strength * method.pattern(place) for place in places]
        probabilities = self._probabilities(method, torch.cat(every)).numpy()
        watched = method.classes.index(name) if name in method.classes else int(probabilities[0].argmax())
        return {
            "picture": name,
            "kind": kind,
            "pattern": pattern,
            "classes": list(method.classes),
            "pixels": _pixels(backbone, prompted),
            "before": probabilities[0],
            "after": probabilities[1],
            "watched": watched,
            "at": at,
            "map": probabilities[2:, watched].reshape(PLACES, PLACES) if kind == "patch" else None,
            "plain": _pixels(backbone, image),
        }

    def _probabilities(self, method, images: Tensor) -> Tensor:
        f = F.normalize(method.backbone.encode_image(images), dim=-1)
        return (method.backbone.logit_scale * f @ method.classifier.T).softmax(-1).float().cpu()  # [B, C]

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.shown.value = jpeg(answer["pixels"], SIDE)
        self.map.value = jpeg(self._map(answer), SIDE)
        self.bars.value = word_bars(answer["classes"], answer["after"], answer["before"])
        self.note.value = f"<small>{self._told()}</small>"

    def _map(self, answer: dict[str, Any]) -> np.ndarray:
        """The map over the plain image; without places to choose from, the plain image."""
        return answer["plain"] if answer["map"] is None else heat(answer["plain"], answer["map"], 0.75)

    def _told(self) -> str:
        a, c = self.answer, self.answer["watched"]
        line = (
            f"{a['classes'][c]}: {100 * a['before'][c]:.0f} % without, {100 * a['after'][c]:.0f} % with the {a['kind']}"
        )
        if a["map"] is not None:
            line += f"; at other places {100 * a['map'].min():.0f} to {100 * a['map'].max():.0f} %"
        return line + "."

    def static(self) -> Figure:
        a = self.answer
        fig = figure(8.4, 3.4)
        one, two, bars = fig.subplots(1, 3, width_ratios=[1, 1, 1.3])
        picture(
            one, a["pixels"], f"{a['picture']}, with a {a['kind']}" + (" of noise" if a["pattern"] == "noise" else "")
        )
        word = a["classes"][a["watched"]]
        picture(two, self._map(a), "without it" if a["map"] is None else f"'{word}' with the patch at every place")
        order = np.argsort(-a["after"])[:10]
        for y, k in enumerate(order):
            bars.barh(y, 100 * a["after"][k], color=VALUE, height=0.7, alpha=0.85)
            bars.plot([100 * a["before"][k]] * 2, [y - 0.4, y + 0.4], color=INK, linewidth=2)
        bars.plot([], [], color=INK, linewidth=2, label="without it")
        bars.set_yticks(range(len(order)), [a["classes"][k] for k in order], fontsize=8.5)
        bars.set_ylim(len(order) - 0.5, -0.5)
        bars.set_xlim(0, 100)
        tidy(bars, "", "probability (%)", "class").grid(axis="y", visible=False)
        bars.legend(frameon=False, fontsize=8.5, loc="lower right", labelcolor=INK)
        return fig.described(f"an image of {a['picture']} with a {a['pattern']} {a['kind']} on it. {self._told()}")

    def facts(self) -> dict[str, Any]:
        """What is on the image, the predicted class without and with it, and the watched class."""
        a = self.answer
        return {
            "prompt": f"{a['pattern']} {a['kind']}",
            "watched": a["classes"][a["watched"]],
            "without": a["classes"][int(a["before"].argmax())],
            "with": a["classes"][int(a["after"].argmax())],
        }


def _pixels(backbone, image: Tensor) -> np.ndarray:
    """What can be shown [S, S, 3] of a normalised image [1, 3, S, S]; a prompt is not clipped, a screen is."""
    mean, std = (v.view(3, 1, 1).float() for v in (backbone.mean, backbone.std))
    shown = (image[0].float().cpu() * std + mean).clamp(0, 1)
    return (255 * shown).round().byte().permute(1, 2, 0).numpy()
