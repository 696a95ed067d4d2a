"""UPL: Unsupervised Prompt Learning for Vision-Language Models (arXiv:2204.03649, 2022).

Survey, section 6.3.1. Images of a task are cheap, labels are not. Zero-shot prediction labels them: those of which it is
surest become the support set of a CoOp. How sure it is differs from class to class, so a threshold would give some classes
everything and others nothing; UPL takes the K surest images of every class instead.

    p_i = softmax(s f_i W0^T),   y_i = argmax p_i            pseudo-labels of unlabelled images          (1)
    S = for every class c the K images of {i: y_i = c} with the largest max p_i                          (2)
    minimise CE(s f w(v_m)^T, y) over S, for each of R contexts v_1 ... v_R by itself                      (3)
    logits = mean_m s f w(v_m)^T                             w(v): unit class features of a context        (4)

A class that is nobody's argmax gets no image. The R runs differ in their start alone; a single prompt is well below their
mean (R = 16 in the release).

What differs from the release: float32; the R contexts are trained side by side on the same batches (the release runs one
after the other, each with its own order); one model labels the images (the release's UPL* averages eight).

Dimensions: N unlabelled images, B batch, C classes, R contexts, M vectors each, d text width, e joint width.
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
from vlmlab.registry import register


@register(
    "upl",
    title="UPL: Unsupervised Prompt Learning for Vision-Language Models",
    paper="arXiv:2204.03649",
    year=2022,
    section="6.3.1",
    family="text_prompt",
    setup="unsupervised",
    learns="an ensemble of context vectors, from pseudo-labels",
    needs=("text tokens",),
)
class UPL(Method):
    """CoOp on the images of which zero-shot prediction is surest."""

    @dataclasses.dataclass
    class Config(Recipe):
        n_ctx: int = option(16, "context vectors M", 1, 64)
        top: int = option(16, "images K that are taken of each class", 1, 1024)
        ensemble: int = option(16, "contexts R whose logits are averaged", 1, 64)

    embedded: ClassVar[dict] = {"optimizer": "adamw", "lr": 0.01, "epochs": 30, "ensemble": 4}
    eats = "features"

    def prepare(self, task) -> None:
        self.set_classes(task.classes, task.templates)
        noise = torch.Generator().manual_seed(task.seed)
        shape = (self.config.ensemble, self.config.n_ctx, self.backbone.text.width)
        self.context = nn.Parameter(random_vectors(*shape, generator=noise).to(self.backbone.device))  # [R, M, d]

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        self.prompts = assemble(self.backbone.text, classes, placeholders(self.config.n_ctx))
        self.zero_shot = self.backbone.class_embeddings(spoken(classes), [templates[0]])  # W0 [C, e]

    def learns_from(self, task):
        """The pseudo-labelled images of (2); how the labels came about is kept in `confidence` and `pseudo`."""
        pictures = task.unlabelled
        if not len(pictures):
            raise VlmlabError("UPL needs unlabelled training images, and this dataset has none; choose another")
        f = F.normalize(self.encode(pictures), dim=-1)
        p = (self.backbone.logit_scale * f @ self.zero_shot.T).softmax(-1)  # (1)
        self.confidence, self.pseudo = p.max(-1)  # each [N]
        chosen = surest(self.confidence, self.pseudo, len(self.classes), self.config.top)
        return pictures.subset(chosen).relabelled(self.pseudo[chosen].cpu())

    def all_logits(self, batch: Batch) -> Tensor:
        """Logits of every context, [R, B, C]."""
        w = F.normalize(self.prompts.features(self.backbone.text, self.context), dim=-1)  # [R, C, e]
        return self.backbone.logit_scale * torch.einsum("be,rce->rbc", self.image_features(batch), w)

    def logits(self, batch: Batch) -> Tensor:
        return self.all_logits(batch).mean(0)  # (4)

    def loss(self, batch: Batch) -> Tensor:
        """The sum over the contexts, so that each has the gradient that it would have alone (3)."""
        logits = self.all_logits(batch)
        labels = batch.labels.expand(len(logits), -1)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten()) * len(logits)


def surest(confidence: Tensor, labels: Tensor, classes: int, top: int) -> Tensor:
    """Positions of the `top` images of highest `confidence` [N] within each class of `labels` [N], class by class (2)."""
    order = confidence.argsort(descending=True, stable=True)
    order = order[labels[order].argsort(stable=True)]  # class by class, the surest of each first
    counts = labels.bincount(minlength=classes)
    first = counts.cumsum(0) - counts  # where each class begins
    rank = torch.arange(len(order), device=order.device) - first[labels[order]]
    return order[rank < top].cpu()
