"""What CLIP says of a region: the box is cut out of the image and encoded as an image of its own.

Four ways to cut: "stretched" resizes the box to the square that CLIP takes; "centred" resizes its shorter side to it and takes
the middle, which is what CLIP's own preprocessing does with any image, so that the ends of a long box are lost (RKD, DetPro and
VL-PLM hand their crops to it); "square" cuts a square around the longer side, so that nothing is distorted; "letterboxed" keeps
the proportions of the box and fills the rest of the square with zeros, as HierKD does. A crop never leaves the image. Crops are
enlarged (bilinear, one sample a pixel: the whole image as a crop is the image itself), never made smaller.

    v_r = n( sum_k f(crop(r, scale_k)) )          ViLD takes scales 1 and 1.5

Dimensions: B images, S their side, n boxes of an image, K scales, R boxes in all, e joint width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

CROPS_AT_ONCE = 256
SHAPES = ("stretched", "centred", "square", "letterboxed")


def grown(boxes: Tensor, scale: float, shape: str, side: float) -> Tensor:
    """Boxes [R, 4] around the same centres, `scale` times as large, cut at the image; "square" ones as wide as high before
    that, "centred" ones reduced behind it to the square in their middle."""
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    if shape == "square":
        size = size.amax(-1, keepdim=True).expand(-1, 2)
    half = size.clamp_min(1) * scale / 2
    found = torch.cat([centre - half, centre + half], -1).clamp(0, side)
    if shape == "centred":
        centre, size = (found[:, :2] + found[:, 2:]) / 2, found[:, 2:] - found[:, :2]
        half = size.amin(-1, keepdim=True) / 2
        found = torch.cat([centre - half, centre + half], -1)
    return found


def letterboxed(images: Tensor, rows: Tensor, side: int) -> Tensor:
    """[R, 3, side, side] of boxes `rows` [R, 5] (image, box): the box in the middle, its longer side filling the square."""
    boxes = rows[:, 1:]
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).clamp_min(1)
    longer = size.amax(-1, keepdim=True)
    window = torch.cat([rows[:, :1], centre - longer / 2, centre + longer / 2], 1)
    found = roi_align(images, window, side, 1.0, sampling_ratio=1, aligned=True)
    place = (torch.arange(side, device=images.device) + 0.5) / side - 0.5  # of the window, from its centre
    inside = place.abs() <= size[..., None] / longer[..., None] / 2  # [R, 2, side]
    return found * (inside[:, 0, None, :] & inside[:, 1, :, None])[:, None]


@torch.no_grad()
def crop_embeddings(
    backbone,
    images: Tensor,
    boxes: Tensor,
    scales: Sequence[float] = (1.0, 1.5),
    shape: str = "stretched",
    unit: bool = True,
) -> Tensor:
    """Embeddings [B, n, e] of boxes [B, n, 4] of normalised images [B, 3, S, S]; boxes without an area count, too.

    They are of unit length, or, if not `unit`, the mean over the scales of what the tower gives.
    """
    count, side = boxes.shape[1], images.shape[-1]
    image = torch.arange(len(images), device=images.device).repeat_interleave(count)
    total = 0.0
    for scale in scales:
        rows = torch.cat([image[:, None].to(images.dtype), grown(boxes.flatten(0, 1), scale, shape, side)], 1)
        found = [backbone.encode_image(_cut(images, chunk, shape)) for chunk in rows.split(CROPS_AT_ONCE)]
        total = total + (torch.cat(found) if found else images.new_zeros(0, backbone.embed_dim))
    total = F.normalize(total, dim=-1) if unit else total / len(scales)
    return total.unflatten(0, (len(images), count))


def _cut(images: Tensor, rows: Tensor, shape: str) -> Tensor:
    side = images.shape[-1]
    if shape == "letterboxed":
        return letterboxed(images, rows, side)
    return roi_align(images, rows, side, 1.0, sampling_ratio=1, aligned=True)
