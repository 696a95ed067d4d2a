"""Sentences in the place of images: captions, and the labels that a noun filter reads off them.

A model that puts images and sentences into one space can be adapted by sentences alone. What a caption says to be there
is its label: no image is seen and nobody labels anything (TaI-DPT, arXiv:2211.12739, section 3.2).

Dimensions: N sentences, C classes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import LongTensor

from vlmlab.datasets.microworld import deal, generator
from vlmlab.errors import VlmlabError
from vlmlab.files import expanded
from vlmlab.world.captions import caption
from vlmlab.world.objects import OBJECTS
from vlmlab.world.scene import sample_scene


class CaptionSet:
    """Labelled sentences: what a system that learns from texts has in the place of a support set.

    sentences: N texts; labels: LongTensor [N, C] of zeros and ones.
    """

    def __init__(self, sentences: Sequence[str], labels: LongTensor) -> None:
        self.sentences, self.labels = list(sentences), labels

    def __len__(self) -> int:
        return len(self.sentences)

    def __repr__(self) -> str:
        return f"CaptionSet({len(self)} sentences)"

    def __add__(self, other: CaptionSet) -> CaptionSet:
        return CaptionSet([*self.sentences, *other.sentences], torch.cat([self.labels, other.labels]))

    def fingerprint(self) -> str:
        """Hash of the sentences and their labels."""
        digest = hashlib.sha256("\n".join(self.sentences).encode())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()[:24]


def scene_captions(classes: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """`count` captions of scenes of MicroWorld that show these categories; the scenes are not painted.

    Scenes hold two to four objects, as in tableau. A caption often leaves out much of what is there, as the web's do.
    Raises `VlmlabError` if a class is no category of MicroWorld.
    """
    unknown = next((name for name in classes if name not in OBJECTS), None)
    if unknown is not None:
        raise VlmlabError(
            f"there are no scenes of '{unknown}' to write captions of; name a text file with one caption a line "
            "(--set sentences=captions.txt)"
        )
    rng = generator("captions", seed)
    return [
        caption(sample_scene(rng, categories=cast, style="photo"), rng) for cast in deal(tuple(classes), count, rng)
    ]


def read_captions(path: str | Path) -> list[str]:
    """The lines of a text file that are not empty; `VlmlabError` if there is no such file or no line in it."""
    path = expanded(path)
    if not os.path.isfile(path):
        raise VlmlabError(f"there is no text file {path}; name one with a caption a line")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise VlmlabError(f"{path.name} is no text in UTF-8; name a file with a caption a line") from error
    lines = [line for line in lines if line]
    if not lines:
        raise VlmlabError(f"{path.name} has no line of text; write a caption a line")
    return lines


def forms(name: str) -> tuple[str, ...]:
    """How a caption may say a class: its name, and the plural of its last word by English rule or as MicroWorld has it;
    several words also as one ("firetruck"), as in TaI-DPT's release."""
    name = name.replace("_", " ").lower()
    if re.search(r"(s|x|z|ch|sh)$", name):
        plural = f"{name}es"
    elif re.search(r"[^aeiou]y$", name):
        plural = f"{name[:-1]}ies"
    else:
        plural = f"{name}s"
    own = (OBJECTS[name].many,) if name in OBJECTS else ()
    said = (name, plural, *own)
    return tuple(dict.fromkeys((*said, *(form.replace(" ", "") for form in said if " " in name))))


def noun_filter(
    sentences: Sequence[str], classes: Sequence[str], synonyms: Mapping[str, Sequence[str]] | None = None
) -> CaptionSet:
    """The sentences that name a class, with the classes that each names; the others are left out.

    A class is found by its `forms` and its `synonyms`, as whole words. Longer names are looked for first, and what they
    match is taken out of the sentence, so that an "ice cream truck" has no "truck" when both are classes.
    Raises `VlmlabError` if no sentence names any class.
    """
    labels = said(sentences, classes, synonyms)
    named = labels.any(1)
    if not named.any():
        raise VlmlabError(
            f"none of {len(sentences)} sentences names any of the {len(classes)} classes; give sentences about them"
        )
    return CaptionSet([s for s, one in zip(sentences, named.tolist(), strict=True) if one], labels[named])


def said(
    sentences: Sequence[str], classes: Sequence[str], synonyms: Mapping[str, Sequence[str]] | None = None
) -> LongTensor:
    """Which classes each sentence names, [N, C] of zeros and ones, found as by `noun_filter`."""
    pairs = [(form, c) for c, name in enumerate(classes) for form in forms(name)]
    pairs += [(form.lower(), c) for c, name in enumerate(classes) for form in (synonyms or {}).get(name, ())]
    pairs.sort(key=lambda pair: -len(pair[0].split()))
    of_form: dict[str, list[int]] = {}
    for form, c in pairs:
        of_form.setdefault(form, []).append(c)
    # One pass of one expression: at each place the first alternative that fits is taken, and they are longest first.
    search = re.compile(r"\b(" + "|".join(map(re.escape, of_form)) + r")\b")
    labels = torch.zeros(len(sentences), len(classes), dtype=torch.long)
    for row, sentence in enumerate(sentences):
        labels[row, [c for form in search.findall(sentence.lower()) for c in of_form[form]]] = 1
    return labels


def template_captions(classes: Sequence[str], templates: Sequence[str]) -> CaptionSet:
    """Every class in every template: sentences about one class each."""
    labels = torch.eye(len(classes), dtype=torch.long).repeat_interleave(len(templates), 0)
    return CaptionSet([t.format(name.replace("_", " ")) for name in classes for t in templates], labels)
