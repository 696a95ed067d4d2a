"""What a detector says about one image.

Letters: n detections, H x W the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vlmlab.geometry import Frame


@dataclass
class Detections:
    """Boxes with names, the surest first; the fields of torchvision's and supervision's.

    Attributes:
        boxes: [n, 4] x0, y0, x1, y1 in pixels of the image.
        scores: [n] in 0 to 1, descending.
        labels: [n] indices into the classes of the detector.
        masks: [n, H, W] bool, or None where a system gives boxes alone.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None

    @classmethod
    def none(cls, device: torch.device | str = "cpu", size: Sequence[int] = ()) -> Detections:
        """No object; with masks of a `size` (H, W) if there is one."""
        empty = torch.zeros(0, device=device)
        masks = torch.zeros(0, *size, dtype=torch.bool, device=device) if size else None
        return cls(empty.reshape(0, 4), empty, empty.long(), masks)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, chosen: Tensor | slice) -> Detections:
        """Those at these positions, or where a mask [n] is true."""
        masks = None if self.masks is None else self.masks[chosen]
        return Detections(self.boxes[chosen], self.scores[chosen], self.labels[chosen], masks)

    def surest(self, most: int) -> Detections:
        """At most so many, in descending order of their scores."""
        order = self.scores.argsort(descending=True, stable=True)[:most]
        return self[order]

    def back(self, frame: Frame) -> Detections:
        """Detections in the network's input as detections in the image."""
        if frame.whole:
            return self
        return replace(
            self,
            boxes=frame.boxes_back(self.boxes),
            masks=None if self.masks is None else frame.masks_back(self.masks),
        )

    def cpu(self) -> Detections:
        """The same on the CPU, in float32."""
        masks = None if self.masks is None else self.masks.cpu()
        return Detections(self.boxes.float().cpu(), self.scores.float().cpu(), self.labels.cpu(), masks)
