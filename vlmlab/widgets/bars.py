"""Bars and tables of words as HTML: the browser's own letters show every script, and both themes colour them."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps


def word_bars(words: Sequence[str], values: Sequence[float], before: Sequence[float] | None = None) -> str:
    """A bar per word for its probability (0 to 1), the largest first; `before` is a tick, to see what a change did."""
    rows = []
    for k in np.argsort(-np.asarray(values)):
        tick = "" if before is None else f"<u style='left:{100 * before[k]:.1f}%'></u>"
        word = html.escape(words[k])
        rows.append(
            f"<span class='word' title='{word}'>{word}</span>"
            f"<span class='bar'><i style='width:{100 * values[k]:.1f}%'></i>{tick}</span>"
            f"<span>{100 * values[k]:.1f} %</span>"
        )
    note = "probability" if before is None else "probability; tick: before"
    return f"<div class='vlmlab-bars' role='group' aria-label='{note}'>{''.join(rows)}</div><small>{note}</small>"


def cosine_table(words: Sequence[str], values: np.ndarray, title: str) -> str:
    """Cosines [n, n] between texts as a table, coloured from dark (0 or less) to bright (1)."""
    if len(words) > 12:
        return f"<small>{title}: shown for at most 12 words</small>"
    head = "".join(f"<th>{n}</th>" for n in range(1, len(words) + 1))
    rows = []
    for n, (word, row) in enumerate(zip(words, values, strict=True), 1):
        cells = "".join(_cell(float(value)) for value in row)
        rows.append(f"<tr><th>{n} {html.escape(word)}</th>{cells}</tr>")
    return f"<small>{title}</small><table style='border-spacing:1px'><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _cell(value: float) -> str:
    red, green, blue, _ = colormaps["cividis"](min(max(value, 0.0), 1.0), bytes=True)
    ink = "white" if value < 0.6 else "black"
    return f"<td style='background:rgb({red},{green},{blue});color:{ink};padding:1px 5px'>{value:.2f}</td>"
