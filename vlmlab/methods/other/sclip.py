"""SCLIP: Rethinking Self-Attention for Dense Vision-Language Inference (arXiv:2312.01597, ECCV 2024), and NACLIP: Pay Attention
to Your Neighbours: Training-Free Open-Vocabulary Semantic Segmentation (arXiv:2404.08181, WACV 2025).

Not among the survey's systems (section 6.3.3 would be their place); they go on from MaskCLIP. CLIP's last attention layer
lets every place look where the class token looks, so places lose themselves in the whole. MaskCLIP takes attention away:
every place sees itself alone. These two put another attention in its place, which looks at what is alike, or near.

    SCLIP:   A = softmax(q q^T / sqrt(d)) + softmax(k k^T / sqrt(d))                                      (1)
    NACLIP:  A = softmax(k k^T / sqrt(d) + w),   w_ij = exp(-|place_i - place_j|^2 / (2 s^2))             (2)
    X' = out(A v);  SCLIP goes on as the block does: X + X', then its MLP; NACLIP stops at X'             (3)
    P = n(LN_post(X') W) T^T      cosines per place, T the unit class vectors; enlarged, argmax per pixel (4)

q, k, v are the last block's, head by head (d the width of a head); in (2) the class token neither gives nor gets w. No
training, no masks. `attention` = "csa" is (1), "neighbours" is (2); with "plain" both fall back to CLIP's own attention.
`reduced` = false gives NACLIP the rest of the block, too, as its ablation does.

What differs from the releases: one pass over the letterboxed image, where they slide a window of 224 pixels over it; no
refinement of the result by PAMR, which NACLIP switches on; there is no background class and no threshold: every pixel gets
one of the given words.

Dimensions: B images, C classes, h x w places, T = 1 + h w tokens, d width of a head, e joint width, S image side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.backbones.blocks import finish, output, project
from vlmlab.methods.dense.segmenter import Segmenter
from vlmlab.methods.method import Batch, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.registry import register


@register(
    "sclip",
    title="SCLIP: Rethinking Self-Attention for Dense Vision-Language Inference",
    paper="arXiv:2312.01597",
    year=2023,
    section="6.3.3",
    family="other",
    setup="training-free",
    tasks=("segmentation",),
    learns="nothing",
    needs=("image blocks", "local features"),
    status="extra",
)
class SCLIP(Segmenter):
    """The last attention layer looks at places that are alike; NACLIP's with `attention=neighbours`."""

    @dataclasses.dataclass
    class Config:
        attention: str = option(
            "csa",
            "csa: SCLIP's; neighbours: NACLIP's; plain: CLIP's own",
            choices=("csa", "neighbours", "plain"),
        )
        reduced: bool = option(True, "NACLIP: leave out the last block's residual sum and MLP")
        deviation: float = option(5.0, "s of (2), in places", 0.1, 100.0)
        templates: str = option("imagenet80", HELP)

    embedded: ClassVar[dict] = {"templates": "dataset"}
    eats = "images"

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        sentences = choose(self.config.templates, templates)
        self.classifier = self.backbone.class_embeddings(spoken(classes), sentences)  # T [C, e]

    def logits(self, batch: Batch) -> Tensor:
        """Cosines [B, C, S, S] at the size of the images."""
        scores = torch.einsum("behw,ce->bchw", F.normalize(self.places(batch.images), dim=1), self.classifier)  # (4)
        return F.interpolate(scores, size=batch.images.shape[-2:], mode="bilinear")

    @torch.no_grad()
    def places(self, images: Tensor) -> Tensor:
        """A feature per place in the joint space, [B, e, h, w], not normalised."""
        image, grid = self.backbone.image, self.backbone.image.grid(*images.shape[-2:])
        block, x = image.last_block(images)  # x [B, T, d heads] in front of it
        q, k, v = project(block, block.ln_1(x), "qkv")  # each [B, heads, T, d]
        weights = attention(q, k, self.config.attention, grid, self.config.deviation)
        if self.config.attention == "neighbours" and self.config.reduced:
            x = output(block, weights @ v)
        else:
            x = finish(block, x, weights @ v)  # (3)
        return image.joint(x)[:, 1:].transpose(1, 2).unflatten(2, grid).float()


def attention(q: Tensor, k: Tensor, kind: str, grid: tuple[int, int], deviation: float) -> Tensor:
    """A [..., T, T] of (1) or (2) for queries and keys [..., T, d] of a class token and h x w = `grid` places."""
    scale = q.shape[-1] ** -0.5
    if kind == "csa":
        return (q @ q.transpose(-2, -1) * scale).softmax(-1) + (k @ k.transpose(-2, -1) * scale).softmax(-1)
    if kind == "neighbours":
        return (k @ k.transpose(-2, -1) * scale + nearness(grid, deviation).to(k)).softmax(-1)
    return (q @ k.transpose(-2, -1) * scale).softmax(-1)


def nearness(grid: tuple[int, int], deviation: float) -> Tensor:
    """w [T, T] of (2): a Gaussian of the distance of two places; 0 in the row and the column of the class token."""
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], 1).float()  # [h w, 2]
    square = (places[:, None] - places[None]).square().sum(-1)
    return F.pad((-square / (2 * deviation**2)).exp(), (1, 0, 1, 0))
