"""Predict, then reveal: the reader commits to a guess before the answer appears, and sees how good it was."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from vlmlab.errors import VlmlabError
from vlmlab.views.style import INK, MUTED, SPLITS, figure, tidy
from vlmlab.widgets.curtain import Curtain
from vlmlab.widgets.panel import LABEL, WIDE, Panel, static_only


class Guess(Panel):
    """A question with choices (one is right) or with a number (how near it was is told)."""

    title = "Your guess first"

    def __init__(
        self,
        question: str,
        answer: Any | Callable[[], Any],
        choices: Sequence[str] = (),
        low: float = 0,
        high: float = 100,
        unit: str = "%",
        explain: str = "",
        hides: int = 0,
    ) -> None:
        """`answer` is one of the choices or a number, or a function that measures it when the guess was made.
        `hides`: of so many code cells below, what they print and draw stays hidden until then, also after Run All.

        Raises `VlmlabError` if a given answer is not among the choices.
        """
        if choices and not callable(answer) and answer not in choices:
            raise VlmlabError(f"the answer '{answer}' is not among the choices {', '.join(choices)}")
        self.question, self.answer, self.choices, self.unit, self.explain = (
            question,
            answer,
            tuple(choices),
            unit,
            explain,
        )
        if choices:
            self.guess: widgets.Widget = widgets.RadioButtons(options=list(choices), value=None, layout=WIDE)
        else:
            self.guess = widgets.FloatSlider(
                (low + high) / 2, min=low, max=high, step=1, description=unit, style=LABEL, layout=WIDE
            )
        self.low, self.high = low, high
        self.reveal = widgets.Button(description="reveal", button_style="primary", icon="eye")
        self.guess.add_class("vlmlab-guess")
        self.reveal.add_class("vlmlab-reveal")
        self.told = widgets.HTML()
        self.curtain = Curtain(cells=hides)
        self.skip = widgets.Button(description="show anyway", icon="forward", tooltip="without a guess")
        self.skip.add_class("vlmlab-skip")
        asked = widgets.HTML(f"<p>{html.escape(question)}</p>", layout=widgets.Layout(width="100%"))
        self.controls = [asked, self.guess, widgets.HBox([self.reveal, *([self.skip] if hides else [])])]
        self.views = [self.told, self.curtain]
        self.truth: Any = None
        super().__init__()
        self.reveal.on_click(self.guarded(lambda button: self.show()))
        self.skip.on_click(lambda button: setattr(self.curtain, "lifted", True))

    def show(self) -> None:
        """Reveal; without a guess nothing is revealed."""
        if self.guess.value is None:
            raise VlmlabError("choose an answer first; a guess that may be wrong teaches more than none")
        self.ask(lambda cancelled: self.answer() if callable(self.answer) else self.answer, self._tell)

    def _tell(self, truth: Any) -> None:
        self.truth = truth
        guess = self.guess.value
        if self.choices:
            verdict = "Right." if guess == truth else f"You said: {guess}."
            line = f"<b>{html.escape(verdict)}</b> The answer is {html.escape(str(truth))}."
        else:
            off = abs(guess - truth)
            points = (
                " points" if self.unit == "%" else f" {self.unit}".rstrip()
            )  # a difference of percents is in points
            line = f"You said {guess:.0f} {self.unit}, measured {truth:.0f} {self.unit}: <b>{off:.0f}{points} off</b>."
        self.told.value = f"<p>{line} {html.escape(self.explain)}</p>"
        self.guess.disabled = True
        self.curtain.lifted = True

    def _ipython_display_(self) -> None:
        if not static_only():
            display(self.box)
            return
        choices = "".join(f"\n- {choice}" for choice in self.choices)
        display(Markdown(f"**{self.question}**{choices}"))

    def static(self) -> Figure:
        """Guess and answer on one line, for questions with a number."""
        fig = figure(5.2, 1.4)
        axes = fig.subplots()
        axes.axhline(0, color=MUTED, linewidth=1)
        if not self.choices:
            axes.scatter(self.guess.value, 0, color=SPLITS["val"], s=60, zorder=2, label="guess")
            if self.truth is not None:
                axes.scatter(self.truth, 0, color=INK, s=60, marker="D", zorder=2, label="measured")
            axes.set_xlim(self.low, self.high)
            axes.legend(frameon=False, fontsize=8, ncols=2)
        axes.set_yticks([])
        tidy(axes, self.question, self.unit, "")
        return fig.described(self.question)

    def facts(self) -> dict[str, Any]:
        return {"question": self.question, "answered": self.truth is not None}
