"""Equation lens: pick a term of a system's equation, see the line of code that computes it, its shape and its value."""

from __future__ import annotations

import ast
import html
import inspect
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure

from vlmlab.errors import VlmlabError
from vlmlab.views.style import VALUE, figure, picture, tidy
from vlmlab.widgets.menus import classifying, system_menu
from vlmlab.widgets.panel import LABEL, WIDE, Panel, PictureChooser, Waiting, image_view, sample_pictures, static_only

MOST_CELLS = 128  # of a value that is drawn
STEPS, SECONDS = 30, 1.0  # of learning at most: the terms need parameters, not good ones


class Trace:
    """The terms of one method while it runs: what it assigns, and the parts of the expression that it returns."""

    def __init__(self, function) -> None:
        """`function` is a bound method; raises `VlmlabError` if its source cannot be read."""
        self.function = function
        try:
            lines, self.first = inspect.getsourcelines(function)
        except (OSError, TypeError) as error:
            raise VlmlabError("the source of this system cannot be read; define it in a file") from error
        self.source = lines
        tree = ast.parse(textwrap.dedent("".join(lines)))
        self.assigned: dict[int, list[str]] = {}
        self.returns: set[int] = set()
        self.parts: list[ast.expr] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                names = [n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)]
                self.assigned.setdefault(node.end_lineno, []).extend(names)
            if isinstance(node, ast.Return):
                self.returns.add(node.end_lineno)
                self.parts = _operands(node.value)

    def run(self, *arguments) -> list[dict[str, Any]]:
        """Call the method once; the terms in the order of their computation, the result last."""
        names = {name for group in self.assigned.values() for name in group}
        values: dict[str, Any] = {}
        parts: dict[str, Any] = {}
        code = inspect.unwrap(self.function.__func__).__code__

        def watch(frame, event, arg):
            if frame.f_code is not code:
                return None

            def local(frame, event, arg):
                if event == "return":
                    values.update({k: v for k, v in frame.f_locals.items() if k in names})
                    for part in self.parts:  # computed once more, now that everything in them is known
                        read = {n.id for n in ast.walk(part) if isinstance(n, ast.Name)}
                        if any(isinstance(frame.f_locals.get(name), Iterator) for name in read):
                            continue  # the method has used it up
                        text = ast.unparse(part)
                        expression = compile(ast.Expression(part), text, "eval")
                        parts[text] = eval(expression, frame.f_globals, dict(frame.f_locals))
                return local

            return local

        before = sys.gettrace()
        sys.settrace(watch)
        try:
            with torch.no_grad():
                result = self.function(*arguments)
        finally:
            sys.settrace(before)
        terms = [
            {"name": name, "line": line, "code": self.source[line - 1].strip(), "value": values[name]}
            for line, group in sorted(self.assigned.items())
            for name in group
            if isinstance(values.get(name), torch.Tensor)
        ]
        last = max(self.returns, default=len(self.source))
        terms += [
            {"name": text, "line": last, "code": text, "value": torch.as_tensor(value)}
            for text, value in parts.items()
            if isinstance(value, torch.Tensor | float | int)
        ]
        return [*terms, {"name": "result", "line": last, "code": self.source[last - 1].strip(), "value": result}]


def _operands(node: ast.expr) -> list[ast.expr]:
    """The factors and summands of an expression, those that are more than a constant."""
    if not isinstance(node, ast.BinOp):
        return [] if isinstance(node, ast.Constant) else [node]
    return [*_operands(node.left), *_operands(node.right)]


