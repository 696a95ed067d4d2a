"""Detection playground: type any words and see which boxes bear them; ask a box what the teacher and the student say of it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
import torchvision
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vlmlab.methods.dense.crops import crop_embeddings, grown
from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.method import Batch
from vlmlab.views.boxes import KINDS, boxed, top_words
from vlmlab.views.style import figure, picture, system_label
from vlmlab.widgets.menus import system_menu
from vlmlab.widgets.panel import LABEL, WIDE, Panel, PictureChooser, Waiting, image_view, jpeg
from vlmlab.widgets.prompt_microscope import read_words

SIDE, CROP = 330, 96  # pixels of the image and of a crop on the page
POINTS = 33  # rows and columns of points that a click tells apart
MOST_WORDS = 50
TEACHER = "region_clip"
MATCH = 0.5  # intersection over union from which a box has found an object
WORDS = ("apple", "book", "clock", "heart", "star", "arrow", "cup", "drum", "mushroom", "umbrella", "zebra")


class DetectionPlayground(Panel):
    """Words in, boxes out, on regions that are computed once per image; the detector learns once, when it is first asked."""

    title = "Detection playground"

    def __init__(
        self,
        words: Sequence[str] = WORDS,
        system: str = "vild",
        systems: Sequence[str] = (),
        train: int = 300,
        count: int = 8,
        settings: dict[str, Any] | None = None,
        threshold: float = 0.3,
        who: str = "student",
        fitted: dict[str, Any] | None = None,
    ) -> None:
        """`systems` are offered (all that detect, if none is named) and learn from `train` scenes; `settings` {system: {...}} are
        what they learn with. `count` test scenes are shown. `who` names the boxes first, "student" or "teacher". Detectors that have
        learned already come as `fitted` {system: detector}.

        Raises `VlmlabError` for a system that does not detect.
        """
        from vlmlab.studies.few_scenes import detectors, scenes

        self.train, self.count, self.settings, self.fitted = train, count, settings or {}, fitted or {}
        self.dataset = scenes(train)
        offered = [key for key in (systems or detectors()) if key != TEACHER]
        found = []
        for i in range(count):
            shown = [self.dataset.classes[c] for c in self.dataset.test.truth(i).labels.tolist()]
            found.append((", ".join(shown), np.asarray(self.dataset.test.images(i)).copy()))
        self.words = widgets.Textarea(
            ", ".join(words), description="words", continuous_update=False, style=LABEL, layout=WIDE
        )
        self.system = system_menu(offered, system)
        self.who = widgets.ToggleButtons(
            options=[("student", "student"), ("teacher: CLIP on crops", "teacher")],
            value=who,
            style={"button_width": "90px"},
        )
        self.threshold = _slider("threshold", threshold, 0.01)
        self.nms = _slider("NMS", 0.5, 0.05)
        self.chooser = PictureChooser(found, self.look, self.guarded)
        self.shown = image_view("the image with boxes; a click asks about the box there", POINTS, POINTS)
        self.crop = image_view("the box as the teacher sees it")
        self.list, self.tops, self.note = widgets.HTML(), widgets.HTML(), widgets.HTML()
        for name in ("words", "system", "who", "threshold", "nms", "shown", "crop"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.words.add_class("vlmlab-above")
        self.controls = [self.words, self.system, self.who, self.threshold, self.nms, *self.chooser.widgets]
        side = widgets.VBox([self.crop, self.tops])
        self.views = [widgets.HBox([self.shown, side]), self.note, self.list]
        self.answer: dict[str, Any] = Waiting()
        self._batches: dict[str, tuple] = {}  # the latest image as the network's input: regions are cached by it
        self._twins: dict[str, Any] = {}
        self._seen: tuple[Any, torch.Tensor] = (None, torch.zeros(0))  # CLIP's embeddings of the latest crops
        super().__init__()
        for control in (self.words, self.system, self.who):
            control.observe(self.guarded(lambda change: self.look()), "value")
        for control in (self.threshold, self.nms):
            control.observe(self.guarded(lambda change: self._redraw()), "value")
        self.shown.observe(self.guarded(lambda change: self._redraw()), "place")
        self.look()

    # --- asking -------------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Ask for the boxes that the words, the system and the image give."""
        words = read_words(self.words.value, MOST_WORDS)
        words = list(dict.fromkeys(words))
        key = TEACHER if self.who.value == "teacher" else self.system.value
        number = self.chooser.number.value
        self.ask(lambda cancelled: self._see(words, key, number), self._show)

    def _see(self, words: list[str], key: str, number: int) -> dict[str, Any]:
        return self._asked(words, key, number, self._detector(key), self._detector(TEACHER))

    @torch.no_grad()
    def _asked(self, words: list[str], key: str, number: int, student, teacher) -> dict[str, Any]:
        name, pixels = self.chooser.pictures[number]
        image, frame = self._framed(student, name, pixels)
        batch = Batch(images=image)
        for one in {id(student): student, id(teacher): teacher}.values():
            one.say(words)
        every = student.detect(batch)[0].cpu()  # no box is suppressed: all words of all boxes
        unique, which = _boxes_of(every)
        tested, asked = teacher.tested, (name, unique.numpy().tobytes())
        if self._seen[0] != asked:
            boxes = unique[None].to(image.device)
            self._seen = asked, crop_embeddings(teacher.backbone, image, boxes, tested.scales, tested.shape)[0]
        seen = self._seen[1]
        says = (teacher.backbone.logit_scale * seen @ teacher.text.T).softmax(-1).cpu()
        scores = torch.zeros(len(unique), len(words))
        scores[which, every.labels] = every.scores
        crops = frame.boxes_back(grown(unique, tested.scales[0], tested.shape, float(image.shape[-1])))
        return {
            "picture": name,
            "number": number,
            "pixels": pixels,
            "words": words,
            "system": key,
            "all": every.back(frame),
            "which": which,
            "scores": scores,
            "teacher": says,
            "crops": crops,
        }

    def _detector(self, key: str):
        """A detector that has learned, with words of its own and without suppression."""
        from vlmlab.studies.few_scenes import learned, twin

        if key not in self._twins:
            own = self.fitted.get(key)
            found = twin(own or learned(key, self.train, **self.settings.get(key, {})).method)
            found.config.nms, found.config.most_detections = 1.0, 10000
            self._twins[key] = found
        return self._twins[key]

    def _framed(self, method, name: str, pixels: np.ndarray):
        if name not in self._batches:
            images, frames = method.framed([pixels])
            self._batches = {name: (images, frames[0])}
        return self._batches[name]

    # --- showing ------------------------------------------------------------------------------------------------------

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self._redraw()

    def found(self) -> Detections:
        """What is left at the present threshold, after the suppression of doubles per word."""
        every = self.answer["all"]
        able = every.scores >= self.threshold.value
        kept = torchvision.ops.batched_nms(every.boxes[able], every.scores[able], every.labels[able], self.nms.value)
        self._kept = able.nonzero()[:, 0][kept]
        return every[self._kept]

    def kinds(self) -> list[str]:
        """Of every word, whether the dataset has boxes of it ("base"), shows it without ("new"), or does not know it."""
        novel, known = set(self.dataset.novel), set(self.dataset.classes)
        return ["new" if w in novel else "base" if w in known else "invented" for w in self.answer["words"]]

    def _redraw(self) -> None:
        answer = self.answer
        if not answer:
            return
        found, kinds, words = self.found(), self.kinds(), answer["words"]
        colours = [KINDS[kinds[c]] for c in found.labels.tolist()]
        texts = [words[c] for c in found.labels.tolist()]
        chosen = self._chosen(found)
        self.shown.value = jpeg(boxed(answer["pixels"], found.boxes.numpy(), texts, colours, SIDE, chosen))
        said = ", ".join(f"{t} {s:.2f}" for t, s in zip(texts, found.scores.tolist(), strict=True))
        self.shown.alt = f"boxes in the image: {said or 'none'}; a click asks about the box there"
        self.list.value = _listed(texts, found.scores.tolist(), colours)
        self._ask_about(chosen)
        self.note.value = f"<small>{html.escape(self._told(found))} {_legend()}</small>"
        self._repaint_done()

    def _chosen(self, found: Detections) -> int:
        """The smallest box under the point, else the surest; -1 if there is none."""
        if not len(found):
            return -1
        row, column = self.shown.place
        height, width = self.answer["pixels"].shape[:2]
        if row < 0:
            return 0
        y, x = (row + 0.5) / POINTS * height, (column + 0.5) / POINTS * width
        boxes = found.boxes
        inside = (boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3])
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1).masked_fill(~inside, torch.inf)
        return int(area.argmin()) if inside.any() else 0

    def _ask_about(self, chosen: int) -> None:
        if chosen < 0:
            self.crop.value, self.tops.value = b"", "<small>no box above the threshold</small>"
            return
        row = int(self.answer["which"][self._kept[chosen]])
        x0, y0, x1, y1 = self.answer["crops"][row].round().int().tolist()
        piece = self.answer["pixels"][max(0, y0) : max(y0 + 1, y1), max(0, x0) : max(x0 + 1, x1)]
        self.crop.value = jpeg(piece, CROP)
        words, colours = self.answer["words"], [KINDS[kind] for kind in self.kinds()]
        parts = [("teacher, of the crop", self.answer["teacher"][row].numpy())]
        if self.answer["system"] != TEACHER:
            parts.append(("student, score", self.answer["scores"][row].numpy()))
        self.tops.value = "".join(_bars(title, words, values, colours) for title, values in parts)

    def counts(self) -> dict[str, int]:
        """Of the objects of a test scene whose names are among the words: {"objects", "found", "false alarms"}."""
        number = self.answer["number"]
        if number >= self.count:  # the reader's own image
            return {}
        truth, words, found = self.dataset.test.truth(number), self.answer["words"], self.found()
        sought = [(box, words.index(name)) for box, name in self._objects(truth) if name in words]
        used: set[int] = set()
        for box, label in sought:
            overlap = torchvision.ops.box_iou(found.boxes, box[None])[:, 0] if len(found) else torch.zeros(0)
            able = [n for n in range(len(found)) if overlap[n] >= MATCH and found.labels[n] == label and n not in used]
            used |= set(able[:1])
        return {"objects": len(sought), "found": len(used), "false alarms": len(found) - len(used)}

    def _objects(self, truth):
        return [(box, self.dataset.classes[c]) for box, c in zip(truth.boxes, truth.labels.tolist(), strict=True)]

    def _told(self, found: Detections) -> str:
        counts = self.counts()
        if not counts:
            return f"{len(found)} boxes."
        return (
            f"Of {counts['objects']} objects that the words name, {counts['found']} found; false alarms: "
            f"{counts['false alarms']}."
        )

    # --- the other two lives ------------------------------------------------------------------------------------------

    def static(self) -> Figure:
        answer, found, kinds = self.answer, self.found(), self.kinds()
        words, colours = answer["words"], [KINDS[kind] for kind in kinds]
        chosen = self._chosen(found)
        fig = figure(9.4, 3.0)
        parts = fig.subplots(1, 4, width_ratios=[1.25, 0.75, 1, 1])
        who = "CLIP on crops" if answer["system"] == TEACHER else system_label(answer["system"])
        texts = [words[c] for c in found.labels.tolist()]
        drawn = [colours[c] for c in found.labels.tolist()]
        picture(parts[0], boxed(answer["pixels"], found.boxes.numpy(), texts, drawn, SIDE, chosen), f"boxes of {who}")
        for axes in parts[1:]:
            axes.set_axis_off()
        if chosen >= 0:
            row = int(answer["which"][self._kept[chosen]])
            x0, y0, x1, y1 = answer["crops"][row].round().int().tolist()
            picture(
                parts[1], answer["pixels"][max(0, y0) : max(y0 + 1, y1), max(0, x0) : max(x0 + 1, x1)], "one of them"
            )
            for axes, title, values in (
                (parts[2], "teacher says of the crop", answer["teacher"][row].numpy()),
                (parts[3], f"score of {who}", answer["scores"][row].numpy()),
            ):
                axes.set_axis_on()
                top_words(axes, words, values, colours, title)
        handles = [Patch(color=colour, label=f"{kind} word") for kind, colour in KINDS.items()]
        fig.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
        said = ", ".join(f"{t} {s:.2f}" for t, s in zip(texts, found.scores.tolist(), strict=True))
        return fig.described(f"a scene with {answer['picture']}; boxes of {who}: {said or 'none'}. {self._told(found)}")

    def facts(self) -> dict[str, Any]:
        """How many objects the words name, how many are found, and how many boxes are false alarms."""
        return {"words": len(self.answer["words"]), **self.counts()}


