"""Mistakes of systems that detect or segment: kinds as stacked bars, and a few images with what each system says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from vlmlab.datasets.image_set import ImageSet
from vlmlab.registry import system_label
from vlmlab.views.boxes import KINDS, draw_boxes
from vlmlab.views.style import CLASSES, GRID, INK, RIGHT, SPLITS, VALUE, WRONG, Still, figure, picture, tidy

LOOKS: dict[str, tuple[str, float]] = {
    "right": (RIGHT, 1.0), "misnamed": (WRONG, 1.0), "misplaced": ("#E69F00", 1.0), "double": ("#56B4E9", 1.0),
    "background": (VALUE, 1.0), "both": ("#BBBBBB", 1.0), "missed": ("#FFFFFF", 1.0),
    "base for base": (SPLITS["base"], 0.4), "base for new": (SPLITS["base"], 1.0),
    "new for base": (SPLITS["new"], 1.0), "new for new": (SPLITS["new"], 0.4),
}  # fmt: skip
"""Kind of mistake -> colour and opacity; of pixels, the colour says to which group the wrong name belongs."""


def kinds_bars(rows: Sequence[Mapping], title: str = "", across: str = "") -> Still:
    """A bar per row of {"system", "inside": {"kinds": {kind: count or percent}}}, its parts in the order of the kinds."""
    fig = figure(8.2, 1.5 + 0.42 * len(rows))
    axes = fig.subplots()
    kinds = list(rows[0]["inside"]["kinds"])
    left = np.zeros(len(rows))
    for kind in kinds:
        values = np.array([row["inside"]["kinds"][kind] for row in rows], float)
        colour, alpha = LOOKS[kind]
        axes.barh(
            range(len(rows)),
            values,
            left=left,
            height=0.62,
            color=colour,
            alpha=alpha,
            edgecolor=INK,
            linewidth=0.5,
            label=kind,
        )
        left += values
    axes.set_yticks(range(len(rows)), [system_label(row["system"]) for row in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    tidy(axes, title, across, "")
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    fig.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(kinds), frameon=False, fontsize=8.5
    )
    told = "; ".join(
        f"{system_label(row['system'])}: "
        + ", ".join(f"{name} {value:.0f}" for name, value in row["inside"]["kinds"].items())
        for row in rows
    )
    return fig.described(f"{title}. {told}")


def example_boxes(rows: Sequence[Mapping], images: ImageSet) -> Still:
    """A line of images for the ground truth and one per system, base and new names in their colours.

    Rows are results with "names" and "inside": {"examples"}, all of the same images.
    """
    names = rows[0]["names"]["base"], rows[0]["names"]["new"]
    examples = rows[0]["inside"]["examples"]
    fig = figure(2.3 * len(examples), 2.45 * (len(rows) + 1) + 0.4)
    grid = fig.subplots(len(rows) + 1, len(examples), squeeze=False)
    classes = rows[0]["classes"]

    def draw(axes, image: int, boxes, labels, title: str) -> None:
        picture(axes, np.asarray(images.images(image)), title)
        colours = [KINDS["new" if classes[c] in names[1] else "base"] for c in labels]
        draw_boxes(axes, np.array(boxes), colours, [classes[c] for c in labels])

    for column, example in enumerate(examples):
        truth = images.truth(example["image"])
        draw(
            grid[0, column], example["image"], truth.boxes, truth.labels.tolist(), "ground truth" if not column else ""
        )
        for line, row in enumerate(rows, 1):
            own = row["inside"]["examples"][column]
            title = system_label(row["system"]) if not column else ""
            draw(grid[line, column], own["image"], own["boxes"], own["labels"], title)
    handles = [
        Patch(facecolor="none", edgecolor=KINDS[k], linewidth=2, label=f"name of a {k} class") for k in ("base", "new")
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    said = ", ".join(system_label(row["system"]) for row in rows)
    return fig.described(
        f"{len(examples)} test images with the boxes of the ground truth, and of {said} above its threshold"
    )


def example_maps(rows: Sequence[Mapping], images: ImageSet) -> Still:
    """A line per image: the image, the ground truth, and the map of each system; names of what is there below."""
    examples, classes = rows[0]["inside"]["examples"], rows[0]["classes"]
    fig = figure(1.75 * (len(rows) + 2), 1.85 * len(examples) + 1.2)
    grid = fig.subplots(len(examples), len(rows) + 2, squeeze=False)
    truths = [images.truth(example["image"]).semantic.numpy() for example in examples]
    there = sorted({int(c) for truth in truths for c in np.unique(truth) if c >= 0})
    colours = {c: CLASSES[n % len(CLASSES)] for n, c in enumerate(there)}
    table = np.array([to_rgb(colours.get(c, "#FFFFFF")) for c in range(len(classes))] + [to_rgb("#FFFFFF")])
    for line, (example, truth) in enumerate(zip(examples, truths, strict=True)):
        columns = [("image", np.asarray(images.images(example["image"])))]
        columns += [("ground truth", table[np.where(truth < 0, len(classes), truth)])]
        columns += [
            (system_label(row["system"]), table[np.array(row["inside"]["examples"][line]["map"])]) for row in rows
        ]
        for axes, (title, pixels) in zip(grid[line], columns, strict=True):
            picture(axes, pixels, "" if line else title)
    new = set(rows[0]["names"]["new"])
    handles = [
        Patch(
            facecolor=colours[c],
            edgecolor=INK,
            linewidth=0.5,
            label=classes[c] + (" (new)" if classes[c] in new else ""),
        )
        for c in there
    ]
    handles.append(Patch(facecolor="white", edgecolor=INK, linewidth=0.5, label="another name, or none"))
    fig.legend(handles=handles, loc="outside lower center", ncols=len(rows) + 2, frameon=False, fontsize=8.5)
    said = ", ".join(system_label(row["system"]) for row in rows)
    return fig.described(f"{len(examples)} test images with the ground truth and the maps of {said}")
