"""Distillation lens: the embedding of one region on its way, step by step, to what the teacher says of it."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from vlmlab.methods.dense.crops import crop_embeddings, grown
from vlmlab.views.boxes import KINDS, top_words
from vlmlab.views.style import INK, MUTED, figure, picture, tidy
from vlmlab.widgets.panel import LABEL, WIDE, Panel, PictureChooser, Waiting, image_view

MOMENTS = 24
HEADS = [("both (ViLD)", "vild"), ("words only", "text")]


class DistillationLens(Panel):
    """ViLD's head learns once per setting; every region's embedding is noted on the way, for the slider to go back to."""

    title = "Distillation lens"

    def __init__(
        self,
        train: int = 300,
        scenes: int = 12,
        head: str = "vild",
        seed: int = 1,
        settings: dict[str, Any] | None = None,
    ) -> None:
        """The true objects of `scenes` test scenes are looked at while a head learns from `train` training scenes, with ViLD's
        embedded settings and these."""
        self.train, self.scenes, self.seed, self.settings = train, scenes, seed, settings or {}
        self._regions = self._objects()
        pictures = [(f"{kind} object: {name}", piece) for name, kind, piece, _, _ in self._regions]
        self.head = widgets.Dropdown(options=HEADS, value=head, description="learns", style=LABEL, layout=WIDE)
        self.moment = widgets.IntSlider(
            MOMENTS - 1, 0, MOMENTS - 1, description="moment", readout=False, style=LABEL, layout=WIDE
        )
        self.chooser = PictureChooser(pictures, lambda: self._redraw(), self.guarded)
        self.chart = image_view("the way of the region's embedding")
        self.note = widgets.HTML()
        for name in ("head", "moment", "chart"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.controls = [self.head, self.moment, *self.chooser.widgets[:2]]  # other images have no true boxes
        self.views = [self.chart, self.note]
        self.answer: dict[str, Any] = Waiting()
        self._ways: dict[str, dict[str, Any]] = {}
        super().__init__()
        self.head.observe(self.guarded(lambda change: self.look()), "value")
        self.moment.observe(self.guarded(lambda change: self._redraw()), "value")
        self.look()

    def _objects(self) -> list[tuple]:
        """(name, kind, crop, scene, box) of the objects, as many new ones as base ones where there are, in turn."""
        from vlmlab.studies.few_scenes import scenes

        dataset = scenes(self.train, self.scenes)
        rows: dict[str, list] = {"base": [], "new": []}
        for i in range(len(dataset.test)):
            truth, pixels = dataset.test.truth(i), np.asarray(dataset.test.images(i))
            for box, label in zip(truth.boxes, truth.labels.tolist(), strict=True):
                name = dataset.classes[label]
                x0, y0, x1, y1 = grown(box[None], 1.2, "square", float(pixels.shape[0]))[0].round().int().tolist()
                piece = pixels[y0 : max(y0 + 1, y1), x0 : max(x0 + 1, x1)].copy()
                kind = "new" if name in dataset.novel else "base"
                rows[kind].append((name, kind, piece, i, box))
        return [one for pair in zip(rows["new"], rows["base"], strict=False) for one in pair][:12]

    def look(self) -> None:
        """Ask for the ways under what the head learns from."""
        head = self.head.value
        self.ask(lambda cancelled: self._see(head), self._show)

    def _see(self, head: str) -> dict[str, Any]:
        if head not in self._ways:
            self._ways[head] = self._learn(head)
        return self._ways[head]

    def _learn(self, head: str) -> dict[str, Any]:
        from vlmlab.learning.fit import fit
        from vlmlab.registry import load_system
        from vlmlab.studies.few_scenes import BACKBONE, task_of
        from vlmlab.studies.run import shared_bank

        bank, kind = shared_bank(BACKBONE), load_system("vild")
        task = task_of(self.train, self.scenes, self.seed)
        method = kind(bank.backbone, kind.configure(bank.backbone, **(self.settings | {"head": head})))
        steps, noted, given = [], [], {}

        def note(done: int, total: int, loss: float) -> None:
            if not given:
                given["features"], given["teacher"] = self._frozen(method, task)
            if done == 1 or done == total or done * (MOMENTS - 1) // total > (done - 1) * (MOMENTS - 1) // total:
                steps.append(done)
                with torch.no_grad():
                    noted.append(F.normalize(method.text_head(given["features"]), dim=-1).cpu())

        fit(method, task.seen_by(kind.info.setup), note, bank=bank)
        return {
            "head": head,
            "steps": steps,
            "students": torch.stack(noted),  # [moments, regions, e]
            "teachers": given["teacher"].cpu(),
            "text": method.text.cpu(),
            "scale": method.scale,
            "classes": list(task.classes),
            "novel": set(task.dataset.novel),
        }

    @torch.no_grad()
    def _frozen(self, method, task) -> tuple[torch.Tensor, torch.Tensor]:
        """Features [R, F] and CLIP's embeddings [R, e] of the true boxes."""
        features, teachers = [], []
        for _, _, _, scene, box in self._regions:
            images, frames = method.framed([task.test.images(scene)])
            boxes = frames[0].boxes(box[None])[None].to(images.device)
            tested = method.tested
            features.append(method.features(tested.find(images).maps, boxes)[0, 0])
            teachers.append(crop_embeddings(method.backbone, images, boxes, tested.scales, tested.shape)[0, 0])
        return torch.stack(features), torch.stack(teachers)

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self._redraw()

    def _redraw(self) -> None:
        if self.answer:
            self.paint(self.chart, self.static)
            self.note.value = f"<small>{html.escape(self._told())}</small>"
            self._repaint_done()

    # --- what is drawn ------------------------------------------------------------------------------------------------

    def _at(self) -> int:
        return min(self.moment.value, len(self.answer["steps"]) - 1)

    def way(self, region: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosine with the teacher's embedding, and with the words of its name, at every moment."""
        a = self.answer
        students = a["students"][:, region]
        name = a["classes"].index(self._regions[region][0])
        return (students @ a["teachers"][region]).numpy(), (students @ a["text"][name]).numpy()

    def named(self, region: int) -> tuple[str, str]:
        """What student (at the moment) and teacher call the region."""
        a = self.answer
        rows = (a["students"][self._at(), region], a["teachers"][region])
        return tuple(a["classes"][int((row @ a["text"].T).argmax())] for row in rows)

    def _told(self) -> str:
        region = self.chooser.number.value
        name, kind = self._regions[region][:2]
        teacher, words = self.way(region)
        at = self._at()
        student, clip = self.named(region)
        return (
            f"Step {self.answer['steps'][at]} of {self.answer['steps'][-1]}: the {kind} object '{name}' has cosine "
            f"{teacher[at]:.2f} with the teacher's embedding and {words[at]:.2f} with its name. The student calls it "
            f"'{student}', the teacher '{clip}'."
        )

    def static(self) -> Figure:
        a, region, at = self.answer, self.chooser.number.value, self._at()
        name, kind, piece = self._regions[region][:3]
        fig = figure(9.4, 3.2)
        left, middle, right, last = fig.subplots(1, 4, width_ratios=[0.6, 1.7, 1, 1])
        picture(left, piece, f"{kind}:\n{name}")
        for other in range(len(self._regions)):
            colour = KINDS[self._regions[other][1]]
            x, y = self.way(other)
            middle.plot(x[: at + 1], y[: at + 1], color=colour, alpha=1.0 if other == region else 0.2, linewidth=1.4)
            if other == region:
                middle.scatter(x[: at + 1], y[: at + 1], color=colour, s=10)
                middle.scatter(x[at], y[at], color=colour, s=60, edgecolor=INK, zorder=3, label="student now")
        goal = float(a["teachers"][region] @ a["text"][a["classes"].index(name)])
        middle.scatter(1, goal, marker="*", s=140, color=INK, zorder=3, label="teacher")
        middle.axhline(goal, color=MUTED, linestyle=":", linewidth=1)
        middle.set_xlim(-0.3, 1.05)
        tidy(middle, f"step {a['steps'][at]} of {a['steps'][-1]}", "cosine with the teacher", "cosine with its name")
        middle.legend(frameon=False, fontsize=8, loc="upper left")
        colours = [KINDS["new" if c in a["novel"] else "base"] for c in a["classes"]]
        for axes, title, row in (
            (right, "student, now", a["students"][at, region]),
            (last, "teacher", a["teachers"][region]),
        ):
            shares = (a["scale"] * row @ a["text"].T).softmax(-1).numpy()
            top_words(axes, a["classes"], shares, colours, title)
        return fig.described(f"head: {a['head']}. {self._told()}")

    def facts(self) -> dict[str, Any]:
        """The name of the region, its cosine with the teacher (to one decimal), and whether both call it by its name."""
        region = self.chooser.number.value
        student, teacher = self.named(region)
        name = self._regions[region][0]
        cosine = round(float(self.way(region)[0][self._at()]), 1)
        return {"object": name, "cosine": cosine, "student right": student == name, "teacher right": teacher == name}
