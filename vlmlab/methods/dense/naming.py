"""What a mask is called: mask pooling, and the fusion of a segmenter's names with CLIP's.

Dimensions: B images, N masks, C classes, e joint width, H x W maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def mask_pooled(features: Tensor, masks: Tensor) -> Tensor:
    """Mean of the features [B, e, H, W] under each mask [B, N, H, W] (weights 0 to 1): [B, N, e]; zeros under an empty mask."""
    area = masks.sum((2, 3)).clamp_min(1e-6)
    return torch.einsum("bnhw,behw->bne", masks, features) / area[..., None]


def fused(p: Tensor, q: Tensor, weights: Tensor) -> Tensor:
    """p^(1 - w) q^w per class: p of the segmenter and q of CLIP [..., C], w [C] in 0 to 1.

    ZSSeg takes w = 0.2 for trained and 0.8 for other classes, ZegFormer 1/3 and 2/3, OVSeg one w for all.
    """
    return p ** (1 - weights) * q**weights


def seen_averaged(q: Tensor, seen: Sequence[int]) -> Tensor:
    """q [..., C] with the entries of seen classes replaced by their mean, so that CLIP does not rank them (ZegFormer)."""
    seen = list(seen)
    found = q.clone()
    found[..., seen] = q[..., seen].mean(-1, keepdim=True)
    return found


def painted(images: Tensor, masks: Tensor) -> Tensor:
    """Images [N, 3, H, W], normalised, with the mean colour (zero) outside of their masks [N, H, W] (bool)."""
    return torch.where(masks[:, None], images, torch.zeros_like(images))
