"""UPT: Unified Vision and Language Prompt Learning (arXiv:2210.07225, 2022).

Survey, section 6.3.1. Text prompts fail where the images of a class vary much, visual prompts where the names of classes are
close. UPT learns both as one set of tokens: a tiny transformer lets them attend to each other, and then each encoder gets
its part. The transformer is needed in training only; what it makes of the tokens is fixed afterwards.

    U = [A_t P ; A_v V]        P [m, d] text prompts, V [L k, D] visual ones, both to width h            (1)
    U' = U + Attention(LN U),   U'' = U' + MLP(LN U')            m + L k tokens, all of which see all    (2)
    P' = B_t U''_text,   V' = B_v U''_visual                     back to the widths of the towers        (3)
    text:  [SOS] P'_1 .. P'_(m/2) [name_c] P'_(m/2+1) .. P'_m . [EOS]                                    (4)
    image: V'_l joins the class and patch tokens at the input of block l, behind the first norm, l = 1 .. L    (5)
    logits = s n(E_I) n(E_T)^T,   loss = cross-entropy                                                   (6)

`towers` keeps one half alone, "text" or "image" (then with hand-written sentences), with the same network around it.
`mixing=apart` has no network: P' = P, V' = V, both learned side by side. `visual_ctx` is k where it is not m. With `project` the
visual prompts are learned at that width, and a linear layer takes them to D, behind (3).

The authors released no code. This follows the paper's description and the re-implementation that came with MVLPT
(sIncerass/MVLPT), whose sizes and initial values are the defaults here. What differs from that one: there the attention of (2)
runs along the wrong axis, so that every prompt sees only itself, and a tower that is as wide as h has no maps A and B; here the
prompts see each other, which is the paper's idea. `mixing=alone` is that re-implementation, number for number. Its visual prompts
of another width can be learned without mixing alone; here A_v and B_v are as wide as they. float32; no image is augmented unless
training asks for views.

Dimensions: B batch, C classes, m text prompts, k visual prompts of a block, L prompted image blocks, h width of the small transformer, d text width,
D image width, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

from vlmlab.backbones.blocks import run_block
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch, Method, Recipe, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.methods.text_prompt.prompts import assemble, placeholders, random_vectors
from vlmlab.randomness import LocalRandom
from vlmlab.registry import register

MIXINGS = ("together", "alone", "apart")


@register(
    "upt",
    title="UPT: Unified Vision and Language Prompt Learning",
    paper="arXiv:2210.07225",
    year=2022,
    section="6.3.1",
    family="text_visual_prompt",
    setup="few-shot",
    learns="text and deep visual prompts, and a small transformer that mixes them",
    needs=("text tokens", "image tokens"),
)
class UPT(Method):
    """One set of prompts for both towers, mixed by self-attention."""

    @dataclasses.dataclass
    class Config(Recipe):
        n_ctx: int = option(4, "prompt tokens m of the text", 1, 64)
        depth: int | None = option(None, "image blocks with prompts L; none: all of them", 1, 48)
        towers: str = option("both", "which towers are prompted", choices=("both", "text", "image"))
        position: str = option("middle", "where the class name stands", choices=("end", "middle", "front"))
        hidden: int = option(128, "width h of the small transformer", 1, 4096)
        heads: int = option(1, "its attention heads", 1, 64)
        mixing: str = option(
            "together", "what a prompt attends to there: all, or itself; apart: no network", choices=MIXINGS
        )
        visual_ctx: int | None = option(None, "prompt tokens k of every prompted image block; none: m", 1, 64)
        project: int | None = option(None, "width that visual prompts are learned at; none: the tower's", 1, 4096)
        templates: str = option("dataset", f"sentences if only the image is prompted; {HELP}")
        epochs: int = option(200, "epochs of training", 1, 10000)

    embedded: ClassVar[dict] = {"batch_size": 16, "optimizer": "adamw", "lr": 0.002, "epochs": 10}

    @classmethod
    def needs(cls, config) -> tuple[str, ...]:
        return {"text": ("text tokens",), "image": ("image tokens",)}.get(config.towers, cls.info.needs)

    def __init__(self, backbone, config=None):
        super().__init__(backbone, config)
        config = self.config
        self.in_text, self.in_image = config.towers != "image", config.towers != "text"
        self.eats = "images" if self.in_image else "features"
        if self.in_image:
            self.depth = config.depth or backbone.image.depth
            backbone.image.check_prompts("UPT", self.depth)
        if config.hidden % config.heads:
            raise VlmlabError(f"{config.heads} heads do not divide a width of {config.hidden}; change heads or hidden")

    def prepare(self, task) -> None:
        self.set_classes(task.classes, task.templates)
        config, device = self.config, self.backbone.device
        m, h = config.n_ctx, config.hidden
        with LocalRandom(task.seed):
            if self.in_text:
                d = self.backbone.text.width
                self.context = nn.Parameter(random_vectors(m, d))  # P
                self.text_in, self.text_out = self._maps(d)  # A_t, B_t
            if self.in_image:
                k, width = config.visual_ctx or m, config.project or self.backbone.image.width
                self.visual = nn.Parameter(visual_prompts(self.backbone.image, self.depth, k, width))  # V [L, k, D]
                self.image_in, self.image_out = self._maps(width)  # A_v, B_v
                self.visual_proj = projection(config.project, self.backbone.image.width)
            if config.mixing != "apart":
                self.mixer = ResidualAttentionBlock(h, config.heads, act_layer=QuickGELU)
        self.to(device)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """The prompts of other classes around the same learned tokens."""
        super().set_classes(classes, templates)
        m = self.config.n_ctx
        if self.in_text:
            self.prompts = assemble(self.backbone.text, classes, placeholders(m))
            self.order = self.prompts.order({"end": m, "middle": m // 2, "front": 0}[self.config.position])
        else:
            sentences = choose(self.config.templates, templates)
            self.classifier = self.backbone.class_embeddings(spoken(classes), sentences)  # [C, e]

    def mixed(self) -> tuple[Tensor | None, Tensor | None]:
        """P' [m, d] and V' [L, k, D] of (3); None for a tower without prompts."""
        if self.config.mixing == "apart":
            visual = self.visual_proj(self.visual) if self.in_image else None
            return self.context if self.in_text else None, visual
        parts = []
        if self.in_text:
            parts.append(self.text_in(self.context))
        if self.in_image:
            parts.append(self.image_in(self.visual).flatten(0, 1))
        tokens = torch.cat(parts)  # [m + L k, h] (1)
        # All prompts form one sequence, or each prompt one of its own, in which it finds only itself.
        sequences = tokens[None] if self.config.mixing == "together" else tokens[:, None]
        tokens = run_block(self.mixer, sequences).flatten(0, 1)  # (2)
        split = self.config.n_ctx if self.in_text else 0
        context = self.text_out(tokens[:split]) if self.in_text else None
        if not self.in_image:
            return context, None
        return context, self.visual_proj(self.image_out(tokens[split:]).unflatten(0, (self.depth, -1)))

    def logits(self, batch: Batch) -> Tensor:
        context, visual = self.mixed()
        w = F.normalize(self._class_features(context), dim=-1) if self.in_text else self.classifier  # [C, e] (4)
        if self.in_image:
            first, *deep = visual
            f = F.normalize(self.backbone.image.forward(batch.images, first, deep, behind_norm=True), dim=-1)  # (5)
        else:
            f = self.image_features(batch)
        return self.backbone.logit_scale * f @ w.T  # [B, C] (6)

    def _maps(self, width: int) -> tuple[nn.Module, nn.Module]:
        """From a tower's `width` to h and back."""
        h, mixing = self.config.hidden, self.config.mixing
        if mixing == "apart" or (mixing == "alone" and width == h):  # the latter as in the re-implementation
            return nn.Identity(), nn.Identity()
        return nn.Linear(width, h), nn.Linear(h, width)

    def _class_features(self, context: Tensor) -> Tensor:
        """E_T of (4), [C, e]; with the name at the end, the context is encoded once for all classes."""
        if self.config.position == "end":
            return self.prompts.features(self.backbone.text, context)
        return self.prompts.features_around(self.backbone.text, context, self.order)


def visual_prompts(image, depth: int, count: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """[depth, count, width] within Xavier's bound, as if a patch were embedded (VPT, arXiv 2203.12119)."""
    size = image.visual.patch_size[0] * image.visual.patch_size[1]
    bound = (6 / (3 * size + width)) ** 0.5
    return bound * (2 * torch.rand(depth, count, width, generator=generator) - 1)


def projection(width: int | None, tower: int) -> nn.Module:
    """From prompts of another width to the tower's, with He's initial values for the outputs; nothing if `width` is None."""
    if width is None:
        return nn.Identity()
    layer = nn.Linear(width, tower)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    return layer
