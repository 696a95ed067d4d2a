"""A backbone that weighs nothing and a dataset of four colours, under the names "tiny" and "colours"."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch

from vlmlab.backbones.backbone import Backbone
from vlmlab.datasets import Dataset, ImageSet
from vlmlab.datasets.image_set import ArrayPictures

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "white": (220, 220, 220)}


def tiny_backbone() -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(
            embed_dim=16,
            vision_cfg={"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
            text_cfg={"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
        )
    return Backbone("tiny", model, open_clip.SimpleTokenizer(context_length=24), embedded=True)


def coloured(per_class: int, seed: int) -> ImageSet:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(COLOURS)), per_class)
    base = np.array(list(COLOURS.values()))[labels][:, None, None]
    pixels = np.clip(base + rng.normal(0, 40, (len(labels), 32, 32, 3)), 0, 255).astype(np.uint8)
    return ImageSet(
        ArrayPictures(lambda: pixels, f"colours {seed}"), labels, [f"{seed}/{i}" for i in range(len(labels))]
    )


@pytest.fixture
def toys(monkeypatch, tmp_path):
    """Experiments with backbone "tiny" on dataset "colours" run in a moment."""
    from vlmlab.studies import run

    backbone = tiny_backbone()
    sets = [coloured(n, seed) for n, seed in ((6, 1), (4, 2), (5, 3))]
    dataset = Dataset("colours", tuple(COLOURS), ("a photo of {}.",), *sets)
    monkeypatch.setenv("VLMLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(run, "load_backbone", lambda name, device: backbone)
    monkeypatch.setattr(run, "load_dataset", lambda name, **how: dataset)
    run.shared_bank.cache_clear()
    run.shared_dataset.cache_clear()
    yield dataset
    run.shared_bank.cache_clear()
    run.shared_dataset.cache_clear()
