"""Two small tasks with real datasets behind them, for systems that learn several at once."""

from __future__ import annotations

import numpy as np

from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.image_set import ArrayPictures, ImageSet
from vlmlab.datasets.multi_task import MultiTask
from vlmlab.datasets.task import Task

TARGET = ["ant", "bee", "cow", "dog", "emu"]
FARM = ["hen", "pig", "goat"]


def dataset(name: str, classes: list[str], per_class: int = 4, side: int = 32) -> Dataset:
    def images(split: str) -> ImageSet:
        labels = [c for c in range(len(classes)) for _ in range(per_class)]
        pixels = np.random.default_rng(len(name)).integers(0, 256, (len(labels), side, side, 3), dtype=np.uint8)
        return ImageSet(
            ArrayPictures(lambda: pixels, f"{name} {split}"), labels, [f"{split}/{i}" for i in range(len(labels))]
        )

    return Dataset(name, classes, ["a photo of a {}."], images("train"), images("val"), images("test"))


def together(shots: int = 2, seed: int = 0, split: str = "all") -> MultiTask:
    """The task of zoo animals with farm animals for a companion."""
    target = Task(None, dataset("zoo-animals", TARGET), shots, seed, split)
    return MultiTask(target, [dataset("farm", FARM)])
