"""Handwritten digits, real ones: the 1,797 that come with scikit-learn (8 x 8 pixels, enlarged)."""

from __future__ import annotations

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from vlmlab.datasets.catalog import DatasetInfo
from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.image_set import ArrayPictures, ImageSet
from vlmlab.datasets.splits import seeded_split

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = ("a photo of the number {}.", "a drawing of the number {}.", "the digit {}.", "a handwritten {}.")
SIDE = 64


def load(info: DatasetInfo) -> Dataset:
    """Dark strokes on light paper, 64 x 64; train, val and test are cut class by class from the names alone."""
    bunch = load_digits()
    labels = bunch.target.tolist()
    ids = [f"digit-{i:04d}" for i in range(len(labels))]

    def enlarged() -> np.ndarray:
        grey = (255 - bunch.images * (255 / 16)).astype(np.uint8)
        big = [np.asarray(Image.fromarray(g).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for g in grey]
        return np.repeat(np.stack(big)[..., None], 3, axis=-1)

    every = ImageSet(ArrayPictures(enlarged, f"scikit-learn digits, {SIDE}"), labels, ids)
    split = seeded_split(ids, labels, seed=0)
    return Dataset(
        info.name,
        CLASSES,
        TEMPLATES,
        **{name: every.subset(members) for name, members in split.items()},
        gap=info.gap,
        mirrors=info.mirrors,
    )
