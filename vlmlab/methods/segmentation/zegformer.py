"""ZegFormer: Decoupling Zero-Shot Semantic Segmentation (arXiv:2112.07910, CVPR 2022).

Survey, section 7.2.2. Pixels of classes that were never taught are hard to name one by one. ZegFormer splits the task:
group pixels into segments, which needs no class, then name segments, at which words are good. At test CLIP names each
segment, too, but only the unseen classes: among seen ones the taught segmenter knows better.

    g = n(W z),   p = softmax(s [g . t_1, ..., g . t_C, g . b]),  b learned, not a unit vector; b is dropped          (1)
    q = softmax([s' cos(f(crop), t'_c), s g . b]), b's entry dropped; those of seen classes become their mean         (2)
    P_c = p_c^(2/3) q_c^(1/3) for seen classes, p_c^(1/3) q_c^(2/3) for the others                                   (3)
    S_c(x) = sum over segments of P_c sigmoid(mask(x)), less 0.1 for seen classes                                    (4)

A crop is the image with all but the segment painted in zero, the mean colour of normalised values, cut at the segment's box by
RoIAlign; the box ends at the last column and row of the segment, not behind them, and where it has no area, it is the whole
image. The words t, t' come from other sentences in training, at test, and for CLIP. Learning: cross-entropy + 20 focal +
dice after matching (`dense.mask_first`, with what differs there).

What differs from the release besides: a class has one name, where the release takes the mean over those that stand with
commas; the embedded settings cut squares a quarter larger than the segment, bicubic, as MicroCLIP names few of the tight
stretched ones; an empty mask then says the same of all names.

Dimensions: B images, N segments, C classes, e joint width, d query width, S image side, R crops.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from vlmlab.methods.dense.mask_crops import AT_ONCE, SHAPES, mask_boxes, mask_embeddings
from vlmlab.methods.dense.mask_first import MaskFirst, Named
from vlmlab.methods.dense.mask_queries import segments_to_pixels
from vlmlab.methods.dense.naming import fused, painted, seen_averaged
from vlmlab.methods.method import Batch, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.registry import register


@register(
    "zegformer",
    title="ZegFormer: Decoupling Zero-Shot Semantic Segmentation",
    paper="arXiv:2112.07910",
    year=2022,
    section="7.2.2",
    family="segmentation",
    setup="open-vocabulary",
    tasks=("segmentation",),
    learns="a MaskFormer",
    needs=("image blocks",),
)
class ZegFormer(MaskFirst):
    """Segments without class, named by words and, where they were not taught, by CLIP."""

    @dataclasses.dataclass
    class Config(MaskFirst.Config):
        scale: float = option(100.0, "factor s of the segmenter", 0.0, 1000.0)
        ensemble: bool = option(True, "CLIP names segments, too; without it, the segmenter alone does")
        weight: float = option(2 / 3, "exponent of the segmenter for seen classes, of CLIP for others", 0.0, 1.0)
        calibration: float = option(0.1, "what seen classes lose on the maps", 0.0, 10.0)
        templates: str = option("imagenet7scene", f"of the segmenter in training: {HELP}")
        test_templates: str = option("A photo of a {} in the scene", f"of the segmenter at test: {HELP}")
        clip_templates: str = option("masked32", f"of CLIP: {HELP}")
        shape: str = option("stretched", "how crops become square", choices=SHAPES)
        expand: float = option(1.0, "side of a square crop over that of the segment's box", 0.5, 4.0)

    embedded: ClassVar[dict] = MaskFirst.embedded | {
        "scale": 20.0,
        "templates": "dataset",
        "test_templates": "dataset",
        "clip_templates": "dataset",
        "shape": "square",
        "expand": 1.25,
    }

    def prepare(self, task) -> None:
        super().prepare(task)
        self.taught = {self.classes[c] for c in self.seen}
        names = [spoken(self.classes)[c] for c in self.seen]
        sentences = choose(self.config.templates, self.templates)
        self.words_of_seen = self.backbone.class_embeddings(names, sentences)
        embed = self.backbone.embed_dim
        self.project = nn.Linear(self.config.width, embed)
        self.null = nn.Parameter((2 * torch.rand(embed) - 1) / math.sqrt(embed))  # b
        self.to(self.backbone.device)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Other words for both classifiers; what was learned stays, and classes that were taught are known by their names."""
        super().set_classes(classes, templates)
        names, config = spoken(classes), self.config
        self.words = self.backbone.class_embeddings(names, choose(config.test_templates, templates))  # [C, e]
        self.clip_words = self.backbone.class_embeddings(names, choose(config.clip_templates, templates))

    def taught_words(self) -> Tensor:
        return self.words_of_seen

    def names(self, z: Tensor, words: Tensor) -> Tensor:
        g = F.normalize(self.project(z), dim=-1)
        return self.config.scale * g @ torch.cat([words, self.null[None]]).T  # (1)

    def encoded(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """What CLIP sees in masks [B, N, S, S] (bool): (unit embeddings [B, N, e], which masks are not empty [B, N])."""
        if self.config.shape == "square":
            return mask_embeddings(self.backbone, images, masks, self.config.expand, "square")
        return aligned_embeddings(self.backbone, images, masks), masks.flatten(2).any(2)

    def logits(self, batch: Batch) -> Tensor:
        found = self.named(batch.images)
        maps = segments_to_pixels(found.both, found.masks)
        maps[:, self.seen_words] -= self.config.calibration
        return maps  # (4)

    @property
    def seen_words(self) -> list[int]:
        """The places of taught classes among the words."""
        return [c for c, name in enumerate(self.classes) if name in self.taught]

    def named(self, images: Tensor) -> Named:
        masks, z = self.propose(images)
        scores = self.names(z, self.words).float()
        p, seen = scores.softmax(-1), self.seen_words
        if not self.config.ensemble:
            return Named(masks, p, None, p[..., :-1])
        features, _ = self.encoded(images, masks > 0)
        cosines = self.backbone.logit_scale * features @ self.clip_words.T
        q = torch.cat([cosines, scores[..., -1:]], -1).softmax(-1)[..., :-1]
        q = seen_averaged(q, seen) if seen else q  # (2)
        w = self.config.weight
        of_clip = torch.tensor([1 - w if c in set(seen) else w for c in range(len(self.classes))], device=p.device)
        return Named(masks, p, q, fused(p[..., :-1], q, of_clip))  # (3)


@torch.no_grad()
def aligned_embeddings(backbone, images: Tensor, masks: Tensor) -> Tensor:
    """Unit embeddings [B, N, e] of crops by RoIAlign around masks [B, N, S, S] (bool) of normalised images [B, 3, S, S]."""
    side, flat = images.shape[-1], masks.flatten(0, 1)
    boxes = mask_boxes(flat).float()
    boxes[:, 2:] -= 1  # at the last column and row
    no_area = (boxes[:, 2:] <= boxes[:, :2]).any(1)
    boxes = torch.where(no_area[:, None], torch.tensor([0.0, 0, side, side], device=boxes.device), boxes)
    image = torch.arange(len(images), device=images.device).repeat_interleave(masks.shape[1])
    found = []
    for own, shown, box in zip(image.split(AT_ONCE), flat.split(AT_ONCE), boxes.split(AT_ONCE), strict=True):
        rows = torch.cat([torch.arange(len(box), device=box.device)[:, None].float(), box], 1)
        crops = roi_align(painted(images[own], shown), rows, side, aligned=True)
        found.append(F.normalize(backbone.encode_image(crops), dim=-1))
    return torch.cat(found).unflatten(0, masks.shape[:2])
