"""What systems that detect and systems that segment have in common: how images and ground truth come to them.

Dimensions: B images, S image side, H x W an image of any size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from vlmlab.errors import VlmlabError
from vlmlab.features.bank import as_read
from vlmlab.geometry import Frame
from vlmlab.methods.method import PICTURES_AT_ONCE, Method


class Dense(Method):
    """A system with an answer per place. `grounded` says what its training images must carry, in words for a message."""

    eats = "images"
    grounded: str = "boxes"

    def learns_from(self, task):
        """All training images, with the ground truth that the setup grants."""
        return task.train

    def frames(self, sizes: Sequence[tuple[int, int]]) -> list[Frame]:
        """How images of these sizes (H, W) lie in the network's input: letterboxed, so that nothing is cut off."""
        return [Frame.letterbox(size, self.backbone.image_size) for size in sizes]

    def framed(self, pictures: Sequence[np.ndarray]) -> tuple[Tensor, list[Frame]]:
        """Raw uint8 images [H, W, 3] of any size -> ([B, 3, S, S] on the backbone's device, the frame of each)."""
        frames = self.frames([picture.shape[:2] for picture in pictures])
        fill = [round(255 * value) for value in self.backbone.mean.tolist()]
        raw = np.stack([frame.pixels(picture, fill) for frame, picture in zip(frames, pictures, strict=True)])
        return self.backbone.preprocess(raw).to(self.backbone.device), frames

    def framed_in_turn(self, pictures) -> Iterator[tuple[range, Tensor, list[Frame]]]:
        """All images of a set by `framed`, a few at a time: (their positions, the images, their frames)."""
        with contextlib.closing(as_read(pictures, PICTURES_AT_ONCE, f"{self.info.key}: looking at images")) as found:
            for at, raw in found:
                yield at, *self.framed(raw)

    def say(self, words: Sequence[str]) -> None:
        """Take these words for classes. Raises `VlmlabError` if there are none, or if one comes twice."""
        words = [word.strip() for word in words if word.strip()]
        if not words:
            raise VlmlabError("there is no word to look for; give at least one")
        if twice := [word for word in dict.fromkeys(words) if words.count(word) > 1]:
            raise VlmlabError(f"the word '{twice[0]}' comes twice; give each once")
        if words != self.classes:
            self.set_classes(words, self.templates or ["a photo of a {}."])


def read(pictures: Sequence) -> list[np.ndarray]:
    """Images as Pillow's, arrays [H, W, 3] of uint8, or tensors of either -> arrays."""
    arrays = []
    for picture in pictures:
        array = np.asarray(picture.convert("RGB") if isinstance(picture, Image.Image) else picture)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or not array.size:
            raise VlmlabError(f"an image must be uint8 [H, W, 3], not {array.dtype} of {list(array.shape)}")
        arrays.append(array)
    return arrays
