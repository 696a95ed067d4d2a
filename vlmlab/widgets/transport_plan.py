"""Transport plan: how PLOT shares the places of an image out among the prompts of a class."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vlmlab.views.live import word_colour
from vlmlab.views.pictures import heat, labelled, picture
from vlmlab.views.style import figure
from vlmlab.widgets.panel import LABEL, WIDE, Panel, PictureChooser, Waiting, image_view, jpeg, sample_pictures

SIDE, SMALL = 230, 138  # pixels of an image on the page
SNAPSHOTS = 8


class TransportPlan(Panel):
    """Fits PLOT, and shows for any image and class which prompt the plan gives which place to.

    A map shows the share of every place that goes to one prompt, on the same scale for all prompts: at each place
    the shares of all prompts add up to one, and over the image every prompt gets as much as any other.
    """

    title = "Transport plan"

    def __init__(
        self,
        dataset: str = "vehicles",
        backbone: str = "micro-vit",
        shots: int = 4,
        seed: int = 1,
        n_prompts: int = 4,
        pictures: list[tuple[str, np.ndarray]] | None = None,
    ) -> None:
        """`pictures` are (name, pixels); test images of the dataset if none are given.

        Raises `VlmlabError` (in the error line, or in strict mode) for a backbone that PLOT does not run on.
        """
        self.names = (dataset, backbone, shots, seed, n_prompts)
        self.chooser = PictureChooser(pictures or sample_pictures(dataset, 12), self._another, self.guarded)
        self.of_class = widgets.Dropdown(options=[], description="class", style=LABEL, layout=WIDE)
        self.moment = widgets.IntSlider(0, 0, 1, description="step", style=LABEL, layout=WIDE, readout=False)
        self.eps = widgets.FloatLogSlider(
            0.1, base=10, min=-1.5, max=1, step=0.1, description="eps", readout_format=".3f", style=LABEL, layout=WIDE
        )
        for name in ("of_class", "moment", "eps"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.shown = image_view("the image")
        self.winner = image_view("which prompt gets the largest share of every place")
        self.maps = widgets.HBox([], layout=widgets.Layout(flex_flow="row wrap"))
        self.note = widgets.HTML()
        self.controls = [*self.chooser.widgets, self.of_class, self.moment, self.eps]
        self.views = [widgets.HBox([self.shown, self.winner]), self.maps, self.note]
        self.snapshots: list[tuple[int, torch.Tensor]] = []  # (step, unit features of the prompts [N, C, e])
        self.answer: dict[str, Any] = Waiting()
        self._seen: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        super().__init__()
        for control in (self.of_class, self.moment, self.eps):
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.learn()

    # --- learning -----------------------------------------------------------------------------------------------------

    def learn(self) -> None:
        """Fit PLOT and keep its prompts at several moments."""
        self.ask(self._learn, self._learned)

    def _learn(self, cancelled) -> list[tuple[int, torch.Tensor]]:
        from vlmlab.studies.experiment import Experiment
        from vlmlab.studies.run import construct

        dataset, backbone, shots, seed, n_prompts = self.names
        ready = construct(Experiment("plot", dataset, backbone, shots, seed, config={"n_prompts": n_prompts}))
        self.method = ready.prepare()
        contexts: list[tuple[int, torch.Tensor]] = []

        def on_step(done: int, steps: int, loss: float) -> None:
            if done == 1 or done % max(1, steps // SNAPSHOTS) == 0 or done == steps:
                contexts.append((done, self.method.context.detach().clone()))

        contexts.append((0, self.method.context.detach().clone()))
        ready.learn(on_step, cancelled)
        last, kept = self.method.context.detach().clone(), []
        with torch.no_grad():
            for step, context in contexts:
                self.method.context.copy_(context)
                kept.append((step, F.normalize(self.method.prompt_features(), dim=-1)))
            self.method.context.copy_(last)
        return kept

    def _learned(self, kept: list[tuple[int, torch.Tensor]]) -> None:
        classes, name = self.method.classes, self.chooser.name
        self.moment.max = len(kept) - 1
        self.moment.value = len(kept) - 1
        self.of_class.options = classes
        self.of_class.value = name if name in classes else classes[0]
        self.snapshots = kept  # last: without it, what was set above asks for nothing
        self.look()

    # --- looking ------------------------------------------------------------------------------------------------------

    def _another(self) -> None:
        """Another image was chosen: its own class is the first to look at."""
        name = self.chooser.name
        if name in self.of_class.options and name != self.of_class.value:
            self.of_class.value = name
        else:
            self.look()

    def look(self) -> None:
        """Ask for the plan of what the controls say."""
        if not self.snapshots:
            return
        name, pixels = self.chooser.name, self.chooser.pixels
        chosen = (self.of_class.index, self.moment.value, self.eps.value)
        self.ask(lambda cancelled: self._see(name, pixels, *chosen), self._show)

    @torch.no_grad()
    def _see(self, name: str, pixels: np.ndarray, c: int, moment: int, eps: float) -> dict[str, Any]:
        method, (step, prompts) = self.method, self.snapshots[moment]
        if id(pixels) not in self._seen:
            self._seen = {id(pixels): method.seen(method.backbone.preprocess(pixels))}
        _, z = self._seen[id(pixels)]
        similarity = torch.einsum("bpe,nce->bcpn", z, prompts)[0]  # [C, P, N]
        method.config.eps = eps
        plan = method.plan(similarity)
        logits = method.backbone.logit_scale * (plan * similarity).sum((-2, -1))
        side = round(len(plan[c]) ** 0.5)
        share = (plan[c] / plan[c].sum(-1, keepdim=True)).mT.reshape(-1, side, len(plan[c]) // side)  # [N, h, w]
        fit = (plan[c] * similarity[c]).sum(0) / plan[c].sum(0)  # [N]
        return {
            "picture": name,
            "pixels": pixels,
            "class": method.classes[c],
            "step": step,
            "share": share.float().cpu().numpy(),
            "cosines": fit.tolist(),
            "alike": _alike(prompts[:, c]),
            "first": method.classes[int(logits.argmax())],
            "probability": float(logits.softmax(0)[c]),
        }

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        pixels, share = answer["pixels"], answer["share"]
        self.moment.description = f"step {answer['step']}"
        self.shown.value = jpeg(pixels, SIDE)
        self.winner.value = jpeg(_winners(answer), SIDE)
        if len(self.maps.children) != len(share):
            self.maps.children = [
                widgets.VBox([widgets.HTML(), image_view(f"the share of prompt {n + 1}")]) for n in range(len(share))
            ]
        for n, box in enumerate(self.maps.children):
            mark = f"<span style='color:{word_colour(n)}'>&#9632;</span>"
            label, view = box.children
            label.value = f"{mark} prompt {n + 1} <small>cosine {answer['cosines'][n]:.2f}</small>"
            view.value = jpeg(heat(pixels, share[n], span=(0, 1)), min(SMALL, 2 * SIDE // len(share)))
        low, high = 100 * share.min(), 100 * share.max()
        self.note.value = (
            f"<small>Bright: this prompt gets all of the place; dark: nothing of it. The shares go from {low:.0f} to "
            f"{high:.0f} %; an even plan has {100 / len(share):.0f} % everywhere.<br>"
            f"Mean cosine between the prompts of {html.escape(answer['class'])}: {answer['alike']:.2f}. Probability of "
            f"{html.escape(answer['class'])}: {100 * answer['probability']:.0f} %; first is "
            f"<b>{html.escape(answer['first'])}</b>.</small>"
        )

    # --- the other two lives ------------------------------------------------------------------------------------------

    def static(self) -> Figure:
        answer, n = self.answer, len(self.answer["share"])
        fig = figure(1.75 * (2 + n), 2.3)
        axes = fig.subplots(1, 2 + n)
        picture(axes[0], answer["pixels"], answer["picture"])
        picture(axes[1], _winners(answer), "largest share")
        for k, axis in enumerate(axes[2:]):
            picture(axis, heat(answer["pixels"], answer["share"][k], span=(0, 1)), f"prompt {k + 1}")
        handles = [Patch(color=word_colour(k), label=f"prompt {k + 1}") for k in range(n)]
        fig.legend(handles=handles, loc="outside lower left", ncols=n, frameon=False, fontsize=8)
        return fig.described(
            f"{answer['picture']}: the share of every place that PLOT's plan gives to each of {n} prompts of "
            f"{answer['class']}, after step {answer['step']}"
        )

    def facts(self) -> dict[str, Any]:
        """How many prompts and places there are, and how even the plan is.

        `least` and `most` are the smallest and the largest share of a place, in percent to the nearest ten.
        """
        share = self.answer["share"]
        return {
            "prompts": len(share),
            "places": share[0].size,
            "least": 10 * round(10 * float(share.min())),
            "most": 10 * round(10 * float(share.max())),
        }


def _alike(prompts: torch.Tensor) -> float:
    """Mean cosine between different unit vectors [N, e]; 1 for a single one."""
    n = len(prompts)
    return float(((prompts @ prompts.T).sum() - n) / (n * (n - 1))) if n > 1 else 1.0


def _winners(answer: dict[str, Any]) -> np.ndarray:
    """The image, tinted at every place with the colour of the prompt that gets most of it."""
    height, width = answer["pixels"].shape[:2]
    most = answer["share"].argmax(0)  # [h, w]
    rows = np.arange(height) * most.shape[0] // height
    columns = np.arange(width) * most.shape[1] // width
    return labelled(answer["pixels"], most[rows][:, columns])
