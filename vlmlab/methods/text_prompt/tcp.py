"""TCP: Textual-based Class-aware Prompt tuning for Visual-Language Model (arXiv:2311.18231, CVPR 2024).

Not among the survey's systems (section 6.3.1 would be its place); it continues KgCoOp. A context that all classes share
forgets what CLIP knew about each of them. TCP gives it back: the hand-written prompt's feature of a class is turned, by a
small network, into prompt tokens of this class, which take the place of the shared ones in a middle block of the text
tower.

    w0_c = n(E_T(template with name_c))                     frozen, the dataset's hand-written prompt           (1)
    T_c = reshape( U2 QuickGELU(U1 w0_c + b1) + b2 )        [M, d] prompt tokens of class c                     (2)
    w_c = n(E_T([SOS] v_1 ... v_M [name_c] . [EOS]))        v shared and learned; in front of block l, T_c takes
                                                            the place of the M states behind [SOS]              (3)
    loss = CE(s f W^T, y) + lambda (1 - mean_c cos(w_c, w0_c)),   f = n(E_I(x))                                 (4)

The network reads any name, so new classes get tokens of their own without learning.

The release counts blocks from 0 and takes l = 8 of 12 (the layer after two thirds); for a tower of another depth the same share is
taken. The context starts as noise, and its prompts have a few words of the dataset behind the name ("{}, a type of pet."),
which are chosen there for each of its datasets.

What differs from the release: the sentence ends at the name, as in CoOp, whatever the dataset; float32; no image is
augmented unless training asks for views. The release sets Adam with the weight decay 0.0005 in the gradient, as here.

Dimensions: B batch, C classes, M context vectors, d text width, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch, Method, Recipe, option
from vlmlab.methods.templates import spoken
from vlmlab.methods.text_prompt.prompts import assemble, placeholders, random_vectors
from vlmlab.randomness import LocalRandom
from vlmlab.registry import register


@register(
    "tcp",
    title="TCP: Textual-based Class-aware Prompt tuning for Visual-Language Model",
    paper="arXiv:2311.18231",
    year=2024,
    section="6.3.1",
    family="text_prompt",
    setup="few-shot",
    learns="context vectors, and a network that makes prompt tokens of each class from its hand-written prompt",
    needs=("text tokens",),
    status="extra",
)
class TCP(Method):
    """Prompt tokens that know their class."""

    @dataclasses.dataclass
    class Config(Recipe):
        n_ctx: int = option(4, "context vectors M", 1, 64)
        block: int | None = option(
            None, "block l of the text tower, from 0, that the class's tokens enter; none: two thirds", 1, 100
        )
        weight: float = option(8.0, "lambda, the price of the distance", 0.0, 1000.0)
        epochs: int = option(50, "epochs of training", 1, 10000)

    embedded: ClassVar[dict] = {"lr": 0.003, "epochs": 40}
    eats = "features"

    def prepare(self, task) -> None:
        self.set_classes(task.classes, task.templates)
        d, e = self.backbone.text.width, self.backbone.embed_dim
        with LocalRandom(task.seed):
            start = random_vectors(self.config.n_ctx, d)
            inner, outer = nn.Linear(e, e // 4), nn.Linear(e // 4, self.config.n_ctx * d)
        device = self.backbone.device
        self.context = nn.Parameter(start.to(device))  # v [M, d]
        self.inner, self.outer = inner.to(device), outer.to(device)  # U1, U2 (2)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """The prompts and hand-written features of these classes; what was learned stays."""
        depth = self.backbone.text.depth
        if self.block >= depth:
            raise VlmlabError(f"TCP enters block {self.block}, and the text tower of {self.backbone.name} has {depth}")
        super().set_classes(classes, templates)
        self.prompts = assemble(self.backbone.text, classes, placeholders(self.config.n_ctx))
        self.written = self.backbone.class_embeddings(spoken(classes), [templates[0]])  # w0 [C, e] (1)

    @property
    def block(self) -> int:
        """l of (3): that of the setting, or the block after two thirds of the tower."""
        return self.config.block or max(1, self.backbone.text.depth * 2 // 3)

    def tokens(self) -> Tensor:
        """The prompt tokens T [C, M, d] of the classes (2)."""
        hidden = self.inner(self.written)
        return self.outer(hidden * (1.702 * hidden).sigmoid()).unflatten(-1, (self.config.n_ctx, -1))

    def class_features(self) -> Tensor:
        """Unit class features w of (3), [C, e]."""
        deep = [None] * (self.block - 1) + [self.tokens()]
        parts = self.prompts.start, self.context.type_as(self.prompts.rest)
        prefix = torch.cat(parts).expand(len(self.classes), -1, -1)  # [C, 1 + M, d]
        end = self.prompts.end + prefix.shape[1]
        sequence = torch.cat([prefix, self.prompts.rest], dim=1)
        return F.normalize(self.backbone.text.forward(sequence, end, deep), dim=-1)

    def logits(self, batch: Batch) -> Tensor:
        return self.backbone.logit_scale * self.image_features(batch) @ self.class_features().T  # [B, C]

    def loss(self, batch: Batch) -> Tensor:
        w = self.class_features()
        logits = self.backbone.logit_scale * self.image_features(batch) @ w.T
        distance = 1 - (w * self.written).sum(-1).mean()
        return F.cross_entropy(logits, batch.labels) + self.config.weight * distance  # (4)

    def optimizer(self, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Adam whose weight decay is part of the gradient, with the recipe's schedule."""
        optimizer = torch.optim.Adam(self.parameters(), 1.0, weight_decay=self.config.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.learning_rate(step, steps))
        return optimizer, schedule
