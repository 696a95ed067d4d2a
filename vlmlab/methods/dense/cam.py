"""Class activation maps of a ViT, and their refinement by attention (CLIP-ES, arXiv:2212.09506).

Dimensions: B images, C classes, T = h w places, d width, h x w places of the tower, H x W pixels, n maps.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    """Attention weights [..., T, T] of places -> A A, with A as nearly doubly stochastic as `rounds` make it, and symmetric.

    A round divides every column by its sum, then every row by its.
    """
    for _ in range(rounds):
        attention = attention / attention.sum(-2, keepdim=True)
        attention = attention / attention.sum(-1, keepdim=True)
    attention = (attention + attention.mT) / 2
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


THRESHOLDS = tuple(step / 20 for step in range(1, 20))
"""0.05 to 0.95: what `best_threshold` chooses from."""


def strongest(maps: Tensor, pairs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Per image the score and the class of the strongest map: both [count, h, w].

    maps [n, h, w], each of an image and a class, pairs [n, 2]. An image without a map has scores of -1 and class 0.
    """
    slot = torch.cat([torch.arange(int(k), device=pairs.device) for k in pairs[:, 0].bincount(minlength=count)])
    # Maps of an image side by side: pairs are sorted by image, so the slot of a map is its place among those of its image.
    side = int(slot.max()) + 1 if len(slot) else 1
    table = maps.new_full((count, side, *maps.shape[1:]), -1.0)
    names = pairs.new_zeros((count, side))
    table[pairs[:, 0], slot], names[pairs[:, 0], slot] = maps, pairs[:, 1]
    scores, place = table.max(1)
    return scores, names.gather(1, place.flatten(1)).view_as(place)


def cam_iou(scores: Tensor, names: Tensor, truth: Tensor, threshold: float, classes: int) -> float:
    """Mean IoU in percent of maps whose ground is what scores no more than `threshold`.

    scores and names [B, H, W] of `strongest`; truth [B, H, W] holds class indices, `classes` for the ground, and negative
    values where nothing is known. The mean is over the classes (the ground among them) that the truth shows.
    """
    counted = truth >= 0
    found = torch.where(scores > threshold, names, classes)[counted]
    side = classes + 1
    matrix = (truth[counted] * side + found).bincount(minlength=side * side).view(side, side).double()
    shown = matrix.sum(1)
    iou = matrix.diag() / (shown + matrix.sum(0) - matrix.diag()).clamp_min(1)
    return float(100 * iou[shown > 0].mean())


def best_threshold(
    scores: Tensor, names: Tensor, truth: Tensor, classes: int, thresholds: Sequence[float] = THRESHOLDS
) -> float:
    """The threshold with the best `cam_iou` of these; the lowest of equals."""
    return max(thresholds, key=lambda threshold: cam_iou(scores, names, truth, threshold, classes))
