"""Mask classification (MaskFormer, arXiv:2107.06278): matching of queries with true segments, and the losses of the masks.

A model gives N masks and N class distributions per image. Each true segment is matched with one query, by the assignment
of least total cost; the matched queries learn its mask and name, the others learn "no object".

Dimensions: N queries, G true segments, C classes, P pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

ALPHA, GAMMA = 0.25, 2.0


def focal_loss(inputs: Tensor, targets: Tensor, count: float, alpha: float = ALPHA, gamma: float = GAMMA) -> Tensor:
    """Sigmoid focal loss of logits [G, P] against masks of 0 and 1: mean over pixels, sum over segments, over `count`.

    alpha_t (1 - p_t)^gamma BCE, with p_t the probability of the truth; alpha below 0 leaves the weight out.
    """
    p = inputs.sigmoid()
    loss = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    loss = loss * (1 - (p * targets + (1 - p) * (1 - targets))) ** gamma
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return loss.mean(1).sum() / count


def dice_loss(inputs: Tensor, targets: Tensor, count: float) -> Tensor:
    """1 - (2 p.t + 1) / (|p| + |t| + 1) of logits [G, P] against masks, summed over segments, over `count`."""
    p = inputs.sigmoid().flatten(1)
    score = (2 * (p * targets).sum(-1) + 1) / (p.sum(-1) + targets.sum(-1) + 1)
    return (1 - score).sum() / count


def focal_costs(inputs: Tensor, targets: Tensor, alpha: float = ALPHA, gamma: float = GAMMA) -> Tensor:
    """Focal loss of every query with every segment [N, G]: logits [N, P], masks [G, P]; mean over pixels."""
    p = inputs.sigmoid()
    hit = (1 - p) ** gamma * F.binary_cross_entropy_with_logits(inputs, torch.ones_like(inputs), reduction="none")
    miss = p**gamma * F.binary_cross_entropy_with_logits(inputs, torch.zeros_like(inputs), reduction="none")
    if alpha >= 0:
        hit, miss = hit * alpha, miss * (1 - alpha)
    return (hit @ targets.T + miss @ (1 - targets).T) / inputs.shape[1]


def dice_costs(inputs: Tensor, targets: Tensor) -> Tensor:
    """Dice loss of every query with every segment [N, G]: logits [N, P], masks [G, P]."""
    p = inputs.sigmoid()
    return 1 - (2 * p @ targets.T + 1) / (p.sum(-1)[:, None] + targets.sum(-1)[None] + 1)


@torch.no_grad()
def match(
    class_logits: Tensor,
    mask_logits: Tensor,
    labels: Tensor,
    masks: Tensor,
    class_cost: float = 1.0,
    mask_cost: float = 20.0,
    dice_cost: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """(queries [G'], segments [G']) of the cheapest assignment, G' = min(N, G); both int64 on the CPU.

    class_logits [N, C + 1] with "no object" last, mask_logits [N, P], labels [G], masks [G, P] of 0 and 1. The cost is
    mask_cost focal - class_cost p(class) + dice_cost dice.
    """
    p = class_logits.softmax(-1)[:, labels]
    masks = masks.to(mask_logits.dtype)
    cost = mask_cost * focal_costs(mask_logits, masks) - class_cost * p + dice_cost * dice_costs(mask_logits, masks)
    rows, columns = linear_sum_assignment(cost.float().cpu().numpy())
    return torch.as_tensor(rows), torch.as_tensor(columns)


def segments_to_pixels(classes: Tensor, mask_logits: Tensor) -> Tensor:
    """Scores per class and pixel [B, C, H, W]: the sum over queries of P(class) [B, N, C] x sigmoid(mask) [B, N, H, W]."""
    return torch.einsum("bnc,bnhw->bchw", classes, mask_logits.sigmoid())
