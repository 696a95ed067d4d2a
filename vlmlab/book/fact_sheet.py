"""The facts of a chapter: a few lines that must come out the same on every machine.

Chapters end in a cell marked `# NBVAL_CHECK_OUTPUT`, the only one whose output nbval compares. Processors differ in the
last bits, and with them now and then a prediction, so a fact is a claim (yes or no), a word, a whole number, or a
figure rounded as coarsely as its meaning allows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping


class Near:
    """A figure rounded to a multiple of `step`; `margin` (0 to 0.5 steps) is how far it is from changing."""

    def __init__(self, value: float, step: float) -> None:
        place = float(value) / step
        whole = math.floor(place + 0.5)
        digits = max(0, -math.floor(math.log10(step)))
        self.text = f"about {whole * step:.{digits}f} (to {step:g})"
        self.margin = 0.5 - abs(place - whole)

    def __str__(self) -> str:
        return self.text


Fact = bool | int | str | Near


def near(value: float, step: float) -> Near:
    """`value` as a fact: rounded to a multiple of `step`."""
    return Near(value, step)


class Facts:
    """Lines of text; the margins of rounded figures travel as metadata, for `vlmlab book` to warn about a close call."""

    def __init__(self, lines: Mapping[str, Fact]) -> None:
        self.lines = dict(lines)

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        margins = {name: round(fact.margin, 3) for name, fact in self.lines.items() if isinstance(fact, Near)}
        return {"text/plain": repr(self)}, {"vlmlab": {"margins": margins}}

    def __repr__(self) -> str:
        words = {True: "yes", False: "no"}
        return "\n".join(
            f"{name}: {words[fact] if isinstance(fact, bool) else fact}" for name, fact in self.lines.items()
        )


def facts(lines: Mapping[str, Fact]) -> Facts:
    """What a chapter found, name -> fact, to be the last line of its facts cell.

    Raises `TypeError` for a bare float, which would not print the same elsewhere: give `near(value, step)`.
    """
    for name, fact in lines.items():
        if not isinstance(fact, bool | int | str | Near):
            raise TypeError(f"the fact '{name}' is a {type(fact).__name__}; round it with near(value, step)")
    return Facts(lines)
