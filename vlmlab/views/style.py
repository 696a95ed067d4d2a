"""How everything in vlmlab looks: a colour has one meaning in every figure, for colour-blind readers too.

The colours are those of Okabe and Ito ("Color Universal Design", 2008), which stay apart under the common kinds of
colour blindness; where there are more systems than colours, the marker and the line style change too, so that colour
never carries a meaning alone.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text
from matplotlib.ticker import AutoLocator

from vlmlab.registry import registry, system_label  # noqa: F401 (figures take the name from here)

DPI = 110
INK, MUTED, GRID = "#222222", "#6b6b6b", "#dddddd"
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F")
SYSTEMS = ("#5D3A9B", "#D4A017", "#1B7F79", "#7B5141", "#0F4C5C", "#C2185B", "#6B8E23")
"""Colours of systems, in order; none of them is one of `SPLITS`, so that blue is always the base classes."""
COMPARED = ("cocoop", "coop", "maple", "tpt", "tip_adapter", "tip_adapter_f", "kgcoop")
"""The systems that stand side by side most often: each has a colour of its own among them."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")
SPLITS = {
    "base": "#0072B2",
    "new": "#D55E00",
    "harmonic_mean": "#6b6b6b",
    "all": "#009E73",
    "train": "#56B4E9",
    "val": "#E69F00",
    "test": "#222222",
}
LOSS = "#8C6D1F"
"""A loss, wherever one is drawn."""
VALUE = "#6E8898"
"""Bars of probabilities, cosines and counts, which belong to no split."""
RIGHT, WRONG = "#117733", "#882255"
"""An answer that is right, and one that is not."""
FAMILIES = {
    "text_prompt": "#AA4499",
    "visual_prompt": "#999933",
    "text_visual_prompt": "#44AA99",
    "adapter": "#CC6677",
    "other": "#332288",
}
"""The families of section 6 (Paul Tol's muted colours, which colour-blind readers tell apart)."""
# Twenty colours for the classes of a segmentation: Okabe-Ito first, then lighter and darker companions.
CLASSES = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#D55E00",
    "#56B4E9",
    "#F0E442",
    "#7F7F7F",
    "#004B75",
    "#8F3D00",
    "#00634A",
    "#87506F",
    "#F7C66B",
    "#9ED3F2",
    "#7FCFB8",
    "#E6BCD3",
    "#EAAE80",
    "#B8B000",
    "#4D4D4D",
    "#BFBFBF",
)


def colour_of(name: str, k: int) -> str:
    """The colour of a curve or mark called `name`, the `k`-th of its figure: that of its split ("base", "new classes"; papers
    also write seen, unseen and novel), or else the next of `SYSTEMS`."""
    own = {"seen": "base", "unseen": "new", "novel": "new", "harmonic mean": "harmonic_mean"}
    split = name.removesuffix(" classes")
    return SPLITS.get(own.get(split, split), SYSTEMS[k % len(SYSTEMS)])


def system_style(key: str) -> dict:
    """Keyword arguments for `Axes.plot`: the colour, marker and line that a system has in every figure.

    Zero-shot prediction, the reference of every comparison, is a dashed dark line without markers.
    """
    if key == "zero_shot":
        return {"color": INK, "linestyle": "--", "marker": "", "linewidth": 1.4}
    order = [*COMPARED, *(k for k in registry() if k != "zero_shot" and k not in COMPARED)]
    position = order.index(key) if key in order else sum(map(ord, key))
    row, column = divmod(position, len(SYSTEMS))
    return {
        "color": SYSTEMS[column],
        "marker": MARKERS[(row + column) % len(MARKERS)],
        "linestyle": LINES[row % len(LINES)],
        "linewidth": 1.8,
        "markersize": 6,
    }


WANTED_FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "Droid Sans Fallback",
    "PingFang SC", "Microsoft YaHei", "Arial Unicode MS", "Noto Emoji", "Symbola", "Segoe UI Emoji",
)  # fmt: skip
FONTS = [name for name in WANTED_FONTS if name in set(fontManager.get_font_names())]
"""Fonts of this machine for letters that the first one does not have."""


class Still(Figure):
    """A figure that shows itself in a notebook; without pyplot, nothing else would tell IPython how to.

    What stands in it is shown as it is written: a `$` in the name of a class is no formula.
    """

    alt: str = ""
    foreign: bool = True
    """Whether names stand in it that may hold any letters; looking for them takes 50 ms."""
    spots: Sequence[tuple[Axes, float, float, str]] = ()
    """Points (axes, x, y) with what a page says of them to a reader who points there."""

    def draw(self, renderer) -> None:
        for text in self.findobj(Text) if self.foreign else ():
            # The powers of ten of a logarithmic axis are written as formulas, by ticks that are empty before the first drawing.
            text.set_parse_math(not text.get_text() or "\\mathdefault" in text.get_text())
            if not text.get_text().isascii():
                text.set_fontfamily(FONTS)
        super().draw(renderer)

    def described(self, text: str) -> Still:
        """The same figure with a text for readers who do not see it."""
        self.alt = text
        return self

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", facecolor=self.get_facecolor())
        titles = [axes.get_title(loc) for axes in self.axes for loc in ("left", "center")]
        alt = self.alt or "; ".join(t for t in titles if t) or "figure"
        return {"image/png": buffer.getvalue(), "text/plain": alt}, {"image/png": {"alt": alt}}


STATES = "application/vnd.vlmlab.states+json"
"""The type of an output with the states of a panel, beside the image of its present one: front ends do not know it and show that
image; the website makes a slider of it. {"name": what is moved, "at": which of the states is the present one, "states": [[label,
address of an image ("data:image/png;base64,..."), alternative text], ...]}."""


def figure(width: float = 6.4, height: float = 4.0) -> Still:
    """An empty figure in inches, made without pyplot, so that none stays open behind the reader's back."""
    return Still(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def tidy(axes: Axes, title: str = "", x: str = "", y: str = "") -> Axes:
    """Labels, a light horizontal grid and no box: the look of every chart."""
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=9)
    for axis in (axes.xaxis, axes.yaxis):
        ticks = axis.get_major_locator()
        if isinstance(ticks, AutoLocator):
            ticks.set_params(steps=[1, 2, 5, 10])  # ticks that a person would write: no 2.5, no 7.5
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def picture(axes: Axes, pixels, title: str = "") -> Axes:
    """Show pixels [H, W, 3] without axes, with a small title above."""
    axes.imshow(pixels)
    axes.set_axis_off()
    axes.set_title(title, fontsize=9, color=INK)
    return axes
