"""CAVPT, or DPT: Dual Modality Prompt Tuning for Vision-Language Pre-Trained Model (arXiv:2208.08340, IEEE TMM 2023).

Survey, section 6.3.1, which names it by its part CAVPT, class-aware visual prompt tuning; its code is called DPT. An image
shows more than its class, and a visual prompt that is the same for every image cannot say what to look for. CAVPT
asks the frozen model for the likeliest classes and makes the last layer's visual prompts out of their text features,
by attention to the tokens of the image.

    f0 = n(E_I(x)),   I = the R classes with the largest s f0 W0^T     W0: hand-written sentences           (1)
    g_c = E_T([SOS] v_1 ... v_M [name_c] . [EOS]),   w_c = n(g_c)      v learned, as in CoOp                (2)
    image, blocks 1 .. l:  n learned tokens each, dropped again behind the block    l = L - last            (3)
    image, each block behind:  q = M g_I,   keys = [X ; N]             X: class and patch tokens, no gradient    (4)
        o = W_o softmax(W_q q (W_k keys)^T / sqrt(32)) keys
        prompts = LN_2(o + q)   R tokens of this image,   aux = A LN_1(o)                                 (5)
    logits = s f w^T,   f = n(E_I with these prompts)                                                       (6)
    loss = CE(logits)                              from epoch G on; before, the two towers learn apart:     (7)
           CE(s f0 w^T) + CE(s f W0^T) + 0.1 CE(logits)
           + alpha CE(aux of the prompt that belongs to the image's class)       if it is among the R

An image passes the image tower twice, for (1) and for (6). With `class_aware=false` the blocks of (4) have n learned
tokens like the others: the baseline, text prompts and deep visual prompts side by side.

For a batch in which no image has its class among the R, the auxiliary term is left out, as in the release.

What differs from the release: float32; f0 of a support image is computed once, unless training asks for crops; G is a share of the epochs,
30 of 60 there. The auxiliary classifier A belongs to the classes that were learned and serves in training only.

Dimensions: B batch, C classes, R candidate classes, M context vectors, n visual tokens, T class and patch tokens, L image
blocks, d text width, D image width, e joint width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.backbones.image_tower import Prompts
from vlmlab.methods.method import Batch, Method, Recipe, optimizer_of, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.methods.text_prompt.prompts import assemble, placeholders, random_vectors
from vlmlab.randomness import LocalRandom
from vlmlab.registry import register

KEYS, KEY_WIDTH = 10, 32  # learned extra keys of (4), and the width that queries and keys meet in


@register(
    "cavpt",
    title="CAVPT: Dual Modality Prompt Tuning for Vision-Language Pre-Trained Model",
    paper="arXiv:2208.08340",
    year=2023,
    section="6.3.1",
    family="text_visual_prompt",
    setup="few-shot",
    learns="context vectors, deep visual prompts, and a generator of class-aware ones",
    needs=("text tokens", "image tokens"),
)
class CAVPT(Method):
    """Visual prompts that know which classes are in question."""

    @dataclasses.dataclass
    class Config(Recipe):
        n_ctx: int = option(16, "context vectors M of the text", 1, 64)
        n_visual: int = option(10, "learned visual tokens n of a block", 1, 64)
        candidates: int = option(10, "likeliest classes R whose prompts are made", 1, 1000)
        last: int = option(1, "last image blocks with class-aware prompts; as many as there are: all", 1, 48)
        class_aware: bool = option(True, "make the last prompts of the candidates' text features")
        alpha: float = option(0.3, "weight of the auxiliary classification", 0.0, 100.0)
        apart: float = option(0.5, "share G of the epochs in which the towers learn apart", 0.0, 1.0)
        lr: float = option(0.01, "learning rate of all that is visual, after its warm-up", 0.0, 10.0)
        warmup_epochs: int = option(10, "first epochs of all that is visual, at the constant warm-up rate", 0, 100)
        text_lr: float = option(0.002, "learning rate of the context vectors, after one epoch of warm-up", 0.0, 10.0)
        templates: str = option("dataset", f"sentences of W0; {HELP}")
        epochs: int = option(60, "epochs of training", 1, 10000)

    embedded: ClassVar[dict] = {
        "batch_size": 16,
        "optimizer": "adamw",
        "lr": 0.006,
        "text_lr": 0.006,
        "epochs": 10,
        "most_steps": 460,
        "warmup_epochs": 1,
    }
    eats = "images"

    def __init__(self, backbone, config=None):
        super().__init__(backbone, config)
        backbone.image.check_prompts("CAVPT", self.config.last)

    def prepare(self, task) -> None:
        self.set_classes(task.classes, task.templates)
        config, image, d = self.config, self.backbone.image, self.backbone.text.width
        width = image.width
        free = image.depth - config.last if config.class_aware else image.depth
        with LocalRandom(task.seed):
            self.context = nn.Parameter(random_vectors(config.n_ctx, d))  # v [M, d]
            self.visual = nn.Parameter(random_vectors(free, config.n_visual, width))  # (3)
            self.makers = nn.ModuleList(
                Maker(self.backbone.embed_dim, width, len(task.classes)) for _ in range(image.depth - free)
            )
        self.register_buffer("step", torch.zeros((), dtype=torch.long))  # steps done, so that a resumed run knows
        self.to(self.backbone.device)
        self.steps = 0  # of the whole run, once there is an optimiser
        self.kept: Tensor | None = None  # f0 of the support images
        if len(task.support):
            self.kept = F.normalize(self.encode(task.support), dim=-1)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """The prompts and the hand-written classifier of these classes; what was learned stays."""
        super().set_classes(classes, templates)
        self.prompts = assemble(self.backbone.text, classes, placeholders(self.config.n_ctx))
        sentences = choose(self.config.templates, templates)
        self.written = self.backbone.class_embeddings(spoken(classes), sentences)  # W0 [C, e]

    def candidates(self, f0: Tensor) -> Tensor:
        """I of (1): classes [B, R], the likeliest first, of unit features f0 [B, e]."""
        return (f0 @ self.written.T).topk(min(self.config.candidates, len(self.classes)), dim=-1).indices

    def class_features(self) -> Tensor:
        """g of (2), [C, e], not normalised."""
        return self.prompts.features(self.backbone.text, self.context)

    def visual_prompts(self, chosen: Tensor) -> tuple[Prompts, list[Prompts], list[Tensor]]:
        """The first block's prompts; those of the others, which in the last blocks are functions of the image's
        tokens that also know the text features `chosen` [B, R, e]; and a list that these functions fill with their
        auxiliary scores [B, R, C]. `ImageTower.forward` takes the first two."""
        auxiliary: list[Tensor] = []

        def made_by(maker: Maker):
            def prompts(tokens: Tensor) -> Tensor:
                made, scores = maker(tokens, chosen)
                auxiliary.append(scores)
                return made

            return prompts

        first, *deep = [*self.visual, *(made_by(maker) for maker in self.makers)]
        return first, deep, auxiliary

    def both_towers(self, images: Tensor, f0: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Unit f [B, e] of (6), unit w [C, e] of (2), the candidates I [B, R], and their auxiliary scores."""
        g, candidates = self.class_features(), self.candidates(f0)
        first, deep, auxiliary = self.visual_prompts(g[candidates])
        f = self.backbone.image.forward(images, first, deep, behind_norm=True)
        return F.normalize(f, dim=-1), F.normalize(g, dim=-1), candidates, auxiliary

    def logits(self, batch: Batch) -> Tensor:
        f, w, *_ = self.both_towers(batch.images, self.image_features(batch))
        return self.backbone.logit_scale * f @ w.T  # [B, C]

    def loss(self, batch: Batch) -> Tensor:
        if self.kept is None or not batch.whole:
            f0 = self.image_features(batch)
        else:
            f0 = self.kept[batch.index.to(self.kept.device)]
        s, y = self.backbone.logit_scale, batch.labels
        f, w, candidates, auxiliary = self.both_towers(batch.images, f0)
        loss = F.cross_entropy(s * f @ w.T, y)
        if self.apart:
            loss = F.cross_entropy(s * f0 @ w.T, y) + F.cross_entropy(s * f @ self.written.T, y) + 0.1 * loss
        return loss + self.config.alpha * auxiliary_loss(auxiliary, candidates, y)  # (7)

    @property
    def apart(self) -> bool:
        """Whether the towers still learn apart, which is so before epoch G of (7)."""
        return int(self.step) < self.config.apart * self.steps

    def optimizer(self, steps: int):
        """Two groups: all that is visual, and the context vectors, which warm up for one epoch only."""
        config = self.config
        self.steps = steps
        visual = [p for name, p in self.named_parameters() if name != "context"]
        groups = [{"params": visual}, {"params": [self.context]}]
        optimizer = optimizer_of(config, groups)

        def rate(step: int, lr: float, warmup: int) -> float:
            epoch = step * self.epochs // steps
            if epoch < warmup:
                return config.warmup_lr
            return lr / 2 * (1 + math.cos(math.pi * (epoch - warmup) / self.epochs))

        rates = [lambda k: rate(k, config.lr, config.warmup_epochs), lambda k: rate(k, config.text_lr, 1)]
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rates)

    def before_step(self) -> None:
        self.step += 1


