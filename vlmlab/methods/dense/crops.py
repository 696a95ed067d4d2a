"""What CLIP says of a region: the box is cut out of the image and encoded as an image of its own.

Two ways to cut: "stretched" resizes the box to the square that CLIP takes, as the releases do; "square" cuts a square around
its longer side, so that nothing is distorted. A crop never leaves the image. Crops are enlarged (bilinear, one sample a pixel: the
whole image as a crop is the image itself), never made smaller.

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
SHAPES = ("stretched", "square")


def grown(boxes: Tensor, scale: float, shape: str, side: float) -> Tensor:
    """Boxes [R, 4] around the same centres, `scale` times as large; "square" ones as wide as high; cut at the image."""
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    if shape == "square":
        size = size.amax(-1, keepdim=True).expand(-1, 2)
    half = size.clamp_min(1) * scale / 2
    return torch.cat([centre - half, centre + half], -1).clamp(0, side)


@torch.no_grad()
def crop_embeddings(
    backbone, images: Tensor, boxes: Tensor, scales: Sequence[float] = (1.0, 1.5), shape: str = "stretched"
) -> Tensor:
    """Unit embeddings [B, n, e] of boxes [B, n, 4] of normalised images [B, 3, S, S]; boxes without an area count, too."""
    count, side = boxes.shape[1], images.shape[-1]
    image = torch.arange(len(images), device=images.device).repeat_interleave(count)
    total = 0.0
    for scale in scales:
        rows = torch.cat([image[:, None].to(images.dtype), grown(boxes.flatten(0, 1), scale, shape, side)], 1)
        found = [
            backbone.encode_image(roi_align(images, chunk, side, 1.0, sampling_ratio=1, aligned=True))
            for chunk in rows.split(CROPS_AT_ONCE)
        ]
        total = total + (torch.cat(found) if found else images.new_zeros(0, backbone.embed_dim))
    return F.normalize(total, dim=-1).unflatten(0, (len(images), count))
