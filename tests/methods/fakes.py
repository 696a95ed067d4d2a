"""Stand-ins for datasets, so that the systems can be tested without them."""

from __future__ import annotations

import types

import numpy as np
import torch


class Pictures:
    """Random uint8 images [32, 32, 3] with labels, like an ImageSet."""

    def __init__(self, labels: list[int], seed: int = 0, side: int = 32):
        self.labels = torch.tensor(labels)
        self._pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), side, side, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices):
        return self._pixels[indices]


def task(classes, templates=("a photo of a {}.",), shots=2, seed=0, support=None, val=None):
    """What `Method.prepare` reads of a task."""
    return types.SimpleNamespace(
        classes=list(classes),
        templates=list(templates),
        shots=shots,
        seed=seed,
        support=Pictures([]) if support is None else support,
        val=Pictures([]) if val is None else val,
    )
