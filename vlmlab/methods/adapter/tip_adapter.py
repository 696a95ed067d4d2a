"""Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification (arXiv:2207.09519, ECCV 2022).

Survey, section 6.3.2. The few labelled images are not trained on but kept: their features are the keys of a cache and
their labels its values. A test image gets a vote of the keys that it resembles, on top of its zero-shot logits.
Tip-Adapter-F then fine-tunes the keys, which start where the cache is, and needs a few epochs where others need many.

    K = n( mean over augmentation passes of E_I(x_i) ),   L = one-hot labels                        (1)
    A = f K^T                                             f = n(E_I(x)), so A are cosines           (2)
    logits = s f W^T + alpha exp(-beta (1 - A)) L         exp(..) = exp(-beta/2 |f - K_i|^2)        (3)

In F the keys are free after their start and are not normalised again. alpha and beta are searched on validation
images (for F after training, which runs with the initial ones).

alpha, beta and the ends of their search are those of the release's configuration for ImageNet; it has others for every dataset
(alpha up to 10, ends up to 50), larger where images look less like the web's. W has seven sentences there
(templates=imagenet7), and one elsewhere.

What differs from the release: the logit scale s is the backbone's, which is 100 in CLIP, where the release writes 100;
float32; Tip-Adapter-F ends with its last epoch, where the release keeps the epoch that is best on the test images,
and nothing is ever chosen on test images; the search has up to four validation images of a class, where the release has
all of them (on ImageNet, the test images); F trains on the images as they are, where the release crops and mirrors them,
unless training asks for views, whose crops may be smaller than the release's; an incomplete last batch is left out.

Dimensions: B batch, C classes, N cached images (classes times shots), e joint width, V validation images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import Compose, InterpolationMode, RandomHorizontalFlip, RandomResizedCrop

from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch, Method, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.randomness import LocalRandom
from vlmlab.registry import register


@register(
    "tip_adapter",
    title="Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification",
    paper="arXiv:2207.09519",
    year=2022,
    section="6.3.2",
    family="adapter",
    setup="training-free",
    learns="nothing (a cache of the labelled images)",
)
class TipAdapter(Method):
    """Zero-shot logits plus the vote of a cache."""

    @dataclasses.dataclass
    class Config:
        alpha: float = option(1.17, "weight of the cache's vote, before or without a search", 0.0, 100.0)
        beta: float = option(1.0, "sharpness of the cache's kernel, before or without a search", 0.0, 100.0)
        search: bool = option(True, "choose alpha and beta on the validation images")
        alpha_max: float = option(3.0, "end of the search for alpha", 0.1, 100.0)
        beta_max: float = option(7.0, "end of the search for beta", 0.1, 100.0)
        alpha_steps: int = option(20, "values of alpha that are tried", 1, 1000)
        beta_steps: int = option(200, "values of beta that are tried", 1, 1000)
        passes: int = option(10, "augmentation passes that a key is the mean of; 0: the images themselves", 0, 100)
        scale: float | None = option(None, "factor of the zero-shot cosines; none: the backbone's", 0.0, 1000.0)
        templates: str = option("dataset", HELP)

    embedded: ClassVar[dict] = {"passes": 2}
    eats = "features"

    def prepare(self, task) -> None:
        support = task.support
        if not len(support):
            raise VlmlabError("Tip-Adapter needs labelled images for its cache; ask for at least one shot")
        keys = F.normalize(self._cached_features(support, task.seed), dim=-1)
        self.build(keys, support.labels, task.classes, task.templates)
        if not self.trainable_parameters:  # keys that will be trained are searched for at the end
            self._search(task)

    def build(self, keys: Tensor, labels: Tensor, classes: Sequence[str], templates: Sequence[str]) -> None:
        """The cache from unit keys [N, e] and their labels [N]."""
        self.cached_classes = list(classes)
        self.set_classes(classes, templates)
        self.keys = keys
        self.values = F.one_hot(labels, len(classes)).to(keys)  # [N, C]; the count matters if the last class has none
        # Buffers, because what is chosen on validation images belongs to what one would save.
        self.register_buffer("alpha", torch.tensor(self.config.alpha))
        self.register_buffer("beta", torch.tensor(self.config.beta))

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Raises `VlmlabError` for other classes than those of the cache, whose votes would mean nothing."""
        if list(classes) != self.cached_classes:
            raise VlmlabError("a cache of labelled images cannot vote for other classes; prepare Tip-Adapter on them")
        super().set_classes(classes, templates)
        sentences = choose(self.config.templates, templates)
        self.classifier = self.backbone.class_embeddings(spoken(classes), sentences)  # W [C, e]

    def logits(self, batch: Batch) -> Tensor:
        f = self.image_features(batch)
        return self.zero_shot(f) + self.alpha * self.vote(f, self.beta)  # [B, C] (3)

    def zero_shot(self, f: Tensor) -> Tensor:
        """s f W^T [B, C] of unit features f [B, e]."""
        scale = self.backbone.logit_scale if self.config.scale is None else self.config.scale
        return scale * f @ self.classifier.T

    def vote(self, f: Tensor, beta: float) -> Tensor:
        """exp(-beta (1 - A)) L, [B, C], of unit features f [B, e]."""
        affinity = f @ self.keys.T  # A [B, N] (2)
        return (-beta * (1 - affinity)).exp() @ self.values

    @torch.no_grad()
    def grid(self, f: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray, Tensor]:
        """alphas, betas, and the accuracy [betas, alphas] (0 to 1) that each pair has on unit features f [V, e].

        Both run from 0.1 in equal steps towards their ends, which are left out.
        """
        config = self.config
        alphas = 0.1 + np.arange(config.alpha_steps) * (config.alpha_max - 0.1) / config.alpha_steps
        betas = 0.1 + np.arange(config.beta_steps) * (config.beta_max - 0.1) / config.beta_steps
        zero_shot, right = self.zero_shot(f), []
        for beta in betas:
            vote = self.vote(f, float(beta))
            right.append([((zero_shot + float(a) * vote).argmax(-1) == labels).float().mean() for a in alphas])
        return alphas, betas, torch.tensor(right)

    def _search(self, task) -> None:
        """alpha and beta with the best accuracy on the validation images, the smallest such beta, then alpha."""
        if not self.config.search or not len(task.val):
            return
        f = F.normalize(self.encode(task.val), dim=-1)
        alphas, betas, accuracy = self.grid(f, task.val.labels.to(f.device))
        b, a = divmod(int(accuracy.argmax()), len(alphas))
        self.alpha, self.beta = torch.tensor(float(alphas[a])), torch.tensor(float(betas[b]))

    def _cached_features(self, support, seed: int) -> Tensor:
        """Mean of the unnormalised features over the augmentation passes, [N, e]; normalising comes after the mean."""
        if not self.config.passes:
            return self.encode(support)
        side = self.backbone.image_size
        crop = RandomResizedCrop(side, scale=(0.5, 1.0), interpolation=InterpolationMode.BICUBIC, antialias=True)
        augment = Compose([crop, RandomHorizontalFlip()])

        def augmented(pictures: Sequence) -> Tensor:
            crops = [augment(torch.from_numpy(np.array(p)).movedim(-1, 0)) for p in pictures]
            return self.preprocess([crop.movedim(0, -1) for crop in crops])

        with LocalRandom(seed):
            return torch.stack([self.encode(support, augmented) for _ in range(self.config.passes)]).mean(0)


