"""Prompt microscope: what becomes of a sentence, from letters to tokens to a prediction; and what learned vectors are near."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from vlmlab.errors import VlmlabError
from vlmlab.lists import entries
from vlmlab.views.pictures import picture
from vlmlab.views.style import VALUE, figure
from vlmlab.widgets.bars import cosine_table, word_bars
from vlmlab.widgets.panel import LABEL, WIDE, Panel, PictureChooser, Waiting, image_view, jpeg, sample_pictures

MOST_WORDS = 40
SIDE = 170  # pixels of the image on the page


def read_words(text: str, most: int = MOST_WORDS) -> list[str]:
    """The words of a list separated by commas or line breaks, each once.

    Raises `VlmlabError` if the list is empty, has an empty entry, or more than `most` of them.
    """
    words = entries(text.strip())
    if not any(words):
        raise VlmlabError("the list of words is empty; write some, separated by commas")
    if not all(words):
        raise VlmlabError("there is an empty entry in the list; remove the comma that is too many")
    if len(words) > most:
        raise VlmlabError(f"{len(words)} words are too many to look at; keep {most}")
    return list(dict.fromkeys(words))


def doubled(text: str) -> str:
    """A sentence about the words that a list has more than once; empty if there are none."""
    words = entries(text)
    twice = [word for word in dict.fromkeys(words) if word and words.count(word) > 1]
    return f"Written more than once, used once: {', '.join(twice)}." if twice else ""


def read_template(text: str) -> str:
    """A prompt template; raises `VlmlabError` without exactly one place for the class name, or with other braces."""
    if text.count("{}") != 1:
        raise VlmlabError("a template needs {} exactly once, where the class name goes: a photo of a {}.")
    if "{" in (rest := text.replace("{}", "")) or "}" in rest:
        raise VlmlabError("a template has no other { or } than the one {} for the class name: a photo of a {}.")
    return text


class PromptMicroscope(Panel):
    """Type class names and a template: see the tokens, how alike the texts are, and what changes in the prediction."""

    title = "Prompt microscope"

    def __init__(
        self,
        words: Sequence[str] = ("apple", "cat", "car", "boat", "tree"),
        template: str = "a photo of a {}.",
        backbone: str = "micro-vit",
        pictures: list[tuple[str, np.ndarray]] | None = None,
    ) -> None:
        """`pictures` are (name, pixels); some of `objects` if none are given."""
        self.backbone_name = backbone
        found = pictures or sample_pictures("photographs" if backbone == "photo" else "objects", 12)
        self.words = widgets.Textarea(
            ", ".join(words), description="class names", continuous_update=False, rows=3, style=LABEL, layout=WIDE
        )
        self.template = widgets.Text(
            template, description="template", continuous_update=False, style=LABEL, layout=WIDE
        )
        self.chooser = PictureChooser(found, self.look, self.guarded)
        self.tokens = widgets.HTML()
        self.shown = image_view("the chosen image")
        self.bars, self.alike = widgets.HTML(), widgets.HTML()
        for name in ("words", "template"):
            getattr(self, name).add_class(f"vlmlab-{name}")
            getattr(self, name).add_class("vlmlab-above")
        self.controls = [self.words, self.template, *self.chooser.widgets]
        self.views = [widgets.HBox([self.shown, self.bars]), self.tokens, self.alike]
        self.answer: dict[str, Any] = Waiting()
        self._before: dict[str, float] = {}
        super().__init__()
        for control in (self.words, self.template):
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.look()

    def look(self) -> None:
        """Ask for the view of what the controls say."""
        words, template = read_words(self.words.value), read_template(self.template.value)
        name, pixels = self.chooser.name, self.chooser.pixels
        self.ask(lambda cancelled: self._see(words, template, name, pixels), self._show)

    @torch.no_grad()
    def _see(self, words: list[str], template: str, name: str, pixels: np.ndarray) -> dict[str, Any]:
        from vlmlab.studies.run import shared_bank

        backbone = shared_bank(self.backbone_name).backbone
        text = backbone.text
        sentences = [template.format(word) for word in words]
        ids = text.tokenize(sentences)
        ends = text.end_of_text(ids).tolist()
        if min(ends) <= text.special:
            raise VlmlabError("one of the prompts has no token that this text tower knows; write it in other letters")
        if max(ends) >= text.context_length - 1:
            raise VlmlabError(
                f"a prompt reaches the limit of {text.context_length} tokens of {backbone.name}; shorten it"
            )
        features = F.normalize(backbone.encode_text(sentences), dim=-1)
        image = F.normalize(backbone.encode_image(backbone.preprocess(pixels)), dim=-1)
        scores = (image @ features.T)[0]
        return {
            "picture": name,
            "pixels": pixels,
            "words": words,
            "pieces": [_pieces(text, row[: end + 1].tolist()) for row, end in zip(ids, ends, strict=True)],
            "similar": (features @ features.T).cpu().numpy(),
            "cosines": scores.tolist(),
            "probabilities": (backbone.logit_scale * scores).softmax(0).tolist(),
            "scale": float(backbone.logit_scale),
        }

    def _show(self, answer: dict[str, Any]) -> None:
        same = self.answer and self.answer["picture"] == answer["picture"]
        old = dict(zip(self.answer["words"], self.answer["probabilities"], strict=True)) if same else {}
        self._before = old if old.keys() >= set(answer["words"]) else {}
        self.answer = answer
        self.shown.value, self.shown.alt = jpeg(answer["pixels"], SIDE), f"an image of {answer['picture']}"
        twice = doubled(self.words.value)
        self.tokens.value = _token_table(answer) + (f"<small> {html.escape(twice)}</small>" if twice else "")
        before = [self._before[w] for w in answer["words"]] if self._before else None
        self.bars.value = word_bars(answer["words"], answer["probabilities"], before)
        self.alike.value = cosine_table(answer["words"], answer["similar"], "how alike the texts are (cosine)")

    def static(self) -> Figure:
        answer = self.answer
        fig = figure(10.5, 3.6)
        one, two, three = fig.subplots(1, 3, width_ratios=[0.8, 1.1, 1.2])
        picture(one, answer["pixels"], answer["picture"])
        order = np.argsort(answer["probabilities"])
        two.barh(range(len(order)), [100 * answer["probabilities"][k] for k in order], color=VALUE, height=0.7)
        two.set_yticks(range(len(order)), [answer["words"][k] for k in order])
        two.set_xlabel("probability (%)")
        two.set_title(f"template: {self.template.value}", fontsize=9, loc="left")
        cosines = answer["similar"]
        three.imshow(cosines, cmap="cividis", vmin=0, vmax=1)
        for i, j in np.ndindex(*cosines.shape) if len(cosines) <= 10 else ():
            shade = "white" if cosines[i, j] < 0.6 else "black"
            three.text(j, i, f"{cosines[i, j]:.2f}", ha="center", va="center", fontsize=8, color=shade)
        three.set_xticks(range(len(order)), answer["words"], rotation=45, ha="right", fontsize=8)
        three.set_yticks(range(len(order)), answer["words"], fontsize=8)
        three.set_title("cosine between the texts", fontsize=9, loc="left")
        best = answer["words"][int(order[-1])]
        return fig.described(
            f"an image of {answer['picture']}; of the words {', '.join(answer['words'])}, {best} is first"
        )

    def facts(self) -> dict[str, Any]:
        """Tokens per prompt, the first word, and the highest cosine between two different texts (two decimals)."""
        answer = self.answer
        off = answer["similar"] - 2 * np.eye(len(answer["words"]))
        return {
            "tokens": [len(p) for p in answer["pieces"]],
            "first": answer["words"][int(np.argmax(answer["probabilities"]))],
            "most alike": round(float(off.max()), 2) if len(answer["words"]) > 1 else None,
        }


def _pieces(text, ids: list[int]) -> list[str]:
    inner = getattr(text.tokenizer, "tokenizer", text.tokenizer)
    if isinstance(getattr(inner, "decoder", None), dict):
        return [inner.decoder.get(i, str(i)).replace("</w>", "·") for i in ids]
    return inner.convert_ids_to_tokens(ids)


def _token_table(answer: dict[str, Any]) -> str:
    boxes = []
    for word, pieces, cosine in zip(answer["words"], answer["pieces"], answer["cosines"], strict=True):
        marks = "".join(f"<span class='vlmlab-token'>{html.escape(piece)}</span>" for piece in pieces)
        boxes.append(f"<tr><td><b>{html.escape(word)}</b></td><td>{marks}</td><td>{cosine:.3f}</td></tr>")
    head = "<tr><th>class name</th><th>tokens</th><th>cosine</th></tr>"
    note = f"Cosine with the image; the probability is the softmax of {answer['scale']:.0f} times the cosine."
    return f"<table >{head}{''.join(boxes)}</table><small>{note}</small>"
