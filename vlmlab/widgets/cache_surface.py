"""Cache surface: Tip-Adapter's accuracy for every alpha and beta, where validation and test have their best, and yours."""

from __future__ import annotations

import copy
from typing import Any

import ipywidgets as widgets
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from vlmlab.views.style import INK, MUTED, figure, tidy
from vlmlab.widgets.panel import Panel, Waiting, image_view
from vlmlab.widgets.support import SLOW, cache_over, support_sliders

STEPS = (24, 30)  # values of alpha and of beta
MARKS = (("best on validation", "o"), ("best on test", "D"), ("yours", "*"))


class CacheSurface(Panel):
    """Move shots, seed and the ends of the search; pick a pair and see what it would have been worth."""

    title = "Cache surface"

    def __init__(
        self,
        dataset: str = "digits",
        backbone: str = "micro-vit",
        shots: int = 4,
        seed: int = 1,
        alpha_max: float = 30.0,
        beta_max: float = 15.0,
    ) -> None:
        self.names = (dataset, backbone)
        self.shots, self.seed = support_sliders(shots, seed)
        self.alpha_max = widgets.FloatSlider(alpha_max, min=1, max=60, step=1, description="alpha up to", **SLOW)
        self.beta_max = widgets.FloatSlider(beta_max, min=1, max=40, step=1, description="beta up to", **SLOW)
        self.alpha = widgets.IntSlider(2, 0, STEPS[0] - 1, description="your alpha", **SLOW)
        self.beta = widgets.IntSlider(10, 0, STEPS[1] - 1, description="your beta", **SLOW)
        for name in ("alpha_max", "beta_max", "alpha", "beta"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.chart = image_view("accuracy on validation and on test images for every alpha and beta")
        self.note = widgets.HTML()
        self.controls = [self.shots, self.seed, self.alpha_max, self.beta_max, self.alpha, self.beta]
        self.views = [self.chart, self.note]
        self.answer: dict[str, Any] = Waiting()
        super().__init__()
        for control in (self.shots, self.seed, self.alpha_max, self.beta_max):
            control.observe(self.guarded(lambda change: self.look()), "value")
        for control in (self.alpha, self.beta):  # nothing is computed again
            control.observe(self.guarded(lambda change: self._redraw()), "value")
        self.look()

    def look(self) -> None:
        """Ask for the surfaces that the controls say."""
        state = (self.shots.value, self.seed.value, self.alpha_max.value, self.beta_max.value)
        self.ask(lambda cancelled: self._see(*state), self._show)

    def _see(self, shots: int, seed: int, alpha_max: float, beta_max: float) -> dict[str, Any]:
        cache, task = cache_over(*self.names, shots, seed)
        method = copy.copy(cache)  # other panels search between other ends
        sets = [(F.normalize(method.encode(s), dim=-1), s.labels.to(method.keys.device)) for s in (task.val, task.test)]
        ends = {"alpha_max": alpha_max, "beta_max": beta_max, "alpha_steps": STEPS[0], "beta_steps": STEPS[1]}
        method.config = method.configure(method.backbone, search=False, passes=0, **ends)
        (alphas, betas, on_val), (_, _, on_test) = (method.grid(f, labels) for f, labels in sets)
        zero_shot = [100 * float((method.zero_shot(f).argmax(-1) == labels).float().mean()) for f, labels in sets]
        return {
            "alphas": alphas,
            "betas": betas,
            "surfaces": [100 * torch.as_tensor(s).cpu().numpy() for s in (on_val, on_test)],
            "zero_shot": zero_shot,
            "sizes": [len(labels) for _, labels in sets],
        }

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self._redraw()

    def _redraw(self) -> None:
        if self.answer:
            self.paint(self.chart, self.static)
            self.note.value = f"<small>{self._told()}</small>"
            self._repaint_done()

    def _places(self) -> list[tuple[int, int]]:
        """(row, column) of the best pair on validation, of the best on test, and of the reader's."""
        best = [divmod(int(s.argmax()), s.shape[1]) for s in self.answer["surfaces"]]
        return [*best, (self.beta.value, self.alpha.value)]

    def _told(self) -> str:
        a = self.answer
        honest, flattering, yours = (a["surfaces"][1][place] for place in self._places())
        return (
            f"On {a['sizes'][1]} test images: zero-shot {a['zero_shot'][1]:.1f} %; chosen on {a['sizes'][0]} validation "
            f"images {honest:.1f} %; chosen on test {flattering:.1f} %, which is no measurement; your pair {yours:.1f} %"
        )

    def static(self) -> Figure:
        a = self.answer
        fig = figure(7.6, 3.7)
        panels = fig.subplots(1, 2, sharey=True)
        low, high = min(s.min() for s in a["surfaces"]), max(s.max() for s in a["surfaces"])
        extent = (a["alphas"][0], a["alphas"][-1], a["betas"][0], a["betas"][-1])
        for axes, values, name, size in zip(panels, a["surfaces"], ("validation", "test"), a["sizes"], strict=True):
            image = axes.imshow(
                values, origin="lower", aspect="auto", extent=extent, cmap="cividis", vmin=low, vmax=high
            )
            for (label, marker), (row, column) in zip(MARKS, self._places(), strict=True):
                axes.plot(
                    a["alphas"][column],
                    a["betas"][row],
                    marker,
                    color="white",
                    markeredgecolor=INK,
                    markersize=13 if marker == "*" else 9,
                    linestyle="",
                    label=label,
                    clip_on=False,
                )
            tidy(axes, f"{size} {name} images", "alpha, weight of the vote", "beta" if axes is panels[0] else "")
            axes.grid(visible=False)
        handles = panels[0].get_legend_handles_labels()
        fig.legend(*handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
        fig.colorbar(image, ax=panels).set_label("accuracy (%)", color=MUTED)
        return fig.described(f"accuracy of Tip-Adapter on {self.names[0]} over alpha and beta. {self._told()}")

    def facts(self) -> dict[str, Any]:
        """Test accuracy in whole percent: zero-shot, chosen on validation, chosen on test."""
        honest, flattering, _ = (self.answer["surfaces"][1][place] for place in self._places())
        return {
            "zero_shot": round(self.answer["zero_shot"][1]),
            "chosen_on_validation": round(float(honest)),
            "chosen_on_test": round(float(flattering)),
        }
