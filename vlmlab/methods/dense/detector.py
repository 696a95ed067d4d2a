"""The interface of every system that detects: what `logits` is for classification, `detect` is here.

Dimensions: B images, S image side, n objects, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.dense import Dense, read
from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.method import Batch


class Detector(Dense):
    """Boxes with names. A system gives `detect`, and `loss` if it learns; the other two let its ceilings be measured."""

    grounded = "boxes"
    also_new_only: ClassVar[bool] = False
    """Whether the paper reports new classes also when no other name competes, beside the generalised setting."""

    def detect(self, batch: Batch) -> list[Detections]:
        """Per image of the batch, boxes in pixels of `batch.images`, named among all `classes` at once."""
        raise NotImplementedError(f"{type(self).__name__}.detect")

    def logits(self, batch: Batch) -> Tensor:
        """[B, C]: the largest score of each class in an image, so that an image can be asked for its labels, too."""
        return torch.stack([self._best(found) for found in self.detect(batch)])

    def proposals(self, batch: Batch) -> list[Tensor] | None:
        """Per image, the boxes [n, 4] that are named, the most promising first; None where nothing is proposed."""
        return None

    def teacher_scores(self, batch: Batch, boxes: Sequence[Tensor]) -> list[Tensor] | None:
        """Per image, what the teacher says [n, C] of these boxes; None for a system without a teacher of regions."""
        return None

    @torch.no_grad()
    def predict(self, images: Sequence, words: Sequence[str]) -> list[Detections]:
        """Detections in images of any size (Pillow's, or uint8 [H, W, 3]), each named by one of the `words`.

        Raises `VlmlabError` for images that are none, no word, a word that comes twice, or words that the system cannot
        be asked for.
        """
        self.say(words)
        found = []
        for picture in read(images):
            batch, frames = self.framed([picture])
            found.append(self.detect(Batch(images=batch))[0].cpu().back(frames[0]))
        return found

    def must_have_boxes(self, images) -> None:
        """Raises `VlmlabError` if none of the training images has a box that the setup grants."""
        # The first image with a box answers: the others are not read here.
        if not images.dense or not any(len(images.truth(i)) for i in range(len(images))):
            raise VlmlabError(
                f"{self.info.key} learns from boxes of base classes, and these training images have none; choose tableau, "
                "which does"
            )

    def _best(self, found: Detections) -> Tensor:
        best = torch.zeros(len(self.classes), device=found.scores.device)
        return best.scatter_reduce(0, found.labels, found.scores.float(), "amax")
