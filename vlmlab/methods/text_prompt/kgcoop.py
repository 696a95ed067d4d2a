"""KgCoOp: Visual-Language Prompt Tuning with Knowledge-guided Context Optimization (arXiv:2303.13283, CVPR 2023).

Survey, section 6.3.1. The further CoOp's class features move away from those of a hand-written prompt, the worse new
classes get. KgCoOp puts this distance into the loss: learn the task, but stay near what the words already said.

    w_c = n(E_T([SOS] v_1 ... v_M [name_c] . [EOS]))     v learned, "a photo of a" at first     (1)
    w0_c = n(E_T(template with name_c))                  the dataset's hand-written prompt      (2)
    loss = CE(s f W^T, y) + lambda (1 - mean_c cos(w_c, w0_c)),   f = n(E_I(x))                 (3)

For unit vectors the squared distance is 2 (1 - cos), so lambda = 8 here is lambda = 4 for a squared distance. The template of
(2) is the dataset's and need not be the words that v starts from: then the penalty is not zero at first.

What differs from the release: float32; no image is augmented unless training asks for views.

Dimensions: B batch, C classes, M context vectors, d text width, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.methods.method import Batch, Method, Recipe, option
from vlmlab.methods.templates import spoken
from vlmlab.methods.text_prompt.prompts import assemble, first_words, random_vectors
from vlmlab.registry import register


@register(
    "kgcoop",
    title="KgCoOp: Visual-Language Prompt Tuning with Knowledge-guided Context Optimization",
    paper="arXiv:2303.13283",
    year=2023,
    section="6.3.1",
    family="text_prompt",
    setup="few-shot",
    learns="context vectors, held near a hand-written prompt",
    needs=("text tokens",),
)
class KgCoOp(Method):
    """CoOp with a price on leaving the hand-written prompt."""

    @dataclasses.dataclass
    class Config(Recipe):
        n_ctx: int = option(4, "context vectors M, if no words are given", 1, 64)
        init: str = option("a photo of a", "words that the context starts from; they set M (empty: random)")
        weight: float = option(8.0, "lambda, the price of the distance", 0.0, 1000.0)
        batch_size: int = option(128, "training images a step", 1, 4096)
        epochs: int = option(100, "epochs of training", 1, 10000)

    embedded: ClassVar[dict] = {"optimizer": "adamw", "lr": 0.03, "epochs": 60, "batch_size": 32}
    eats = "features"

    def prepare(self, task) -> None:
        self.set_classes(task.classes, task.templates)
        start = self.prompts.words.float()
        if not self.config.init:
            start = random_vectors(*start.shape, generator=torch.Generator().manual_seed(task.seed))
        self.context = nn.Parameter(start.clone().to(self.backbone.device))  # v [M, d]

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """The prompts and the hand-written features of these classes; the learned context stays."""
        super().set_classes(classes, templates)
        words = first_words(self.config.init, self.config.n_ctx)
        self.prompts = assemble(self.backbone.text, classes, words)
        self.written = self.backbone.class_embeddings(spoken(classes), [templates[0]])  # w0 [C, e] (2)

    def class_features(self) -> Tensor:
        """Unit class features w of (1), [C, e]."""
        return F.normalize(self.prompts.features(self.backbone.text, self.context), dim=-1)

    def logits(self, batch: Batch) -> Tensor:
        return self.backbone.logit_scale * self.image_features(batch) @ self.class_features().T  # [B, C]

    def loss(self, batch: Batch) -> Tensor:
        w = self.class_features()
        logits = self.backbone.logit_scale * self.image_features(batch) @ w.T
        return F.cross_entropy(logits, batch.labels) + self.config.weight * self.distance(w)  # (3)

    def distance(self, w: Tensor) -> Tensor:
        """1 - mean_c cos(w_c, w0_c) of unit class features w [C, e]."""
        return 1 - (w * self.written).sum(-1).mean()
