"""Language models that write prompts: do descriptions help by what they say?

Every class gets the same number of sentences. In the arms these are the parts by which the world draws the class (true),
the same parts dealt out to other classes (shuffled), random words (WaffleCLIP, arXiv 2306.07282), or nothing but the name.
What descriptions say is worth the difference of the first to the random words, measured against how much random words
differ among themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from vlmlab.datasets.descriptions import load_descriptions, of_classes
from vlmlab.errors import unknown
from vlmlab.studies.directions.encoded import accuracy, encoded
from vlmlab.studies.run import shared_bank
from vlmlab.world.captions import description, with_article
from vlmlab.world.domains import DOMAINS
from vlmlab.world.objects import OBJECTS

DATASETS = ("objects-unnamed", "creatures", "flowers", "objects")
ARMS = ("name", "true", "shuffled", "random")
WORDS = (
    "amber", "anthem", "ballot", "barter", "candid", "cargo", "chorus", "decade", "diesel", "envoy", "fable", "fiscal",
    "gadget", "gospel", "harvest", "idiom", "jargon", "kernel", "ledger", "logic", "mantra", "merger", "motive", "nectar",
    "oath", "orbit", "parcel", "pledge", "quota", "ransom", "rumour", "satire", "seldom", "tariff", "thesis", "tonic",
    "treaty", "verse", "vigour", "whim",
)  # fmt: skip
"""Words that describe no class of MicroWorld."""

Describe = Callable[[str], Sequence[str]]
"""The sentences of a class, from its name."""


def parts(dataset: str) -> dict[str, tuple[str, ...]]:
    """Class name -> the phrases by which the world draws it, in the order of the dataset's classes."""
    if dataset in DOMAINS:
        known = {c.name: c.parts for c in DOMAINS[dataset].classes}
        return {name: known[name] for name in encoded(dataset).classes}
    return {name: OBJECTS[name].parts for name in encoded(dataset).classes}


def written(dataset: str, arm: str, seed: int = 0, kind: str = "world") -> dict[str, list[str]]:
    """The sentences of every class in one arm; all arms but "name" have equally many.

    `kind` says where true and shuffled sentences come from: "world" (its parts), or the descriptors that vlmlab ships.
    Raises `VlmlabError` for an arm that is not in ARMS.
    """
    if arm not in ARMS:
        raise unknown("arm", arm, ARMS)
    rng = np.random.default_rng(seed)
    classes = list(encoded(dataset).classes)
    if kind == "world":
        said = [list(p) for p in parts(dataset).values()]
    else:
        said = of_classes(load_descriptions(dataset, "descriptors"), classes)
    if arm == "shuffled":
        said = [said[k] for k in _none_in_place(len(said), rng)]
    if arm == "random":
        said = [[" ".join(rng.choice(WORDS, max(1, len(text.split())))) for text in own] for own in said]
    if arm == "name":
        return {name: [f"a photo of {with_article(name)}"] for name in classes}
    return {
        name: [f"a photo of {with_article(name)} with {text}" for text in own]
        for name, own in zip(classes, said, strict=True)
    }


def _none_in_place(count: int, rng: np.random.Generator) -> np.ndarray:
    """A permutation that leaves nothing where it was: a cycle through all of them in a drawn order."""
    order, dealt = rng.permutation(count), np.empty(count, int)
    dealt[order] = np.roll(order, 1)
    return dealt


@torch.no_grad()
def classifier(sentences: Sequence[Sequence[str]]) -> Tensor:
    """Unit rows [C, e]: the mean of the unit features of each class's sentences."""
    backbone = shared_bank("micro-vit").backbone
    flat = [text for own in sentences for text in own]
    features = torch.nn.functional.normalize(backbone.encode_text(flat).float(), dim=-1)
    means = [own.mean(0) for own in features.split([len(own) for own in sentences])]
    return torch.nn.functional.normalize(torch.stack(means), dim=-1)


def measured(dataset: str, sentences: dict[str, Sequence[str]], index: Tensor | None = None) -> float:
    """Accuracy (%) of these sentences as the classifier, on all test images or those of `index`."""
    one = encoded(dataset)
    one = one if index is None else one.at(index)
    return accuracy(one.features @ classifier([sentences[name] for name in one.classes]).T, one.labels)


def described_without_name(dataset: str) -> dict[str, list[str]]:
    """Of objects: the group word and the parts in place of the name, as captions describe what has no name."""
    return {name: [f"a photo of {with_article(description(name))}"] for name in encoded(dataset).classes}