class EquationLens(Panel):
    """The lines of `logits` of one system, term by term, for one image."""

    title = "Equation lens"

    def __init__(
        self,
        system: str = "tip_adapter",
        dataset: str = "digits",
        backbone: str = "micro-vit",
        shots: int = 4,
        seed: int = 1,
    ) -> None:
        self.names = (dataset, backbone, shots, seed)
        self.system = system_menu(classifying("test-time"), system)
        self.term = widgets.Dropdown(options=["result"], description="term", style=LABEL, layout=WIDE)
        self.chooser = PictureChooser(sample_pictures(dataset, 10), self.look, self.guarded)
        for name in ("system", "term"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.code = widgets.HTML()
        self.value = image_view("the values of the chosen term")
        self.controls = [self.system, self.term, *self.chooser.widgets]
        self.views = [self.code, self.value]
        self.answer: dict[str, Any] = Waiting()
        self.terms: list[dict[str, Any]] = []
        self._prepared: dict[str, Any] = {}
        self._filling = False  # while the menu of terms is filled, nothing is drawn
        super().__init__()
        self.system.observe(self.guarded(lambda change: self.look()), "value")
        self.term.observe(self.guarded(lambda change: self._zoom()), "value")
        self.look()

    def look(self) -> None:
        """Run the system on the chosen image and list its terms."""
        key, name, pixels = self.system.value, self.chooser.name, self.chooser.pixels
        self.ask(lambda cancelled: self._see(key, name, pixels, cancelled), self._show)

    def _see(self, key: str, name: str, pixels: np.ndarray, cancelled) -> dict[str, Any]:
        from vlmlab.methods.method import Batch
        from vlmlab.studies.experiment import Experiment
        from vlmlab.studies.run import adapt, shared_bank

        dataset, backbone, shots, seed = self.names
        bank = shared_bank(backbone)
        if key not in self._prepared:
            began = time.monotonic()
            taken: list[int] = []

            def enough() -> bool:
                late = len(taken) > 0 and not static_only() and time.monotonic() - began > SECONDS
                return late or len(taken) >= STEPS or cancelled()

            experiment = Experiment(key, dataset, backbone, shots, seed)
            adapted = adapt(experiment, on_step=lambda *step: taken.append(step), should_stop=enough)
            told = f"after {len(taken)} of {adapted.record.steps} steps of learning" if taken else ""
            self._prepared[key] = adapted.method, told
        method, learned = self._prepared[key]
        images = bank.backbone.preprocess(pixels)
        with torch.no_grad():
            batch = Batch(images=images, features=bank.backbone.encode_image(images))
        trace = Trace(method.logits)
        return {
            "terms": trace.run(batch),
            "source": trace.source,
            "picture": name,
            "pixels": pixels,
            "classes": method.classes,
            "learned": learned,
        }

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer, self.terms = answer, answer["terms"]
        old, names = self.term.value, [t["name"] for t in self.terms]
        self._filling = True
        try:
            self.term.options = names
            self.term.value = old if old in names else names[0]
        finally:
            self._filling = False
        self._zoom()

    def _term_chosen(self) -> None:
        if not self._filling:
            self._zoom()

    def _chosen(self) -> dict[str, Any]:
        return next((t for t in self.terms if t["name"] == self.term.value), self.terms[-1])

    def _zoom(self) -> None:
        if self._filling or not self.terms:
            return
        term = self._chosen()
        lines = []
        for number, line in enumerate(textwrap.dedent("".join(self.answer["source"])).splitlines(), 1):
            mark = " class='vlmlab-hit'" if number == term["line"] else ""
            lines.append(f"<span{mark}>{html.escape(line.rstrip())}</span>")
        shape = " x ".join(map(str, term["value"].shape)) or "one number"
        learned = f", {self.answer['learned']}" if self.answer["learned"] else ""
        self.code.value = (
            f"<pre style='line-height:1.35;font-size:12px;max-height:300px;overflow:auto'>{chr(10).join(lines)}</pre>"
            f"<p><code>{html.escape(term['name'])}</code> has the shape {shape}{learned}</p>"
        )
        self.paint(self.value, lambda: self._drawn(term))
        self._repaint_done()

    def _drawn(self, term: dict[str, Any]) -> Figure:
        value = term["value"].detach().float().cpu()
        flat = value.reshape(-1, value.shape[-1]) if value.ndim else value.reshape(1, 1)
        flat = flat[:MOST_CELLS, :MOST_CELLS].numpy()
        fig = figure(6.2, 1.5 + min(2.2, 0.12 * len(flat)))
        axes = fig.subplots()
        if len(flat) == 1 and flat.shape[1] == len(self.answer["classes"]):
            axes.bar(range(flat.shape[1]), flat[0], color=VALUE)
            axes.set_xticks(range(flat.shape[1]), self.answer["classes"], rotation=45, ha="right", fontsize=8)
        else:
            shown = axes.imshow(flat, aspect="auto", cmap="cividis", interpolation="nearest")
            fig.colorbar(shown, ax=axes)
            axes.set_yticks([])
        name, shape = textwrap.shorten(term["name"], 60, placeholder=" ..."), " x ".join(map(str, value.shape))
        axes.set_title(f"{name}: {shape}", loc="left", fontsize=9)
        return fig.described(f"the values of the term {term['name']}, {shape}")

    def static(self) -> Figure:
        pixels, term = self.answer["pixels"], self._chosen()
        fig = figure(7.6, 2.8)
        one, two = fig.subplots(1, 2, width_ratios=[0.6, 1.6])
        picture(one, pixels, self.answer["picture"])
        value = term["value"].detach().float().cpu()
        flat = (value.reshape(-1, value.shape[-1]) if value.ndim else value.reshape(1, 1))[
            :MOST_CELLS, :MOST_CELLS
        ].numpy()
        if len(flat) == 1 and flat.shape[1] == len(self.answer["classes"]):
            classes = self.answer["classes"]
            tidy(two, "", "class", "value for the class")
            two.bar(range(flat.shape[1]), flat[0], color=VALUE, width=0.7)
            slanted = {} if max(map(len, classes)) <= 3 else {"rotation": 45, "ha": "right"}
            two.set_xticks(range(flat.shape[1]), classes, fontsize=8, **slanted)
        else:
            two.imshow(flat, aspect="auto", cmap="cividis", interpolation="nearest")
        code = term["code"] if len(term["code"]) <= 74 else term["code"].partition("  #")[0]  # the comment goes first
        code = code if len(code) <= 74 else code[:72] + "..."
        two.set_title(code, loc="left", fontsize=8, family="monospace")
        shape = " x ".join(map(str, value.shape))
        return fig.described(
            f"the term {term['name']} of {self.system.value}, of shape {shape}, for an image of {self.answer['picture']}"
        )

    def facts(self) -> dict[str, Any]:
        """The terms and their shapes."""
        return {t["name"]: list(t["value"].shape) for t in self.answer["terms"]}
