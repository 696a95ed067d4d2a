"""Class activation maps of a ViT, and their refinement by attention (CLIP-ES, arXiv:2212.09506).

Dimensions: K classes, T = h w places, d width, h x w places of the tower.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.ndimage import find_objects, label
from torch import Tensor


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """ReLU of the sum over channels of (mean gradient) x activation, scaled to 0 to 1.

    `activations` and `gradients` [B, d, h, w] -> [B, h, w]; a map that is constant becomes zeros.
    """
    weights = gradients.mean((2, 3), keepdim=True)
    return unit_range(F.relu((weights * activations).sum(1)))


def unit_range(maps: Tensor) -> Tensor:
    """Maps [..., h, w], each shifted and scaled to 0 to 1; a constant one becomes zeros."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low + 1e-7)


def affinity(attention: Tensor, rounds: int = 3) -> Tensor:
    """Attention weights [T, T] of places -> A A, with A as nearly doubly stochastic as `rounds` make it, and symmetric.

    A round divides every column by its sum, then every row by its.
    """
    for _ in range(rounds):
        attention = attention / attention.sum(0, keepdim=True)
        attention = attention / attention.sum(1, keepdim=True)
    attention = (attention + attention.T) / 2
    return attention @ attention


def inside_boxes(cam: Tensor, share: float = 0.4) -> Tensor:
    """1 in the boxes around the connected regions of `cam` [h, w] above `share` of its maximum, 0 elsewhere: [h, w].

    Values 0 to 1 are compared in 256 steps, and a box at the right or lower border ends one place before it, both as in
    the release. Zeros everywhere for a map without a positive value.
    """
    mask = torch.zeros_like(cam)
    heat = (cam * 255).to(torch.uint8).cpu()
    regions, _ = label((heat > int(share * int(heat.max()))).numpy(), structure=torch.ones(3, 3).numpy())
    height, width = cam.shape
    for rows, columns in find_objects(regions):
        mask[rows.start : min(rows.stop, height - 1), columns.start : min(columns.stop, width - 1)] = 1
    return mask


def refined(cam: Tensor, weights: Tensor, share: float = 0.4) -> Tensor:
    """`cam` [h, w] spread by the affinity `weights` [T, T], whose columns count inside of the class's boxes alone: [h, w]."""
    inside = inside_boxes(cam, share).flatten()
    return ((weights * inside) @ cam.flatten()).reshape(cam.shape)
