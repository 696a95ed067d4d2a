"""Protocol box: which classes and images a protocol uses, what a system may see, and what choosing on test would flatter."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure

from vlmlab.datasets import PROTOCOLS, Task
from vlmlab.datasets.catalog import DATASETS
from vlmlab.datasets.task import SEES
from vlmlab.errors import VlmlabError
from vlmlab.registry import load_system, registry
from vlmlab.views.style import INK, MUTED, SPLITS, figure, tidy
from vlmlab.widgets.panel import LABEL, WIDE, Panel, Waiting, image_view, png


class ProtocolBox(Panel):
    """Choose a protocol, a dataset and a system: what is learned on, what is judged, what is hidden."""

    title = "Protocol box"

    def __init__(
        self,
        dataset: str = "digits",
        system: str = "tip_adapter",
        protocol: str = "base-to-new",
        backbone: str = "micro-vit",
        shots: int = 4,
        seed: int = 1,
    ) -> None:
        self.backbone_name, self.number, self.seed = backbone, shots, seed
        names = [d.name for d in DATASETS if d.offline and "classification" in d.tasks and d.splits["train"]]
        keys = [key for key, info in registry().items() if "classification" in info.tasks]
        self.protocol = widgets.Dropdown(
            options=list(PROTOCOLS), value=protocol, description="protocol", style=LABEL, layout=WIDE
        )
        self.dataset = widgets.Dropdown(options=names, value=dataset, description="dataset", style=LABEL, layout=WIDE)
        self.system = widgets.Dropdown(options=keys, value=system, description="system", style=LABEL, layout=WIDE)
        self.flatter = widgets.Button(
            description="choose on test images", icon="warning", layout=widgets.Layout(width="auto")
        )
        for name in ("protocol", "dataset", "system", "flatter"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.table = widgets.HTML()
        self.chart = image_view("accuracy when settings are chosen on validation and on test images")
        self.controls = [self.protocol, self.dataset, self.system, self.flatter]
        self.views = [self.table, self.chart]
        self.answer: dict[str, Any] = Waiting()
        self.flattered: list[tuple[float, float]] = []
        super().__init__()
        for control in (self.protocol, self.dataset, self.system):
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.flatter.on_click(self.guarded(lambda button: self.cheat()))
        self.look()

    def look(self) -> None:
        """Ask for the table of what the controls say."""
        chosen = self.protocol.value, self.dataset.value, self.system.value
        self.ask(lambda cancelled: self._see(*chosen), self._show)

    def _see(self, protocol: str, name: str, system: str) -> dict[str, Any]:
        from vlmlab.studies.run import shared_dataset

        dataset, one, info = shared_dataset(name, None, False, False), PROTOCOLS[protocol], registry()[system]
        refusal = one.refusal(info, dataset)
        targets = _targets(protocol, name)
        learned, judged = one.tasks(
            None, dataset, [shared_dataset(t, None, False, False) for t in targets], self.number, self.seed
        )
        return {
            "protocol": one.title,
            "refusal": refusal,
            "learned": {
                "classes": len(learned.classes),
                "labelled": len(learned.support),
                "validation": len(learned.val),
            },
            "judged": {key: (len(t.classes), len(t.test)) for key, t in judged.items()},
            "sees": sorted(SEES[info.setup]),
            "setup": info.setup,
            "classes": learned.classes,
            "paper": one.paper,
        }

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        judged = "".join(
            f"<tr><td>judged on: {html.escape(k)}</td><td>{c} classes, {n} test images</td></tr>"
            for k, (c, n) in answer["judged"].items()
        )
        words = {
            "support": "the labelled images",
            "val": "validation images",
            "unlabelled": "training images without labels",
            "captions": "captions, and no image",
        }
        sees = ", ".join(words[s] for s in answer["sees"]) or "nothing before the test image"
        learned = answer["learned"]
        verdict = (
            f"<p style='color:#8F3D00'>{html.escape(answer['refusal'])}</p>"
            if answer["refusal"]
            else f"<p>A {answer['setup']} system may see: {sees}. Test images are hidden until the end.</p>"
        )
        names = ", ".join(map(html.escape, answer["classes"][:12])) + (" ..." if len(answer["classes"]) > 12 else "")
        self.table.value = (
            f"<table style='text-align:left'><tr><td>learned on</td><td>{learned['classes']} classes, {learned['labelled']} "
            f"labelled and {learned['validation']} validation images</td></tr>{judged}"
            f"<tr><td>classes</td><td>{names}</td></tr><tr><td>from</td><td>{html.escape(answer['paper'])}</td></tr></table>{verdict}"
        )

    # --- what choosing on the test set would flatter ------------------------------------------------------------------

    def cheat(self) -> None:
        """Choose Tip-Adapter's alpha and beta on validation images, as one must, and on the test images, as one must not."""
        name = self.dataset.value
        self.ask(lambda cancelled: self._flatter(name, cancelled), self._show_flattery)

    @torch.no_grad()
    def _flatter(self, name: str, cancelled) -> list[tuple[float, float]]:
        from torch.nn.functional import normalize

        from vlmlab.studies.run import shared_bank, shared_dataset

        bank, dataset = shared_bank(self.backbone_name), shared_dataset(name, None, False, False)
        system, pairs = load_system("tip_adapter"), []
        for seed in range(1, 6):
            if cancelled():
                break
            task = Task(bank.backbone, dataset, self.number, seed)
            if not len(task.val):
                raise VlmlabError(f"{name} has no validation images to choose on; choose another dataset")
            method = system(bank.backbone, system.configure(bank.backbone, search=False, passes=0, beta_steps=30))
            method.prepare(task)
            # Accuracy of every pair of settings, [betas, alphas], on either set.
            on_val, on_test = (
                100 * method.grid(normalize(bank.features(p), dim=-1), p.labels)[2].flatten()
                for p in (task.val, task.test)
            )
            pairs.append((float(on_test[on_val.argmax()]), float(on_test.max())))
        return pairs

    def _show_flattery(self, pairs: list[tuple[float, float]]) -> None:
        self.flattered = pairs
        self.chart.value = png(self.static())

    def static(self) -> Figure:
        fig = figure(5.2, 2.8)
        axes = fig.subplots()
        if not self.flattered:
            learned = self.answer["learned"]
            bars = {"labelled": learned["labelled"], "validation": learned["validation"]}
            bars |= {f"test: {k}": n for k, (_, n) in self.answer["judged"].items()}
            colours = [SPLITS["train"], SPLITS["val"], *[SPLITS["test"]] * len(self.answer["judged"])]
            axes.bar_label(axes.barh(list(bars), list(bars.values()), color=colours), padding=3, fontsize=8, color=INK)
            axes.margins(x=0.12)
            axes.invert_yaxis()
            tidy(axes, f"{self.answer['protocol']}: {self.dataset.value}", "pictures", "")
            return fig.described(f"images of the protocol {self.answer['protocol']} on {self.dataset.value}: {bars}")
        for n, (honest, flattered) in enumerate(self.flattered):
            axes.plot([honest, flattered], [n, n], color=MUTED, zorder=1)
            axes.scatter(honest, n, color=SPLITS["val"], zorder=2, label="chosen on validation" if not n else None)
            axes.scatter(flattered, n, color=SPLITS["test"], zorder=2, label="chosen on test" if not n else None)
        axes.set_yticks(range(len(self.flattered)), [f"seed {s + 1}" for s in range(len(self.flattered))])
        tidy(axes, f"Tip-Adapter on {self.dataset.value}: what choosing on test flatters", "test accuracy (%)", "")
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)
        return fig.described(
            "test accuracy of Tip-Adapter when its two settings are chosen on validation and on test images"
        )

    def facts(self) -> dict[str, Any]:
        """Counts of the protocol, and by how many points choosing on test flatters (mean over seeds, one decimal)."""
        out = {"protocol": self.answer["protocol"], **self.answer["learned"], "allowed": not self.answer["refusal"]}
        if self.flattered:
            out["flattery"] = round(float(np.mean([b - a for a, b in self.flattered])), 1)
        return out


def _targets(protocol: str, name: str) -> list[str]:
    if protocol == "domain-shift":
        return [d.name for d in DATASETS if d.name.startswith(f"{name}-") and d.name != "objects-unnamed"] or [name]
    return ["digits" if name != "digits" else "objects", "textures"] if protocol == "cross-dataset" else []
