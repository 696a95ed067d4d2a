"""Method lab: pick a system, fit it while you watch, stop it, compare runs."""

from __future__ import annotations

import time
from typing import Any

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure

from vlmlab.backbones.catalog import BACKBONES
from vlmlab.datasets.catalog import DATASETS
from vlmlab.errors import VlmlabError
from vlmlab.registry import load_system, registry
from vlmlab.views.live import fit_progress, run_label
from vlmlab.views.style import system_label
from vlmlab.widgets.panel import LABEL, WIDE, Panel, image_view, png, static_only
from vlmlab.widgets.settings import Settings

DRAW_EVERY = 0.3  # seconds between two drawings of a fit
RUNS_SHOWN = 6


class MethodLab(Panel):
    """Fit any system to any dataset on any backbone, and see loss, accuracy and base/new classes."""

    title = "Method lab"

    def __init__(
        self,
        system: str = "coop",
        dataset: str = "digits",
        backbone: str = "micro-vit",
        shots: int = 4,
        seed: int = 1,
        split: str = "all",
        systems: tuple[str, ...] = (),
    ) -> None:
        """The first choice of everything; `systems` limits the list (all that classify, if empty)."""
        self.runs: list[dict] = []
        self.losses: list[float] = []
        self.steps, self.accuracies, self._drawn = 1, [], 0.0
        offered = systems or tuple(key for key, info in registry().items() if "classification" in info.tasks)
        names = [b.name for b in BACKBONES if b.offline]
        drawn = [d.name for d in DATASETS if d.offline and "classification" in d.tasks and d.splits["train"]]
        self.system = _choice("system", offered, system)
        self.dataset = _choice("dataset", drawn, dataset)
        self.backbone = _choice("backbone", names, backbone)
        self.shots = widgets.SelectionSlider(
            options=[1, 2, 4, 8, 16], value=shots, description="shots", style=LABEL, layout=WIDE
        )
        self.seed = widgets.IntSlider(seed, 0, 9, description="seed", style=LABEL, layout=WIDE)
        self.split = widgets.ToggleButtons(
            options=[("all classes", "all"), ("base to new", "base")], value=split, style={"button_width": "120px"}
        )
        self.fit = widgets.Button(description="fit", button_style="primary", icon="play")
        self.stop = widgets.Button(description="stop", icon="stop", disabled=True)
        self.clear = widgets.Button(description="clear runs", icon="trash")
        self.progress = widgets.IntProgress(0, 0, 1, description="", layout=WIDE)
        self.folded = widgets.Accordion(
            children=[widgets.VBox()], titles=("settings of the system",), selected_index=None, layout=WIDE
        )
        self.chart = image_view("loss over steps, and the accuracy of the finished runs")
        for name in ("system", "dataset", "backbone", "shots", "seed", "split", "fit", "stop", "clear"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        buttons = widgets.HBox([self.fit, self.stop, self.clear])
        self.controls = [
            self.system, self.dataset, self.backbone, self.shots, self.seed, self.split, self.folded, buttons, self.progress,
        ]  # fmt: skip
        self.views = [self.chart]
        super().__init__()
        self.system.observe(self.guarded(lambda change: self._offer_settings()), "value")
        self.backbone.observe(self.guarded(lambda change: self._offer_settings()), "value")
        self.fit.on_click(self.guarded(lambda button: self.start()))
        self.stop.on_click(self.guarded(lambda button: self.halt()))
        self.clear.on_click(self.guarded(lambda button: self._forget()))
        self._offer_settings()
        self._draw(force=True)

    # --- what the reader does -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Fit with what the controls say."""
        self.losses, self.accuracies, self.steps = [], [], 1
        self.progress.value, self.progress.max = 0, 1
        self._halted = False
        self.stop.disabled = False
        chosen = {
            name: getattr(self, name).value for name in ("system", "dataset", "backbone", "shots", "seed", "split")
        }
        changed = self.settings.values()

        def work(cancelled) -> dict:
            try:
                return self._fit(chosen, changed, cancelled)
            finally:  # also after an error there is nothing left to stop
                if not cancelled():
                    self.stop.disabled = True

        self.ask(work, self._finished)

    def halt(self) -> None:
        """Stop the fit; what was learned so far is measured."""
        self._halted = True

    def _forget(self) -> None:
        self.runs = []
        self._draw(force=True)

    def _offer_settings(self) -> None:
        system = load_system(self.system.value)
        embedded = next((b.offline for b in BACKBONES if b.name == self.backbone.value), False)
        values = dict(system.embedded) if embedded else {}
        self.settings = Settings(system.Config(**values))
        self.folded.children = [self.settings.box]

    # --- in the worker ------------------------------------------------------------------------------------------------

    def _fit(self, chosen: dict[str, Any], changed: dict[str, Any], cancelled) -> dict:
        from vlmlab.datasets import Task
        from vlmlab.datasets.multi_task import with_companions
        from vlmlab.learning.evaluate import evaluate
        from vlmlab.learning.fit import fit
        from vlmlab.methods.method import Batch
        from vlmlab.studies.run import LARGEST_DRAWN, shared_bank, shared_dataset

        bank = shared_bank(chosen["backbone"])
        size = min(bank.backbone.image_size, LARGEST_DRAWN)
        dataset = shared_dataset(chosen["dataset"], None, False, False, size)
        system = load_system(chosen["system"])
        method = system(bank.backbone, system.configure(bank.backbone, **changed))
        task = Task(bank.backbone, dataset, chosen["shots"], chosen["seed"], chosen["split"])
        task = with_companions(task, method.config, lambda name: shared_dataset(name, None, False, False, size))
        checked = len(task.val) and method.eats == "features"
        began = time.monotonic()

        @torch.no_grad()
        def on_step(done: int, steps: int, loss: float) -> None:
            self.losses.append(loss)
            self.steps = steps
            if time.monotonic() - self._drawn < DRAW_EVERY and done < steps:
                return
            if checked:
                logits = method.logits(Batch(features=bank.features(task.val)))
                right = (logits.argmax(1) == task.val.labels).float().mean()
                self.accuracies.append((done, 100 * float(right)))
            if not cancelled():
                self.progress.max, self.progress.value = steps, done
                self._draw()

        record = fit(method, task.seen_by(system.info.setup), on_step, lambda: cancelled() or self._halted, None, bank)
        run = {"label": run_label(chosen["system"], chosen["shots"], chosen["seed"]), "stopped": record.stopped}
        zero = load_system("zero_shot")(bank.backbone)
        parts = (
            {"accuracy": task} if chosen["split"] == "all" else {"base": task, "new": task.for_classes("new", shots=0)}
        )
        for name, part in parts.items():
            zero.prepare(part)
            run[f"zero_{name}"] = evaluate(zero, part.test, bank)["accuracy"]
            try:
                if name == "new":
                    method.set_classes(part.classes, part.templates)
                run[name] = evaluate(method, part.test, bank, chosen["seed"])["accuracy"]
            except VlmlabError:
                if name != "new":
                    raise  # a system whose parameters belong to its classes has no accuracy on new ones
        run["seconds"] = time.monotonic() - began
        run["parameters"] = method.trainable_parameters
        return run

    def _finished(self, run: dict) -> None:
        self.runs = [*self.runs, run][-RUNS_SHOWN:]
        self.progress.value = self.progress.max
        self._draw(force=True)

    def _draw(self, force: bool = False) -> None:
        self._drawn = time.monotonic()
        if static_only() and not force:
            return  # nobody watches; drawing would take longer than the fit
        self.chart.value = png(self.static())
        if not force:
            self._repaint_done()

    # --- the other two lives ------------------------------------------------------------------------------------------

    def static(self) -> Figure:
        title = f"{system_label(self.system.value)} on {self.dataset.value}"
        fig = fit_progress(self.losses, self.steps, self.accuracies, self.runs, title)
        last = f"; last run {self.runs[-1]['label']}" if self.runs else ""
        return fig.described(
            f"training loss of {title} and the accuracy of {len(self.runs)} run{'s' * (len(self.runs) != 1)}{last}"
        )

    def facts(self) -> dict[str, Any]:
        """Of the last run: accuracies in percent to the nearest whole number, and the number of learned parameters."""
        if not self.runs:
            return {"runs": 0}
        run = self.runs[-1]
        kept = ("accuracy", "base", "new", "zero_accuracy", "zero_base", "zero_new")
        return {"run": run["label"], "parameters": run["parameters"]} | {k: round(run[k]) for k in kept if k in run}


def _choice(name: str, options, value: str) -> widgets.Dropdown:
    options = list(options)
    if value not in options:
        from vlmlab.errors import unknown

        raise unknown(name, value, options)
    return widgets.Dropdown(options=options, value=value, description=name, style=LABEL, layout=WIDE)
