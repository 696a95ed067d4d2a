"""Box arithmetic for many images at once; what torchvision.ops has is taken from there.

A box is x0, y0, x1, y1 in pixels. Dimensions: n, m boxes, P proposals of an image, C classes, N images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

DELTAS = (5.0, 5.0)
"""How shifts and logarithms of sizes are scaled before they are regressed."""


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union [..., n, m] of boxes [..., n, 4] and [..., m, 4]; 0 where neither has an area."""
    corner = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    far = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    common = (far - corner).clamp_min(0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp_min(0).prod(-1) for box in (a, b)]
    return common / (areas[0][..., :, None] + areas[1][..., None, :] - common).clamp_min(1e-6)


def side_by_side(rows: Sequence[Tensor], fill: float = 0) -> Tensor:
    """Tensors [n_i, ...] of several images as one [B, max n_i, ...]; the places that are left over hold `fill`."""
    most = max([len(row) for row in rows], default=0)
    behind = [(0, 0) * (row.dim() - 1) + (0, most - len(row)) for row in rows]
    return torch.stack([F.pad(row, pad, value=fill) for row, pad in zip(rows, behind, strict=True)])


def to_deltas(boxes: Tensor, targets: Tensor) -> Tensor:
    """What moves `boxes` [..., 4] onto `targets` [..., 4]: (shift of the centre / size, log of the ratio of sizes) [..., 4]."""
    centre, size = _centred(boxes)
    goal, goal_size = _centred(targets)
    return torch.cat([DELTAS[0] * (goal - centre) / size, DELTAS[1] * (goal_size / size).log()], -1)


def from_deltas(boxes: Tensor, deltas: Tensor, side: float) -> Tensor:
    """`boxes` [..., 4] moved by `deltas` [..., 4], cut at an image of `side` pixels; the inverse of `to_deltas`."""
    centre, size = _centred(boxes)
    centre = centre + deltas[..., :2] / DELTAS[0] * size
    size = size * (deltas[..., 2:] / DELTAS[1]).clamp_max(2).exp()
    return torch.cat([centre - size / 2, centre + size / 2], -1).clamp(0, side)


def _centred(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]).clamp_min(1)


def class_nms(boxes: Tensor, scores: Tensor, threshold: float = 0.5) -> Tensor:
    """Greedy non-maximum suppression per class, where all classes share the boxes of an image.

    Args:
        boxes: [N, P, 4]. scores: [N, P, C].
        threshold: intersection over union above which the lower score is dropped.

    Returns: [N, P, C] bool, what is left. One loop over the P ranks serves all images and classes.
    """
    images, count, classes = scores.shape
    near = iou(boxes, boxes) > threshold  # [N, P, P]
    order = scores.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order)
    places = torch.arange(count, device=scores.device)
    rank.scatter_(1, order, places[None, :, None].expand(images, -1, classes))
    gone = torch.zeros(images, count, classes, dtype=torch.bool, device=scores.device)
    row = torch.arange(images, device=scores.device)[:, None]
    for k in range(count - 1):
        best = order[:, k]  # [N, C]
        alive = ~gone.gather(1, best[:, None])[:, 0]
        beside = (near[row, best] & alive[..., None]).transpose(1, 2)  # [N, P, C]
        gone |= beside & (rank > k)
    return ~gone
