"""A dataset: class names, prompt templates and three sets of images; and `load_dataset`, which finds it by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from vlmlab.datasets.catalog import BY_NAME, canonical, is_path, warn_of_namesake
from vlmlab.datasets.image_set import ImageSet
from vlmlab.errors import VlmlabError, unknown


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
        return replace(self, classes=[*self.classes, *self.stuff], stuff=(), **splits)


def load_dataset(
    name_or_path: str | os.PathLike,
    root: str | os.PathLike | None = None,
    download: bool = False,
    seed: int = 0,
    size: int = 64,
    skip_broken: bool = False,
) -> Dataset:
    """A dataset by the name that `vlmlab datasets` lists, or a folder of images by its path.

    Args:
        name_or_path: a listed name in any spelling, or a folder (see `catalog.is_path`).
        root: folder of the standard datasets; vlmlab's cache by default.
        download: whether a missing standard dataset may be fetched.
        seed: of the split where none is given, and of MicroWorld's drawings; keep 0 to compare with others.
        size: side in pixels at which MicroWorld and digits are made: the backbone's image size.
        skip_broken: leave out images that cannot be read (they are listed in `skipped`) instead of raising.

    Raises:
        VlmlabError: an unknown name, a missing, empty or single-class folder, an unreadable image, a missing dataset.
    """
    name = os.fspath(name_or_path)
    key = canonical(name)
    if key not in BY_NAME:
        if is_path(name):
            from vlmlab.datasets.folder import load_folder

            return load_folder(Path(name), seed, skip_broken)
        raise _unknown(name)
    warn_of_namesake(name)
    if key == "digits":
        from vlmlab.datasets.digits import load_digits

        return load_digits(size)
    if key == "photographs":
        from vlmlab.datasets.photographs import load_photographs

        return load_photographs()
    if BY_NAME[key].offline:
        from vlmlab.datasets.microworld import load_microworld

        return load_microworld(key, size, seed)
    from vlmlab.datasets.standard import load_standard

    return load_standard(key, root and Path(root), download, seed, skip_broken)


def _unknown(name: str) -> VlmlabError:
    error = unknown("dataset", name, BY_NAME)
    return VlmlabError(f"{str(error).removesuffix('?')}, or the path of a folder of your own, such as ./{name}")
