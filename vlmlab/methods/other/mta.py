"""MTA: On the test-time zero-shot generalization of vision-language models: Do we really need prompt learning?
(arXiv:2405.02266, CVPR 2024).

Not among the survey's systems (section 6.3.3 would be its place). TPT tunes a prompt on many views of a test image. MTA
tunes nothing: it looks for the place where the views lie densest, a mean shift whose views have weights ("inlierness")
that are found along with it. Views that a crop has spoiled get no say, without a threshold.

    K_v(m) = exp(-|f_v - m|^2 / (2 h_v^2))                       f_v unit features of view v, h_v its bandwidth (1)
    y <- softmax( (K_v(m) + lambda_q sum_u a_vu y_u) / lambda_y )   a_vu = p_v . p_u, p = softmax(s f W^T)       (2)
    m <- n( sum_v y_v K_v(m) f_v / sum_v y_v K_v(m) )                                                            (3)
    prediction: s m W^T

h_v^2 is half the mean squared distance of view v to the nearest 30 % of the others. (2) and (3) each run until nothing
changes by more than 1e-6, at most five times, and this five times over; m begins at view 0, the plain image.

What differs from the release: float32 instead of half precision; an image's views follow from its seed, not from its
place in the test set; where two views are the same, the bandwidth is kept above 1e-6 (the release divides by zero).

Dimensions: B images, V views, C classes, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.methods.method import Batch, Method, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.methods.views import crops_of, view_features
from vlmlab.registry import register

NEAREST = 0.3  # share of the other views that set a view's bandwidth
ROUNDS = 5  # of (2) and (3), and at most so many steps in each
STILL = 1e-6  # a change that counts as none


@register(
    "mta",
    title="MTA: On the test-time zero-shot generalization of vision-language models: Do we really need prompt learning?",
    paper="arXiv:2405.02266",
    year=2024,
    section="6.3.3",
    family="other",
    setup="test-time",
    learns="nothing (a weight per view of the test image)",
    status="extra",
)
class MTA(Method):
    """The densest place among the views of a test image."""

    @dataclasses.dataclass
    class Config:
        n_views: int = option(64, "views V of an image, the plain one among them", 5, 1024)
        lambda_q: float = option(4.0, "how much views of the same prediction support one another", 0.0, 1000.0)
        lambda_y: float = option(0.2, "temperature of the views' weights", 1e-3, 1000.0)
        templates: str = option("photo", HELP)

    embedded: ClassVar[dict] = {"n_views": 32, "templates": "dataset"}
    eats = "views"

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        sentences = choose(self.config.templates, templates)
        self.classifier = self.backbone.class_embeddings(spoken(classes), sentences)  # W [C, e]

    def views(self, pictures: Sequence, seeds: Sequence[int]) -> Tensor:
        return crops_of(self.backbone, pictures, seeds, self.config.n_views)

    @torch.no_grad()
    def logits(self, batch: Batch) -> Tensor:
        """[B, C] from images [B, V, 3, S, S], or from the views' features [B, V, e]; view 0 is the plain one."""
        f = F.normalize(view_features(self.backbone, batch), dim=-1)
        mode, _ = self.mode(f)
        return self.backbone.logit_scale * mode @ self.classifier.T

    def mode(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """(m [B, e], y [B, V]) of unit view features f [B, V, e]."""
        p = (self.backbone.logit_scale * f @ self.classifier.T).softmax(-1)
        agreement = p @ p.transpose(1, 2)  # a [B, V, V]
        h = bandwidth(f)
        m, y = f[:, 0], torch.full(f.shape[:2], 1 / f.shape[1]).to(f)
        for _ in range(ROUNDS):
            density, moving = kernel(f, m, h), torch.ones(len(f), 1, dtype=torch.bool, device=f.device)
            for _ in range(ROUNDS):
                support = (agreement * y[:, None]).sum(-1)
                new = ((density + self.config.lambda_q * support) / self.config.lambda_y).softmax(-1)  # (2)
                y, moving = _moved(y, new, moving)
            moving = torch.ones_like(moving)
            for _ in range(ROUNDS):
                weight = kernel(f, m, h) * y
                new = F.normalize((weight[..., None] * f).sum(1) / weight.sum(1, keepdim=True), dim=-1)  # (3)
                m, moving = _moved(m, new, moving)
        return m, y


def kernel(f: Tensor, m: Tensor, h: Tensor) -> Tensor:
    """K [B, V] of views f [B, V, e] around m [B, e] with bandwidths h [B, V] (1)."""
    return (-(f - m[:, None]).square().sum(-1) / (2 * h.square())).exp()


def bandwidth(f: Tensor) -> Tensor:
    """h [B, V] of views f [B, V, e]: how far the nearest 30 % of the other views are."""
    distance = torch.cdist(f, f, compute_mode="donot_use_mm_for_euclid_dist").sort(-1).values  # [B, V, V]
    nearest = distance[..., 1 : 1 + int(NEAREST * (f.shape[1] - 1))].square()  # the first is the view itself
    return (0.5 * nearest.mean(-1)).sqrt().clamp_min(STILL)


def _moved(old: Tensor, new: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
    """`new` [B, n] where the image is `moving` [B, 1], else `old`; and which images still move after it."""
    return torch.where(moving, new, old), moving & ((new - old).norm(dim=-1, keepdim=True) >= STILL)
