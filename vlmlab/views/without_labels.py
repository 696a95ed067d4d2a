"""Charts of systems that learn without labels: which views of an image are sure, and which pseudo-labels are right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.patches import Patch

from vlmlab.views.style import GRID, INK, MUTED, RIGHT, VALUE, WRONG, Still, figure, tidy

KEPT = VALUE
MOST_WORDS, MOST_CLASSES = 6, 16


def view_entropies(
    entropy: np.ndarray,
    kept: int,
    words: Sequence[str],
    before: np.ndarray,
    after: np.ndarray,
    right: np.ndarray | None = None,
    truth: str = "",
) -> Still:
    """Left: entropy (nats) of the views, lowest first, the first `kept` of them filled. Right: prediction before and after.

    before, after: probabilities [C] over `words`; right: [V] whether a view's own prediction is `truth`.
    """
    fig = figure(8.6, 2.9)
    left, bars = fig.subplots(1, 2, width_ratios=[1.25, 1])
    places = np.arange(1, len(entropy) + 1)
    colours = [KEPT if k < kept else "white" for k in range(len(entropy))]
    left.bar(places, entropy, color=colours, edgecolor=[KEPT if k < kept else MUTED for k in range(len(entropy))])
    if right is not None:
        above = entropy + 0.05 * max(float(entropy.max()), 1e-6)
        left.scatter(places[right], above[right], marker="o", s=14, color=RIGHT, label=f"says '{truth}'")
        left.scatter(places[~right], above[~right], marker="x", s=14, color=WRONG, label="says something else")
    left.bar([0], [0], color=KEPT, label=f"kept ({kept} of {len(entropy)})")
    left.set_xlim(0.2, len(entropy) + 0.8)
    left.set_ylim(0, 1.45 * max(float(entropy.max()), 1e-6))
    left.legend(frameon=False, fontsize=8, loc="upper left", ncols=3, columnspacing=1, handletextpad=0.4)
    tidy(left, "views", "view, surest first", "entropy (nats)")

    most = np.maximum(before, after)
    order = [k for k in np.argsort(-most)[:MOST_WORDS] if most[k] >= 0.005]
    for y, k in enumerate(order):
        bars.barh(y - 0.2, 100 * before[k], 0.36, color=GRID)
        bars.barh(y + 0.2, 100 * after[k], 0.36, color=KEPT)
    bars.set_yticks(range(len(order)), [words[k] for k in order], fontsize=9)
    for label, k in zip(bars.get_yticklabels(), order, strict=True):
        label.set_fontweight("bold" if words[k] == truth else "normal")
    bars.set_ylim(max(len(order), 3) - 0.4, -0.6)
    bars.set_xlim(0, 100)
    tidy(bars, "the plain view", "probability (%)", "")
    bars.grid(axis="y", visible=False)
    handles = [Patch(color=GRID, label="before"), Patch(color=KEPT, label="after")]
    bars.legend(handles=handles, frameon=False, fontsize=8, loc="lower right")
    return fig


def pseudo_label_quality(
    confidence: np.ndarray,
    right: np.ndarray,
    chosen: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    threshold: float | None = None,
    bins: int = 10,
) -> Still:
    """Left: how often a pseudo-label of a given confidence is right. Right: what was chosen of each class.

    Of more than 16 classes, those with the fewest right labels are shown.

    confidence, right, labels: [N], of every image; labels are the pseudo-labels; chosen: positions in these.
    """
    fig = figure(8.6, 1.7 + 0.17 * min(max(len(classes), 10), MOST_CLASSES))
    left, bars = fig.subplots(1, 2, width_ratios=[1, 1.15])
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.digitize(confidence, edges) - 1, 0, bins - 1)
    for b in np.unique(which):
        inside = which == b
        height, middle = 100 * float(right[inside].mean()), 100 * (edges[b] + edges[b + 1]) / 2
        left.bar(middle, height, 92 / bins, color=RIGHT, alpha=0.75)
        left.text(middle, 2, str(int(inside.sum())), ha="center", fontsize=7.5, color=INK)
    left.plot([0, 100], [0, 100], color=MUTED, linestyle="--", linewidth=1)
    if threshold is not None:
        left.axvline(100 * threshold, color=WRONG, linewidth=1.6)
        left.text(100 * threshold - 1.5, 111, "threshold", ha="right", fontsize=8, color=WRONG)
    left.set_xlim(0, 100)
    left.set_ylim(0, 118)
    left.set_yticks(range(0, 101, 20))
    tidy(left, "how often right", "confidence (%); number in a bar: images", "right (%)")

    good = np.bincount(labels[chosen][right[chosen]], minlength=len(classes))
    every = np.bincount(labels[chosen], minlength=len(classes))
    shown = np.sort(np.argsort(good, kind="stable")[:MOST_CLASSES])
    good, every, y = good[shown], every[shown], np.arange(len(shown))
    bars.barh(y, good, color=RIGHT, alpha=0.75, label="right")
    bars.barh(y, every - good, left=good, color=WRONG, hatch="////", edgecolor="white", linewidth=0, label="wrong")
    for k in np.flatnonzero(every == 0):
        bars.text(0.2, k, "none", va="center", fontsize=8, color=WRONG)
    bars.set_yticks(y, [classes[k] for k in shown], fontsize=8)
    bars.set_ylim(len(shown) - 0.4, -0.6)
    bars.set_xlim(0, max(1.0, 1.05 * float(every.max(initial=1))))
    some = f" ({len(shown)} of {len(classes)} classes)" if len(shown) < len(classes) else ""
    tidy(bars, f"learned from{some}", "images with this pseudo-label", "")
    bars.grid(axis="y", visible=False)
    fig.legend(*bars.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower right", ncols=2)
    return fig
