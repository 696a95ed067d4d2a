"""CLIP-LoRA: Low-Rank Few-Shot Adaptation of Vision-Language Models (arXiv:2405.18541, CVPR Workshops 2024). An extra: the survey
does not name it.

Prompts and adapters stand before or behind the frozen towers. LoRA goes inside: every query, key and value projection of both
towers gets an update of rank r, two thin matrices, and everything else stays as it was. After learning, the update can be added to
the weights, so that a prediction costs what it cost before. One recipe serves all datasets and shots.

    y = x W0^T + b + s' drop(x) A^T B^T,   A [r, d], B [d, r],   s' = alpha / sqrt(r)        (1)
    A ~ U(-1/sqrt(d), 1/sqrt(d)),   B = 0 at the start, which is zero-shot prediction        (2)
    logits = s f W^T,   f and W unit features of the changed towers, one template            (3)
    loss = cross-entropy; 500 K steps for K shots, AdamW, cosine at every step               (4)

With `parts=qkvo` the output projection of the attention has an update too, an option of the release.
The factor is alpha / sqrt(r), not alpha / r as in the first LoRA. Dropout acts on what enters A, and in learning alone. The
backbone itself is not touched: the updates hang in a copy of its modules that shares all of its tensors.

What differs from the release: the scale s is the backbone's, which is 100 in CLIP, where the release writes 100; float32, or
bfloat16 on a GPU (the release: half precision); the steps are whole epochs, so there may be up to one epoch
more than 500 K; the update is kept apart from the weights (the release adds it when it predicts: same numbers); no image is
cropped unless training asks for views.

Dimensions: B batch, C classes, T tokens, d width of a tower, r rank, e joint width.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.backbones.image_tower import open_image_tower
from vlmlab.backbones.text_tower import open_text_tower
from vlmlab.methods.method import Batch, Method, option
from vlmlab.methods.templates import spoken
from vlmlab.registry import register


@register(
    "clip_lora",
    title="CLIP-LoRA: Low-Rank Few-Shot Adaptation of Vision-Language Models",
    paper="arXiv:2405.18541",
    year=2024,
    section="6.3.3",
    family="other",
    setup="few-shot",
    learns="low-rank updates of the attention's projections in both towers",
    needs=("text blocks", "image blocks"),
    status="extra",
)
class CLIPLoRA(Method):
    """Both towers, with a low-rank update in every attention."""

    @dataclasses.dataclass
    class Config:
        rank: int = option(2, "rank r of an update", 1, 256)
        alpha: float = option(1.0, "numerator of the factor alpha / sqrt(r)", 0.0, 1000.0)
        dropout: float = option(0.25, "share of the inputs of A that is dropped in learning", 0.0, 0.99)
        parts: str = option(
            "qkv", "projections with an update", choices=("qkv", "qkvo", "qv", "kv", "qk", "q", "k", "v", "o")
        )
        towers: str = option("both", "towers with updates", choices=("both", "image", "text"))
        last: int | None = option(None, "only in so many last blocks of a tower; none: in all", 1, 100)
        steps: int | None = option(None, "steps; none: 500 times the shots", 1, 1000000)
        batch_size: int = option(32, "training images a step", 1, 4096)
        lr: float = option(2e-4, "learning rate of AdamW at the start", 0.0, 10.0)
        lr_end: float = option(1e-6, "learning rate at the end", 0.0, 1.0)
        weight_decay: float = option(0.01, "weight decay", 0.0, 1.0)

    # Of 0.003, 0.01 and 0.03, chosen on validation images of aerial and objects-v2 (4 shots, one seed).
    embedded: ClassVar[dict] = {"lr": 0.01, "steps": 50}
    eats = "images"

    @classmethod
    def needs(cls, config) -> tuple[str, ...]:
        return {"text": ("text blocks",), "image": ("image blocks",)}.get(config.towers, cls.info.needs)

    def prepare(self, task) -> None:
        pictures = max(1, len(task.support))
        batches = max(1, pictures // min(self.config.batch_size, pictures))
        self.passes = math.ceil((self.config.steps or 500 * max(1, task.shots)) / batches)
        self._build(task.seed)
        self.set_classes(task.classes, task.templates)

    @property
    def planned_epochs(self) -> int:
        return self.passes

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        text = self.towers[1]
        self.tokens = text.tokenize([templates[0].format(name) for name in spoken(classes)])
        self.classifier: Tensor | None = None
        if self.config.towers == "image":  # the texts stay what they are, so they are encoded once
            with torch.no_grad():
                self.classifier = F.normalize(text.encode(self.tokens), dim=-1)  # W [C, e]

    def logits(self, batch: Batch) -> Tensor:
        image, text = self.towers
        f = F.normalize(image.forward(batch.images), dim=-1)
        w = self.classifier
        if w is None:
            w = F.normalize(text.encode(self.tokens), dim=-1)  # [C, e]
        return self.backbone.logit_scale * f @ w.T  # [B, C] (3)

    def loss(self, batch: Batch) -> Tensor:
        for update in self.updates:
            update.dropout = self.config.dropout
        try:
            return super().loss(batch)
        finally:
            for update in self.updates:
                update.dropout = 0.0

    def optimizer(self, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """AdamW, with a cosine to `lr_end` that falls at every step (4)."""
        config = self.config
        optimizer = torch.optim.AdamW(self.parameters(), config.lr, weight_decay=config.weight_decay)
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, config.lr_end)

    def _build(self, seed: int) -> None:
        """The towers over a copy of the backbone's modules, and the updates that hang in them."""
        frozen, config = self.backbone, self.config
        # Every tensor stands for itself in the copy: new modules around the same weights, no memory, no change.
        tensors = itertools.chain(frozen.model.parameters(), frozen.model.buffers())
        twin = copy.deepcopy(frozen.model, {id(tensor): tensor for tensor in tensors})
        image = open_image_tower(twin.visual, frozen.name)
        text = open_text_tower(twin, frozen.text.tokenizer, frozen.name)
        self.towers = (image, text)
        blocks = []
        if config.towers != "text":
            blocks += list(image.visual.transformer.resblocks)[-(config.last or 0) :]
        if config.towers != "image":
            blocks += list(text.blocks)[-(config.last or 0) :]
        noise = torch.Generator().manual_seed(seed)
        made = []
        for block in blocks:
            width = block.attn.in_proj_weight.shape[1]
            update = LowRank(width, config.parts, config.rank, config.alpha, noise).to(frozen.device)
            block.attn.low_rank = update
            made.append(update)
        self.updates = nn.ModuleList(made)


class LowRank(nn.Module):
    """The updates of one attention's projections: A and B of (1) for each of `parts`, out of "qkvo" (o: the output's)."""

    def __init__(self, width: int, parts: str, rank: int, alpha: float, noise: torch.Generator):
        super().__init__()
        self.factor, self.dropout = alpha / math.sqrt(rank), 0.0
        bound = 1 / math.sqrt(width)
        self.down = nn.ParameterDict(
            {part: nn.Parameter(bound * (2 * torch.rand(rank, width, generator=noise) - 1)) for part in parts}
        )  # A (2)
        self.up = nn.ParameterDict({part: nn.Parameter(torch.zeros(width, rank)) for part in parts})  # B (2)

    def __contains__(self, part: str) -> bool:
        return part in self.down

    def forward(self, x: Tensor, parts: str) -> Tensor:
        """What is added to the projections `parts` of tokens x [N, T, d], side by side: [N, T, d len(parts)]."""
        added = []
        for part in parts:
            if part not in self.down:
                added.append(torch.zeros_like(x))
                continue
            entering = F.dropout(x, self.dropout) if self.dropout else x
            added.append(self.factor * entering @ self.down[part].T.to(x) @ self.up[part].T.to(x))
        return torch.cat(added, -1)
