"""OpenSeg: Scaling Open-Vocabulary Image Segmentation with Image-Level Labels (arXiv:2112.12143, ECCV 2022).

Survey, section 7.2.2. Masks are dear, captions are cheap. OpenSeg learns to cut from masks without their names, and to name
from captions without their places: every word of a caption looks for the segments that it may mean.

    z_q = n( sum_x m_q(x) F(x) / sum_x m_q(x) ),   m_q = sigmoid(mask_q)          what a segment looks like           (1)
    g(I, w) = sum_q a_q cos(z_q, w),   a = softmax_q(cos(z_q, w) / tau)           how well a word is grounded         (2)
    G(I, T) = mean of g(I, w) over the words w of the caption T                                                       (3)
    L_ground = the mean of CE(G / tau) over rows and over columns, [images, captions] of a batch                      (4)
    L_mask = 20 focal + dice of true segments and the masks matched with them     no class is told                    (5)
    L = L_mask + ground_weight L_ground
    S_c(x) = sum_q softmax_c(s cos(z_q, t_c)) m_q(x),   s CLIP's own factor                                           (6)

A true segment is an object or all that is seen of a ground; where images have no instances, it is all that is seen of a class.

There is no training code, so (2) to (5) are written after the paper's description, and all settings are ours, not the paper's. (5) is
MaskFormer's, matched by masks alone: the dice of the best mask of every segment, which the description suggests, hardly fell in the
embedded epochs. What differs besides `dense.mask_first`: F is CLIP's local features (MaskCLIP's), unit, plus `share` times a linear map
of its frozen tokens that begins at zero, in place of a pyramid that learns from scratch; words are the class names that a caption
says, in templates, where the paper takes its nouns and adjectives; a class has one word, where the release's demo takes the best of
its synonyms; masks are those of base classes. A caption that says no class is left out of (4).

With the embedded `share`, the map learns at the rate of the defaults, a twentieth of the masks'. At the masks' own rate the contrast
falls further, and segments of validation images are named worse than by CLIP alone.

Dimensions: B images, N segments, C classes, e joint width, S image side, L d' token channels, h x w places, P pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.datasets.captions import said
from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.mask_first import Proposing, enlarged
from vlmlab.methods.dense.mask_former import matched_masks, panoptic_segments, segments
from vlmlab.methods.dense.mask_queries import segments_to_pixels
from vlmlab.methods.dense.naming import mask_pooled
from vlmlab.methods.dense.pixels import halved
from vlmlab.methods.method import Batch, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.registry import register


@register(
    "openseg",
    title="OpenSeg: Scaling Open-Vocabulary Image Segmentation with Image-Level Labels",
    paper="arXiv:2112.12143",
    year=2022,
    section="7.2.2",
    family="segmentation",
    setup="open-vocabulary",
    tasks=("segmentation",),
    learns="a MaskFormer without classes, a map to words",
    needs=("image blocks", "local features"),
)
class OpenSeg(Proposing):
    """Segments from masks without names, names from captions without places."""

    grounded = "masks and captions"
    pooled = False

    @dataclasses.dataclass
    class Config(Proposing.Config):
        tau: float = option(0.05, "temperature tau of words and captions", 1e-3, 10.0)
        ground_weight: float = option(1.0, "weight of the captions; 0: none is read", 0.0, 1000.0)
        mask_weight: float = option(20.0, "weight of the focal loss of masks", 0.0, 1000.0)
        dice_weight: float = option(1.0, "weight of the dice loss of masks", 0.0, 1000.0)
        share: float = option(1.0, "weight of what is learned beside CLIP's own local features", 0.0, 100.0)
        templates: str = option("photo", HELP)

    embedded: ClassVar[dict] = Proposing.embedded | {"share": 0.05, "templates": "dataset"}

    def prepare(self, task) -> None:
        super().prepare(task)
        if not self.pictures.captioned:
            raise VlmlabError(
                "OpenSeg learns from captions, and these images have none; choose tableau, which has them"
            )
        tower, embed = self.backbone.image, self.backbone.embed_dim
        self.grounds = task.grounds
        captions = [self.pictures.caption(i) for i in range(len(self.pictures))]
        self.said = said(captions, self.classes).float()  # [N, C]
        self.learned_words = self.words
        self.channels = len(self.after) * tower.width
        self.align = nn.Conv2d(self.channels, embed, 1)
        nn.init.zeros_(self.align.weight)
        nn.init.zeros_(self.align.bias)
        self.align.to(self.backbone.device)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Other words; what was learned stays."""
        super().set_classes(classes, templates)
        self.words = self.backbone.class_embeddings(spoken(classes), choose(self.config.templates, templates))

    # --- segments and what they look like ----------------------------------------------------------------------------

    def read(self, images: Tensor) -> Tensor:
        """Frozen tokens and unit local features of images [B, 3, S, S]: [B, L d' + e, h, w]."""
        return torch.cat([super().read(images), F.normalize(self.backbone.image.local_features(images), dim=1)], 1)

    def described(self, images: Tensor, read: Tensor) -> tuple[list[Tensor], Tensor]:
        """(mask logits [B, N, S/2, S/2] per layer, unit z [B, N, e] of the last) of images and what was `read` of them."""
        places, local = read[:, : self.channels], read[:, self.channels :].float()
        masks = [masks for masks, _ in self.network(images, places)]
        features = local + self.config.share * self.align(places.float())  # F [B, e, h, w]
        features = F.interpolate(features, size=masks[-1].shape[-2:], mode="bilinear")
        return masks, F.normalize(mask_pooled(features, masks[-1].float().sigmoid()), dim=-1)  # (1)

    # --- training ----------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Tensor:
        masks, z = self.described(batch.images, self.frozen.of(batch))
        truths = [self.true_segments(truth) for truth in batch.truths]
        total = sum(self.mask_loss(own.flatten(2).float(), truths) for own in masks)
        if self.config.ground_weight:
            words = self.said[batch.index.cpu()].to(z.device)
            told = words.any(1)
            similarity = grounding(z.float()[told], self.learned_words, words[told], self.config.tau)
            total = total + self.config.ground_weight * contrast(similarity, self.config.tau)
        return total

    def mask_loss(self, masks: Tensor, truths: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        """(5) of mask logits [B, N, P] and the `true_segments` of each image."""
        nameless = masks.new_zeros(*masks.shape[:2], 2)
        return matched_masks(nameless, masks, truths, 0.0, self.config.mask_weight, self.config.dice_weight)[1]

    def true_segments(self, truth) -> tuple[Tensor, Tensor, Tensor]:
        """(zeros [G] for labels, masks [G, P] of 0 and 1, which pixels count [P]) of one image, at half its size."""
        if truth.instances is None:
            labels, masks, counted = segments(halved(truth.semantic))
        else:
            labels, masks, counted = panoptic_segments(truth, self.grounds)
        return torch.zeros_like(labels), masks, counted

    # --- answers -----------------------------------------------------------------------------------------------------

    def propose(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(mask logits [B, N, S, S], unit segments z [B, N, e]) of images [B, 3, S, S]."""
        masks, z = self.described(images, self.read(images))
        return enlarged(masks[-1], images), z

    def logits(self, batch: Batch) -> Tensor:
        masks, z = self.propose(batch.images)
        names = (self.backbone.logit_scale * z.float() @ self.words.T).softmax(-1)
        return segments_to_pixels(names, masks)  # (6)


def grounding(z: Tensor, words: Tensor, said: Tensor, tau: float) -> Tensor:
    """G of every image with every caption [B, B'] (2), (3): unit z [B, N, e], unit words [C, e], `said` [B', C] of 0 and 1."""
    cosines = z @ words.T  # [B, N, C]
    grounded = ((cosines / tau).softmax(1) * cosines).sum(1)  # g [B, C]
    return grounded @ (said / said.sum(1, keepdim=True).clamp_min(1)).T


def contrast(similarity: Tensor, tau: float) -> Tensor:
    """(4) of G [B, B]; 0 for fewer than two pairs, of which nothing can be told apart."""
    if len(similarity) < 2:
        return similarity.sum() * 0
    logits, own = similarity / tau, torch.arange(len(similarity), device=similarity.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