def _slider(name: str, value: float, step: float) -> widgets.FloatSlider:
    return widgets.FloatSlider(value, min=0.0, max=1.0, step=step, description=name, style=LABEL, layout=WIDE)


def _boxes_of(found: Detections) -> tuple[torch.Tensor, torch.Tensor]:
    """The different boxes [m, 4] of detections, and which of them each is [n]."""
    if not len(found):
        return found.boxes.reshape(0, 4), torch.zeros(0, dtype=torch.long)
    return torch.unique(found.boxes, dim=0, return_inverse=True)


def _bars(title: str, words: Sequence[str], values: np.ndarray, colours: Sequence[str]) -> str:
    rows = []
    for k in np.argsort(-values)[:5]:
        word = html.escape(words[k])
        rows.append(
            f"<span class='word' title='{word}'>{word}</span><span class='bar'>"
            f"<i style='width:{100 * values[k]:.1f}%;background:{colours[k]}'></i></span><span>{100 * values[k]:.0f} %</span>"
        )
    return f"<small>{title}</small><div class='vlmlab-bars' role='group' aria-label='{title}'>{''.join(rows)}</div>"


def _listed(texts: Sequence[str], scores: Sequence[float], colours: Sequence[str]) -> str:
    marks = [
        f"<span style='color:{colour}'>&#9632;</span> {html.escape(text)} {score:.2f}"
        for text, score, colour in zip(texts, scores, colours, strict=True)
    ]
    return (
        "<small>"
        + " &nbsp; ".join(marks[:24])
        + (f" and {len(marks) - 24} more" if len(marks) > 24 else "")
        + "</small>"
    )


def _legend() -> str:
    marks = {"base": "base: learned from boxes", "new": "new: no box was given", "invented": "not in the dataset"}
    return " &nbsp; ".join(f"<span style='color:{KINDS[k]}'>&#9632;</span> {text}" for k, text in marks.items())
