"""DualCoOp: Fast Adaptation to Multi-Label Recognition with Limited Annotations (arXiv:2206.09541, NeurIPS 2022).

Survey, section 6.3.1. An image may show many things, and of most images only some labels are known. One softmax over all classes
cannot say that two are there. DualCoOp asks every class by itself, with two learned prompts: one for "it is there", one for
"it is not". Small things would drown in a global feature, so each class looks where its positive prompt finds it.

    F = n(regions)                        [B, P, e], the value path of the attention pool, mean token first      (1)
    R+ = 20 F w+^T,  R- = 20 F w-^T       w+, w- [C, e] unit features of the two prompts                         (2)
    a = softmax_P(R+),  z+ = 5 sum_P a R+,  z- = 5 sum_P a R-                                                    (3)
    p = softmax(z-, z+)_+                 the class is there if p > 1/2                                          (4)
    loss = weight * ASL(p, y)             y in {1, 0}; unknown labels take no part                               (5)

ASL, the asymmetric loss: -y (1 - p)^g+ log p - (1 - y) (1 - q)^g- log q with q = min(1 - p + 0.05, 1); the factors in
front of the logarithms get no gradient; what stands under a logarithm is at least 1e-6, and has no gradient below; summed
over images and classes.

For mean average precision the score of a class is z+ - z-, which orders as p does.

What differs from the release: float32; regions of the training images are computed once, unless training asks for crops,
and there is no cutout or RandAugment; the last epoch is kept, where the release chooses one on the test images; every step
learns all classes, where its zero-shot runs draw at most 100. A ViT has no attention pool: its regions are MaskCLIP's path,
with the class token's feature in the place of the mean token's.

Dimensions: B batch, C classes, P places and the mean, M context vectors, d text width, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.datasets.splits import partially_known
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch, Method, Recipe, option
from vlmlab.methods.text_prompt.prompts import Prompts, assemble, first_words, random_vectors
from vlmlab.registry import register

SPATIAL, FINAL = 20.0, 5.0  # their product is CLIP's 100
FLOOR = 1e-6  # of a probability under the logarithm: a class that is missed by more than this pulls no further


@register(
    "dualcoop",
    title="DualCoOp: Fast Adaptation to Multi-Label Recognition with Limited Annotations",
    paper="arXiv:2206.09541",
    year=2022,
    section="6.3.1",
    family="text_prompt",
    setup="supervised",
    tasks=("multi-label classification",),
    learns="a positive and a negative context",
    needs=("text tokens", "local features"),
)
class DualCoOp(Method):
    """A prompt for "there" and one for "not there"."""

    @dataclasses.dataclass
    class Config(Recipe):
        n_pos: int = option(16, "context vectors of the positive prompt", 1, 64)
        n_neg: int = option(16, "context vectors of the negative prompt", 1, 64)
        init_pos: str = option("", "words that the positive context starts from; they set its length")
        init_neg: str = option("", "words that the negative context starts from; they set its length")
        csc: bool = option(False, "contexts of their own for every class")
        known: float = option(1.0, "share of the training labels that is known", 0.0, 1.0)
        weight: float = option(0.03, "weight of the loss", 0.0, 1000.0)
        gamma_pos: float = option(1.0, "focus on hard positives", 0.0, 10.0)
        gamma_neg: float = option(2.0, "focus on hard negatives", 0.0, 10.0)
        clip: float = option(0.05, "what is added to the probability of absence", 0.0, 1.0)

    # On validation images of tableau's base categories (16 shots), contexts that start from noise end at half the mean average
    # precision of those that start from words. Rate and epochs were chosen there, too (all categories, one seed).
    embedded: ClassVar[dict] = {
        "optimizer": "adamw",
        "lr": 0.03,
        "epochs": 60,
        "init_pos": "a photo of a",
        "init_neg": "a photo of a",
    }
    eats = "images"

    def prepare(self, task) -> None:
        self.seed = task.seed
        config, d = self.config, self.backbone.text.width
        self.learned_on: list[str] = list(task.classes)
        self.set_classes(task.classes, task.templates)
        noise = torch.Generator().manual_seed(task.seed)

        def start(words: str, length: int, prompts: Prompts) -> nn.Parameter:
            if words:
                first = prompts.words.float()
                first = first.expand(len(task.classes), -1, -1).clone() if config.csc else first.clone()
            else:
                shape = (len(task.classes), length, d) if config.csc else (length, d)
                first = random_vectors(*shape, generator=noise)
            return nn.Parameter(first.to(self.backbone.device))

        self.positive = start(config.init_pos, config.n_pos, self.prompts[0])  # [M, d], or [C, M, d]
        self.negative = start(config.init_neg, config.n_neg, self.prompts[1])
        self.kept: Tensor | None = None  # regions of the support images
        if len(task.support):
            self.kept = torch.cat([self.regions(images) for images in self.in_turn(task.support)])

    def learns_from(self, task):
        """The support images, of whose labels a share is known."""
        support = task.support
        if support.labels.ndim != 2:
            raise VlmlabError("DualCoOp learns from images with several labels each; choose tableau")
        return support.relabelled(partially_known(support.labels, self.config.known, self.seed))

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Other classes with the same contexts (zero-shot recognition); `VlmlabError` if each class has its own."""
        if self.config.csc:
            self.refuse_other_classes(
                classes, "contexts of their own belong to their classes; use csc=false for new ones"
            )
        super().set_classes(classes, templates)
        config, text = self.config, self.backbone.text
        words = [
            first_words(init, length)
            for init, length in ((config.init_pos, config.n_pos), (config.init_neg, config.n_neg))
        ]
        self.prompts = [assemble(text, classes, own) for own in words]

    @torch.no_grad()
    def regions(self, images: Tensor) -> Tensor:
        """Unit F of (1), [B, P, e]."""
        image = self.backbone.image
        if image.kind == "resnet":
            return F.normalize(image.values(image.pool_tokens(image.last_map(images))).float(), dim=-1)
        local = image.local_features(images).flatten(2).transpose(1, 2)
        return F.normalize(torch.cat([self.backbone.encode_image(images)[:, None], local], 1), dim=-1)

    def class_features(self, prompts: Prompts, context: Tensor) -> Tensor:
        """Unit features [C, e] of one of the two prompts."""
        text = self.backbone.text
        if context.dim() == 2:
            return F.normalize(prompts.features(text, context), dim=-1)
        start = prompts.start.expand(len(context), -1, -1)
        sequence = torch.cat([start, context.type_as(start), prompts.rest], 1)
        return F.normalize(text.forward(sequence, prompts.end + start.shape[1] + context.shape[1]), dim=-1)

    def both(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """z- and z+ of (3), each [B, C], for unit regions [B, P, e]."""
        there, absent = (
            SPATIAL * regions @ self.class_features(p, c).T
            for p, c in zip(self.prompts, (self.positive, self.negative), strict=True)
        )  # R+, R- [B, P, C] (2)
        a = there.softmax(1)
        return FINAL * (a * absent).sum(1), FINAL * (a * there).sum(1)

    def logits(self, batch: Batch) -> Tensor:
        absent, there = self.both(self.regions(batch.images))
        return there - absent  # [B, C]; sigmoid gives p of (4)

    def loss(self, batch: Batch) -> Tensor:
        if self.kept is None or not batch.whole:
            regions = self.regions(batch.images)
        else:
            regions = self.kept[batch.index]
        config = self.config
        asymmetric = asymmetric_loss(*self.both(regions), batch.labels, config.gamma_pos, config.gamma_neg, config.clip)
        return config.weight * asymmetric


def asymmetric_loss(
    absent: Tensor, there: Tensor, labels: Tensor, gamma_pos: float = 1.0, gamma_neg: float = 2.0, clip: float = 0.05
) -> Tensor:
    """ASL of (5), a sum, for logits [B, C] of both prompts and labels [B, C] in {1, 0, -1}; -1 takes no part."""
    not_p, p = torch.stack([absent, there]).softmax(0)  # each by itself: 1 - p would lose the digits of a small one
    q = (not_p + clip).clamp(max=1)
    y = (labels == 1).to(p)
    log = y * p.clamp(min=FLOOR).log() + (1 - y) * q.clamp(min=FLOOR).log()
    with torch.no_grad():
        focus = (1 - y * p - (1 - y) * q) ** (gamma_pos * y + gamma_neg * (1 - y))
    return -(focus * log)[labels != -1].sum()
