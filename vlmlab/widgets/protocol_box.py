"""Protocol box: which classes and images a protocol uses, what a system may see, and what choosing on test would flatter."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import normalize

from vlmlab.datasets import PROTOCOLS, Task
from vlmlab.datasets.task import SEES
from vlmlab.errors import VlmlabError
from vlmlab.registry import load_system, protocol_settings, registry
from vlmlab.studies.experiment import Experiment
from vlmlab.views.style import INK, MUTED, SPLITS, figure, system_label, tidy
from vlmlab.watch import told
from vlmlab.widgets.menus import classifying, drawn_datasets, menu, system_menu
from vlmlab.widgets.panel import LABEL, WIDE, Panel, Waiting, image_view

SEEDS = range(1, 6)
CHOSEN: dict[str, dict[str, Sequence[Any]]] = {
    "clip_adapter": {"ratio": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)},
    "linear_probe": {"c": (0.01, 0.1, 1.0, 10.0, 100.0)},
    "taskres": {"alpha": (0.1, 0.3, 0.5, 1.0, 2.0)},
}
"""System -> the setting that is chosen, and the values that are tried; Tip-Adapter has a grid of its own."""
RATES = (0.1, 0.3, 1.0, 3.0)
"""Any other system that learns: multiples of its learning rate that are tried."""


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
        self.protocol = widgets.Dropdown(
            options=[(one.title, key) for key, one in PROTOCOLS.items()],
            value=protocol,
            description="protocol",
            style=LABEL,
            layout=WIDE,
        )
        self.dataset = menu("dataset", drawn_datasets(), dataset)
        self.system = system_menu(classifying(), system)
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
            control.observe(self.guarded(lambda change: self._changed()), "value")
        self.flatter.on_click(self.guarded(lambda button: self.cheat()))
        self.look()

    def _changed(self) -> None:
        """What was measured belongs to other choices; it goes."""
        self.flattered, self.chart.value = [], b""
        self.look()

    def look(self) -> None:
        """Ask for the table of what the controls say."""
        chosen = self.protocol.value, self.dataset.value, self.system.value
        self.ask(lambda cancelled: self._see(*chosen), self._show)

    def _see(self, protocol: str, name: str, system: str) -> dict[str, Any]:
        from vlmlab.studies.run import shared_dataset

        dataset, one, info = shared_dataset(name), PROTOCOLS[protocol], registry()[system]
        refusal = one.refusal(info, dataset)
        targets = one.targets(name)
        learned, judged = one.tasks(None, dataset, [shared_dataset(t) for t in targets], self.number, self.seed)
        return {
            "protocol": one.title,
            "refusal": refusal,
            "learned": {
                "classes": len(learned.classes),
                "labelled": len(learned.support),
                "validation": len(learned.val),
            },
            "judged": {key: (len(t.classes), len(t.test)) for key, t in judged.items()},
            "starts": protocol_settings(system, protocol),
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
            f"<p class='vlmlab-told'>{html.escape(answer['refusal'])}</p>"
            if answer["refusal"]
            else f"<p>A {answer['setup']} system may see: {sees}. Test images are hidden until the end.</p>"
        )
        starts = ", ".join(f"{name}={value}" for name, value in answer["starts"].items())
        own = f"<tr><td>set by the protocol</td><td>{html.escape(starts)}</td></tr>" if starts else ""
        names = ", ".join(map(html.escape, answer["classes"][:12])) + (" ..." if len(answer["classes"]) > 12 else "")
        self.table.value = (
            f"<table ><tr><td>learned on</td><td>{learned['classes']} classes, {learned['labelled']} "
            f"labelled and {learned['validation']} validation images</td></tr>{judged}{own}"
            f"<tr><td>classes</td><td>{names}</td></tr><tr><td>from</td><td>{html.escape(answer['paper'])}</td></tr></table>{verdict}"
        )

    # --- what choosing on the test set would flatter ------------------------------------------------------------------

    def cheat(self) -> None:
        """Choose the system's settings on validation images, as one must, and on the test images, as one must not."""
        chosen = self.protocol.value, self.dataset.value, self.system.value
        self.ask(lambda cancelled: self._flatter(*chosen), self._show_flattery)

    def _flatter(self, protocol: str, name: str, key: str) -> list[tuple[float, float]]:
        """Per seed the test accuracy (%) with the settings that validation images, and that test images chose."""
        from vlmlab.studies.run import shared_bank

        bank = shared_bank(self.backbone_name)
        tried, pairs = CHOSEN.get(key, {}), []
        system = load_system(key)
        config = system.configure(bank.backbone)
        if not tried and hasattr(config, "lr"):
            tried = {"lr": [times * config.lr for times in RATES]}
        if not tried and key != "tip_adapter":
            raise VlmlabError(
                f"{system_label(key)} has no setting to choose; choose a system that learns, or Tip-Adapter"
            )
        for seed in SEEDS:
            told("choosing, seed", seed, len(SEEDS))
            own, split = protocol_settings(key, protocol), PROTOCOLS[protocol].learns_on
            experiment = Experiment(key, name, self.backbone_name, self.number, seed, split, config=own)
            on_val, on_test = _grid(experiment) if key == "tip_adapter" else _each(experiment, tried)
            pairs.append((float(on_test[on_val.argmax()]), float(on_test.max())))
        return pairs

    def _show_flattery(self, pairs: list[tuple[float, float]]) -> None:
        self.flattered = pairs
        self.paint(self.chart, self.static)

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
            tidy(axes, f"{self.answer['protocol']}: {self.dataset.value}", "images", "")
            return fig.described(f"images of the protocol {self.answer['protocol']} on {self.dataset.value}: {bars}")
        for n, (honest, flattered) in enumerate(self.flattered):
            axes.plot([honest, flattered], [n, n], color=MUTED, zorder=1)
            axes.scatter(honest, n, color=SPLITS["val"], zorder=2, label="chosen on validation" if not n else None)
            axes.scatter(flattered, n, color=SPLITS["test"], zorder=2, label="chosen on test" if not n else None)
        axes.set_yticks(range(len(self.flattered)), [f"seed {s + 1}" for s in range(len(self.flattered))])
        tidy(
            axes,
            f"{system_label(self.system.value)} on {self.dataset.value}: what choosing on test flatters",
            "test accuracy (%)",
            "",
        )
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)
        return fig.described(
            f"test accuracy of {system_label(self.system.value)} when its settings are chosen on validation and on test images"
        )

    def facts(self) -> dict[str, Any]:
        """Counts of the protocol, and by how many points choosing on test flatters (mean over seeds, one decimal)."""
        out = {"protocol": self.answer["protocol"], **self.answer["learned"], "allowed": not self.answer["refusal"]}
        if self.flattered:
            out["flattery"] = round(float(np.mean([b - a for a, b in self.flattered])), 1)
        return out


