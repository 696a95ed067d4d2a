"""CLIP-Adapter: Better Vision-Language Models with Feature Adapters (arXiv:2110.04544, IJCV 2023).

Survey, section 6.3.2. Instead of the prompt, the image's feature is adapted, behind the frozen encoder: a small
bottleneck of two layers learns what the task needs, and a fixed share r of its output is mixed into the old feature, so
that a few images cannot wipe out what pretraining knew.

    h = E_I(x),   a = relu(relu(h V1) V2)                h is not normalised                 (1)
    f = n(r a + (1 - r) h)                               n: to unit length                   (2)
    logits = s f W^T,   loss = cross-entropy             W: the zero-shot classifier         (3)

The mixture comes before the normalisation, so how much r = 0.2 means depends on how long a is beside h: at the start much
shorter. (Without biases a grows with h, so that the length of h itself drops out.) The second relu makes the addition
non-negative; the release has it, and so has this file.

What differs from the release: float32; the width of the bottleneck follows the backbone (the release writes 1024 for
RN50). The adapter on the text side that the paper describes as well is in no release and not here.

Dimensions: B batch, C classes, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.methods.method import Batch, Method, RecipeByShots, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.randomness import LocalRandom
from vlmlab.registry import register


@register(
    "clip_adapter",
    title="CLIP-Adapter: Better Vision-Language Models with Feature Adapters",
    paper="arXiv:2110.04544",
    year=2021,
    section="6.3.2",
    family="adapter",
    setup="few-shot",
    learns="a bottleneck of two layers behind the image encoder",
)
class CLIPAdapter(Method):
    """A residual bottleneck on image features."""

    @dataclasses.dataclass
    class Config(RecipeByShots):
        ratio: float = option(0.2, "share r of the adapted feature in the mixture", 0.0, 1.0)
        reduction: int = option(4, "how many times narrower the bottleneck is", 1, 64)
        templates: str = option("dataset", HELP)

    embedded: ClassVar[dict] = {"optimizer": "adamw", "lr": 0.02, "epochs": 60}
    eats = "features"

    def prepare(self, task) -> None:
        self.shots = task.shots
        self.set_classes(task.classes, task.templates)
        e = self.backbone.embed_dim
        with LocalRandom(task.seed):
            narrow, wide = (
                nn.Linear(*s, bias=False) for s in ((e, e // self.config.reduction), (e // self.config.reduction, e))
            )
        self.narrow, self.wide = narrow.to(self.backbone.device), wide.to(self.backbone.device)  # V1, V2 of (1)

    @property
    def planned_epochs(self) -> int:
        return self.config.passes(self.shots)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        sentences = choose(self.config.templates, templates)
        self.classifier = self.backbone.class_embeddings(spoken(classes), sentences)  # W [C, e]

    def adapted(self, h: Tensor) -> Tensor:
        """Unit features [B, e] of features h [B, e] that are not normalised."""
        a = F.relu(self.wide(F.relu(self.narrow(h))))  # (1)
        return F.normalize(self.config.ratio * a + (1 - self.config.ratio) * h, dim=-1)  # (2)

    def logits(self, batch: Batch) -> Tensor:
        h = batch.features
        if h is None:
            with torch.no_grad():
                h = self.backbone.encode_image(batch.images)
        return self.backbone.logit_scale * self.adapted(h) @ self.classifier.T  # [B, C] (3)
