"""LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP (arXiv:2404.02285, CVPR 2024). An extra: the survey does not name it.

A linear probe throws the text away and is below zero-shot prediction at few shots. LP++ keeps it: each class has a row of
weights that begins at its images, and a learned number that says how much its name counts. Nothing is tuned: starts and step
sizes follow from the features.

    logits_c = f w_c^T + b_c + alpha_c f t_c^T             f, t unit features of image and class name      (1)
    w_c = sum of f_i with y_i = c,   alpha_c = 250 mean_c mean_{i: y_i = c} f_i t_c^T         at the start   (2)
    eta_w = 4 N / lambda_max(F^T F),   eta_alpha = N / (4 max_c sum_i (f_i t_c^T)^2)                        (3)

All N images make one step. w and b follow gradient descent with momentum 0.9 and the constant rate eta_w; alpha moves in every
tenth step only, by eta_alpha times the sum of all its gradients so far (the release never clears them; a momentum of one is the
same). The step with the best accuracy on the validation images is kept, of equals the latest; without validation images the
last. No factor s stands in (1): alpha takes its place.

What differs from the release: float32 instead of half precision; b begins at zero (the release leaves PyTorch's random start);
a class may lack images; the step that is kept is chosen on up to four validation images of a class (the release: as many as
there are shots);
no image is augmented unless training asks for views.

Dimensions: N labelled images, B batch, C classes, e joint width, V validation images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch, Method, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.registry import register


@register(
    "lp_plus_plus",
    title="LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP",
    paper="arXiv:2404.02285",
    year=2024,
    section="6.3.3",
    family="other",
    setup="few-shot",
    learns="a linear classifier, and one weight per class for its name",
    status="extra",
)
class LPPlusPlus(Method):
    """A linear probe that adds the class name, as much as the images say."""

    @dataclasses.dataclass
    class Config:
        epochs: int = option(300, "steps over all images", 1, 10000)
        batch_size: int = option(1_000_000, "training images a step; the release takes all at once", 1, 1_000_000)
        every: int = option(10, "steps between two of alpha", 1, 1000)
        momentum: float = option(0.9, "momentum of the classifier's steps", 0.0, 1.0)
        start: float = option(250.0, "factor of alpha at the start", 0.0, 10000.0)
        templates: str = option("dataset", HELP)

    eats = "features"

    def prepare(self, task) -> None:
        if not len(task.support):
            raise VlmlabError("LP++ learns from labelled images; ask for at least one shot")
        self.learned_on: list[str] = list(task.classes)
        self.set_classes(task.classes, task.templates)
        f = F.normalize(self.encode(task.support), dim=-1)  # F [N, e]
        onehot = F.one_hot(task.support.labels.to(f.device), len(task.classes)).to(f)  # [N, C]
        self.lr_w, self.lr_alpha = step_sizes(f, self.text)  # (3)
        self.weight = nn.Parameter(onehot.T @ f)  # w [C, e] (2)
        self.bias = nn.Parameter(torch.zeros(len(task.classes), device=f.device))  # b [C]
        there = onehot.sum(0) > 0  # a class without an image has no say
        own = (onehot * (f @ self.text.T)).sum(0)[there] / onehot.sum(0)[there]  # mean cosine of images and own name
        self.alpha = nn.Parameter(torch.full_like(self.bias, self.config.start * float(own.mean())))  # [C]
        self.val = (F.normalize(self.encode(task.val), dim=-1), task.val.labels.to(f.device)) if len(task.val) else None
        # The best step so far: buffers, so that a run that is resumed keeps it.
        for name in ("weight", "bias", "alpha"):
            self.register_buffer(f"best_{name}", getattr(self, name).detach().clone())
        self.register_buffer("best_right", torch.tensor(-1))
        self.register_buffer("steps_done", torch.tensor(0))

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Raises `VlmlabError` for other classes than those that it learned."""
        self.refuse_other_classes(classes, "the weights of LP++ belong to their classes; prepare it on the others")
        super().set_classes(classes, templates)
        self.text = self.backbone.class_embeddings(
            spoken(classes), choose(self.config.templates, templates)
        )  # t [C, e]

    def logits(self, batch: Batch) -> Tensor:
        return self.scores(self.image_features(batch))

    def scores(self, f: Tensor) -> Tensor:
        """Logits [B, C] of unit features f [B, e]."""
        return f @ self.weight.T + self.bias + self.alpha * (f @ self.text.T)  # (1)

    def optimizer(self, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Gradient descent: momentum for w and b; a momentum of one, that is a sum, for alpha, which moves now and then."""
        config = self.config
        groups = [
            {"params": [self.weight, self.bias], "lr": self.lr_w, "momentum": config.momentum},
            {"params": [self.alpha], "lr": self.lr_alpha, "momentum": 1.0},
        ]
        factors = [lambda step: 1.0, lambda step: float((step + 1) % config.every == 0)]
        optimizer = torch.optim.SGD(groups)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factors)

    def before_step(self) -> None:
        """The parameters are those that the step before left behind: now they can be compared with the best."""
        if int(self.steps_done) > 0:
            self._keep_if_best()
        self.steps_done += 1

    def finish(self, task) -> None:
        """Take the step that was best on the validation images."""
        self._keep_if_best()
        for name in ("weight", "bias", "alpha"):
            getattr(self, name).data.copy_(getattr(self, f"best_{name}"))

    @torch.no_grad()
    def _keep_if_best(self) -> None:
        if self.val is not None:
            f, labels = self.val
            right = (self.scores(f).argmax(-1) == labels).sum()
            if right < self.best_right:
                return
            self.best_right.copy_(right)
        for name in ("weight", "bias", "alpha"):
            getattr(self, f"best_{name}").copy_(getattr(self, name))


def step_sizes(f: Tensor, text: Tensor) -> tuple[float, float]:
    """eta_w and eta_alpha of (3) for unit features f [N, e] and class names `text` [C, e]."""
    largest = torch.linalg.matrix_norm(f, 2).square()  # the largest eigenvalue of F^T F
    return float(4 * len(f) / largest), float(len(f) / (4 * (f @ text.T).square().sum(0).max()))
