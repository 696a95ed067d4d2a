"""OVSeg: Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP (arXiv:2210.04150, CVPR 2023).

Beyond the survey's text, of the family of its section 7.2.2. CLIP never saw images of which most is painted over, and on such
crops it is worse than its name. OVSeg lets it practise on them: proposals of a trained segmenter, each paired with the noun
of the image's caption that CLIP finds most alike. Captions are used and not the masks' own labels, because a hundred labels
are a small vocabulary, to which CLIP would shrink. What learns here are *mask prompts*: tokens that take the place of
painted patches, so that CLIP on a whole image stays what it is.

    m_i = 1 if patch i shows anything of the segment, else 0                                                          (1)
    x_i <- x_i m_i + e^0_i (1 - m_i)       behind the patch embedding, before the positions                          (2)
    x_i <- x_i m_i + e^j_i (1 - m_i)       behind block j, for j = 1 .. D - 1                                        (3)
    L = symmetric cross-entropy of s' F T^T within a batch of pairs (crop, noun); e [D, L, width] learns             (4)
    P_c = p_c^(1-w) q_c^w for all classes, q of the prompted CLIP, p of the segmenter as in ZSSeg                    (5)

First the segmenter is trained (`dense.mask_first`), then pairs are mined, then the prompts learn.

What differs from the release, beside what `dense.mask_first` says: its first step, which fine-tunes CLIP's whole image tower
on the pairs, is left out, so that this is its mask prompt tuning alone; nouns are the class names that a caption says (seen or
not), where it parses captions; a batch shows a noun once, because with few words half of (4) would be false negatives; the
rate of the segmenter does not rise over its first 1,500 of 120,000 steps; Adam keeps PyTorch's betas and eps where prompts
learn (the release: 0.9, 0.98 and 1e-6); the embedded settings cut squares around segments, and h has hidden width 2 d.

Dimensions: B images, N segments, C classes, R crops, L patches, D depth of the prompts, e joint width, S image side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.backbones.blocks import run_block
from vlmlab.datasets.captions import noun_filter
from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.mask_crops import AT_ONCE, SHAPES, crop_boxes, mask_boxes, resized
from vlmlab.methods.dense.mask_first import CosineNames, Named
from vlmlab.methods.dense.mask_queries import segments_to_pixels
from vlmlab.methods.dense.naming import painted
from vlmlab.methods.method import Batch, option, rate_by_step
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.methods.text_prompt.prompts import random_vectors
from vlmlab.registry import register


@register(
    "ovseg",
    title="OVSeg: Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP",
    paper="arXiv:2210.04150",
    year=2023,
    section="7.2.2",
    family="segmentation",
    setup="open-vocabulary",
    tasks=("segmentation",),
    learns="a MaskFormer; then mask prompts",
    needs=("image blocks",),
    status="extra",
)
class OVSeg(CosineNames):
    """Segments of a MaskFormer, named by it and by a CLIP that has practised on masked crops."""

    @dataclasses.dataclass
    class Config(CosineNames.Config):
        lr: float = option(2e-4, "learning rate", 0.0, 10.0)
        scale: float = option(100.0, "factor of the segmenter's cosines", 0.0, 1000.0)
        weight: float = option(0.7, "w: exponent of CLIP, for all classes", 0.0, 1.0)
        prompts: bool = option(True, "painted patches are replaced by mask prompts")
        depth: int = option(3, "D: layers of mask prompts", 1, 48)
        prompt_steps: int = option(69000, "steps of the prompts", 0, 10**7)
        prompt_batch: int = option(32, "pairs a step", 2, 4096)
        prompt_lr: float = option(0.05, "learning rate of the prompts", 0.0, 10.0)
        mined: int = option(0, "images that pairs are mined from; 0: all", 0, 10**7)
        templates: str = option("vild14", HELP)
        shape: str = option("stretched", "how crops become square", choices=SHAPES)
        expand: float = option(1.0, "side of a crop over that of the segment's box", 0.5, 4.0)

    embedded: ClassVar[dict] = CosineNames.embedded | {
        "scale": 20.0,
        "prompt_steps": 60,
        "prompt_batch": 24,
        "prompt_lr": 0.01,
        "mined": 150,
        "templates": "dataset",
        "shape": "square",
    }

    def prepare(self, task) -> None:
        super().prepare(task)
        tower, config = self.backbone.image, self.config
        if config.depth > tower.depth:
            raise VlmlabError(
                f"mask prompts of depth {config.depth} exceed the {tower.depth} blocks of {self.backbone.name}"
            )
        if config.prompt_steps and not self.pictures.captioned:
            raise VlmlabError("OVSeg mines pairs from captions, which these images do not have; choose tableau")
        self.words_of_seen = self.words[self.seen]
        self.cosine_head()
        side = self.backbone.image_size
        height, width = tower.grid(side, side)
        self.drawing = torch.Generator().manual_seed(task.seed)
        start = random_vectors(config.depth, height * width, tower.width, generator=self.drawing)
        self.register_buffer("mask_prompts", start)
        self.to(self.backbone.device)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Other words for both classifiers; what was learned stays."""
        super().set_classes(classes, templates)
        self.words = self.backbone.class_embeddings(spoken(classes), choose(self.config.templates, templates))

    # --- mask prompts ------------------------------------------------------------------------------------------------

    def finish(self, task) -> None:
        """Mine pairs with the trained segmenter, then learn the prompts from them."""
        if not self.config.prompt_steps:
            return
        crops, shown, nouns = self.pairs(task)
        if len(nouns.unique()) < 2:
            return  # nothing to tell apart
        self.mask_prompts = self.learned_prompts(crops, shown, self.words[nouns], nouns)

    @torch.no_grad()
    def pairs(self, task) -> tuple[Tensor, Tensor, Tensor]:
        """(crops [R, 3, S, S], their masks [R, S, S], the class that a caption says of each [R]): per noun of an image's
        caption, the proposal that the untouched CLIP finds most alike."""
        pictures, found = task.train, []
        chosen = list(range(len(pictures)))[: self.config.mined or None]
        said = [self.nouns(pictures.caption(i)) for i in chosen]
        for i, nouns in zip(chosen, said, strict=True):
            if not nouns:
                continue
            images, _ = self.framed([pictures.images(i)])
            masks = self.propose(images)[0][0] > 0
            masks = masks[masks.flatten(1).any(1)]
            if not len(masks):
                continue
            crops, shown = self.cut(images.expand(len(masks), -1, -1, -1), masks)
            alike = self.words[nouns] @ F.normalize(self.backbone.encode_image(crops), dim=-1).T
            best = alike.argmax(1)
            found.append((crops[best], shown[best], torch.tensor(nouns, device=images.device)))
        if not found:
            side = self.backbone.image_size
            return torch.zeros(0, 3, side, side), torch.zeros(0, side, side), torch.zeros(0, dtype=torch.long)
        all_crops, all_shown, all_nouns = zip(*found, strict=True)
        return torch.cat(all_crops), torch.cat(all_shown), torch.cat(all_nouns)

    def nouns(self, caption: str) -> list[int]:
        """The classes that a caption says."""
        try:
            return noun_filter([caption], self.classes).labels[0].nonzero().flatten().tolist()
        except VlmlabError:  # it says none
            return []

    def learned_prompts(self, crops: Tensor, shown: Tensor, words: Tensor, nouns: Tensor) -> Tensor:
        """Mask prompts [D, L, width] after `prompt_steps` of (4) on pairs of crops [R, 3, S, S] and unit words [R, e]."""
        config, prompts = self.config, nn.Parameter(self.mask_prompts.clone())
        optimizer = torch.optim.AdamW([prompts], 1.0, weight_decay=0.0)
        for step in range(config.prompt_steps):
            for group in optimizer.param_groups:
                group["lr"] = rate_by_step(step, config.prompt_steps, config.prompt_lr, config.prompt_steps // 600)
            drawn = self.distinct(nouns.cpu()).to(crops.device)
            features = F.normalize(prompted_features(self.backbone.image, crops[drawn], shown[drawn], prompts), dim=-1)
            optimizer.zero_grad()
            pair_loss(features, words[drawn], self.backbone.logit_scale).backward()
            optimizer.step()
        return prompts.detach()

    def distinct(self, nouns: Tensor) -> Tensor:
        """Positions of at most `prompt_batch` pairs, drawn so that no noun comes twice."""
        order = torch.randperm(len(nouns), generator=self.drawing)
        first = {int(nouns[i]): int(i) for i in order.flip(0)}  # of each noun, the first in the order
        places = torch.tensor(sorted(first.values()))
        return places[torch.randperm(len(places), generator=self.drawing)[: self.config.prompt_batch]]

    def cut(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """(crops [R, 3, S, S], masks [R, S, S] of 0 and 1) around masks [R, S, S] (bool, none empty) of `images` [R, 3, S, S]."""
        side = images.shape[-1]
        boxes = crop_boxes(mask_boxes(masks), self.config.expand, self.config.shape, side, side)
        return resized(painted(images, masks), boxes, side), nearest(masks, boxes, side)

    # --- answers -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encoded(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """What CLIP sees in masks [B, N, S, S] (bool): (unit embeddings [B, N, e], which masks are not empty [B, N])."""
        valid = masks.flatten(2).any(2)
        found = torch.zeros(*valid.shape, self.backbone.embed_dim, device=images.device)
        if not valid.any():
            return found, valid
        image, mask = valid.nonzero(as_tuple=True)
        for own, number in zip(image.split(AT_ONCE), mask.split(AT_ONCE), strict=True):
            crops, shown = self.cut(images[own], masks[own, number])
            if self.config.prompts:
                features = prompted_features(self.backbone.image, crops, shown, self.mask_prompts)
            else:
                features = self.backbone.encode_image(crops)
            found[own, number] = F.normalize(features, dim=-1)
        return found, valid

    def logits(self, batch: Batch) -> Tensor:
        found = self.named(batch.images)
        return segments_to_pixels(found.both, found.masks)

    def named(self, images: Tensor) -> Named:
        masks, z = self.propose(images)
        p = self.names(z, self.words).float().softmax(-1)
        q = self.clip_names(images, masks, self.words)
        w = self.config.weight
        return Named(masks, p, q, p[..., :-1] ** (1 - w) * q**w)  # (5)


def prompted_features(tower, crops: Tensor, masks: Tensor, prompts: Tensor) -> Tensor:
    """Features [R, e] of crops [R, 3, S, S], whose patches without anything of `masks` [R, S, S] are replaced by `prompts`
    [D, L, width] (1), (2), (3)."""
    visual = tower.visual
    shown = F.avg_pool2d(masks[:, None].float(), tower.stride).ceil().flatten(1)[..., None]  # m [R, L, 1]
    x = tower.patches(crops)
    prompts, shown = prompts.to(x.dtype), shown.to(x.dtype)
    x = x * shown + prompts[0] * (1 - shown)
    x = visual.ln_pre(tower.placed(x, tower.grid(*crops.shape[-2:])))
    *blocks, last = visual.transformer.resblocks
    for j, block in enumerate(blocks, 1):
        x = run_block(block, x)
        if j < len(prompts):
            x = torch.cat([x[:, :1], x[:, 1:] * shown + prompts[j] * (1 - shown)], 1)
    x = run_block(last, x, rows=torch.zeros(len(x), dtype=torch.long, device=x.device))  # the class token's row alone
    return tower.joint(x)[:, 0].float()


def pair_loss(images: Tensor, words: Tensor, scale: Tensor | float) -> Tensor:
    """(4): unit features [R, e] of pairs, each the other's only match; the mean of both directions."""
    logits = scale * images @ words.T
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def nearest(masks: Tensor, boxes: Tensor, side: int) -> Tensor:
    """`masks` [R, H, W] in crop `boxes` int64 [R, 4], each output pixel that of the nearest one: [R, side, side], 0 and 1."""
    steps = torch.arange(side, device=masks.device)
    columns, rows = (
        low[:, None] + (steps * (high - low)[:, None]).div(side, rounding_mode="floor")
        for low, high in ((boxes[:, 0], boxes[:, 2]), (boxes[:, 1], boxes[:, 3]))
    )
    image = torch.arange(len(masks), device=masks.device)[:, None, None]
    return masks[image, rows[:, :, None], columns[:, None, :]].float()
