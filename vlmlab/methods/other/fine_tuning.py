"""Fine-tuning: the baseline that changes every weight of the image encoder (as in WiSE-FT, arXiv:2109.01903, section 2).

Survey, section 6.3.3. The zero-shot classifier becomes an ordinary one, and everything in front of it learns, too. It wins on the
images that it learned from, and pays on images of another kind: the reason for every frozen method beside it, and for
averaging it with where it began (wise_ft).

    logits = n(E_I(x; theta)) W^T + b,   W = s W_text and b = 0 at first     n: to unit length   (1)
    loss = cross-entropy over all of theta, W, b                                                 (2)

The scale s goes into W before anything is learned; the text encoder is not needed afterwards.

What differs from the release: batch norms keep their statistics (the release updates them), an incomplete last batch of an epoch
is left out, and images are not cropped unless training asks for views, whose crops are smaller than the release's.

Dimensions: B batch, C classes, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.backbones.image_tower import copied_tower
from vlmlab.methods.method import Batch, Method, Recipe, option, rate_by_step
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.registry import register


@register(
    "fine_tuning",
    title="Fine-tuning: every weight of the image encoder",
    paper="arXiv:2109.01903",
    year=2021,
    section="6.3.3",
    family="other",
    setup="supervised",
    learns="the image encoder and a linear head",
    status="extra",
)
class FineTuning(Method):
    """The image encoder and a head that begins as the zero-shot classifier."""

    @dataclasses.dataclass
    class Config(Recipe):
        epochs: int = option(10, "epochs of training", 1, 10000)
        batch_size: int = option(512, "training images a step", 1, 4096)
        optimizer: str = option("adamw", "optimiser", choices=("sgd", "adamw"))
        lr: float = option(3e-5, "learning rate after the warm-up", 0.0, 10.0)
        weight_decay: float = option(0.1, "weight decay", 0.0, 1.0)
        warmup_steps: int = option(500, "first steps, in which the rate rises in a straight line", 0, 100000)
        clip: float = option(1.0, "largest norm of the gradient", 0.0, 1000.0)
        templates: str = option("imagenet80", HELP)

    embedded: ClassVar[dict] = {"lr": 3e-4, "batch_size": 32, "epochs": 10, "warmup_steps": 10, "templates": "dataset"}
    eats = "images"

    def prepare(self, task) -> None:
        self.learned_on: list[str] = list(task.classes)
        self.set_classes(task.classes, task.templates)
        tower = copied_tower(self.backbone.image)
        # In float32 whatever the backbone has: half precision would round most steps away.
        self.visual = tower.visual.float().requires_grad_(True)
        self.tower = [tower]  # in a list: it is a view of self.visual
        sentences = choose(self.config.templates, task.templates)
        text = self.backbone.class_embeddings(spoken(task.classes), sentences)
        self.head = nn.Linear(*reversed(text.shape)).to(text.device)
        self.head.weight.data = self.backbone.logit_scale * text.float()  # W [C, e] (1)
        self.head.bias.data.zero_()

    def train(self, mode: bool = True) -> FineTuning:
        """Stays in evaluation mode: batch statistics are those of pretraining."""
        return super().train(False)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Raises `VlmlabError` for other classes than those of the head."""
        self.refuse_other_classes(classes, "a fine-tuned head belongs to its classes; prepare the system on the others")
        super().set_classes(classes, templates)

    def logits(self, batch: Batch) -> Tensor:
        return self.head(F.normalize(self.tower[0].forward(batch.images), dim=-1))  # [B, C] (1)

    def before_step(self) -> None:
        nn.utils.clip_grad_norm_(self.parameters(), self.config.clip)

    def learning_rate(self, step: int, steps: int) -> float:
        return rate_by_step(step, steps, self.config.lr, self.config.warmup_steps)
