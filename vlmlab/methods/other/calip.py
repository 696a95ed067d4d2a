"""CALIP: Zero-Shot Enhancement of CLIP with Parameter-free Attention (arXiv:2209.14169, AAAI 2023).

Survey, section 6.3.3. CLIP compares one vector of the image with one of each class; where in the image a class may
be, it never asks. CALIP lets patches and class texts attend to one another, with no weights in between: a text that has
looked at the image, and an image that has read the texts, each give a second and a third opinion.

    A = 2 Z T^T                                          Z [P, e] unit patches, T [C, e] unit texts       (1)
    T' = softmax_P(A)^T Z                                every text, the mean of the places that fit it   (2)
    Z' = softmax_C(A) T,   f' = mean_P(Z') + max_P(Z')   every place, the mean of the texts that fit it   (3)
    logits = 100 (f T^T + beta2 f T'^T + beta3 f' T^T)                                                    (4)

The two softmaxes run over different axes of one matrix. T' and f' are not normalised again, so beta2 and beta3 weigh
their length as well.

What differs from the release: images are batched; beta2 and beta3 are chosen on validation images and never on those
that are judged (the release searches on the very labels that it reports); without validation images they keep the
values of the configuration, which are those for ImageNet (T there: templates=imagenet7). The scale is the backbone's, which
is 100 for CLIP. The trained variant was never released.

Dimensions: B batch, C classes, P places of the image tower, e joint width, V validation images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.methods.method import Batch, Method, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.registry import register

SCORES_AT_ONCE = 2**24  # of the search: bounds the memory


@register(
    "calip",
    title="CALIP: Zero-Shot Enhancement of CLIP with Parameter-free Attention",
    paper="arXiv:2209.14169",
    year=2022,
    section="6.3.3",
    family="other",
    setup="training-free",
    learns="nothing",
    needs=("local features",),
)
class CALIP(Method):
    """Attention without weights between patches and class texts."""

    @dataclasses.dataclass
    class Config:
        beta2: float = option(
            1.12, "weight of the texts that looked at the image, before or without a search", 0.0, 100.0
        )
        beta3: float = option(0.02, "weight of the image that read the texts, before or without a search", 0.0, 100.0)
        search: bool = option(True, "choose both on the validation images")
        beta2_max: float = option(2.0, "end of the search for beta2", 0.01, 100.0)
        beta3_max: float = option(0.1, "end of the search for beta3", 0.01, 100.0)
        steps: int = option(200, "values of each that are tried", 1, 1000)
        templates: str = option("dataset", HELP)

    embedded: ClassVar[dict] = {"steps": 40}
    eats = "images"

    def prepare(self, task) -> None:
        super().prepare(task)
        # Buffers, because what is chosen on validation images belongs to what one would save.
        self.register_buffer("beta2", torch.tensor(self.config.beta2))
        self.register_buffer("beta3", torch.tensor(self.config.beta3))
        if self.config.search and len(task.val):
            self._search(task.val)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        sentences = choose(self.config.templates, templates)
        self.classifier = self.backbone.class_embeddings(spoken(classes), sentences)  # T [C, e]

    def logits(self, batch: Batch) -> Tensor:
        own, by_text, by_picture = self.opinions(batch.images)
        return own + self.beta2 * by_text + self.beta3 * by_picture  # [B, C] (4)

    @torch.no_grad()
    def opinions(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The three summands of (4), each [B, C] and already scaled, without their weights."""
        image, text, scale = self.backbone.image, self.classifier, self.backbone.logit_scale
        f = F.normalize(self.backbone.encode_image(images), dim=-1)  # [B, e]
        # Every place goes through the tower's last layer as the class token does (a ResNet: as a query of its pool).
        kind = "pooled" if image.kind == "resnet" else "plain"
        z = F.normalize(image.local_features(images, kind=kind).flatten(2).transpose(1, 2), dim=-1)  # Z [B, P, e]
        a = 2 * z @ text.T  # [B, P, C] (1)
        looked = a.softmax(1).transpose(1, 2) @ z  # T' [B, C, e] (2)
        read = a.softmax(2) @ text  # Z' [B, P, e]
        summary = read.mean(1) + read.amax(1)  # f' [B, e] (3)
        by_text = torch.einsum("be,bce->bc", f, looked)
        return scale * f @ text.T, scale * by_text, scale * summary @ text.T

    def _search(self, val) -> None:
        """beta2 and beta3 with the best accuracy on the validation images; the first such pair, both rising."""
        config, parts = self.config, [self.opinions(images) for images in self.in_turn(val)]
        own, by_text, by_picture = (torch.cat(part) for part in zip(*parts, strict=True))  # each [V, C]
        labels = val.labels.to(own.device)
        first = 0.001
        values2, values3 = (
            first + torch.arange(config.steps) * (end - first) / config.steps
            for end in (config.beta2_max, config.beta3_max)
        )
        best, parts3 = -1, values3.to(own).split(max(1, SCORES_AT_ONCE // own.numel()))  # each [n]
        for beta2 in values2.tolist():
            start = (own + beta2 * by_text)[:, None]  # [V, 1, C]
            every = [(start + part[:, None] * by_picture[:, None]).argmax(-1) for part in parts3]  # each [V, n]
            right = (torch.cat(every, 1) == labels[:, None]).sum(0)  # [steps]
            if int(right.max()) > best:
                best = int(right.max())
                self.beta2, self.beta3 = torch.tensor(beta2), values3[int(right.argmax())]
