"""A dataset: class names, prompt templates and three sets of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from vlmlab.datasets.image_set import ImageSet


@dataclass(frozen=True)
class Dataset:
    """Labelled images with the words for them.

    Attributes:
        name: as given to `load_dataset`; a folder's own name.
        classes: C names, in label order, with spaces.
        templates: prompt templates with "{}" for the class name; the first is the one to use alone.
        train, val, test: the splits; val may be empty (a few images per class) and photographs have a test set only.
        tasks: what the ground truth can measure.
        gap: what separates it from pretraining, in a sentence.
        mirrors: which dataset of the field it stands for.
        split_source: who decided what is test: "drawn", "official", "CoOp" or "seeded".
        novel: categories that base-to-new splits treat as new; empty where CoCoOp's halves apply.
        stuff: classes of the semantic masks that are no things; they follow the C classes.
        grounds: those of the C classes that are stuff (see `with_stuff`).
        groups: further groups of classes that have metrics of their own: name -> class names. LVIS has "rare", "common" and "frequent".
        hierarchy: super group -> group -> class names.
        skipped: images that could not be read and were left out on request.
    """

    name: str
    classes: list[str]
    templates: list[str]
    train: ImageSet
    val: ImageSet
    test: ImageSet
    tasks: tuple[str, ...] = ("classification",)
    gap: str = ""
    mirrors: str = ""
    split_source: str = "official"
    novel: tuple[str, ...] = ()
    stuff: tuple[str, ...] = ()
    grounds: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hierarchy: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(getattr(self, split))}" for split in ("train", "val", "test"))
        return f"Dataset({self.name}: {len(self.classes)} classes; {sizes})"

    def with_stuff(self) -> Dataset:
        """The same images with the stuff of the masks (sky, grass, ...) among the classes, as segmentation needs it.

        The labels [N, C + number of stuff classes] say of stuff what the semantic masks show, so that all of them are
        drawn or read now.
        """

        def widened(images: ImageSet) -> ImageSet:
            first = len(self.classes)
            shown = torch.zeros(len(images), len(self.stuff), dtype=torch.long)
            for i in range(len(images)):
                _, semantic = images.masks(i)
                for value in np.unique(semantic).tolist():
                    if first <= value < first + len(self.stuff):
                        shown[i, value - first] = 1
            return images.relabelled(torch.cat([images.labels, shown], 1))

        if not self.stuff:
            return self
        splits = {split: widened(getattr(self, split)) for split in ("train", "val", "test")}
        return replace(self, classes=[*self.classes, *self.stuff], stuff=(), grounds=self.stuff, **splits)
