"""Prompt samples: the distribution of prompts that VPT (variational) draws for an image, and what each of them says."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from vlmlab.views.live import word_colour
from vlmlab.views.pictures import picture
from vlmlab.views.style import INK, figure, tidy
from vlmlab.widgets.panel import LABEL, WIDE, Panel, PictureChooser, Waiting, image_view, sample_pictures

MOST = 40  # samples


class PromptSamples(Panel):
    """Fits VPT, draws prompts for an image, and shows where they put the classes and what each of them predicts.

    A sample is one shift of the context; with it every class has one text feature. The plane is the one in which these
    features differ most. Bars are the mean of the samples' probabilities, dots the samples' own.
    """

    title = "Prompt samples"

    def __init__(
        self,
        dataset: str = "textures",
        backbone: str = "micro-vit",
        shots: int = 4,
        seed: int = 1,
        pictures: list[tuple[str, np.ndarray]] | None = None,
        **settings: Any,
    ) -> None:
        """`pictures` are (name, pixels), test images of the dataset if none are given; `settings` are VPT's own."""
        self.names = (dataset, backbone, shots, seed, settings)
        self.chooser = PictureChooser(pictures or sample_pictures(dataset, 12), self.look, self.guarded)
        self.count = widgets.IntSlider(10, 1, MOST, 1, description="samples", style=LABEL, layout=WIDE)
        self.width = widgets.FloatSlider(
            1.0, min=0.0, max=2.0, step=0.1, description="width", readout_format=".1f", style=LABEL, layout=WIDE
        )
        self.width.tooltip = "the deviation of the distribution is multiplied by this; 0 is the mean prompt alone"
        for name in ("count", "width"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.chart = image_view("the image, the sampled class features in a plane, and the probabilities")
        self.note = widgets.HTML()
        self.controls = [*self.chooser.widgets, self.count, self.width]
        self.views = [self.chart, self.note]
        self.answer: dict[str, Any] = Waiting()
        self.ready = False
        super().__init__()
        for control in (self.count, self.width):
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.ask(self._learn, self._learned)

    def _learn(self, cancelled) -> bool:
        from vlmlab.studies.experiment import Experiment
        from vlmlab.studies.run import adapt

        dataset, backbone, shots, seed, settings = self.names
        experiment = Experiment("variational_prompt_tuning", dataset, backbone, shots, seed, config=settings)
        self.method = adapt(experiment, should_stop=cancelled).method
        noise, frozen = torch.Generator().manual_seed(seed), self.method.backbone
        self.noise = torch.randn(MOST, frozen.text.width, generator=noise).to(frozen.device)
        return True

    def _learned(self, ready: bool) -> None:
        self.ready = ready
        self.look()

    def look(self) -> None:
        """Ask for the view of what the controls say."""
        if self.ready:
            state = (self.chooser.name, self.chooser.pixels, self.count.value, self.width.value)
            self.ask(lambda cancelled: self._see(*state), self._show)

    @torch.no_grad()
    def _see(self, name: str, pixels: np.ndarray, count: int, width: float) -> dict[str, Any]:
        method, backbone = self.method, self.method.backbone
        f = F.normalize(backbone.encode_image(backbone.preprocess(pixels).to(backbone.device)), dim=-1)
        mu, log_variance = method.posterior(f)
        contexts = method.contexts(mu, log_variance, width * self.noise[:count])[0]  # [L, M, d]
        w = F.normalize(method.prompts.features(backbone.text, contexts), dim=-1)  # [L, C, e]
        p = (backbone.logit_scale * w @ f[0]).softmax(-1)  # [L, C]
        flat = w.flatten(0, 1).float()
        _, _, axes = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
        plane = ((w.float() - flat.mean(0)) @ axes[:2].T).cpu().numpy()  # [L, C, 2]
        mean = p.mean(0)
        return {
            "picture": name,
            "pixels": pixels,
            "classes": list(method.classes),
            "plane": plane,
            "samples": p.float().cpu().numpy(),
            "mean": mean.float().cpu().numpy(),
            "first": method.classes[int(mean.argmax())],
            "agree": float((p.argmax(-1) == mean.argmax()).float().mean()),
            "deviation": width * float((log_variance / 2).exp().mean()),
            "words": float(method.context.std()),
        }

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.paint(self.chart, self.static)
        self.note.value = f"<small>{self._told()}</small>"

    def _told(self) -> str:
        a = self.answer
        n = len(a["samples"])
        return (
            f"Predicted: {a['first']}, by {100 * a['agree']:.0f} % of {n} sample{'s' if n > 1 else ''} alone. Mean deviation of a "
            f"shift: {a['deviation']:.2f}; the learned context vectors have {a['words']:.2f}."
        )

    # --- the other two lives ------------------------------------------------------------------------------------------

    def static(self) -> Figure:
        a = self.answer
        classes, plane, n = a["classes"], a["plane"], len(a["samples"])
        fig = figure(9.4, max(3.0, 1.1 + 0.24 * len(classes)))
        left, middle, right = fig.subplots(1, 3, width_ratios=[0.75, 1.25, 1.0])
        picture(left, a["pixels"], f"image: {a['picture']}")
        for c, name in enumerate(classes):
            middle.scatter(plane[:, c, 0], plane[:, c, 1], s=14, color=word_colour(c), alpha=0.75, linewidths=0)
            above = (plane[:, c, 0].mean(), plane[:, c, 1].max())
            middle.annotate(name, above, (0, 3), textcoords="offset points", fontsize=7.5, color=INK, ha="center")
        tidy(middle, f"{n} sampled prompts", "", "")
        middle.set_xticks([])
        middle.set_yticks([])
        middle.margins(0.16)
        middle.set_xlabel("class features, in their plane of largest spread", fontsize=8.5)
        order = np.argsort(-a["mean"])
        for y, c in enumerate(order):
            right.barh(y, 100 * a["mean"][c], color=word_colour(c), height=0.72, alpha=0.55)
            right.scatter(100 * a["samples"][:, c], [y] * n, s=7, color=INK, alpha=0.5, linewidths=0, zorder=3)
        right.set_yticks(range(len(classes)), [classes[c] for c in order], fontsize=8)
        right.set_ylim(len(classes) - 0.5, -0.5)
        right.set_xlim(-2, 102)
        tidy(right, "mean (bar), samples", "probability (%)", "").grid(axis="y", visible=False)
        return fig.described(f"an image of {a['picture']} under {n} sampled prompts. {self._told()}")

    def facts(self) -> dict[str, Any]:
        """How many samples were drawn, what their mean predicts, and how many tenths of them predict it alone."""
        a = self.answer
        return {
            "samples": len(a["samples"]),
            "classes": len(a["classes"]),
            "predicted": a["first"],
            "agree, tenths": round(10 * a["agree"]),
        }
