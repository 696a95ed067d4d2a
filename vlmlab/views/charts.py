"""Charts of results: accuracy over shots, base and new classes, confusion, cost. Each returns a matplotlib Figure.

A result is the dictionary that `vlmlab run --json` prints; accuracies are in percent.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from vlmlab.learning.metrics import TITLES, main_metric, of_group
from vlmlab.studies.table import spread
from vlmlab.views.style import INK, LOSS, MUTED, SPLITS, Still, figure, system_label, system_style, tidy


def few_shot_curves(results: Sequence[dict]) -> Still:
    """The main metric over shots, one panel per dataset and metric, one line per system, a band of one standard deviation
    over seeds.

    Zero-shot prediction uses no shots: it is the dashed line across, where it has that metric.
    """
    groups: dict[tuple[str, str], list[dict]] = {}
    for r in results:
        groups.setdefault((r["dataset"], main_metric(r["metrics"])), []).append(r)
    fig = figure(5.0 * len(groups) + 1.6, 4.0)
    panels = fig.subplots(1, len(groups), squeeze=False)[0]
    for axes, ((dataset, metric), rows) in zip(panels, groups.items(), strict=True):
        points: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        zero_shot = [r["zero_shot"][metric] for r in rows if metric in r["zero_shot"]]
        for r in rows:
            if r["system"] != "zero_shot":
                points[r["system"]][r["shots"]].append(r["metrics"][metric])
        shots = sorted({s for by_shots in points.values() for s in by_shots if s})
        if zero_shot:
            axes.axhline(
                float(np.mean(zero_shot)),
                label=system_label("zero_shot"),
                **{k: v for k, v in system_style("zero_shot").items() if k != "marker"},
            )
        for system, by_shots in points.items():
            if set(by_shots) == {0}:  # learns from no labelled image
                level, deviation = spread(by_shots[0])
                style = system_style(system) | {"marker": ""}
                axes.axhline(level, label=system_label(system), **style)
                axes.axhspan(level - deviation, level + deviation, color=style["color"], alpha=0.1, linewidth=0)
                continue
            mean, deviation = np.array([spread(by_shots[s]) for s in sorted(by_shots)]).T
            x, style = sorted(by_shots), system_style(system)
            axes.plot(x, mean, label=system_label(system), **style)
            axes.fill_between(x, mean - deviation, mean + deviation, color=style["color"], alpha=0.15, linewidth=0)
        if shots:
            axes.set_xscale("log", base=2)
            axes.set_xticks(shots, [str(s) for s in shots])
        tidy(
            axes,
            dataset,
            "shots per class",
            f"{TITLES[metric]} (%)" if axes is panels[0] or len({m for _, m in groups}) > 1 else "",
        )
    panels[-1].legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def base_new_bars(results: Sequence[dict]) -> Still:
    """Base, new and harmonic mean of the main metric per system, one standard deviation over seeds; ticks mark zero-shot
    prediction, where it was measured on both."""
    datasets = list(dict.fromkeys(r["dataset"] for r in results))
    systems = list(dict.fromkeys(r["system"] for r in results if r["system"] != "zero_shot"))
    fig = figure(max(5.0, 1.3 * len(systems) + 1.5) * len(datasets), 3.8)
    panels = fig.subplots(1, len(datasets), squeeze=False, sharey=True)[0]
    for axes, dataset in zip(panels, datasets, strict=True):
        rows = [r for r in results if r["dataset"] == dataset]
        for i, split in enumerate(("base", "new", "harmonic_mean")):
            stats = [spread([of_group(r["metrics"], split) for r in rows if r["system"] == s]) for s in systems]
            x = np.arange(len(systems)) + 0.26 * (i - 1)
            axes.bar(
                x,
                [m for m, _ in stats],
                0.24,
                yerr=[d for _, d in stats],
                color=SPLITS[split],
                alpha=0.9,
                label=split.replace("_", " "),
                error_kw={"elinewidth": 1, "ecolor": INK},
            )
            known = [value for r in rows if (value := of_group(r["zero_shot"], split)) is not None]
            if known:
                axes.hlines(
                    [float(np.mean(known))] * len(systems),
                    x - 0.13,
                    x + 0.13,
                    color=INK,
                    linewidth=1.6,
                    label="zero-shot" if i == 2 else None,
                )
        axes.set_xticks(range(len(systems)), [textwrap.fill(system_label(s), 16) for s in systems])
        tidy(axes, dataset, "", f"{TITLES[main_metric(rows[0]['metrics'])]} (%)" if axes is panels[0] else "")
        axes.margins(y=0.12)
    panels[-1].legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def confusion(matrix: np.ndarray, classes: Sequence[str], title: str = "", most: int = 20) -> Still:
    """Which class (row) is taken for which (column), in percent of the row.

    With more than `most` classes, those with the largest confusions are shown.
    """
    percent = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    if len(classes) > most:
        wrong = percent - np.diag(np.diag(percent))
        chosen = np.sort(np.argsort(-(wrong.max(0) + wrong.max(1)))[:most])
        percent, classes = percent[np.ix_(chosen, chosen)], [classes[i] for i in chosen]
        title += f" ({most} most confused classes)"
    n = len(classes)
    side = 2.2 + 0.27 * n
    fig = figure(side + 0.8, side)
    axes = fig.subplots()
    image = axes.imshow(percent, cmap="cividis", vmin=0, vmax=100)
    axes.set_xticks(range(n), classes, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(n), classes, fontsize=8)
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("true", color=INK)
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    bar = fig.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("% of the true class", color=MUTED)
    return fig


def learning_curve(losses: Sequence[float], title: str = "") -> Still:
    """Loss per step, raw (light) and as a running mean over a twentieth of the steps."""
    fig = figure(5.4, 2.8)
    axes = fig.subplots()
    loss = np.asarray(losses, float)
    width = max(1, len(loss) // 20)
    axes.plot(loss, color=LOSS, alpha=0.35, linewidth=1)
    if len(loss) >= width:
        axes.plot(
            np.arange(width - 1, len(loss)),
            np.convolve(loss, np.ones(width) / width, "valid"),
            color=LOSS,
        )
    tidy(axes, title, "step", "loss")
    return fig
