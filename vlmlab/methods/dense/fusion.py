"""Two opinions about a region made one: the geometric mean of ViLD (arXiv 2104.13921, section 3.3).

    score_c = p_c^(1 - a_c) q_c^(a_c),   a_c = `base` for base classes and `new` for new ones

p is what the head says that learned base classes from boxes, q what the one says that learned from CLIP. The first is trusted
on base classes (a = 1/3), the second on new ones (a = 2/3). Nothing is normalised again.

Dimensions: R regions, C classes.
"""

from __future__ import annotations

from torch import Tensor


def geometric(p: Tensor, q: Tensor, is_new: Tensor, base: float = 1 / 3, new: float = 2 / 3) -> Tensor:
    """Scores [..., C] of probabilities p, q [..., C], where `is_new` [C] bool tells new classes from base ones."""
    share = p.new_full(is_new.shape, base).masked_fill(is_new, new)
    return p.pow(1 - share) * q.pow(share)
