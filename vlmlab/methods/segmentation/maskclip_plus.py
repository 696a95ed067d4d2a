"""MaskCLIP+: a student learns from MaskCLIP's maps (arXiv:2112.01071, ECCV 2022).

Survey, section 7.2.2. MaskCLIP reads dense labels off a frozen CLIP, and they are coarse. MaskCLIP+ takes them for pseudo
labels of an ordinary segmentation network whose classifier is the frozen text embeddings, so that the student may be as
sharp as its pixels are. Where masks of seen classes are there, they are used; the pixels without label get the name that
the teacher finds most likely among the *unlabelled* words alone. After some iterations the student's own answers take the
teacher's place, because by then they are better.

    F = student(x),   P = F T^T, or s n(F) T^T with a `scale` s     student and its scores       (1)
    y(x) = mask(x) where it is granted; else argmax over unlabelled c of G_c(x)                  (2)
    G = MaskCLIP(x) for the first `guided` of the iterations, then P of the student itself       (3)
    L = mean over pixels of CE(P(x), y(x)); pixels that show no class at all count nothing       (4)

What differs from the release, which trains DeepLabv2 with ResNet-101: the student is a small pixel encoder on the frozen
tokens of the same tower (`dense.pixels`), as there is no ImageNet here, and it is supervised at half the image's size.
The release takes plain products of features and words (norm_feat off), and so do the defaults; they learn too slowly in a
minute, so the embedded settings take unit vectors times a scale, and a rate that falls as a cosine. There is no learned
background row (cls_bg), for every pixel of the embedded sets that counts has a name, and the teacher is MaskCLIP without key
smoothing and prompt denoising, which are off in the release's zero-shot settings. In (4) the release divides by all pixels,
also by those that count nothing (mmsegmentation's mean). In the release self-training begins after a tenth of the iterations.

It is transductive as in the paper: which pixels have no label, and the words for them, are known in training.

Dimensions: B images, C classes, S image side, h x w places, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.datasets.truth import NOTHING, UNLABELLED
from vlmlab.methods.dense.pixels import Frozen, TextPixels, halved, thirds, tokens
from vlmlab.methods.dense.segmenter import Segmenter
from vlmlab.methods.method import Batch, Recipe, option, rate_by_step
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.registry import register

FALLS = ("power", "cosine")
LAST_RATE, POWER = 1e-4, 0.9


@register(
    "maskclip_plus",
    title="MaskCLIP+: Extract Free Dense Labels from CLIP",
    paper="arXiv:2112.01071",
    year=2022,
    section="7.2.2",
    family="segmentation",
    setup="open-vocabulary",
    tasks=("segmentation",),
    learns="a student network",
    needs=("image blocks", "local features"),
)
class MaskCLIPPlus(Segmenter):
    """A student of masks, and of MaskCLIP where there is none."""

    @dataclasses.dataclass
    class Config(Recipe):
        epochs: int = option(56, "epochs", 1, 10000)
        batch_size: int = option(16, "training images a step", 1, 4096)
        optimizer: str = option("sgd", "optimiser", choices=("sgd", "adamw"))
        lr: float = option(0.01, "learning rate", 0.0, 10.0)
        fall: str = option("power", "how the rate falls: to 1e-4 as a power of 0.9, or to 0 as a cosine", choices=FALLS)
        warmup_epochs: int = option(0, "first epochs, in which the rate rises", 0, 100)
        guided: float = option(0.1, "share of the iterations in which MaskCLIP gives the pseudo labels", 0.0, 1.0)
        labels: str = option(
            "seen",
            "seen: masks of seen classes are used; teacher: MaskCLIP labels every pixel",
            choices=("seen", "teacher"),
        )
        scale: float | None = option(
            None, "factor of the cosines of pixels and words; none: their plain products", 0.0, 1000.0
        )
        templates: str = option("scene85", HELP)

    embedded: ClassVar[dict] = {
        "epochs": 7,
        "optimizer": "adamw",
        "lr": 3e-3,
        "weight_decay": 1e-3,
        "fall": "cosine",
        "warmup_epochs": 1,
        "guided": 1.0,
        "scale": 20.0,
        "templates": "dataset",
    }

    def prepare(self, task) -> None:
        super().prepare(task)
        self.unlabelled = list(range(len(task.classes))) if self.config.labels == "teacher" else list(task.new)
        self.after = thirds(self.backbone.image.depth)
        self.frozen, self.local = (Frozen(self, task.train, read) for read in (self.read, self.local_features))
        width = len(self.after) * self.backbone.image.width
        self.student = TextPixels(width, self.backbone.embed_dim).to(self.backbone.device)
        self.register_buffer("done", torch.zeros((), dtype=torch.long))  # saved, so that a resumed run knows its step
        self.steps = 1

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Other words for the classifier; the student stays as it is."""
        super().set_classes(classes, templates)
        sentences = choose(self.config.templates, templates)
        self.classifier = self.backbone.class_embeddings(spoken(classes), sentences)  # T [C, e]

    def optimizer(self, steps: int):
        self.steps = steps
        return super().optimizer(steps)

    def learning_rate(self, step: int, steps: int) -> float:
        self.done.fill_(step)  # the schedule counts the steps that are done
        warm, lr = self.config.warmup_epochs * self.batches, self.config.lr
        if self.config.fall == "cosine" or step < warm:
            return rate_by_step(step, steps, lr, warm)
        return LAST_RATE + (lr - LAST_RATE) * max(0.0, 1 - step / steps) ** POWER

    def logits(self, batch: Batch) -> Tensor:
        """[B, C, S, S], the student's scores (1), enlarged."""
        return F.interpolate(self.scores(batch), size=batch.images.shape[-2:], mode="bilinear")

    def loss(self, batch: Batch) -> Tensor:
        scores = self.scores(batch)  # [B, C, S/2, S/2]
        own = int(self.done) >= self.config.guided * self.steps
        guide = scores.detach() if own else self.teacher(batch, scores.shape[-2:])  # (3)
        masks = halved(batch.masks)
        if self.config.labels == "teacher":
            masks = torch.full_like(masks, UNLABELLED)
        target = pseudo_labelled(masks, guide, self.unlabelled)
        counted = (target != NOTHING).sum().clamp_min(1)
        return F.cross_entropy(scores, target, ignore_index=NOTHING, reduction="sum") / counted  # (4)

    def scores(self, batch: Batch) -> Tensor:
        """[B, C, S/2, S/2], what the student's pixels have in common with the words (1)."""
        return compared(self.student(batch.images, self.frozen.of(batch)), self.classifier, self.config.scale)

    @torch.no_grad()
    def teacher(self, batch: Batch, size: tuple[int, int]) -> Tensor:
        """MaskCLIP's cosines [B, C, *size]."""
        cosines = torch.einsum("behw,ce->bchw", self.local.of(batch), self.classifier)
        return F.interpolate(cosines, size=size, mode="bilinear")

    def read(self, images: Tensor) -> Tensor:
        """Frozen tokens [B, D, h, w] of images [B, 3, S, S], for the student."""
        return tokens(self.backbone.image, images, self.after)

    @torch.no_grad()
    def local_features(self, images: Tensor) -> Tensor:
        """Unit features of places [B, e, h, w] of images [B, 3, S, S], for the teacher."""
        return F.normalize(self.backbone.image.local_features(images), dim=1)


def compared(features: Tensor, words: Tensor, scale: float | None = None) -> Tensor:
    """Scores [B, C, h, w] of pixels [B, e, h, w] and unit words [C, e] (1): products, or `scale` times their cosines."""
    if scale is None:
        return torch.einsum("behw,ce->bchw", features, words)
    return scale * torch.einsum("behw,ce->bchw", F.normalize(features, dim=1), words)


def pseudo_labelled(masks: Tensor, guide: Tensor, unlabelled: Sequence[int]) -> Tensor:
    """Class indices [B, H, W] with every UNLABELLED pixel given the best of the `unlabelled` classes by `guide` [B, C, H, W] (2).

    Without unlabelled classes such pixels count nothing; what was granted, and NOTHING, stays.
    """
    unlabelled = torch.as_tensor(list(unlabelled), dtype=torch.long, device=masks.device)
    if not len(unlabelled):
        return masks.masked_fill(masks == UNLABELLED, NOTHING)
    return torch.where(masks == UNLABELLED, unlabelled[guide[:, unlabelled].argmax(1)], masks)
