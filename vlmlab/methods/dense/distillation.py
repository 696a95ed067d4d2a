"""What a region's embedding has to learn from CLIP's.

Dimensions: R regions, e joint width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def l1(students: Tensor, teachers: Tensor, there: Tensor | None = None) -> Tensor:
    """ViLD-image: 1/R sum_r || n(z_r) - n(v_r) ||_1, summed over the e dimensions and not averaged over them.

    Args:
        students, teachers: [R, e], of any length; both are made unit.
        there: [R] bool, the regions that count; all if None. Without one that counts the loss is 0.
    """
    distance = (F.normalize(students, dim=-1) - F.normalize(teachers, dim=-1)).abs().sum(-1)
    if there is None:
        there = torch.ones_like(distance, dtype=torch.bool)
    return (distance * there).sum() / there.sum().clamp_min(1)


def relation(students: Tensor, teachers: Tensor) -> Tensor:
    """RKD (arXiv 2207.03482): || rho(S S') - rho(V V') ||_F^2, where rho divides each row by the sum of its absolute values.

    Both [R, e] of unit length; the sum grows with the number of regions.
    """
    students, teachers = (F.normalize(x @ x.T, p=1, dim=1) for x in (students, teachers))
    return (students - teachers).square().sum()
