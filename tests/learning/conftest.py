"""A backbone that weighs nothing, twelve images of three colours, and a system that learns in a second."""

from __future__ import annotations

import dataclasses

import numpy as np
import open_clip
import pytest
import torch
from torch import nn

from vlmlab.backbones.backbone import Backbone
from vlmlab.datasets.image_set import ArrayPictures, ImageSet
from vlmlab.methods.method import Method, Recipe, option
from vlmlab.registry import SystemInfo

COLOURS = ["red", "green", "blue"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VLMLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(
            embed_dim=16,
            vision_cfg={"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
            text_cfg={"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
        )
    return Backbone("tiny", model, open_clip.SimpleTokenizer(context_length=16), embedded=True)


def coloured(per_class: int, seed: int, side: int = 32) -> ImageSet:
    """`per_class` noisy images of each colour."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), per_class)
    pixels = rng.integers(0, 90, (len(labels), side, side, 3), dtype=np.uint8)
    pixels[np.arange(len(labels)), :, :, labels] += 150
    names = [f"{seed}/{COLOURS[label]}/{i}" for i, label in enumerate(labels)]
    return ImageSet(ArrayPictures(lambda: pixels, f"coloured {per_class} {seed} {side}"), labels, names)


@dataclasses.dataclass
class ToyTask:
    """As much of a Task as learning looks at."""

    support: ImageSet
    test: ImageSet
    seed: int = 0
    classes: list[str] = dataclasses.field(default_factory=lambda: list(COLOURS))
    templates: list[str] = dataclasses.field(default_factory=lambda: ["{}"])


@pytest.fixture
def task() -> ToyTask:
    return ToyTask(coloured(4, seed=1), coloured(5, seed=2))


class Probe(Method):
    """A linear classifier with dropout, so that a run also depends on the random generator."""

    info = SystemInfo("probe", "Probe", "", 2020, "0", "other", "few-shot", "weights", ("classification",))

    @dataclasses.dataclass
    class Config(Recipe):
        epochs: int = option(20, "passes", 1, 100)
        batch_size: int = option(5, "pictures", 1, 100)
        lr: float = option(0.5, "rate", 0.0, 1e9)

    def prepare(self, task) -> None:
        super().prepare(task)
        self.head = nn.Linear(self.backbone.embed_dim, len(task.classes))
        self.finished = 0

    def logits(self, batch):
        return self.head(self.image_features(batch))

    def loss(self, batch):
        features = nn.functional.dropout(self.image_features(batch), 0.2)
        return nn.functional.cross_entropy(self.head(features), batch.labels)

    def finish(self, task) -> None:
        self.finished += 1


class PixelProbe(Probe):
    """The same on images instead of features."""

    eats = "images"
