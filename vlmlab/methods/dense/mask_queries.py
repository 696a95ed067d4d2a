"""Mask classification (MaskFormer, arXiv:2107.06278): matching of queries with true segments, and the losses of the masks.

A model gives N masks and N class distributions per image. Each true segment is matched with one query, by the assignment
of least total cost; the matched queries learn its mask and name, the others learn "no object".

Dimensions: N queries, G true segments, C classes, P pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

ALPHA, GAMMA = 0.25, 2.0


def focal_loss(
    inputs: Tensor,
    targets: Tensor,
    count: float,
    alpha: float = ALPHA,
    gamma: float = GAMMA,
    counted: Tensor | None = None,
) -> Tensor:
    """Sigmoid focal loss of logits [G, P] against masks of 0 and 1: mean over pixels, sum over segments, over `count`.

    alpha_t (1 - p_t)^gamma BCE, with p_t the probability of the truth; alpha below 0 leaves the weight out. Where `counted`
    [G, P] is 0, a pixel counts nothing.
    """
    p = inputs.sigmoid()
    loss = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    loss = loss * (1 - (p * targets + (1 - p) * (1 - targets))) ** gamma
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    if counted is None:
        return loss.mean(1).sum() / count
    return ((loss * counted).sum(1) / counted.sum(1).clamp_min(1)).sum() / count


def dice_loss(inputs: Tensor, targets: Tensor, count: float, counted: Tensor | None = None) -> Tensor:
    """1 - (2 p.t + 1) / (|p| + |t| + 1) of logits [G, P] against masks, summed over segments, over `count`; `counted` as above."""
    p = inputs.sigmoid().flatten(1)
    if counted is not None:
        p, targets = p * counted, targets * counted
    score = (2 * (p * targets).sum(-1) + 1) / (p.sum(-1) + targets.sum(-1) + 1)
    return (1 - score).sum() / count


def focal_costs(
    inputs: Tensor, targets: Tensor, alpha: float = ALPHA, gamma: float = GAMMA, counted: Tensor | None = None
) -> Tensor:
    """Focal loss of every query with every segment [..., N, G]: logits [..., N, P], masks [..., G, P]; mean over pixels,
    over those alone where `counted` [..., P] is 1."""
    counted = inputs.new_ones(inputs.shape[-1]) if counted is None else counted
    p, weights = inputs.sigmoid(), counted[..., None, :] / counted.sum(-1)[..., None, None].clamp_min(1)
    hit = (1 - p) ** gamma * F.softplus(-inputs) * weights
    miss = p**gamma * F.softplus(inputs) * weights
    if alpha >= 0:
        hit, miss = hit * alpha, miss * (1 - alpha)
    return hit @ targets.mT + miss @ (1 - targets).mT


def dice_costs(inputs: Tensor, targets: Tensor, counted: Tensor | None = None) -> Tensor:
    """Dice loss of every query with every segment [..., N, G]: logits [..., N, P], masks [..., G, P]; `counted` as above."""
    p = inputs.sigmoid()
    if counted is not None:
        p, targets = p * counted[..., None, :], targets * counted[..., None, :]
    return 1 - (2 * p @ targets.mT + 1) / (p.sum(-1)[..., None] + targets.sum(-1)[..., None, :] + 1)


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
    counted = torch.ones_like(mask_logits[:1])
    (found,) = match_all(
        class_logits[None], mask_logits[None], [labels], masks[None].to(mask_logits.dtype), counted,
        class_cost, mask_cost, dice_cost,
    )  # fmt: skip
    return found


@torch.no_grad()
def match_all(
    class_logits: Tensor,
    mask_logits: Tensor,
    labels: Sequence[Tensor],
    masks: Tensor,
    counted: Tensor,
    class_cost: float = 1.0,
    mask_cost: float = 20.0,
    dice_cost: float = 1.0,
) -> list[tuple[Tensor, Tensor]]:
    """`match` of every image of a batch, with pixels that count nothing.

    class_logits [B, N, C + 1], mask_logits [B, N, P], labels [G_b] of each image, masks [B, G, P] of which the first G_b of
    an image are its segments, counted [B, P] of 0 and 1.
    """
    cost = mask_cost * focal_costs(mask_logits, masks, counted=counted)
    cost = cost + dice_cost * dice_costs(mask_logits, masks, counted)
    padded = stacked(labels)  # [B, G]
    p = class_logits.softmax(-1).gather(2, padded[:, None].expand(-1, class_logits.shape[1], -1))
    cost[..., : padded.shape[1]] -= class_cost * p
    costs = cost.float().cpu().numpy()
    pairs = [linear_sum_assignment(own[:, : len(some)]) for own, some in zip(costs, labels, strict=True)]
    return [(torch.as_tensor(rows), torch.as_tensor(columns)) for rows, columns in pairs]


def stacked(rows: Sequence[Tensor]) -> Tensor:
    """Tensors [G_b, ...] as one, [B, G, ...], with zeros behind the shorter ones."""
    most = max(len(row) for row in rows)
    return torch.stack([torch.cat([row, row.new_zeros(most - len(row), *row.shape[1:])]) for row in rows])


def segments_to_pixels(classes: Tensor, mask_logits: Tensor) -> Tensor:
    """Scores per class and pixel [B, C, H, W]: the sum over queries of P(class) [B, N, C] x sigmoid(mask) [B, N, H, W]."""
    return torch.einsum("bnc,bnhw->bchw", classes, mask_logits.sigmoid())