def _grid(experiment: Experiment) -> tuple[Tensor, Tensor]:
    """Accuracy (%) of every alpha and beta of Tip-Adapter, on validation and on test images."""
    from vlmlab.studies.run import construct

    settings = {"search": False, "passes": 0, "beta_steps": 30}
    ready = construct(dataclasses.replace(experiment, config=settings))
    method, task = ready.prepare(), _with_validation(ready.task)
    with torch.no_grad():
        features = (normalize(ready.bank.features(p).to(method.backbone.device), dim=-1) for p in (task.val, task.test))
        on_val, on_test = (
            100 * method.grid(f, p.labels.to(f.device))[2].flatten().cpu()
            for f, p in zip(features, (task.val, task.test), strict=True)
        )
    return on_val, on_test


def _each(experiment: Experiment, tried: dict[str, Sequence[Any]]) -> tuple[Tensor, Tensor]:
    """Accuracy (%) with every value of one setting, on validation and on test images; the system is fitted for each."""
    from vlmlab.learning.evaluate import evaluate
    from vlmlab.studies.run import construct

    rows = []
    ((setting, values),) = tried.items()
    for value in values:
        ready = construct(dataclasses.replace(experiment, config={**dict(experiment.config), setting: value}))
        task = _with_validation(ready.task)
        method = ready.learn().method
        rows.append([evaluate(method, part, ready.bank)["accuracy"] for part in (task.val, task.test)])
    on_val, on_test = torch.tensor(rows).T
    return on_val, on_test


def _with_validation(task: Task) -> Task:
    """The task; `VlmlabError` if it has no images to choose settings on."""
    if not len(task.val):
        raise VlmlabError(f"{task.dataset.name} has no validation images to choose on; choose another dataset")
    return task
