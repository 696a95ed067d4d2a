"""From an image to what a network is given, and back: for pixels, boxes, masks and maps.

An image of H x W pixels is scaled, then shifted: a pixel x of the image lies at `scale x - offset` of the network's
input. A centre crop (the transform of CLIP's evaluation) scales the shorter side to the input's and loses the ends of the
longer one; a letterbox scales the longer side and fills the rest. Square images know no difference.

Letters: H x W the image, h x w the network's input, n objects, B images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vlmlab.datasets.truth import NOTHING, Truth


@dataclass(frozen=True)
class Frame:
    """How one image of `image` = (H, W) pixels lies in an input of `side` x `side` pixels.

    The scaled image has `scaled` = (h, w) pixels, and its upper left corner lies at `corner` = (top, left) of the input:
    negative where a crop cuts it off, positive where a letterbox fills.
    """

    image: tuple[int, int]
    side: int
    scaled: tuple[int, int]
    corner: tuple[int, int]

    @classmethod
    def centre_crop(cls, image: tuple[int, int], side: int) -> Frame:
        """The shorter side becomes `side`, and the middle of the longer one is kept."""
        height, width = image
        short = min(height, width)
        scaled = height * side // short, width * side // short  # rounded as torchvision does
        return cls((height, width), side, scaled, (-round((scaled[0] - side) / 2), -round((scaled[1] - side) / 2)))

    @classmethod
    def letterbox(cls, image: tuple[int, int], side: int) -> Frame:
        """The longer side becomes `side`; the image lies in the middle and the rest is filled."""
        height, width = image
        long = max(height, width)
        scaled = (max(1, round(height * side / long)), max(1, round(width * side / long)))
        return cls((height, width), side, scaled, ((side - scaled[0]) // 2, (side - scaled[1]) // 2))

    @property
    def whole(self) -> bool:
        """Whether the image is the input, pixel by pixel."""
        return self.image == (self.side, self.side)

    @property
    def scale(self) -> tuple[float, float]:
        """Input pixels per image pixel, down and across."""
        return self.scaled[0] / self.image[0], self.scaled[1] / self.image[1]

    # --- image -> input ----------------------------------------------------------------------------------------------

    def pixels(self, picture: np.ndarray, fill: Sequence[int]) -> np.ndarray:
        """uint8 [H, W, 3] -> [side, side, 3], bicubic; what lies outside of the image has the colour `fill`."""
        if self.whole:
            return picture
        height, width = self.scaled
        small = Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), Image.Resampling.BICUBIC)
        canvas = Image.new("RGB", (self.side, self.side), tuple(fill))
        canvas.paste(small, (self.corner[1], self.corner[0]))
        return np.asarray(canvas)

    def boxes(self, boxes: Tensor) -> Tensor:
        """Boxes [n, 4] of the image as boxes of the input, cut at its edges."""
        return (boxes * self._scale4(boxes) + self._corner4(boxes)).clamp(0, self.side)

    def masks(self, masks: Tensor, fill: int | bool = False) -> Tensor:
        """Masks or class indices [..., H, W] -> [..., side, side], each pixel that of the nearest one of the image."""
        if self.whole:
            return masks
        rows, rows_in = self._nearest(0)
        columns, columns_in = self._nearest(1)
        found = masks[..., rows.clamp(0, self.image[0] - 1), :][..., columns.clamp(0, self.image[1] - 1)]
        return found.masked_fill(~(rows_in[:, None] & columns_in), fill)

    def truth(self, truth: Truth) -> Truth:
        """Ground truth of the image as that of the input; objects of which nothing is left inside are left out."""
        if self.whole:
            return truth
        boxes = self.boxes(truth.boxes)
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        instances = None if truth.instances is None else self.masks(truth.instances[inside])
        semantic = None if truth.semantic is None else self.masks(truth.semantic, fill=NOTHING)
        return Truth(boxes[inside], truth.labels[inside], instances, semantic)

    # --- input -> image ----------------------------------------------------------------------------------------------

    def boxes_back(self, boxes: Tensor) -> Tensor:
        """Boxes [n, 4] of the input as boxes of the image, cut at its edges."""
        height, width = self.image
        back = (boxes - self._corner4(boxes)) / self._scale4(boxes)
        return back.clamp(min=0).minimum(back.new_tensor([width, height, width, height]))

    def map_back(self, values: Tensor) -> Tensor:
        """Scores [C, side, side] of the input as scores [C, H, W] of the image, bilinear; a pixel that the input does not
        show gets those of the nearest one that it shows."""
        if self.whole:
            return values
        top, left = (max(0, corner) for corner in self.corner)
        bottom = min(self.side, self.corner[0] + self.scaled[0])
        right = min(self.side, self.corner[1] + self.scaled[1])
        shown = values[:, top:bottom, left:right]
        before = max(0, -self.corner[0]), max(0, -self.corner[1])
        padding = (
            before[1], self.scaled[1] - before[1] - shown.shape[2], before[0], self.scaled[0] - before[0] - shown.shape[1],
        )  # fmt: skip
        shown = F.pad(shown[None].float(), padding, mode="replicate") if any(padding) else shown[None].float()
        return F.interpolate(shown, size=self.image, mode="bilinear", align_corners=False)[0]

    def masks_back(self, masks: Tensor, fill: int | bool = False) -> Tensor:
        """Masks or numbers [n, side, side] of the input as [n, H, W] of the image; what the input does not show is `fill`."""
        if self.whole or not len(masks):
            return masks if self.whole else masks.new_zeros((0, *self.image))
        rows, columns = (
            ((torch.arange(self.image[d]) + 0.5) * self.scale[d] + self.corner[d]).floor().long() for d in (0, 1)
        )
        inside = ((rows >= 0) & (rows < self.side))[:, None] & ((columns >= 0) & (columns < self.side))
        found = masks[:, rows.clamp(0, self.side - 1)][..., columns.clamp(0, self.side - 1)]
        return found.masked_fill(~inside.to(found.device), fill)

    def _nearest(self, d: int) -> tuple[Tensor, Tensor]:
        """For every row (d = 0) or column of the input: the image's nearest one, and whether there is one."""
        places = torch.arange(self.side) - self.corner[d]
        return ((places + 0.5) / self.scale[d]).floor().long(), (places >= 0) & (places < self.scaled[d])

    def _scale4(self, like: Tensor) -> Tensor:
        down, across = self.scale
        return like.new_tensor([across, down, across, down])

    def _corner4(self, like: Tensor) -> Tensor:
        top, left = self.corner
        return like.new_tensor([left, top, left, top])
