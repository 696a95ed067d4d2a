"""Proposal board: how many of the objects a proposal meets, over the number of proposals, and which objects are missed."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure

from vlmlab.methods.dense.boxes import iou
from vlmlab.methods.dense.boxes import side_by_side as padded
from vlmlab.methods.dense.regions import RegionBank
from vlmlab.views.boxes import KINDS, boxed, recall_curves, side_by_side
from vlmlab.widgets.panel import LABEL, WIDE, Panel, Waiting, image_view, jpeg

COUNTS = (1, 2, 4, 8, 12, 16, 32)
MISSED, TILE = 3, 180  # scenes with a missed object that are shown, and their pixels


class ProposalBoard(Panel):
    """Proposals of test scenes, computed once; the number of them and what counts as met are moved freely."""

    title = "Proposal board"

    def __init__(self, dataset: str = "tableau", test: int = 120, count: int = 8, met: float = 0.5) -> None:
        """`test` scenes are looked at; `count` proposals of each count, and one meets an object from an IoU of `met` on."""
        self.dataset_name, self.test = dataset, test
        self.count = widgets.SelectionSlider(
            options=COUNTS, value=count, description="proposals", style=LABEL, layout=WIDE
        )
        self.met = widgets.FloatSlider(
            met, min=0.3, max=0.9, step=0.05, description="IoU", style=LABEL, layout=WIDE, continuous_update=False
        )
        self.chart = image_view("recall over the number of proposals")
        self.missed = image_view("scenes with an object that no proposal meets")
        self.note = widgets.HTML()
        for name in ("count", "met", "chart", "missed"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.controls = [self.count, self.met]
        self.views = [self.chart, self.note, self.missed]
        self.answer: dict[str, Any] = Waiting()
        super().__init__()
        for control in (self.count, self.met):
            control.observe(self.guarded(lambda change: self._redraw()), "value")
        self.ask(lambda cancelled: self._see(), self._show)

    @torch.no_grad()
    def _see(self) -> dict[str, Any]:
        from vlmlab.registry import load_system
        from vlmlab.studies.few_scenes import BACKBONE, scenes
        from vlmlab.studies.run import shared_bank

        backbone = shared_bank(BACKBONE).backbone
        dataset = scenes(test=self.test, dataset=self.dataset_name)
        bank = RegionBank(backbone, COUNTS[-1])
        found, frames = bank.regions(load_system("region_clip")(backbone).framed, dataset.test, crops=False)
        truths = [frame.truth(dataset.test.truth(i)) for i, frame in enumerate(frames)]
        boxes, names = padded([t.boxes for t in truths]), padded([t.labels for t in truths], -1)
        overlap = iou(boxes, found.boxes.cpu()) * found.there.cpu()[:, None]  # [N, G, P]
        novel = torch.tensor([name in dataset.novel for name in dataset.classes])
        return {
            "dataset": dataset,
            "best": overlap.cummax(-1).values,  # with the first p + 1 proposals
            "which": overlap,
            "there": names >= 0,
            "new": novel[names.clamp_min(0)] & (names >= 0),
            "names": names,
            "truth": boxes,
            "proposals": found.boxes.cpu(),
            "frames": frames,
        }

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self._redraw()

    def recall(self) -> dict[str, list[float]]:
        """Percent of the objects that are met, for every number of proposals, by group."""
        a = self.answer
        found = {}
        for group, own in (("base", a["there"] & ~a["new"]), ("new", a["new"])):
            met = a["best"][own] >= self.met.value  # [n, P]
            found[group] = [100 * float(met[:, n - 1].float().mean()) for n in COUNTS]
        return found

    def _lost(self) -> torch.Tensor:
        """[m, 2] scene and place of the objects that the chosen number of proposals misses; new ones first."""
        a = self.answer
        lost = a["there"] & (a["best"][..., self.count.value - 1] < self.met.value)
        places = lost.nonzero()
        return places[a["new"][places[:, 0], places[:, 1]].long().argsort(descending=True, stable=True)]

    def _redraw(self) -> None:
        if not self.answer:
            return
        self.paint(self.chart, self._curves)
        lost = self._lost()
        if len(lost):
            self.missed.value = jpeg(self._examples())
        else:
            self.missed.value = b""
        self.note.value = f"<small>{html.escape(self._told())}</small>"
        self._repaint_done()

    def _told(self) -> str:
        lost, a = self._lost(), self.answer
        new = int(a["new"][lost[:, 0], lost[:, 1]].sum())
        shown = " Below: some of them, with the proposals (white) and the best IoU." if len(lost) else ""
        return (
            f"With {self.count.value} proposals, {len(lost)} of {int(a['there'].sum())} objects in {self.test} scenes "
            f"are met by none (IoU {self.met.value:.2f}); {new} of those are of new classes.{shown}"
        )

    def _curves(self) -> Figure:
        title = f"met with IoU {self.met.value:.2f} or more"
        fig = recall_curves(COUNTS, self.recall(), self.count.value, title)
        return fig.described(f"recall of base and new objects over the number of proposals. {self._told()}")

    def _examples(self) -> np.ndarray:
        """Scenes with a missed object (in the colour of its group, with the best IoU) and the proposals (white)."""
        a, tiles = self.answer, []
        for scene, place in self._lost()[:MISSED].tolist():
            frame, name = a["frames"][scene], a["dataset"].classes[int(a["names"][scene, place])]
            colour = KINDS["new" if a["new"][scene, place] else "base"]
            boxes = torch.cat([a["truth"][scene, place][None], a["proposals"][scene, : self.count.value]])
            best = float(a["best"][scene, place, self.count.value - 1])
            texts = [f"{name} {best:.2f}", *[""] * self.count.value]
            colours = [colour, *["#FFFFFF"] * self.count.value]
            pixels = np.asarray(a["dataset"].test.images(scene))
            tiles.append(boxed(pixels, frame.boxes_back(boxes).numpy(), texts, colours, TILE))
        return side_by_side(tiles)

    # --- the other two lives ------------------------------------------------------------------------------------------

    def static(self) -> Figure:
        return self._curves()

    def facts(self) -> dict[str, Any]:
        """Recall of base and new objects (percent, to the nearest five) at the chosen number, and how many objects are missed."""
        at = COUNTS.index(self.count.value)
        near = {group: 5 * round(values[at] / 5) for group, values in self.recall().items()}
        return {"proposals": self.count.value, **near, "missed": len(self._lost())}
