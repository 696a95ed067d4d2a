"""Dense ground truth of one image: boxes, instance masks and a class for every pixel.

Letters: n objects, H x W the image's size in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vlmlab.devices import sent

NOTHING = -1
"""Value of a semantic mask where no class is annotated."""
UNLABELLED = -2
"""Value of a semantic mask where there is a class whose pixels the setup does not grant."""


@dataclass(frozen=True)
class Truth:
    """What dense ground truth says about one image. Arrays of NumPy are taken, too, and become tensors.

    Attributes:
        boxes: [n, 4] float32, x0, y0, x1, y1 in pixels, upper left corner included, lower right excluded.
        labels: [n] int64, class index of each box and instance.
        instances: [n, H, W] bool, the visible pixels of each object; None where only boxes are known.
        semantic: [H, W] int16, class index per pixel, stuff classes counted on after the objects'; NOTHING where no
            class is annotated, UNLABELLED where there is one that the setup does not grant; None if there is no mask.
    """

    boxes: Tensor
    labels: Tensor
    instances: Tensor | None = None
    semantic: Tensor | None = None

    def __post_init__(self) -> None:
        for name, kind in (
            ("boxes", torch.float32),
            ("labels", torch.int64),
            ("instances", torch.bool),
            ("semantic", torch.int16),
        ):
            value = getattr(self, name)
            if value is not None:
                value = torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value
                object.__setattr__(self, name, value.to(kind))
        object.__setattr__(self, "boxes", self.boxes.reshape(-1, 4))

    def to(self, device: torch.device | str) -> Truth:
        """The same on another device."""
        instances = None if self.instances is None else sent(self.instances, device)
        semantic = None if self.semantic is None else sent(self.semantic, device)
        return Truth(sent(self.boxes, device), sent(self.labels, device), instances, semantic)

    def __len__(self) -> int:
        return len(self.labels)

    def of_classes(self, classes: Sequence[int]) -> Truth:
        """Only these classes, renumbered 0, 1, ... in the given order; pixels of others become UNLABELLED.

        Stuff counts as a class here: what is not in `classes` is not granted.
        """
        most = max([*classes, *self.labels.tolist(), int(self.semantic.max()) if self.semantic is not None else 0])
        table = torch.full((most + 1,), UNLABELLED, dtype=torch.int64)
        table[list(classes)] = torch.arange(len(classes))
        labels = table[self.labels]
        kept = labels >= 0
        semantic = self.semantic
        if semantic is not None:
            known = semantic >= 0
            semantic = torch.where(known, table[semantic.clamp_min(0).long()].to(torch.int16), semantic)
        return Truth(self.boxes[kept], labels[kept], None if self.instances is None else self.instances[kept], semantic)

    def only(self, classes: Sequence[int]) -> Truth:
        """What is known if only these classes are granted; they keep their numbers. Objects of others are left out and their
        pixels become UNLABELLED."""
        granted = torch.tensor(list(classes))
        kept = torch.isin(self.labels, granted)
        semantic = self.semantic
        if semantic is not None:
            hidden = (semantic >= 0) & ~torch.isin(semantic.long(), granted)
            semantic = semantic.masked_fill(hidden, UNLABELLED)
        return replace(
            self,
            boxes=self.boxes[kept],
            labels=self.labels[kept],
            instances=None if self.instances is None else self.instances[kept],
            semantic=semantic,
        )