def auxiliary_loss(auxiliary: Sequence[Tensor], candidates: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the scores [B, R, C] of prompts that were made for the right class, mean over these prompts.

    Zero if no image has its class among its candidates [B, R], or if there are no such prompts at all.
    """
    own = candidates == labels[:, None]  # [B, R]
    if not auxiliary or not own.any():
        return torch.zeros((), device=labels.device)
    scores = torch.stack([block[own] for block in auxiliary])  # [blocks, images with their class, C]
    right = labels[:, None].expand_as(own)[own].expand(len(scores), -1)
    return F.cross_entropy(scores.flatten(0, 1), right.flatten())


class Maker(nn.Module):
    """(4) and (5): visual prompts out of class features, by attention to the tokens of an image."""

    def __init__(self, e: int, width: int, classes: int):
        super().__init__()
        self.lift = nn.Linear(e, width)  # M
        self.query, self.key = (nn.Linear(width, KEY_WIDTH, bias=False) for _ in range(2))  # W_q, W_k
        self.out = nn.Linear(width, width, bias=False)  # W_o
        self.extra = nn.Parameter(random_vectors(KEYS, width))  # N [10, D]
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.classify = nn.Linear(width, classes, bias=False)  # A

    def forward(self, tokens: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Prompts [B, R, D] and auxiliary scores [B, R, C] of tokens [B, T, D] and class features [B, R, e]."""
        tokens = tokens.detach().to(self.extra.dtype)
        keys = torch.cat([tokens, self.extra.expand(len(tokens), -1, -1)], dim=1)  # [B, T + 10, D]
        q = self.lift(chosen)
        scores = self.query(q) @ self.key(keys).transpose(1, 2) * KEY_WIDTH**-0.5
        o = self.out(scores.softmax(-1) @ keys)
        return self.norm_2(o + q), self.classify(self.norm_1(o))
