"""SubPT: Understanding and Mitigating Overfitting in Prompt Tuning for Vision-Language Models (arXiv:2211.02219, 2023).

Survey, section 6.3.1. Watch a CoOp learn: its first steps find what holds in general, the later ones what holds for these few
images alone, and accuracy bends down. The early path of the context spans a small subspace; SubPT learns a second time, and
allows only steps inside of it.

    v^(1) ... v^(t): contexts after each of the first t epochs of a plain CoOp, flattened                   (1)
    U = first r principal directions of their rows, centred            U [r, M d], orthonormal rows         (2)
    g = grad CE,   g <- U^T U g,   then the usual step                                                      (3)

t and r follow the shots: 10 and 5 for one shot, then 20, 30, 40, 50 epochs and 10 directions for 2, 4, 8, 16. Weight decay
comes after the projection, so the context leaves the subspace a little, as in the release.

The release's optional text-only term, which pulls the features of named new classes to their zero-shot ones (NFL), is there
when `names` lists classes:

    loss = CE + lambda mean_j (1 - cos(w_j, w0_j))                                                          (4)

The path (1) is then that of a CoOp with this loss, and g of (3) its whole gradient. w0 comes from CLIP's 80 sentences and the
dataset's own.

What differs from the release: float32; one run makes the first path and then learns from a fresh start, with the seed's own
batches in both (the release writes the path to disk in a separate run; its scripts name the path's first context as the
second run's start, which its code never reads).

Dimensions: B batch, C classes, M context vectors, d text width, e joint width, t early epochs, r directions.
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
from vlmlab.methods.text_prompt.prompts import assemble, placeholders, random_vectors
from vlmlab.registry import register

BY_SHOTS = ((1, 10, 5), (2, 20, 10), (4, 30, 10), (8, 40, 10), (10**9, 50, 10))
"""(up to so many shots, early epochs t, directions r)."""


@register(
    "subpt",
    title="SubPT: Understanding and Mitigating Overfitting in Prompt Tuning for Vision-Language Models",
    paper="arXiv:2211.02219",
    year=2022,
    section="6.3.1",
    family="text_prompt",
    setup="few-shot",
    learns="context vectors, inside of the early path of CoOp",
    needs=("text tokens",),
)
class SubPT(Method):
    """CoOp whose steps stay in the subspace of its own beginnings."""

    @dataclasses.dataclass
    class Config(RecipeByShots):
        n_ctx: int = option(16, "context vectors M", 1, 64)
        early: int | None = option(None, "epochs t of the first path; none: by shots", 1, 10000)
        rank: int | None = option(None, "directions r that are kept; none: by shots", 1, 10000)
        names: str = option("", "classes without images for (4), separated by commas")
        weight: float = option(1.0, "lambda of (4)", 0.0, 1000.0)
        templates: str = option("imagenet80+dataset", f"of w0 in (4); {HELP}")

    embedded: ClassVar[dict] = {"optimizer": "adamw", "lr": 0.01, "epochs": 60, "early": 15}
    eats = "features"

    def prepare(self, task) -> None:
        self.shots = task.shots
        self.set_classes(task.classes, task.templates)
        names = [name.strip() for name in self.config.names.split(",") if name.strip()]
        self.others = self._prompts(names) if names else None
        if names:
            self.written = self.backbone.class_embeddings(
                spoken(names), choose(self.config.templates, task.templates)
            )  # w0
        noise = torch.Generator().manual_seed(task.seed)
        start = random_vectors(self.config.n_ctx, self.backbone.text.width, generator=noise)
        self.context = nn.Parameter(start.clone().to(self.backbone.device))  # [M, d]
        self.directions = principal_directions(self._early_path(task), self.rank)  # U
        self.context = nn.Parameter(start.to(self.backbone.device))  # from the start again, now inside of the path

    @property
    def planned_epochs(self) -> int:
        return self.config.passes(self.shots)

    @property
    def early(self) -> int:
        """t of (1)."""
        return self.config.early or next(t for most, t, _ in BY_SHOTS if self.shots <= most)

    @property
    def rank(self) -> int:
        """r of (2)."""
        return self.config.rank or next(r for most, _, r in BY_SHOTS if self.shots <= most)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        self.prompts = self._prompts(classes)

    def _prompts(self, classes: Sequence[str]):
        return assemble(self.backbone.text, classes, placeholders(self.config.n_ctx))

    def logits(self, batch: Batch) -> Tensor:
        w = F.normalize(self.prompts.features(self.backbone.text, self.context), dim=-1)
        return self.backbone.logit_scale * self.image_features(batch) @ w.T  # [B, C]

    def loss(self, batch: Batch) -> Tensor:
        task = super().loss(batch)
        return task if self.others is None else task + self.config.weight * self.pull()  # (4)

    def pull(self) -> Tensor:
        """mean_j (1 - cos(w_j, w0_j)) over the named classes without images."""
        w = F.normalize(self.others.features(self.backbone.text, self.context), dim=-1)
        return (1 - (w * self.written).sum(-1)).mean()

    def before_step(self) -> None:
        g = self.context.grad.flatten()
        self.context.grad = (self.directions.T @ (self.directions @ g)).view_as(self.context)  # (3)

    def _early_path(self, task) -> Tensor:
        """The flattened contexts [t, M d] after each of the first t epochs of the same training without (3)."""
        if not len(task.support):
            raise VlmlabError("SubPT learns from images; ask for at least one shot")
        features, labels = self.encode(task.support), task.support.labels.to(self.backbone.device)
        size = min(self.config.batch_size, len(labels))
        self.batches = batches = len(labels) // size
        if min(self.early, self.epochs) < 2:
            raise VlmlabError(
                "a path of one point has no direction to learn in; SubPT needs two epochs and early=2 at least"
            )
        optimizer, schedule = self.optimizer(self.epochs * batches)
        path = []
        for epoch in range(min(self.early, self.epochs)):
            order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(task.seed * 1_000_003 + epoch))
            for k in range(batches):
                index = order[k * size : (k + 1) * size].to(labels.device)
                optimizer.zero_grad()
                self.loss(Batch(features=features[index], labels=labels[index])).backward()
                optimizer.step()
                schedule.step()
            path.append(self.context.detach().flatten().clone())
        return torch.stack(path)


def principal_directions(path: Tensor, rank: int) -> Tensor:
    """U of (2): the `rank` strongest directions [r, n] of the rows of `path` [t, n], centred; fewer if t is smaller."""
    centred = path - path.mean(0)
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    real = int((values > 1e-6 * values[0]).sum())  # centring takes one direction away
    return directions[: min(rank, real)]
