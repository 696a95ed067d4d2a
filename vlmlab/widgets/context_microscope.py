"""Context microscope: what learned context vectors are near, beside random vectors, and how they moved while they learned."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure

from vlmlab.errors import VlmlabError
from vlmlab.views.style import LINES, SYSTEMS, figure, system_label, tidy
from vlmlab.widgets.panel import LABEL, WIDE, Panel, image_view, nothing_yet

SNAPSHOTS = 12

WHOLE = "style='white-space: nowrap'"  # of a cell that a narrow page must not break


class ContextMicroscope(Panel):
    """Fits a system with a shared context [M, d] and shows the vectors at any moment of the learning."""

    title = "Context microscope"

    def __init__(
        self,
        system: str = "coop",
        dataset: str = "digits",
        backbone: str = "micro-vit",
        shots: int = 4,
        seed: int = 1,
        n_ctx: int = 4,
    ) -> None:
        """Raises `VlmlabError` (in the error line, or in strict mode) for a system that learns no shared context."""
        self.names = (system, dataset, backbone, shots, seed, n_ctx)
        self.moment = widgets.IntSlider(0, 0, 1, description="step", style=LABEL, layout=WIDE, readout=False)
        self.moment.add_class("vlmlab-moment")
        self.again = widgets.Button(description="learn again", icon="refresh")
        self.again.add_class("vlmlab-fit")
        self.table = widgets.HTML()
        self.chart = image_view("how far each context vector has moved over the steps")
        self.controls = [self.moment, self.again]
        self.views = [self.table, self.chart]
        self.snapshots: list[tuple[int, torch.Tensor]] = []  # (step, [M, d])
        super().__init__()
        self.moment.observe(self.guarded(lambda change: self._at_moment()), "value")
        self.again.on_click(self.guarded(lambda button: self.learn()))
        self.learn()

    def learn(self) -> None:
        """Fit again and keep the context at several moments."""
        self.ask(self._learn, self._show)

    def _learn(self, cancelled) -> list[tuple[int, torch.Tensor]]:
        from vlmlab.studies.experiment import Experiment
        from vlmlab.studies.run import construct

        key, dataset, backbone, shots, seed, n_ctx = self.names
        ready = construct(Experiment(key, dataset, backbone, shots, seed, config={"n_ctx": n_ctx}))
        kept: list[tuple[int, torch.Tensor]] = []
        method = ready.prepare()
        context = getattr(method, "context", None)
        if context is None or context.ndim != 2:
            raise VlmlabError(f"{key} learns no context that all classes share; choose coop")
        kept.append((0, context.detach().clone()))

        def on_step(done: int, steps: int, loss: float) -> None:
            if done % max(1, steps // SNAPSHOTS) == 0 or done == steps:
                kept.append((done, method.context.detach().clone()))

        ready.learn(on_step, cancelled)
        self.backbone = method.backbone
        return kept

    def _show(self, kept: list[tuple[int, torch.Tensor]]) -> None:
        self.snapshots = kept
        self.moment.max = len(kept) - 1
        self.moment.value = len(kept) - 1
        self.paint(self.chart, self.static)
        self._at_moment()

    def _at_moment(self) -> None:
        from vlmlab.learning.words import nearest_words

        if not self.snapshots:
            return
        step, context = self.snapshots[min(self.moment.value, len(self.snapshots) - 1)]
        self.moment.description = f"step {step}"  # the slider itself counts the moments that were kept
        start = self.snapshots[0][1]
        rows = []
        for m, near in enumerate(nearest_words(self.backbone.text, context)):
            own, other = (
                ", ".join(f"{html.escape(w)} {d:.2f}" for w, d in zip(words, cosines, strict=True))
                for words, cosines in ((near.words, near.cosines), (near.random_words, near.random_cosines))
            )
            moved = float((context[m] - start[m]).norm())
            rows.append(
                f"<tr><td {WHOLE}>v{m + 1}</td><td>{own}</td><td>{other}</td>"
                f"<td {WHOLE}>{near.norm:.2f}</td><td {WHOLE}>{moved:.2f}</td></tr>"
            )
        head = (
            "<tr><th></th><th>nearest words, cosine</th><th>of a random vector</th>"
            f"<th {WHOLE}>norm</th><th {WHOLE}>moved</th></tr>"
        )
        self.table.value = (
            f"<table >{head}{''.join(rows)}</table>"
            f"<small>After step {step}. Where both cosines are alike, the words say nothing about the vector.</small>"
        )
        self._repaint_done()

    def static(self) -> Figure:
        fig = figure(5.6, 2.8)
        axes = fig.subplots()
        start = self.snapshots[0][1] if self.snapshots else None
        for m in range(len(start) if start is not None else 0):
            moved = [float((context[m] - start[m]).norm()) for _, context in self.snapshots]
            colour, line = SYSTEMS[m % len(SYSTEMS)], LINES[m // len(SYSTEMS) % len(LINES)]
            axes.plot([s for s, _ in self.snapshots], moved, color=colour, linestyle=line, label=f"v{m + 1}")
        tidy(axes, f"{system_label(self.names[0])} on {self.names[1]}", "step", "distance from the start")
        if self.snapshots:
            axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return fig.described(f"distance of each of {self.names[5]} context vectors from its start over the steps")

    def facts(self) -> dict[str, Any]:
        """How many vectors there are, and whether their nearest words are nearer than those of random vectors, on average."""
        from vlmlab.learning.words import nearest_words

        if not self.snapshots:
            raise nothing_yet()
        near = nearest_words(self.backbone.text, self.snapshots[-1][1])
        gap = sum(n.cosines[0] - n.random_cosines[0] for n in near) / len(near)
        return {"vectors": len(near), "nearer than random by": round(gap, 1)}
