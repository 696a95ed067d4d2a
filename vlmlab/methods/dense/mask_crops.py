"""A mask cut out of its image, for CLIP to name: the box around the mask, what lies outside of the mask painted over.

"stretched" cuts the box and resizes it to the square that CLIP takes, as the releases do; "square" cuts a square around the
box's longer side, moved into the image, so that nothing is distorted. Resizing is bicubic with the border repeated, the
same numbers as PyTorch's on each crop by itself, but for all crops at once: along each axis it is a matrix.

    crop = R_y x R_x^T,     R [side, S] has the four weights of each output pixel in its row

Dimensions: B images, N masks of an image, R regions, H x W an image, e joint width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.methods.dense.naming import painted

AT_ONCE = 256  # crops; bounds the memory
SHAPES = ("stretched", "square")
BICUBIC = -0.75  # PyTorch's coefficient of the cubic


def mask_boxes(masks: Tensor) -> Tensor:
    """x0, y0, x1, y1 (upper left included, lower right excluded) around each mask [R, H, W] (bool): int64 [R, 4].

    Zeros for an empty mask.
    """
    ends = []
    for shown in (masks.any(1), masks.any(2)):  # columns [R, W], rows [R, H]
        places = torch.arange(1, shown.shape[1] + 1, device=masks.device) * shown
        last = places.amax(1)
        first = torch.where(shown, places, shown.shape[1] + 1).amin(1) - 1
        ends.append(torch.stack([first.masked_fill(last == 0, 0), last], 1))
    (x, y) = ends
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)


def crop_boxes(boxes: Tensor, scale: float, shape: str, height: int, width: int) -> Tensor:
    """The boxes int64 [R, 4] to cut around those of the masks [R, 4], `scale` times as large, inside of the image.

    "stretched" rounds towards zero and is cut at the border, as in the releases.
    """
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * scale
    limits = torch.tensor([width, height], device=boxes.device)
    if shape == "square":
        half = size.amax(1, keepdim=True).clamp(1, min(height, width)) / 2
        centre = torch.minimum(torch.maximum(centre, half), limits - half)
        low, high = (centre - half).round().long(), (centre + half).round().long()
    else:
        low, high = (centre - size / 2).long(), (centre + size / 2).long()
    low = torch.minimum(low.clamp_min(0), limits - 1)
    return torch.cat([low, torch.maximum(torch.minimum(high, limits), low + 1)], 1)


def resized(images: Tensor, boxes: Tensor, side: int) -> Tensor:
    """The crop `boxes` int64 [R, 4] of each of `images` [R, c, H, W], bicubic: [R, c, side, side]."""
    rows = _cubic(boxes[:, 1], boxes[:, 3], images.shape[-2], side).to(images.dtype)
    columns = _cubic(boxes[:, 0], boxes[:, 2], images.shape[-1], side).to(images.dtype)
    return torch.einsum("ryh,rchw,rxw->rcyx", rows, images, columns)


def _cubic(low: Tensor, high: Tensor, length: int, side: int) -> Tensor:
    """[R, side, length]: the weights that resize the pixels low to high (excluded) to `side`."""
    count = (high - low)[:, None, None]
    at = (torch.arange(side, device=low.device) + 0.5) * count[..., 0] / side - 0.5  # [R, side]
    tap = at.floor().long()[..., None] + torch.arange(-1, 3, device=low.device)  # [R, side, 4]
    d, a = (at[..., None] - tap).abs(), BICUBIC
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    place = low[:, None, None] + torch.minimum(tap.clamp_min(0), count - 1)
    weights = torch.zeros(*at.shape, length, device=low.device)
    return weights.scatter_add(2, place, torch.where(d <= 1, near, far))


def cut(images: Tensor, masks: Tensor, side: int, scale: float = 1.0, shape: str = "stretched", paint: bool = True):
    """Crops [R, 3, side, side] of `images` [R, 3, H, W] around `masks` [R, H, W] (bool, none empty); painted outside of the
    mask with zero, the mean colour of normalised images, if `paint`."""
    boxes = crop_boxes(mask_boxes(masks), scale, shape, *masks.shape[-2:])
    return resized(painted(images, masks) if paint else images, boxes, side)


@torch.no_grad()
def mask_embeddings(
    backbone, images: Tensor, masks: Tensor, scale: float = 1.0, shape: str = "stretched", paint: bool = True
) -> tuple[Tensor, Tensor]:
    """What CLIP sees in each mask: (unit embeddings [B, N, e], whether there is anything in the mask [B, N]).

    `images` [B, 3, S, S] normalised, `masks` [B, N, S, S] bool; an empty mask has the embedding zero.
    """
    valid = masks.flatten(2).any(2)
    found = torch.zeros(*valid.shape, backbone.embed_dim, device=images.device)
    if not valid.any():
        return found, valid
    image, mask = valid.nonzero(as_tuple=True)
    for own, number in zip(image.split(AT_ONCE), mask.split(AT_ONCE), strict=True):
        crops = cut(images[own], masks[own, number], images.shape[-1], scale, shape, paint)
        found[own, number] = F.normalize(backbone.encode_image(crops), dim=-1)
    return found, valid


def in_bulk(
    encoded: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], cuts: Iterable[tuple[Tensor, Tensor]]
) -> Tensor | None:
    """Unit embeddings [R, e] of the masks of many images, some hundred at once; None of none.

    `cuts` are pairs of an image [1, 3, S, S] and masks of it [n, S, S] (bool); `encoded` takes images [B, 3, S, S] and masks
    [B, 1, S, S], as `mask_embeddings`.
    """
    waiting, found = [], []

    def encode() -> None:
        images, masks = (torch.cat(side) for side in zip(*waiting, strict=True))
        found.append(encoded(images, masks[:, None])[0][:, 0])
        waiting.clear()

    for image, masks in cuts:
        waiting.append((image.expand(len(masks), -1, -1, -1), masks))
        if sum(len(masks) for _, masks in waiting) >= AT_ONCE:
            encode()
    if waiting:
        encode()
    return torch.cat(found) if found else None
