"""The interface of every system that segments.

Dimensions: B images, C classes, S image side, H x W an image of any size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlmlab.methods.dense.dense import Dense, read
from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.method import Batch


class Segmenter(Dense):
    """A name for every pixel. A system gives `logits`, [B, C, S, S] at the size of `batch.images`, and `loss` if it learns."""

    grounded = "masks"

    def instances(self, batch: Batch) -> list[Detections] | None:
        """Per image of `batch`, objects one by one with their masks [n, S, S]; None if the system does not tell them apart."""
        return None

    def panoptic(self, batch: Batch) -> Tensor | None:
        """Class and segment of every pixel, int64 [B, S, S, 2], -1 where there is none; None if the system has no segments.

        Two pixels of an image are of one segment where both numbers agree.
        """
        return None

    @torch.no_grad()
    def maps(self, pictures: Sequence) -> list[Tensor]:
        """Scores [C, H, W] at the size of each image: Pillow's, or uint8 [H, W, 3]; float32, on the CPU."""
        found = []
        for picture in read(pictures):
            batch, frames = self.framed([picture])
            found.append(frames[0].map_back(self.logits(Batch(images=batch))[0].float().cpu()))
        return found

    def predict(self, images: Sequence, words: Sequence[str]) -> list[Tensor]:
        """Per image, the index of the word that every pixel gets, int64 [H, W]. Errors as `Detector.predict`."""
        self.say(words)
        return [scores.argmax(0) for scores in self.maps(images)]
