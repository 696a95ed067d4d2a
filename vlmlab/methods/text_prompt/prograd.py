"""ProGrad: Prompt-aligned Gradient for Prompt Tuning (arXiv:2205.14865, ICCV 2023). An extra: the survey does not name it.

Zero-shot CLIP knows something general about every image of the task. The gradient of a distillation loss towards it is a
direction in which this knowledge is kept. Whenever the gradient of the task points against that direction, the opposing part
is cut off; otherwise the step is CoOp's.

    a = grad CE(z, y),   b = grad KD(z0, z),   z = s f W^T of the learned prompt, z0 of the zero-shot one       (1)
    KD = -T^2 sum_c softmax(z0 / T)_c log softmax(z / T)_c, mean over the batch                                  (2)
    u = b / |b|;   a <- a - lambda (a . u) u  if a . u < 0                                                       (3)

The value of `loss` is the cross-entropy, and its gradient is the a of (3).

The context begins with zero vectors and ends with the words that stand before the name in the dataset's template. A word may be
several tokens, and as many vectors are taken as there are words; what is left of the words stays between context and name.

What differs from the release: float32; the teacher sees the same image as the student, as there. On the embedded backbones
the context is drawn at random, so that it starts where CoOp's does; on base and new classes, where CoOp starts from words, it starts
from the template as the release does (scripts/base2new_train_prograd.sh with CTX_INIT of rn50_ep100).

Dimensions: B batch, C classes, M context vectors, d text width, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch, Method, RecipeByShots, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.methods.text_prompt.prompts import assemble, random_vectors
from vlmlab.registry import register


@register(
    "prograd",
    title="ProGrad: Prompt-aligned Gradient for Prompt Tuning",
    paper="arXiv:2205.14865",
    year=2022,
    section="6.3.1",
    family="text_prompt",
    setup="few-shot",
    learns="context vectors, by gradients that do not oppose zero-shot",
    needs=("text tokens",),
    status="extra",
)
class ProGrad(Method):
    """CoOp whose steps never work against what zero-shot prediction says."""

    @dataclasses.dataclass
    class Config(RecipeByShots):
        n_ctx: int = option(16, "context vectors M", 1, 64)
        init: str = option("template", "what the context starts from", choices=("template", "random"))
        strength: float = option(1.0, "lambda, the share of the opposing part that is removed", 0.0, 1.0)
        temperature: float = option(1.0, "T of the distillation", 0.01, 100.0)
        templates: str = option("dataset", HELP)

    embedded: ClassVar[dict] = {"optimizer": "adamw", "lr": 0.01, "epochs": 60, "init": "random"}
    by_protocol: ClassVar[dict] = {"base-to-new": {"init": "template"}}
    eats = "features"

    def prepare(self, task) -> None:
        self.shots = task.shots
        self.begins_with = self._words(task.templates[0]) if self.config.init == "template" else []
        self.set_classes(task.classes, task.templates)
        noise = torch.Generator().manual_seed(task.seed)
        start = random_vectors(self.config.n_ctx, self.backbone.text.width, generator=noise)
        if self.config.init == "template":
            start = self.prompts.words.float().clone()
            start[: self.config.n_ctx - len(self.begins_with)] = 0.0
        self.context = nn.Parameter(start.to(self.backbone.device))  # [M, d]
        self.opposed = 0  # steps so far in which the two gradients disagreed

    @property
    def planned_epochs(self) -> int:
        return self.config.passes(self.shots)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        n = self.config.n_ctx
        words = " ".join(["X"] * (n - len(self.begins_with)) + self.begins_with)
        self.prompts = assemble(self.backbone.text, classes, words, learned=n)
        sentences = choose(self.config.templates, templates)
        self.teacher = self.backbone.class_embeddings(spoken(classes), sentences)  # [C, e]

    def _words(self, template: str) -> list[str]:
        """The words before the name in a template; `VlmlabError` if they are more than the context holds."""
        words = template.split("{}")[0].split()
        if len(words) > self.config.n_ctx:
            raise VlmlabError(
                f"the template '{template}' has {len(words)} words before the name and the context only "
                f"{self.config.n_ctx} vectors; use n_ctx={len(words)} or init=random"
            )
        return words

    def logits(self, batch: Batch) -> Tensor:
        w = F.normalize(self.prompts.features(self.backbone.text, self.context), dim=-1)
        return self.backbone.logit_scale * self.image_features(batch) @ w.T  # z [B, C]

    def loss(self, batch: Batch) -> Tensor:
        z = self.logits(batch)
        z0 = self.backbone.logit_scale * self.image_features(batch) @ self.teacher.T
        task, general = F.cross_entropy(z, batch.labels), distillation(z0, z, self.config.temperature)
        if not task.requires_grad:
            return task
        a = torch.autograd.grad(task, self.context, retain_graph=True)[0]
        b = torch.autograd.grad(general, self.context)[0]
        kept = aligned(a, b, self.config.strength)
        self.opposed += int(not torch.equal(kept, a))
        # A linear function of the context with the slope `kept`, moved to the value of the cross-entropy.
        line = (self.context * kept).sum()
        return task.detach() + line - line.detach()


def distillation(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """KD of (2) for logits [B, C] of both."""
    soft = (teacher / temperature).softmax(-1)
    return -(temperature**2) * (soft * (student / temperature).log_softmax(-1)).sum(-1).mean()


def aligned(a: Tensor, b: Tensor, strength: float = 1.0) -> Tensor:
    """(3): the gradient `a` without `strength` of the part that opposes `b`, both of one shape; `a` itself if b is zero."""
    length = b.norm()
    if length == 0:
        return a
    u = b / length
    along = (a * u).sum()
    return a - strength * along * u if along < 0 else a
