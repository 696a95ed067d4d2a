"""Pseudo-labels: how good zero-shot labels are at which confidence, and what a threshold or the top K of each class take."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from vlmlab.datasets.catalog import DATASETS
from vlmlab.errors import VlmlabError
from vlmlab.views.without_labels import pseudo_label_quality
from vlmlab.widgets.panel import LABEL, WIDE, Panel, Waiting, image_view


class PseudoLabels(Panel):
    """Choose a rule by which unlabelled images become labelled ones; the true labels judge it, and nothing else."""

    title = "Pseudo-labels"

    def __init__(
        self,
        dataset: str = "textures",
        backbone: str = "micro-vit",
        rule: str = "top",
        top: int = 8,
        threshold: float = 0.9,
    ) -> None:
        """`rule` is "top" (the K surest images of every class) or "threshold" (all that are surer than it).

        Raises `VlmlabError` (in the error line, or in strict mode) for a dataset without training images.
        """
        self.backbone_name = backbone
        names = [d.name for d in DATASETS if d.offline and "classification" in d.tasks and d.splits["train"]]
        self.dataset = widgets.Dropdown(options=names, value=dataset, description="dataset", style=LABEL, layout=WIDE)
        self.rule = widgets.ToggleButtons(
            options=[("top K of a class", "top"), ("threshold", "threshold")],
            value=rule,
            style={"button_width": "140px"},
        )
        self.top = widgets.IntSlider(top, 1, 48, description="K", style=LABEL, layout=WIDE, continuous_update=False)
        self.threshold = widgets.FloatSlider(
            threshold, min=0.0, max=1.0, step=0.02, description="threshold", style=LABEL, layout=WIDE,
            continuous_update=False,
        )  # fmt: skip
        for name in ("dataset", "rule", "top", "threshold"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.chart = image_view("how often pseudo-labels are right, and which are learned from")
        self.note = widgets.HTML()
        self.controls = [self.dataset, self.rule, self.top, self.threshold]
        self.views = [self.chart, self.note]
        self.answer: dict[str, Any] = Waiting()
        self._labelled: dict[str, dict[str, Any]] = {}
        super().__init__()
        for control in (self.dataset, self.rule, self.top, self.threshold):
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.look()

    def look(self) -> None:
        """Ask for the images that the rule takes."""
        chosen = (self.dataset.value, self.rule.value, self.top.value, self.threshold.value)
        self.top.disabled, self.threshold.disabled = self.rule.value != "top", self.rule.value != "threshold"
        self.ask(lambda cancelled: self._see(*chosen), self._show)

    def _see(self, name: str, rule: str, top: int, threshold: float) -> dict[str, Any]:
        from vlmlab.methods.text_prompt.upl import surest

        if name not in self._labelled:
            self._labelled[name] = self._label(name)
        found = self._labelled[name]
        confidence, labels = found["confidence"], found["labels"]
        if rule == "top":
            chosen = surest(confidence, labels, len(found["classes"]), top).numpy()
        else:
            chosen = np.flatnonzero(confidence.numpy() >= threshold)
        return {"dataset": name, "rule": rule, "chosen": chosen, **found}

    @torch.no_grad()
    def _label(self, name: str) -> dict[str, Any]:
        """Zero-shot labels of the training images, as UPL makes them, and whether they are right."""
        from vlmlab.methods.templates import spoken
        from vlmlab.studies.run import dataset_for, shared_bank

        bank = shared_bank(self.backbone_name)
        dataset = dataset_for(bank, name)
        if not len(dataset.train):
            raise VlmlabError(f"{name} has no training images to label; choose another dataset")
        f = F.normalize(bank.features(dataset.train), dim=-1).to(bank.backbone.device)
        sentence = dataset.templates[0]  # as UPL does; zero-shot prediction elsewhere averages all sentences
        words = bank.backbone.class_embeddings(spoken(dataset.classes), [sentence])
        confidence, labels = (bank.backbone.logit_scale * f @ words.T).softmax(-1).cpu().max(-1)
        right = (labels == dataset.train.labels).numpy()
        found = {"confidence": confidence, "labels": labels, "right": right, "sentence": sentence}
        return found | {"classes": list(dataset.classes)}

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.paint(self.chart, self.static)
        share, missing = self._share(), self._missing()
        self.note.value = (
            f"<small>Labelled with the one sentence <i>{html.escape(answer['sentence'])}</i>. "
            f"{len(answer['chosen'])} of {len(answer['labels'])} images are learned from; "
            f"<b>{100 * share:.0f} %</b> of their labels are right (of all: {100 * answer['right'].mean():.0f} %). "
            + (f"Classes without an image: {html.escape(', '.join(missing))}." if missing else "Every class has some.")
            + "</small>"
        )

    def _share(self) -> float:
        chosen = self.answer["chosen"]
        return float(self.answer["right"][chosen].mean()) if len(chosen) else 0.0

    def _missing(self) -> list[str]:
        a = self.answer
        counts = np.bincount(a["labels"].numpy()[a["chosen"]], minlength=len(a["classes"]))
        return [a["classes"][k] for k in np.flatnonzero(counts == 0)]

    # --- the other two lives ------------------------------------------------------------------------------------------

    def static(self) -> Figure:
        a = self.answer
        threshold = self.threshold.value if a["rule"] == "threshold" else None
        fig = pseudo_label_quality(
            a["confidence"].numpy(), a["right"], a["chosen"], a["labels"].numpy(), a["classes"], threshold
        )
        rule = (
            f"the {self.top.value} surest of every class"
            if threshold is None
            else f"confidence {threshold:.2f} or more"
        )
        return fig.described(
            f"pseudo-labels of {a['dataset']}: how often they are right at which confidence, and what is learned from "
            f"by the rule: {rule}"
        )

    def facts(self) -> dict[str, Any]:
        """How many images the rule takes, how many of their labels are right (percent, to the nearest five)."""
        return {
            "taken": len(self.answer["chosen"]),
            "right": 5 * round(20 * self._share()),
            "classes without an image": len(self._missing()),
        }
