"""WiSE-FT: Robust fine-tuning of zero-shot models (arXiv:2109.01903, CVPR 2022).

Survey, section 6.3.3. Fine-tuning gains on the images that it learned from and loses on others. Both ends are known: the
weights before and after. Because a short fine-tuning stays in one basin, the straight line between them can be walked, and
part of the way keeps most of the gain and loses nothing, or even gains, under shift.

    theta_alpha = (1 - alpha) theta_0 + alpha theta_1        every tensor of encoder and head              (1)
    logits = n(E_I(x; theta_alpha)) W_alpha^T + b_alpha      one ordinary forward pass                     (2)

Optionally each weight is averaged by its Fisher information F0, F1, which `merge` is handed and nothing here computes:
    theta = ((1 - alpha) F0 theta_0 + alpha F1 theta_1) / ((1 - alpha) F0 + alpha F1).                     (3)

theta_0 is the zero-shot model with its scale inside of the head, theta_1 what fine_tuning.py makes of it. alpha = 1 is
fine-tuning, alpha = 0 zero-shot. alpha must not be chosen on the shifted test images; one half is the paper's advice.

What differs from the release: whole numbers among the tensors (batch norm's counters) are kept, not averaged.

Dimensions: B batch, C classes, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from vlmlab.errors import VlmlabError
from vlmlab.methods.method import option
from vlmlab.methods.other.fine_tuning import FineTuning
from vlmlab.registry import register


@register(
    "wise_ft",
    title="WiSE-FT: Robust fine-tuning of zero-shot models",
    paper="arXiv:2109.01903",
    year=2021,
    section="6.3.3",
    family="other",
    setup="supervised",
    learns="the image encoder and a linear head, averaged with the zero-shot ones",
)
class WiSEFT(FineTuning):
    """Part of the way from zero-shot to fine-tuned weights."""

    @dataclasses.dataclass
    class Config(FineTuning.Config):
        alpha: float = option(0.5, "how far from the zero-shot (0) to the fine-tuned weights (1)", 0.0, 1.0)

    def prepare(self, task) -> None:
        super().prepare(task)
        self.zero_shot = self._weights()  # theta_0

    def finish(self, task) -> None:
        self.fine_tuned = self._weights()  # theta_1
        self.blend(self.config.alpha)

    def _weights(self) -> dict[str, Tensor]:
        """A copy of encoder and head as they are now."""
        return {key: value.detach().clone() for key, value in self.state_dict().items()}

    def blend(self, alpha: float) -> None:
        """Take the weights of (1); the two ends are kept, so that any other alpha can follow.

        Raises `VlmlabError` if nothing was fine-tuned yet.
        """
        if not hasattr(self, "fine_tuned"):
            raise VlmlabError("WiSE-FT averages with fine-tuned weights, and has none yet; fit it first")
        self.load_state_dict(merge(self.zero_shot, self.fine_tuned, alpha))


@torch.no_grad()
def merge(
    zero_shot: Mapping[str, Tensor],
    fine_tuned: Mapping[str, Tensor],
    alpha: float,
    fisher: tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None = None,
    floor: float = 1e-8,
) -> dict[str, Tensor]:
    """(1), or with the `fisher` information of both ends, at least `floor`, (3); a tensor without an entry there has that of 1
    at both ends, which is (1)."""
    merged = {}
    for key, start in zero_shot.items():
        end = fine_tuned[key]
        if not start.is_floating_point():
            merged[key] = start
        elif fisher is None:
            merged[key] = (1 - alpha) * start + alpha * end
        else:
            f0, f1 = (part.get(key, torch.ones_like(start)).clamp(min=floor) for part in fisher)
            a, b = (1 - alpha) * f0, alpha * f1
            merged[key] = (a * start + b * end) / (a + b)
    return merged