@register(
    "tip_adapter_f",
    title="Tip-Adapter-F: Training-free Adaption of CLIP for Few-shot Classification",
    paper="arXiv:2207.09519",
    year=2022,
    section="6.3.2",
    family="adapter",
    setup="few-shot",
    learns="the keys of the cache",
)
class TipAdapterF(TipAdapter):
    """Tip-Adapter whose keys are fine-tuned."""

    @dataclasses.dataclass
    class Config(TipAdapter.Config):
        epochs: int = option(20, "epochs of training", 1, 10000)
        batch_size: int = option(256, "training images a step", 1, 4096)
        lr: float = option(0.001, "learning rate of AdamW at the start", 0.0, 10.0)
        weight_decay: float = option(0.01, "weight decay", 0.0, 1.0)
        eps: float = option(1e-4, "eps of AdamW", 0.0, 1.0)

    # The release trains with alpha 2 to 10 away from images like the web's; 1.17 to 10 were tried on validation images.
    embedded: ClassVar[dict] = {"passes": 2, "alpha": 5.0}

    def build(self, keys: Tensor, labels: Tensor, classes: Sequence[str], templates: Sequence[str]) -> None:
        self._parameters.pop("keys", None)  # of an earlier task
        super().build(keys, labels, classes, templates)
        del self.keys
        self.keys = nn.Parameter(keys.clone())

    def optimizer(self, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """AdamW, with a cosine to zero that falls at every step."""
        config = self.config
        optimizer = torch.optim.AdamW(self.parameters(), config.lr, weight_decay=config.weight_decay, eps=config.eps)
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def finish(self, task) -> None:
        self._search(task)
