"""ZERO: Frustratingly Easy Test-Time Adaptation of Vision-Language Models (arXiv:2405.18330, NeurIPS 2024).

Not among the survey's systems (section 6.3.3 would be its place). TPT minimises the entropy of the averaged prediction
over views. ZERO asks what that does to the answer: hardly anything, the most frequent answer of the views stays the most
frequent one. So it leaves the optimisation out, keeps the views that CLIP is sure of, and counts their votes.

    p_v = softmax(s f_v W^T)                                        f_v unit features of view v = 0 .. V-1    (1)
    S = the share g of views with the lowest entropy of p_v                                                   (2)
    votes_c = number of views in S whose largest logit is class c   (the limit of temperature zero)           (3)

The class with most votes is the prediction. A tie is broken by the remaining views, the surest first: the first one that
names a tied class decides.

What differs from the release: float32; an image's views follow from its seed, not from its place in the test set; at least
one view is kept. If no remaining view names a tied class, the largest logit among the tied classes in the surest remaining
view decides; the release means that, and masks other classes than the tied ones by mistake. `logits` adds a thousandth of the
views' mean probability to the votes, so that classes without a vote are in an order, too; the prediction is that of the votes.

Dimensions: B images, V views, K kept views, C classes, e joint width.
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

LITTLE = 1e-3  # what the mean probability counts beside a vote


@register(
    "zero",
    title="ZERO: Frustratingly Easy Test-Time Adaptation of Vision-Language Models",
    paper="arXiv:2405.18330",
    year=2024,
    section="6.3.3",
    family="other",
    setup="test-time",
    learns="nothing",
    status="extra",
)
class Zero(Method):
    """The vote of the views that CLIP is sure of."""

    @dataclasses.dataclass
    class Config:
        n_views: int = option(64, "views V of an image, the plain one among them", 2, 1024)
        selection: float = option(0.3, "g, share of views that vote", 0.0, 1.0)
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
        """[B, C], the logarithm of each class's share of the votes, from images [B, V, 3, S, S] or features [B, V, e]."""
        f = F.normalize(view_features(self.backbone, batch), dim=-1)
        logits = self.backbone.logit_scale * f @ self.classifier.T
        # So little that it never outweighs a vote; it puts classes without a vote in order.
        counted = self.votes(logits) + LITTLE * logits.softmax(-1).mean(1)
        return (counted / counted.sum(-1, keepdim=True)).clamp_min(1e-30).log()

    def votes(self, logits: Tensor) -> Tensor:
        """Votes [B, C] of view logits [B, V, C]; one vote more for the class that wins a tie."""
        log_p = logits.log_softmax(-1)
        surest = (-(log_p.exp() * log_p).sum(-1)).argsort(dim=-1, stable=True)  # [B, V] (2)
        ordered = logits.gather(1, surest[..., None].expand_as(logits))
        kept = max(1, int(logits.shape[1] * self.config.selection))
        named = F.one_hot(ordered.argmax(-1), logits.shape[-1])  # [B, V, C]
        counted = named[:, :kept].sum(1).to(logits)  # (3)
        tied = counted == counted.amax(-1, keepdim=True)  # [B, C]
        return counted + (tied.sum(-1, keepdim=True) > 1) * self.decided(tied, ordered[:, kept:], named[:, kept:])

    def decided(self, tied: Tensor, rest: Tensor, named: Tensor) -> Tensor:
        """One vote [B, C] for one of the `tied` classes [B, C], by the remaining views' logits and one-hot answers [B, R, C]."""
        if not rest.shape[1]:
            return F.one_hot(tied.int().argmax(-1), tied.shape[-1]).to(rest)
        names_one = (named.bool() & tied[:, None]).any(-1)  # [B, R]
        first = names_one.int().argmax(-1)  # 0 if none does
        theirs = rest[torch.arange(len(rest), device=rest.device), first].masked_fill(~tied, -torch.inf)
        return F.one_hot(theirs.argmax(-1), tied.shape[-1]).to(rest)
