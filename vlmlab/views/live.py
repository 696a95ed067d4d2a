"""Charts that live panels draw again and again, and show as stills elsewhere. Accuracies are in percent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from vlmlab.views.style import CLASSES, GRID, INK, LOSS, SPLITS, Still, figure, system_label, tidy

FEWEST_BARS = 4  # places for bars, so that one alone is no block


def fit_progress(
    losses: Sequence[float], steps: int, accuracies: Sequence[tuple[int, float]], runs: Sequence[dict], title: str = ""
) -> Still:
    """Left: loss over steps, and validation accuracy where it was measured. Right: what each finished run reached.

    A side without anything to show is left out.

    accuracies: (step, %); runs: {"label", "accuracy", "zero_accuracy", "metric"}, or with "base" and "new" in place of
    accuracy; "metric" says what it is if it is none.
    """
    wide = bool(runs) and bool(losses)
    fig = figure(8.6 if wide else 5.2, 3.3 if wide else 2.6)
    if losses or not runs:
        left = fig.add_subplot(1, 2 if wide else 1, 1)
        _loss(left, losses, steps, accuracies, title)
    if runs:
        _runs(fig.add_subplot(1, 2 if wide else 1, 2 if wide else 1), runs, title if not losses else "runs")
    if losses or runs:
        fig.legend(loc="outside lower center", ncols=4 if wide else 2, frameon=False, fontsize=8, labelcolor=INK)
    return fig


def _loss(axes: Axes, losses: Sequence[float], steps: int, accuracies: Sequence[tuple[int, float]], title: str) -> None:
    tidy(axes, title, "step", "training loss")
    axes.set_xlim(0, max(steps, 1))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if losses:
        smooth = np.convolve(losses, np.ones(5) / 5, "valid") if len(losses) >= 5 else losses
        every, mean = range(1, len(losses) + 1), range(len(losses) - len(smooth) + 1, len(losses) + 1)
        axes.plot(every, losses, color=LOSS, alpha=0.4, linewidth=1, label="loss of a step")
        axes.plot(mean, smooth, color=LOSS, linewidth=1.8, label="mean over five steps")
        axes.set_ylim(bottom=0)
    if accuracies:
        other = axes.twinx()
        look = {"color": SPLITS["val"], "marker": "o", "markersize": 3, "linewidth": 1.4}
        other.plot(*zip(*accuracies, strict=True), label="validation accuracy (right axis)", **look)
        other.set_ylabel("validation accuracy (%)", color=INK)
        other.set_ylim(0, 104)  # so that the dots at 100 are seen whole
        other.spines[["top"]].set_visible(False)


def _runs(axes: Axes, runs: Sequence[dict], title: str) -> None:
    metrics = dict.fromkeys(run.get("metric", "accuracy") for run in runs)
    tidy(axes, title, f"{', '.join(metrics)} (%)", "")
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    rows = [(run["label"], split, run[split], run.get(f"zero_{split}")) for run in runs for split in _measured(run)]
    for y, (_, split, value, zero) in enumerate(rows):
        axes.barh(y, value, color=SPLITS["all" if split == "accuracy" else split], height=0.7)
        if zero is not None:
            axes.plot([zero, zero], [y - 0.4, y + 0.4], color=INK, linewidth=1.6, label=None if y else "zero-shot")
        in_the_way = zero is not None and value < zero < value + 14  # the tick, of the value at the end of the bar
        axes.text((zero if in_the_way else value) + 1.5, y, f"{value:.1f}", va="center", fontsize=8, color=INK)
    names = [f"{label}, {split}" if split != "accuracy" else label for label, split, _, _ in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_ylim(max(len(rows), FEWEST_BARS) - 0.5, -0.5)
    axes.set_xlim(0, 108)


def _measured(run: dict) -> list[str]:
    return [split for split in ("accuracy", "base", "new") if split in run]


def word_colour(index: int) -> str:
    """The colour of the index-th word in every dense map."""
    return CLASSES[index % len(CLASSES)]


def run_label(system: str, shots: int, seed: int) -> str:
    """How a run is called in a chart."""
    return f"{system_label(system)}, {shots} shot{'s' * (shots != 1)}, seed {seed}"
