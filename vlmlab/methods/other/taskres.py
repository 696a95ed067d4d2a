"""TaskRes: Task Residual for Tuning Vision-Language Models (arXiv:2211.10277, CVPR 2023).

Survey, section 6.3.3. A classifier made of text is old knowledge; what a task adds should not overwrite it. So the class
features stay as they are, and each class learns one vector that is added to its own. No text encoder runs in training, and
a residual of zero is exactly zero-shot prediction.

    t_c = mean_i E_T(template_i with name_c)             not normalised                (1)
    w_c = n(t_c + alpha x_c)                             x learned, zero at first      (2)
    logits = s f W^T,   f = n(E_I(x)),   loss = cross-entropy                          (3)

The raw length of t_c matters: it sets how much a step of x turns w_c. Weight decay pulls x to zero, that is to
zero-shot. The release trains with Adam (decay inside of the gradient), not with SGD as its relatives do.

What differs from the release: float32. Class names are used as they come there, with their underscores, and here, too.
The "enhanced base" of the paper is another method's training and is left out. On ImageNet the release has eight sentences
(templates=imagenet7+photo) and a tenth of the rate; on flowers alpha = 1.

Dimensions: B batch, C classes, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.methods.method import Batch, Method, Recipe, option
from vlmlab.methods.templates import HELP, choose
from vlmlab.registry import register


@register(
    "taskres",
    title="TaskRes: Task Residual for Tuning Vision-Language Models",
    paper="arXiv:2211.10277",
    year=2022,
    section="6.3.3",
    family="other",
    setup="few-shot",
    learns="one residual vector per class",
)
class TaskRes(Method):
    """Fixed class features plus learned residuals."""

    @dataclasses.dataclass
    class Config(Recipe):
        alpha: float = option(0.5, "weight of the residual", 0.0, 10.0)
        batch_size: int = option(256, "training images a step", 1, 4096)
        optimizer: str = option("adam", "optimiser", choices=("adam",))
        templates: str = option("dataset", HELP)
        # Wider than the recipe's: left open, `planned_epochs` decides.
        epochs: int | None = option(  # type: ignore[assignment]
            None, "epochs of training; none: 100 up to 4 shots, else 200", 1, 10000
        )

    embedded: ClassVar[dict] = {"lr": 0.05}
    eats = "features"

    def prepare(self, task) -> None:
        self.shots = task.shots
        self.learned_on: list[str] = list(task.classes)
        self.set_classes(task.classes, task.templates)
        self.residual = nn.Parameter(torch.zeros_like(self.base))  # x [C, e]

    @property
    def planned_epochs(self) -> int:
        return self.config.epochs or (100 if self.shots <= 4 else 200)

    def optimizer(self, steps: int):
        config = self.config
        optimizer = torch.optim.Adam(self.parameters(), 1.0, weight_decay=config.weight_decay, eps=config.eps)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.learning_rate(step, steps))

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Raises `VlmlabError` for other classes than those that the residuals were learned on."""
        self.refuse_other_classes(
            classes, "a residual belongs to its class and says nothing about others; prepare TaskRes on them"
        )
        super().set_classes(classes, templates)
        sentences = choose(self.config.templates, templates)
        with torch.no_grad():
            features = self.backbone.encode_text([s.format(name) for name in classes for s in sentences])
        self.base = features.unflatten(0, (len(classes), -1)).mean(1)  # t [C, e] (1)

    def logits(self, batch: Batch) -> Tensor:
        w = F.normalize(self.base + self.config.alpha * self.residual, dim=-1)  # [C, e] (2)
        return self.backbone.logit_scale * self.image_features(batch) @ w.T  # [B, C] (3)
