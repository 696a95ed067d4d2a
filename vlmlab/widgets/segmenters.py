"""Segmenters that panels ask: those a chapter has fitted, and others, which are fitted when they are first chosen."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vlmlab.registry import registry

if TYPE_CHECKING:
    from vlmlab.methods.dense.segmenter import Segmenter

DATASET = "tableau"
NEEDS_A_VIT = "image blocks"
SETUPS = ("training-free", "open-vocabulary", "weakly supervised")


def offered(backbone: str = "micro-vit") -> list[str]:
    """Keys of the systems that segment and take any words; without those that need a ViT, if the embedded backbone is none."""
    vit = backbone not in ("photo", "micro-rn")
    return [
        key
        for key, info in registry().items()
        if "segmentation" in info.tasks and info.setup in SETUPS and (vit or NEEDS_A_VIT not in info.needs)
    ]


@functools.lru_cache(maxsize=6)
def fitted(system: str, backbone: str = "micro-vit") -> Segmenter:
    """The system fitted to `DATASET` with its settings, seed 1; it says how far it is, and a listener may stop it."""
    from vlmlab.studies.experiment import Experiment
    from vlmlab.studies.run import adapt

    return adapt(Experiment(system, DATASET, backbone, 0, 1)).method


class Segmenters:
    """By key: the `given` ones as they are, others from `fitted`."""

    def __init__(self, given: Mapping[str, Segmenter] | None, backbone: str) -> None:
        self.given, self.backbone = dict(given or {}), backbone

    def asked(self, system: str, words: Sequence[str], template: str) -> Segmenter:
        """The system with these words for classes; the one that is shared keeps its own."""
        method = self.given.get(system) or fitted(system, self.backbone)
        own = copy.copy(method)
        own.set_classes(list(words), [template])
        return own


@functools.lru_cache(maxsize=1)
def _groups() -> tuple[frozenset[str], frozenset[str]]:
    from vlmlab.datasets import load_dataset

    dataset = load_dataset(DATASET)
    return frozenset([*dataset.classes, *dataset.stuff]) - set(dataset.novel), frozenset(dataset.novel)


def kind_of(word: str, system: str) -> str:
    """What a system knows of a word: "seen" (masks, or image labels), "unseen" (there in training, without them), "invented"
    (no class of the dataset); "a name" for a system that learns nothing."""
    setup = registry()[system].setup
    if setup == "training-free":
        return "a name"
    base, novel = _groups()
    if setup == "weakly supervised":
        return "seen" if word in base | novel else "invented"
    return "seen" if word in base else "unseen" if word in novel else "invented"
