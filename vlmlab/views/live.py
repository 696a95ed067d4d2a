"""Charts that live panels draw again and again, and show as stills elsewhere. Accuracies are in percent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from vlmlab.views.style import CLASSES, GRID, INK, SPLITS, figure, system_label, tidy

FEWEST_BARS = 4  # places for bars, so that one alone is no block


def fit_progress(
    losses: Sequence[float], steps: int, accuracies: Sequence[tuple[int, float]], runs: Sequence[dict], title: str = ""
) -> Figure:
    """Left: loss over steps, and validation accuracy where it was measured. Right: what each finished run reached.

    accuracies: (step, %); runs: {"label", "accuracy", "zero_shot"} or with "base" and "new" in place of accuracy.
    """
    fig = figure(8.6, 3.3)
    left, right = fig.subplots(1, 2, width_ratios=[1.15, 1])
    tidy(left, title, "step", "training loss")
    left.set_xlim(0, max(steps, 1))
    if losses:
        smooth = np.convolve(losses, np.ones(5) / 5, "valid") if len(losses) >= 5 else losses
        every, mean = range(1, len(losses) + 1), range(len(losses) - len(smooth) + 1, len(losses) + 1)
        left.plot(every, losses, color=SPLITS["train"], alpha=0.5, linewidth=1, label="loss of a step")
        left.plot(mean, smooth, color=SPLITS["base"], linewidth=1.8, label="mean over five steps")
        left.set_ylim(bottom=0)
    if accuracies:
        other = left.twinx()
        look = {"color": SPLITS["val"], "marker": "o", "markersize": 3, "linewidth": 1.4}
        other.plot(*zip(*accuracies, strict=True), label="validation accuracy (right axis)", **look)
        other.set_ylabel("validation accuracy (%)", color=INK)
        other.set_ylim(0, 104)  # so that the dots at 100 are seen whole
        other.spines[["top"]].set_visible(False)
    tidy(right, "runs", "accuracy (%)", "")
    right.grid(axis="y", visible=False)
    right.grid(axis="x", color=GRID, linewidth=0.8)
    rows = [(run["label"], split, run[split], run.get(f"zero_{split}")) for run in runs for split in _measured(run)]
    for y, (_, split, value, zero) in enumerate(rows):
        right.barh(y, value, color=SPLITS["all" if split == "accuracy" else split], height=0.7)
        if zero is not None:
            right.plot([zero, zero], [y - 0.4, y + 0.4], color=INK, linewidth=1.6, label=None if y else "zero-shot")
        in_the_way = zero is not None and value < zero < value + 14  # the tick, of the figure at the end of the bar
        right.text((zero if in_the_way else value) + 1.5, y, f"{value:.1f}", va="center", fontsize=8, color=INK)
    names = [f"{label}, {split}" if split != "accuracy" else label for label, split, _, _ in rows]
    right.set_yticks(range(len(rows)), names, fontsize=8)
    right.set_ylim(max(len(rows), FEWEST_BARS) - 0.5, -0.5)
    right.set_xlim(0, 108)
    if losses or rows:
        fig.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8, labelcolor=INK)
    return fig


def _measured(run: dict) -> list[str]:
    return [split for split in ("accuracy", "base", "new") if split in run]


def word_bars(words: Sequence[str], probabilities: Sequence[float], before: Sequence[float] | None = None) -> Figure:
    """Probability (0 to 1) of each word as a bar; `before` is a tick on it, to see what a change did."""
    fig = figure(4.0, 0.9 + 0.27 * len(words))
    axes = fig.subplots()
    order = np.argsort(-np.asarray(probabilities))
    for y, k in enumerate(order):
        axes.barh(y, 100 * probabilities[k], color=SPLITS["base"], height=0.7, alpha=0.85)
        if before is not None:
            axes.plot([100 * before[k]] * 2, [y - 0.4, y + 0.4], color=SPLITS["new"], linewidth=2)
    axes.set_yticks(range(len(words)), [words[k] for k in order], fontsize=9)
    axes.set_ylim(len(words) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    tidy(axes, "", "probability (%)" + ("; tick: before" if before is not None else ""), "")
    axes.grid(axis="y", visible=False)
    return fig


def similarity(words: Sequence[str], values: np.ndarray, title: str = "") -> Figure:
    """Cosines [n, n] between texts, with the numbers written in."""
    side = 1.1 + 0.34 * len(words)
    fig = figure(side + 0.5, side)
    axes = fig.subplots()
    axes.imshow(values, cmap="cividis", vmin=min(0.0, float(values.min())), vmax=1)
    axes.set_xticks(range(len(words)), words, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(words)), words, fontsize=8)
    axes.set_title(title, loc="left", fontsize=9, color=INK)
    if len(words) <= 10:
        for i in range(len(words)):
            for j in range(len(words)):
                shade = "white" if values[i, j] < 0.6 else "black"
                axes.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", fontsize=7, color=shade)
    return fig


def word_colour(index: int) -> str:
    """The colour of the index-th word in every dense map."""
    return CLASSES[index % len(CLASSES)]


def run_label(system: str, shots: int, seed: int) -> str:
    """How a run is called in a chart."""
    return f"{system_label(system)}, {shots} shot{'s' * (shots != 1)}, seed {seed}"
