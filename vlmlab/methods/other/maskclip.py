"""MaskCLIP: Extract Free Dense Labels from CLIP (arXiv:2112.01071, ECCV 2022).

Survey, section 6.3.3. CLIP is trained on whole images, and its last attention layer mixes all places into one vector.
The values that this layer mixes still belong to their places. MaskCLIP leaves the mixing out: every place sends its own
value through the output projection into the joint space, and is compared with the class sentences. No training, no
masks.

    ViT, last block:  V = proj_out(v(LN1(X))) + X;  V = V + MLP(LN2(V));  F = LN_post(V) W        (1)
    ResNet:           F = conv1x1(conv1x1(Z; W_v); W_c), the pool's projections, no positions     (2)
    P = n(F) T^T      cosines, T the unit class vectors; enlarged bilinearly, argmax per pixel    (3)

T is the mean over 85 sentences: OpenAI's eighty, and five that place the object in a scene.

Two refinements, off by default as in the release's MaskCLIP configurations:

    prompt denoising: class c leaves an image if max over its places of softmax(s P)_c < t       (4)
    key smoothing: where max_c softmax(s P) < t, the scores of place i become
                   sum_j (k_i . k_j) softmax(s P_j), k the last layer's keys                      (5)

As in the release, keys are normalised along the places, so k_i . k_j is no cosine, the ViT's keys have passed the
output projection, and with key smoothing the result is a probability instead of a cosine.

What differs from the release: the scale s is the backbone's, which is 100 in CLIP, where the release writes 100; the
backbone keeps its own activation, norms and normalisation, where the release runs OpenAI's ViT with GELU for QuickGELU.
An image of no whole number of places gets zeros (the mean colour) at its right and bottom, as in the ViT of
mmsegmentation that the release builds on; here their scores are cut off again, there they are squeezed into the image.
There is no background class: every pixel gets one of the given words.

Dimensions: B batch, C classes, h x w places, H x W pixels, N = h w, c key width, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.methods.dense.segmenter import Segmenter
from vlmlab.methods.method import Batch, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.registry import register

ABSENT = -100.0  # the score of a class that prompt denoising removed


@register(
    "maskclip",
    title="MaskCLIP: Extract Free Dense Labels from CLIP",
    paper="arXiv:2112.01071",
    year=2022,
    section="6.3.3",
    family="other",
    setup="training-free",
    tasks=("segmentation",),
    learns="nothing",
    needs=("local features",),
)
class MaskCLIP(Segmenter):
    """Every place of the image is classified by its own words."""

    @dataclasses.dataclass
    class Config:
        features: str = option(
            "value", "value: attention left out; plain: the ordinary last layer", choices=("value", "plain")
        )
        key_smoothing: float = option(0.0, "confidence below which a place asks its neighbours in key space", 0.0, 1.0)
        prompt_denoising: float = option(0.0, "confidence that a class must reach somewhere in the image", 0.0, 1.0)
        scale: float | None = option(None, "factor before the softmax of both; none: the backbone's", 0.0, 1000.0)
        templates: str = option("scene85", HELP)

    embedded: ClassVar[dict] = {"templates": "dataset"}
    eats = "images"

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        sentences = choose(self.config.templates, templates)
        self.classifier = self.backbone.class_embeddings(spoken(classes), sentences)  # T [C, e]

    def logits(self, batch: Batch) -> Tensor:
        """Scores [B, C, H, W] at the size of the images."""
        height, width = batch.images.shape[-2:]
        down, across = self.backbone.image.stride
        # The tower does not see a rest that fills no place, and the map of the others would be stretched over it.
        whole = F.pad(batch.images, (0, -width % across, 0, -height % down))
        scores = F.interpolate(self.dense(whole), size=whole.shape[-2:], mode="bilinear")
        return scores[..., :height, :width]

    @torch.no_grad()
    def predict(self, images, words=None, size: tuple[int, int] | None = None):
        """As `Segmenter.predict`; or, of normalised images [B, 3, H, W] and a `size` (theirs by default), the class index of
        every pixel, int64 [B, *size]: scores are enlarged to the images' size first and then to `size`, as in the release.
        """
        if not isinstance(images, Tensor):
            return super().predict(images, words)
        size = words if size is None else size  # a size may stand second
        scores = self.logits(Batch(images=images))
        if size is not None and tuple(size) != tuple(images.shape[-2:]):
            scores = F.interpolate(scores, size=tuple(size), mode="bilinear")
        return scores.argmax(1)

    @torch.no_grad()
    def dense(self, images: Tensor) -> Tensor:
        """Scores [B, C, h, w] per place of the image tower."""
        image = self.backbone.image
        local = image.local_features(images, kind=self.config.features)  # F [B, e, h, w] (1), (2)
        scores = torch.einsum("behw,ce->bchw", F.normalize(local, dim=1), self.classifier)  # P (3)
        if self.config.prompt_denoising:
            scores = self.denoised(scores)
        if self.config.key_smoothing:
            keys = image.local_features(images, kind="key").flatten(2).transpose(1, 2)  # [B, N, c]
            scores = self.smoothed(scores, keys)
        return scores

    def denoised(self, scores: Tensor) -> Tensor:
        """Scores [B, C, h, w] with the classes removed that no place of the image is sure about (4)."""
        surest = self._probabilities(scores).amax((2, 3), keepdim=True)  # [B, C, 1, 1]
        return scores.masked_fill(surest < self.config.prompt_denoising, ABSENT)

    def smoothed(self, scores: Tensor, keys: Tensor) -> Tensor:
        """Probabilities [B, C, h, w], replaced by the key-weighted ones wherever a place is unsure (5)."""
        size = scores.shape[-2:]
        p = self._probabilities(scores).flatten(2)  # [B, C, N]
        k = F.normalize(keys, dim=1)  # over the places
        neighbours = p @ (k @ k.transpose(1, 2))  # the weights are symmetric
        unsure = p.amax(1, keepdim=True) < self.config.key_smoothing  # [B, 1, N]
        return torch.where(unsure, neighbours, p).unflatten(2, size)

    def _probabilities(self, scores: Tensor) -> Tensor:
        scale = self.backbone.logit_scale if self.config.scale is None else self.config.scale
        return (scale * scores).softmax(1)
