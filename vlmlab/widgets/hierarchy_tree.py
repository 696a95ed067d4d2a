"""Hierarchy tree: what a system answers at every node of a class tree, and where its answers contradict one another."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure

from vlmlab.views.pictures import picture
from vlmlab.views.style import INK, MUTED, RIGHT, WRONG, figure, system_label
from vlmlab.widgets.menus import system_menu
from vlmlab.widgets.panel import Panel, PictureChooser, Waiting, image_view, jpeg, sample_pictures

SIDE = 150  # pixels of the image on the page
GOOD, BAD, ASKED = RIGHT, WRONG, "#BFBFBF"
# On the page these stand on the theme's ground, which may be dark; the mark in front says the same without any colour.
IN_THEME = {
    GOOD: f"var(--jp-success-color1, {GOOD})",
    BAD: f"var(--jp-error-color1, {BAD})",
    MUTED: "var(--jp-ui-font-color2, #666)",
}
SYSTEMS = ("zero_shot", "coop", "protect")


class HierarchyTree(Panel):
    """One image, asked at every node: which of the children is it, and which of all leaves?

    A line leads from each node to the child that wins among its siblings. Nodes above the image's class have a right
    answer: a full green line, or a dashed wine-red one where it is wrong. A system is consistent on an image if all of these and
    the leaf are right. It contradicts itself if some node above the leaf that it names sends the image elsewhere.
    """

    title = "Hierarchy tree"

    def __init__(
        self,
        dataset: str = "vehicles",
        backbone: str = "micro-vit",
        shots: int = 16,
        seed: int = 1,
        system: str = "coop",
    ) -> None:
        """Raises `VlmlabError` (in the error line, or in strict mode) for a dataset without a tree."""
        self.names = (dataset, backbone, shots, seed)
        self.chooser = PictureChooser(sample_pictures(dataset, 24), self.look, self.guarded)
        self.system = system_menu(SYSTEMS, system)
        self.system.add_class("vlmlab-system")
        self.shown = image_view("the image")
        self.drawn = widgets.HTML()
        self.controls = [*self.chooser.widgets, self.system]
        self.views = [widgets.HBox([self.shown, self.drawn])]
        self.answer: dict[str, Any] = Waiting()
        self._fitted: dict[str, Any] = {}
        super().__init__()
        self.system.observe(self.guarded(lambda change: self.look()), "value")
        self.look()

    def look(self) -> None:
        """Ask the chosen system about the chosen image."""
        name, pixels, system = self.chooser.name, self.chooser.pixels, self.system.value
        self.ask(lambda cancelled: self._see(name, pixels, system, cancelled), self._show)

    def _method(self, system: str, cancelled) -> Any:
        from vlmlab.studies.experiment import Experiment
        from vlmlab.studies.run import construct

        dataset, backbone, shots, seed = self.names
        if system not in self._fitted:
            ready = construct(Experiment(system, dataset, backbone, shots, seed))
            self.tree = ready.task.hierarchy()
            method = ready.learn(should_stop=cancelled).method
            if cancelled():
                return method
            self._fitted[system] = method
        return self._fitted[system]

    def _see(self, name: str, pixels: np.ndarray, system: str, cancelled=lambda: False) -> dict[str, Any]:
        return self._answers(self._method(system, cancelled), name, pixels, system)

    @torch.no_grad()
    def _answers(self, method: Any, name: str, pixels: np.ndarray, system: str) -> dict[str, Any]:
        from vlmlab.methods.method import Batch

        tree, backbone = self.tree, method.backbone
        batch = Batch(features=backbone.encode_image(backbone.preprocess(pixels)))

        def asked(names) -> tuple[str, dict[str, float]]:
            method.set_classes(names, method.templates)
            p = method.logits(batch)[0].softmax(0).tolist()
            return names[int(np.argmax(p))], dict(zip(names, p, strict=True))

        nodes: dict[str, str] = {}
        share: dict[str, float] = {}
        for node in tree.inner:
            nodes[node], own = asked(tree.children[node])
            share |= own
        leaf, leaves = asked(tree.classes)
        true = name if name in tree.classes else None
        right = {node: nodes[node] in (true, *tree.path(true)) for node in tree.path(true)} if true else {}
        torn = [node for node in tree.path(leaf) if nodes[node] not in (leaf, *tree.path(leaf))]
        return {
            "picture": name,
            "pixels": pixels,
            "system": system,
            "true": true,
            "leaf": leaf,
            "leaf_probability": leaves[leaf],
            "nodes": nodes,
            "share": share,
            "right": right,
            "consistent": bool(right) and leaf == true and all(right.values()),
            "torn": torn,
        }

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.shown.value = jpeg(answer["pixels"], SIDE)
        verdict = html.escape(f"{system_label(answer['system'])} {_verdict(answer)}.")
        self.drawn.value = f"<div style='line-height:1.25'>{self._list(self.tree.root)}</div><p>{verdict}</p>"

    def _list(self, node: str) -> str:
        """The children of a node as a nested list; the one that wins is marked."""
        answer, rows = self.answer, []
        for child in self.tree.children[node]:
            style, mark = "", ""
            if answer["nodes"][node] == child:
                mark, colour = _mark(answer, node)
                style = f"color:{IN_THEME[colour]};font-weight:bold"
            label = f"<span style='{style}'>{mark}{html.escape(child)}</span>"
            share = f" <small>{100 * answer['share'][child]:.0f} %</small>"
            leaf = " &#8592; among all leaves" if child == answer["leaf"] else ""
            true = " (true)" if child == answer["true"] else ""
            below = self._list(child) if child in self.tree.children else ""
            rows.append(f"<li>{label}{share}{true}{leaf}{below}</li>")
        return f"<ul style='margin:0;padding-left:18px'>{''.join(rows)}</ul>"

    # --- the other two lives ------------------------------------------------------------------------------------------

    def static(self) -> Figure:
        answer = self.answer
        pixels, tree = answer["pixels"], self.tree
        leaves = [n for n in _order(tree) if n not in tree.children]
        places = {name: (len(tree.path(name)), float(-i)) for i, name in enumerate(leaves)}
        deepest = max(x for x, _ in places.values())
        for node in reversed(tree.inner):
            below = [places[child][1] for child in tree.children[node]]
            places[node] = (len(tree.path(node)), (max(below) + min(below)) / 2)
        # Leaves stand in one column, whatever their depth.
        places |= {name: (deepest, places[name][1]) for name in leaves}
        fig = figure(9.6, max(3.4, 0.31 * len(leaves)))
        left, right = fig.subplots(1, 2, width_ratios=(1, 3.4))
        picture(left, pixels, answer["picture"])
        for node in tree.inner:
            for child in tree.children[node]:
                (x, y), (u, v) = places[node], places[child]
                won = answer["nodes"][node] == child
                _, colour = _mark(answer, node) if won else ("", ASKED)
                bad = colour == BAD
                right.plot(
                    [x, u],
                    [y, v],
                    color=colour,
                    lw=2.6 if won else 0.8,
                    ls="--" if bad else "-",
                    zorder=2 if won else 1,
                )
        for name, (x, y) in places.items():
            inner = name in tree.children
            here = name == answer["leaf"]
            text = ("everything" if name == tree.root else name) + ("  (named)" if here else "")
            bold = name == answer["true"]
            right.text(
                x if inner else x + 0.04,
                y + (0.12 if inner else 0),
                text + ("  (true)" if bold else ""),
                ha="center" if inner else "left",
                va="bottom" if inner else "center",
                fontsize=8,
                color=INK if inner or here or bold else MUTED,
                weight="bold" if here or bold else "normal",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
            )
        right.set_xlim(-0.35, deepest + 1.1)
        right.set_ylim(-len(leaves) + 0.2, 1.0)
        right.set_axis_off()
        label = system_label(answer["system"])
        right.set_title(f"{label} {_verdict(answer)}", loc="left", fontsize=9, color=INK)
        marks = ", ".join(f"{node}: {child}" for node, child in answer["nodes"].items())
        return fig.described(
            f"class tree for an image of {answer['picture']}; {label} names {answer['leaf']} among the leaves, "
            f"and at the nodes {marks}. It {_verdict(answer)}"
        )

    def facts(self) -> dict[str, Any]:
        """The leaf that is named, and whether the answers agree."""
        answer = self.answer
        return {
            "leaf": answer["leaf"],
            "consistent": answer["consistent"],
            "contradictions": len(answer["torn"]),
            "nodes": len(answer["nodes"]),
        }


def _order(tree, node: str | None = None) -> list[str]:
    """All names, each before what is below it."""
    node = node or tree.root
    return [node, *(name for child in tree.children.get(node, ()) for name in _order(tree, child))]


def _mark(answer: dict[str, Any], node: str) -> tuple[str, str]:
    """(sign, colour) of a node's answer: right or wrong where that can be said."""
    if node not in answer["right"]:
        return "", MUTED
    return ("&#10003; ", GOOD) if answer["right"][node] else ("&#10007; ", BAD)


def _verdict(answer: dict[str, Any]) -> str:
    """What the system does; its name goes before."""
    if answer["torn"]:
        node = answer["torn"][0]
        above = "everything" if node == next(iter(answer["nodes"])) else node
        return f"contradicts itself: it names {answer['leaf']}, but at '{above}' it says {answer['nodes'][node]}"
    if answer["true"] is None:
        return f"names {answer['leaf']}, and no node contradicts it"
    if answer["consistent"]:
        return "is right at the leaf and at every node above it"
    if answer["leaf"] != answer["true"]:
        return f"names {answer['leaf']}, which is wrong, without contradicting itself"
    return "is right at the leaf, wrong at a node above"
