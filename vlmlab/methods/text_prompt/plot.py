"""PLOT: Prompt Learning with Optimal Transport for Vision-Language Models (arXiv:2210.01253, ICLR 2023).

Survey, section 6.3.1. One prompt per class describes a class in one way; several prompts trained alike become the same one.
PLOT compares the N prompts of a class not with the image but with its places, and asks how much work it takes to move
the places onto the prompts. The optimal plan shares the places out, which gives each prompt something of its own to fit.

    S = Z t_c^T,   Z [P, e] unit local features, t_c [N, e] unit features of the prompts of class c     (1)
    T* = argmin_T <T, 1 - S> - eps H(T),   T 1 = 1/P,   T^T 1 = 1/N                                     (2)
    logits_c = s <T*, S>,   loss = cross-entropy; no gradient flows through T*                          (3)

(2) is solved by Sinkhorn's iteration on K = exp(-(1 - S) / eps): r = (1/P) / K q, q = (1/N) / K^T r, until r moves by less than
0.01 on average over the batch, at most 100 times; T* = diag(r) K diag(q).

Local features are those of the attention pool with every place as a query (ResNet). A ViT's are not aligned with text; the
embedded ViTs have MaskCLIP's path, which was trained to be, and it is used there.

What differs from the release: float32; a support image's local features are computed once (nothing is augmented). The
extra global term that the release adds on ImageNet alone is the setting `with_global`.

Dimensions: B batch, C classes, N prompts per class, M context vectors, P places, d text width, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.methods.method import Batch, Method, Recipe, option
from vlmlab.methods.text_prompt.prompts import assemble, placeholders, random_vectors
from vlmlab.registry import register


@register(
    "plot",
    title="PLOT: Prompt Learning with Optimal Transport for Vision-Language Models",
    paper="arXiv:2210.01253",
    year=2022,
    section="6.3.1",
    family="text_prompt",
    setup="few-shot",
    learns="several contexts, matched to places by optimal transport",
    needs=("text tokens", "local features"),
)
class PLOT(Method):
    """Several prompts per class, transported onto the places of the image."""

    @dataclasses.dataclass
    class Config(Recipe):
        n_prompts: int = option(4, "prompts N of each class", 1, 32)
        n_ctx: int = option(16, "context vectors M of each prompt", 1, 64)
        eps: float = option(0.1, "weight of the plan's entropy; below, K of (2) would vanish in float32", 0.03, 10.0)
        iterations: int = option(100, "most steps of Sinkhorn's iteration", 1, 1000)
        tolerance: float = option(0.01, "mean change of r at which it stops", 0.0, 1.0)
        with_global: bool = option(False, "add the logits of the global feature and the prompts' mean (ImageNet)")
        batch_size: int = option(128, "training images a step", 1, 4096)

    embedded: ClassVar[dict] = {"optimizer": "adamw", "lr": 0.01, "epochs": 40, "batch_size": 32}
    eats = "images"

    def prepare(self, task) -> None:
        self.set_classes(task.classes, task.templates)
        noise = torch.Generator().manual_seed(task.seed)
        shape = (self.config.n_prompts, self.config.n_ctx, self.backbone.text.width)
        self.context = nn.Parameter(random_vectors(*shape, generator=noise).to(self.backbone.device))  # [N, M, d]
        self.kept: tuple[Tensor, Tensor] | None = None  # of the support images
        if len(task.support):
            chunks = [self.seen(images) for images in self.in_turn(task.support)]
            self.kept = tuple(torch.cat(part) for part in zip(*chunks, strict=True))

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        self.prompts = assemble(self.backbone.text, classes, placeholders(self.config.n_ctx))

    @torch.no_grad()
    def seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Unit global [B, e] and local [B, P, e] features of images [B, 3, S, S]."""
        image = self.backbone.image
        kind = "pooled" if image.kind == "resnet" else "value"
        local = image.local_features(images, kind=kind).flatten(2).transpose(1, 2)
        return F.normalize(self.backbone.encode_image(images), dim=-1), F.normalize(local, dim=-1)

    def prompt_features(self) -> Tensor:
        """E_T of all prompts, [N, C, e], not normalised; each context is encoded once."""
        return self.prompts.features(self.backbone.text, self.context)

    def logits(self, batch: Batch) -> Tensor:
        return self.scores(*self.seen(batch.images))

    def loss(self, batch: Batch) -> Tensor:
        if self.kept is None or not batch.whole:
            return super().loss(batch)
        return F.cross_entropy(self.scores(*(part[batch.index] for part in self.kept)), batch.labels)

    def scores(self, f: Tensor, z: Tensor) -> Tensor:
        """Logits [B, C] of unit global features f [B, e] and local ones z [B, P, e]."""
        prompts = self.prompt_features()
        similarity = torch.einsum("bpe,nce->bcpn", z, F.normalize(prompts, dim=-1))  # S [B, C, P, N] (1)
        with torch.no_grad():
            plan = self.plan(similarity)
        logits = self.backbone.logit_scale * (plan * similarity).sum((-2, -1))  # (3)
        if self.config.with_global:
            logits = logits + self.backbone.logit_scale * f @ F.normalize(prompts.mean(0), dim=-1).T
        return logits

    def plan(self, similarity: Tensor) -> Tensor:
        """T* of (2), [..., P, N], for similarities of that shape."""
        config = self.config
        kernel = (-(1 - similarity) / config.eps).exp()
        places, prompts = kernel.shape[-2:]
        r, q = torch.ones_like(kernel[..., :, 0]), torch.ones_like(kernel[..., 0, :])
        for _ in range(config.iterations):
            before = r
            r = (1 / places) / (kernel @ q[..., None])[..., 0]
            q = (1 / prompts) / (kernel.transpose(-2, -1) @ r[..., None])[..., 0]
            if (r - before).abs().mean() < config.tolerance:
                break
        return r[..., :, None] * kernel * q[..., None, :]
