"""Mask queries: what a segmenter proposes for one image, and what it, CLIP, and both together call every proposal."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image, ImageDraw, ImageFont

from vlmlab.errors import VlmlabError
from vlmlab.views.live import word_colour
from vlmlab.views.pictures import labelled
from vlmlab.views.style import INK, figure, picture, system_label
from vlmlab.widgets.menus import system_menu
from vlmlab.widgets.panel import LABEL, WIDE, Panel, PictureChooser, Waiting, image_view, jpeg, sample_pictures
from vlmlab.widgets.prompt_microscope import read_template, read_words
from vlmlab.widgets.segmenters import Segmenters, kind_of, offered

if TYPE_CHECKING:
    from vlmlab.methods.dense.segmenter import Segmenter

COLUMNS, TILE, STRIP = 6, 84, 16  # of the sheet of queries: tiles in a row, their side, and the line below, in pixels
MOST_WORDS = 60
SHOWN = 5  # names of a query


class MaskQueries(Panel):
    """Every query's mask on the image, surest first; click one to see who calls it what."""

    title = "Mask queries"

    def __init__(
        self,
        words: Sequence[str] = ("cat", "dog", "sky", "grass", "wood", "water"),
        system: str = "zsseg",
        backbone: str = "micro-vit",
        pictures: list[tuple[str, np.ndarray]] | None = None,
        template: str = "a photo of a {}.",
        segmenters: Mapping[str, Segmenter] | None = None,
    ) -> None:
        """`segmenters` are fitted systems by key; another of the menu is fitted to tableau when it is chosen (a minute)."""
        self.segmenters = Segmenters(segmenters, backbone)
        keys = [key for key in dict.fromkeys([*(segmenters or {}), *offered(backbone)]) if _names_segments(key)]
        self.system = system_menu(keys, system)
        self.words = widgets.Textarea(
            ", ".join(words), description="words", continuous_update=False, style=LABEL, layout=WIDE
        )
        self.template = widgets.Text(
            template, description="template", continuous_update=False, style=LABEL, layout=WIDE
        )
        self.chooser = PictureChooser(pictures or sample_pictures("tableau", 10), self.look, self.guarded)
        self.whole = image_view("the word that wins at every pixel")
        self.sheet = image_view("masks of the queries, surest first; a click chooses one", 1, COLUMNS)
        self.sheet.place = (0, 0)
        self.told = widgets.HTML()
        for name in ("system", "words", "template", "sheet"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        for control in (self.words, self.template):
            control.add_class("vlmlab-above")
        self.controls = [self.system, self.words, self.template, *self.chooser.widgets]
        self.views = [widgets.HBox([self.whole, self.told]), self.sheet]
        self.answer: dict[str, Any] = Waiting()
        super().__init__()
        for control in (self.system, self.words, self.template):
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.sheet.observe(self.guarded(lambda change: self._tell()), "place")
        self.look()

    def look(self) -> None:
        """Ask for the queries of what the controls say."""
        words, template = read_words(self.words.value, MOST_WORDS), read_template(self.template.value)
        system, (name, pixels) = self.system.value, self.chooser.pictures[self.chooser.number.value]
        self.ask(lambda cancelled: self._see(system, words, template, name, pixels), self._show)

    @torch.no_grad()
    def _see(self, system: str, words: list[str], template: str, name: str, pixels: np.ndarray) -> dict[str, Any]:
        method = self.segmenters.asked(system, words, template)
        images, (frame,) = method.framed([pixels])
        found = method.named(images)
        order = found.segmenter[0, :, -1].argsort()  # "no object" least first
        masks = frame.map_back(found.masks[0].sigmoid().float().cpu())[order.cpu()]
        return {
            "system": system, "words": words, "picture": name, "pixels": pixels, "masks": masks.numpy(),
            "segmenter": found.segmenter[0, order].cpu().numpy(),
            "clip": None if found.clip is None else found.clip[0, order].cpu().numpy(),
            "both": found.both[0, order].cpu().numpy(),
        }  # fmt: skip

    # --- what is shown ------------------------------------------------------------------------------------------------

    def _show(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        count = len(answer["masks"])
        self.sheet.rows, self.sheet.cells = -(-count // COLUMNS), count
        self.sheet.value = jpeg(_sheet(answer))
        self.whole.value = jpeg(labelled(answer["pixels"], self._winner()), 190)
        self._tell()

    def _winner(self) -> np.ndarray:
        a = self.answer
        return np.einsum("nc,nhw->chw", a["both"], a["masks"]).argmax(0)

    @property
    def chosen(self) -> int:
        """The number of the query that is told about, the surest being 0."""
        row, column = self.sheet.place
        return min(max(0, row) * COLUMNS + max(0, column), len(self.answer["masks"]) - 1)

    def _tell(self) -> None:
        a, n = self.answer, self.chosen
        rows = []
        asked = (
            a["clip"] is not None and a["clip"][n].sum() < 1.01
        )  # of an empty mask CLIP says one of every word: nothing
        for k in _most(a, n):
            cells = [a["segmenter"][n, k], a["clip"][n, k] if asked else None, a["both"][n, k]]
            mark = f"<span style='color:{word_colour(k)}'>&#9632;</span>"
            known = kind_of(a["words"][k], a["system"])
            rows.append(
                f"<tr><td>{mark} {html.escape(a['words'][k])} <small>{known}</small></td>"
                + "".join(f"<td>{'' if v is None else f'{100 * v:.0f}&nbsp;%'}</td>" for v in cells)
                + "</tr>"
            )
        rows.append(f"<tr><td>no object</td><td>{100 * a['segmenter'][n, -1]:.0f}&nbsp;%</td><td></td><td></td></tr>")
        area = 100 * float((a["masks"][n] > 0.5).mean())
        self.told.value = (
            f"<b>query {n + 1} of {len(a['masks'])}</b>, {area:.0f} % of the image, by "
            f"{html.escape(system_label(a['system']))}<table><tr><th></th><th>segmenter</th><th>CLIP</th><th>both</th></tr>"
            f"{''.join(rows)}</table><small>click another mask below</small>"
        )
        self._repaint_done()

    # --- the other two lives ------------------------------------------------------------------------------------------

    def static(self) -> Figure:
        a = self.answer
        shown = min(5, len(a["masks"]))
        fig = figure(1.75 * (shown + 2), 3.1)
        axes = fig.subplots(1, shown + 2)
        picture(axes[0], a["pixels"], f"image: {a['picture']}")
        winner = self._winner()
        picture(axes[1], labelled(a["pixels"], winner), "all queries")
        for n, panel in enumerate(axes[2:]):
            picture(panel, _lit(a, n))
            told = [f"segmenter: {_first(a['segmenter'][n, :-1], a['words'])}"]
            told += [] if a["clip"] is None else [f"CLIP: {_first(a['clip'][n], a['words'])}"]
            told += [f"both: {a['words'][int(a['both'][n].argmax())]}"]
            panel.set_title("\n".join(told), fontsize=7.5, color=INK)
        handles = [Patch(color=word_colour(k), label=a["words"][k]) for k in np.unique(winner)]
        fig.legend(handles=handles, loc="outside lower center", ncols=min(8, len(handles)), frameon=False, fontsize=8)
        return fig.described(
            f"the {shown} surest of {len(a['masks'])} queries of {system_label(a['system'])} on {a['picture']}, and what the "
            "segmenter, CLIP and both call them"
        )

    def facts(self) -> dict[str, Any]:
        """How many queries have any pixel, and what the surest of these is called by each."""
        a = self.answer
        some = [n for n in range(len(a["masks"])) if (a["masks"][n] > 0.5).any()]
        first = some[0] if some else 0
        who = {"segmenter": a["segmenter"][first, :-1], "both": a["both"][first]}
        who |= {} if a["clip"] is None else {"clip": a["clip"][first]}
        return {"system": a["system"], "queries": len(some)} | {k: a["words"][int(v.argmax())] for k, v in who.items()}


def _names_segments(key: str) -> bool:
    """Whether a system says what its segments are called, and by whom."""
    from vlmlab.methods.dense.mask_first import MaskFirst
    from vlmlab.registry import load_system

    try:
        system = load_system(key)
    except VlmlabError:  # one that cannot be imported here is not offered
        return False
    return issubclass(system, MaskFirst) and system.named is not MaskFirst.named


def _most(answer: dict[str, Any], n: int) -> list[int]:
    """The words of a query that anybody thinks likely: the best of each, then those of both together."""
    voices = [answer["both"][n], answer["segmenter"][n, :-1]] + ([] if answer["clip"] is None else [answer["clip"][n]])
    order = np.argsort(-answer["both"][n]).tolist()
    return list(dict.fromkeys([*(int(v.argmax()) for v in voices), *order]))[:SHOWN]


def _first(values: np.ndarray, words: Sequence[str]) -> str:
    best = int(values.argmax())
    return f"{words[best]} {100 * values[best]:.0f} %"


def _lit(answer: dict[str, Any], n: int) -> np.ndarray:
    """The image with the mask of a query in the colour of its word, and darkened around it."""
    inside = answer["masks"][n] > 0.5
    dark = (0.25 * answer["pixels"]).astype(np.uint8)
    word = int(answer["both"][n].argmax())
    return labelled(np.where(inside[..., None], answer["pixels"], dark), np.where(inside, word, -1), 0.35)


def _sheet(answer: dict[str, Any]) -> np.ndarray:
    """All queries in rows, the word under each."""
    count = len(answer["masks"])
    sheet = Image.new("RGB", (COLUMNS * TILE, -(-count // COLUMNS) * (TILE + STRIP)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for n in range(count):
        row, column = divmod(n, COLUMNS)
        tile = Image.fromarray(_lit(answer, n))
        scale = (TILE - 4) / max(tile.size)
        tile = tile.resize([max(1, round(scale * v)) for v in tile.size], Image.Resampling.NEAREST)
        x, y = column * TILE + 2, row * (TILE + STRIP)
        sheet.paste(tile, (x, y + 2))
        sure = 100 * (1 - answer["segmenter"][n, -1])
        pen.text((x, y + TILE), f"{answer['words'][int(answer['both'][n].argmax())]} {sure:.0f} %", INK, font)
    return np.asarray(sheet)
