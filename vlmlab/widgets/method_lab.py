"""Method lab: pick a system, fit it while you watch, stop it, compare runs."""

from __future__ import annotations

import html
import time
from typing import Any

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure

from vlmlab.backbones.catalog import BACKBONES
from vlmlab.datasets.task import DENSE
from vlmlab.errors import VlmlabError
from vlmlab.learning.metrics import TITLES, main_metric
from vlmlab.registry import load_system, protocol_settings, registry
from vlmlab.studies import splits
from vlmlab.views.live import fit_progress, run_label
from vlmlab.views.style import SPLITS, system_label
from vlmlab.widgets.menus import classifying, drawn_datasets, menu, system_menu
from vlmlab.widgets.panel import LABEL, WIDE, Panel, image_view, one_line, static_only
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
        self.accuracies: list[tuple[int, float]] = []
        self.steps, self._drawn_at = 1, 0.0
        offered = systems or classifying()
        self.system = system_menu(offered, system)
        self.dataset = menu("dataset", drawn_datasets(systems), dataset)
        self.backbone = menu("backbone", [b.name for b in BACKBONES if b.offline], backbone)
        self.shots = widgets.SelectionSlider(
            options=[1, 2, 4, 8, 16], value=shots, description="shots", style=LABEL, layout=WIDE
        )
        self.seed = widgets.IntSlider(seed, 0, 9, description="seed", style=LABEL, layout=WIDE)
        self.split = widgets.ToggleButtons(
            options=[("all classes", "all"), ("base to new", "base")], value=split, style={"button_width": "120px"}
        )
        self.fit = widgets.Button(description="fit", button_style="primary", icon="play")
        self.stop = widgets.Button(description="Stop", icon="stop", disabled=True)
        self.clear = widgets.Button(description="clear", icon="trash")
        self.progress = widgets.IntProgress(0, 0, 1, description="", layout=WIDE)
        self.table = widgets.HTML()
        self.folded = widgets.Accordion(
            children=[widgets.VBox()], titles=("settings of the system",), selected_index=None, layout=WIDE
        )
        self.chart = image_view("training loss over the steps, and validation accuracy")
        for name in ("system", "dataset", "backbone", "shots", "seed", "split", "fit", "stop", "clear"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        for button in (self.fit, self.stop, self.clear):
            button.layout = widgets.Layout(width="32%", margin="0 2px 0 0")
        buttons = widgets.HBox([self.fit, self.stop, self.clear])
        self.controls = [
            self.system, self.dataset, self.backbone, self.shots, self.seed, self.split, buttons, self.progress, self.folded,
        ]  # fmt: skip
        self.views = [self.chart, self.table]
        self._learning = self._ends = False
        super().__init__()
        self.system.observe(self.guarded(lambda change: self._offer_settings()), "value")
        self.backbone.observe(self.guarded(lambda change: self._offer_settings()), "value")
        self.split.observe(self.guarded(lambda change: self._offer_settings()), "value")
        self.fit.on_click(self.guarded(lambda button: self.start()))
        self.clear.on_click(self.guarded(lambda button: self._forget()))
        self._offer_settings()
        self._draw(force=True)

    # --- what the reader does -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Fit with what the controls say."""
        self.losses, self.accuracies, self.steps = [], [], 1
        self.progress.value, self.progress.max = 0, 1
        self._learning = self._ends = False
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
        """Stop: while it learns, what was learned so far is measured; before and after that, the run ends without a result."""
        if self._learning:
            self._ends = True
        else:
            super().halt()

    def _forget(self) -> None:
        self.runs = []
        self._draw(force=True)

    def _offer_settings(self) -> None:
        system = load_system(self.system.value)
        embedded = next((b.offline for b in BACKBONES if b.name == self.backbone.value), False)
        values = dict(system.embedded) if embedded else {}
        values |= protocol_settings(self.system.value, splits.SPLITS[self.split.value].protocol)
        self.settings = Settings(system.Config(**values))
        self.folded.children = [self.settings.box]

    # --- in the worker ------------------------------------------------------------------------------------------------

    def _fit(self, chosen: dict[str, Any], changed: dict[str, Any], cancelled) -> dict:
        from vlmlab.learning.evaluate import evaluate
        from vlmlab.methods.method import Batch
        from vlmlab.studies.experiment import Experiment
        from vlmlab.studies.run import baseline_of, construct

        if registry()[chosen["system"]].setup in DENSE:
            chosen = chosen | {"shots": 0}
        ready = construct(Experiment(**chosen, config=changed))
        method, task, bank = ready.method, ready.task, ready.bank
        checked = len(task.val) and method.eats == "features"
        began = time.monotonic()

        @torch.no_grad()
        def on_step(done: int, steps: int, loss: float) -> None:
            self._learning = True
            self.losses.append(loss)
            self.steps = steps
            if time.monotonic() - self._drawn_at < DRAW_EVERY and done < steps:
                return
            if checked:
                logits = method.logits(Batch(features=bank.features(task.val)))
                right = (logits.argmax(1) == task.val.labels).float().mean()
                self.accuracies.append((done, 100 * float(right)))
            if not cancelled():
                self.progress.max, self.progress.value = steps, done
                self._draw()

        adapted = ready.learn(on_step, lambda: cancelled() or self._ends)
        record = adapted.record
        self._learning = self._ends = False
        run: dict[str, Any] = {
            "label": run_label(chosen["system"], chosen["shots"], chosen["seed"]),
            "where": f"{chosen['dataset']}, {chosen['backbone']}",
            "changed": ", ".join(f"{name}={value}" for name, value in changed.items()),
            "stopped": f"stopped after {len(record.losses)} of {record.steps} steps" if record.stopped else "",
            "missing": {},
        }
        zero, seed = baseline_of(adapted), chosen["seed"]
        parts = (
            {"accuracy": task} if chosen["split"] == "all" else {"base": task, "new": task.for_classes("new", shots=0)}
        )
        for name, part in parts.items():
            if name == "new":
                zero.prepare(part)
            try:
                if name == "new":
                    method.set_classes(part.classes, part.templates)
                measured = evaluate(method, part.test, bank, seed)
                metric = main_metric(measured)
                run |= {name: measured[metric], "metric": TITLES[metric]}
            except VlmlabError as error:
                if name != "new":
                    raise
                run["missing"][name] = one_line(error)  # its parameters belong to the classes that it learned
            without = evaluate(zero, part.test, bank, seed)
            if metric in without:
                run[f"zero_{name}"] = without[metric]
        run["seconds"] = time.monotonic() - began
        run["parameters"] = method.trainable_parameters
        return run

    def _finished(self, run: dict) -> None:
        self.runs = [*self.runs, run][-RUNS_SHOWN:]
        self.progress.value = self.progress.max
        self._draw(force=True)

    def _draw(self, force: bool = False) -> None:
        self._drawn_at = time.monotonic()
        if static_only() and not force:
            return  # nobody watches; drawing would take longer than the fit
        if self.losses:
            self.paint(self.chart, self._curve)
        self.chart.layout.display = "" if self.losses else "none"
        self.table.value = self._table()
        if not force:
            self._repaint_done()

    def _table(self) -> str:
        """The finished runs, newest first: a bar per accuracy, a tick at zero-shot prediction."""
        rows = []
        for run in reversed(self.runs):
            told = "; ".join(filter(None, (run["where"], run["changed"], run["stopped"], f"{run['seconds']:.1f} s")))
            rows.append(
                f"<p style='margin:8px 0 2px'><b>{html.escape(run['label'])}</b> <small>{html.escape(told)}</small></p>"
            )
            bars = []
            for name in ("accuracy", "base", "new"):
                if name in run:
                    colour, zero = SPLITS["all" if name == "accuracy" else name], run.get(f"zero_{name}")
                    tick = "" if zero is None else f"<u style='left:{zero:.1f}%'></u>"
                    title = "" if zero is None else f" title='zero-shot: {zero:.1f} %'"
                    bars.append(
                        f"<span class='word'>{'all classes' if name == 'accuracy' else name + ' classes'}</span>"
                        f"<span class='bar'><i style='width:{run[name]:.1f}%;background:{colour}'></i>{tick}</span>"
                        f"<span{title}>{run[name]:.1f} %</span>"
                    )
                elif name in run["missing"]:
                    bars.append(
                        f"<span class='word'>{name} classes</span><small>no bar: {html.escape(run['missing'][name])}</small><span></span>"
                    )
            rows.append(f"<div class='vlmlab-bars'>{''.join(bars)}</div>")
        if not rows:
            return (
                ""
                if self.losses
                else "<p>Choose a system and press <b>fit</b>. Finished runs stand here, to be compared.</p>"
            )
        metrics = ", ".join(dict.fromkeys(run["metric"] for run in self.runs))
        return "".join(rows) + f"<small>{metrics} on the test images; tick: zero-shot prediction</small>"

    def _title(self) -> str:
        return f"{system_label(self.system.value)} on {self.dataset.value}"

    def _curve(self) -> Figure:
        return fit_progress(self.losses, self.steps, self.accuracies, [], self._title()).described(
            f"training loss of {self._title()}: {self.losses[0]:.2f} at first, {self.losses[-1]:.2f} after {len(self.losses)} steps"
        )

    # --- the other two lives ------------------------------------------------------------------------------------------

    def static(self) -> Figure:
        title = self._title()
        fig = fit_progress(self.losses, self.steps, self.accuracies, self.runs, title)
        last = f"; last run {self.runs[-1]['label']}" if self.runs else ""
        return fig.described(
            f"training loss of {title} and the accuracy of {len(self.runs)} run{'s' * (len(self.runs) != 1)}{last}"
        )

    def facts(self) -> dict[str, Any]:
        """Of the last run: accuracies, or what else the main metric is, in percent to the nearest whole number, and the number of
        learned parameters."""
        if not self.runs:
            return {"runs": 0}
        run = self.runs[-1]
        kept = ("accuracy", "base", "new", "zero_accuracy", "zero_base", "zero_new")
        return {"run": run["label"], "parameters": run["parameters"]} | {k: round(run[k]) for k in kept if k in run}
