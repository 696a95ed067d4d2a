"""A toy CLIP and toy tasks: what a system can be tried on within a second, without a download.

Dimensions: S image side.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import open_clip
import torch

from vlmlab.backbones.backbone import Backbone
from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.image_set import ArrayPictures, ImageSet
from vlmlab.datasets.multi_task import with_companions
from vlmlab.datasets.task import DENSE, Task
from vlmlab.datasets.truth import NOTHING, Truth
from vlmlab.features.bank import FeatureBank
from vlmlab.learning.fit import fit
from vlmlab.methods.dense.dense import Dense
from vlmlab.methods.method import Batch, Method
from vlmlab.randomness import LocalRandom
from vlmlab.registry import load_system

SIDE = 32
SCENES = ["beach", "bedroom", "city street", "desert", "farm", "forest path", "kitchen", "mountain", "night sky"]
SCENES += ["underwater"]  # all of the dataset, so that its descriptions and its class tree are there
THINGS = ["apple", "bird", "cup", "fish", "house", "tree"]
QUICK = {
    "epochs": 4,
    "ssl_epochs": 1,
    "companion_shots": 1,
    "captions": 60,
    "views": 4,
    "teacher": "own",
    "warmup_epochs": 0,
    "prompt_steps": 2,
    "mined": 4,
    "keep": 0.0,  # what a detector that has hardly learned does not exceed
}
"""Settings of whichever system has them: contracts need no long training."""


@functools.cache
def backbone() -> Backbone:
    """A CLIP of four layers with random weights, 32 pixels a side, the same in every process."""
    with LocalRandom(0):
        model = open_clip.CLIP(
            embed_dim=16,
            vision_cfg={"image_size": SIDE, "layers": 4, "width": 32, "head_width": 16, "patch_size": 8},
            text_cfg={"context_length": 48, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 4},
        )
    return Backbone("tiny", model, open_clip.SimpleTokenizer(context_length=48), embedded=True)


@functools.cache
def dense_dataset() -> Dataset:
    """Two bright rectangles on dark noise per image, with boxes, masks, the labels of what is shown and a caption."""
    sets = []
    for split, count in (("train", 12), ("val", 6), ("test", 6)):
        pixels = np.random.default_rng(count).integers(0, 60, (count, SIDE, SIDE, 3), dtype=np.uint8)
        truths, labels = [], np.zeros((count, len(THINGS)), int)
        for i in range(count):
            shown = [i % len(THINGS), (i + 1 + i // len(THINGS)) % len(THINGS)]
            boxes = np.float32([[2 + i % 3, 3, 14 + i % 3, 15], [15, 16 + i % 3, 29, 28 + i % 3]])
            semantic, instances = np.full((SIDE, SIDE), NOTHING, np.int16), np.zeros((2, SIDE, SIDE), bool)
            for n, (c, (x0, y0, x1, y1)) in enumerate(zip(shown, boxes.astype(int), strict=True)):
                pixels[i, y0:y1, x0:x1, c % 3] = 255 - 90 * (c // 3)
                semantic[y0:y1, x0:x1], instances[n, y0:y1, x0:x1], labels[i, c] = c, True, 1
            truths.append(Truth(boxes, np.array(shown), instances, semantic))
        name = f"toy tableau {split}"
        ids = [f"{name}/{i}" for i in range(count)]
        said = [" and ".join(f"a {THINGS[c]}" for c in truth.labels.tolist()) for truth in truths]
        sets.append(
            ImageSet(ArrayPictures(lambda p=pixels: p, name), labels, ids, truths.__getitem__, caption=said.__getitem__)
        )
    tasks = ("multi-label classification", "detection", "segmentation")
    return Dataset("tableau", THINGS, ["a photo of a {}."], *sets, tasks=tasks)


def pictures(name: str, labels: list, count: int) -> ImageSet:
    """Noise with a tint per label, and masks whose upper half is the first class and whose lower half the second."""
    pixels = np.random.default_rng(len(name)).integers(0, 160, (len(labels), SIDE, SIDE, 3), dtype=np.uint8)
    tint = torch.tensor(labels).reshape(len(labels), -1)[:, 0].numpy()
    pixels[..., 0] += (60 * tint / count).astype(np.uint8)[:, None, None]
    semantic = np.repeat(np.uint8([[0], [1]]), SIDE * SIDE // 2, 1).reshape(SIDE, SIDE)
    dense = Truth(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), None, semantic)
    ids = [f"{name}/{i}" for i in range(len(labels))]
    return ImageSet(ArrayPictures(lambda: pixels, name), labels, ids, lambda position: dense)


@functools.cache
def dataset(name: str, several: bool = False) -> Dataset:
    """Four training, two validation and two test images per class; `several` gives every image two labels."""
    classes = {"scenes": SCENES, "tableau": THINGS}.get(name, ["this", "that", "one", "other"])
    sets = []
    for split, each in (("train", 4), ("val", 2), ("test", 2)):
        labels = [c for _ in range(each) for c in range(len(classes))]
        if several:
            labels = [[int(c in (own, (own + 1) % len(classes))) for c in range(len(classes))] for own in labels]
        sets.append(pictures(f"{name} {split}", labels, len(classes)))
    return Dataset(name, classes, ["a photo of a {}."], *sets)


Named = str | type[Method]
"""A system: the key of a registered one, or a class."""


def system_of(key: Named) -> type[Method]:
    """The class of a system; errors as `registry.load_system`."""
    return key if isinstance(key, type) else load_system(key)


def task_for(key: Named, shots: int = 2, split: str = "base") -> Task:
    """A toy task of the kind that the system solves; a task with boxes or masks always has all its classes."""
    info = system_of(key).info
    if info.setup in DENSE:
        return Task(backbone(), dense_dataset(), 0, seed=1)
    one_label = {"classification", "hierarchical classification"} & set(info.tasks)
    data = dataset("scenes") if one_label else dataset("tableau", several=True)
    return Task(backbone(), data, shots, seed=1, split=split)


@functools.cache
def bank() -> FeatureBank:
    """A bank in memory that the checks share."""
    return FeatureBank(backbone(), disk=False)


def fitted(key: Named, shots: int = 2, checkpoint: Path | None = None, most: int = 1000):
    """(method, names of the parameters that a gradient has reached) after at most so many steps on the base classes."""
    system = system_of(key)
    fields = {field.name for field in dataclasses.fields(system.Config)}
    config = system.configure(backbone(), **{name: value for name, value in QUICK.items() if name in fields})
    task = with_companions(task_for(key, shots), config, dataset)
    method = system(backbone(), config)
    reached: set[str] = set()
    steps_done: list[int] = []

    def look(done: int, steps: int, loss: float) -> None:
        steps_done.append(done)
        reached.update(n for n, p in method.named_parameters() if p.grad is not None and p.grad.abs().max() > 0)

    fit(method, task.seen_by(system.info.setup), look, lambda: len(steps_done) >= most, checkpoint, bank())
    return method, reached


once = functools.cache(fitted)
"""`fitted`, once for all checks of a system; a check that changes the method changes it back."""


def batch_of(method, images: ImageSet, positions=slice(None)) -> Batch:
    """What the system eats, of these images."""
    raw = [images.images(i) for i in range(len(images))[positions]]
    if isinstance(method, Dense):
        return Batch(images=method.framed(raw)[0], index=torch.arange(len(images))[positions])
    if method.eats == "views":
        return Batch(images=method.views(raw, list(range(len(raw)))))
    if method.eats == "images":
        return Batch(images=method.preprocess(raw))
    return Batch(features=bank().features(images)[positions])
