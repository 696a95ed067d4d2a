"""VP: Exploring Visual Prompts for Adapting Large-Scale Models (arXiv:2203.17274, 2022).

Survey, section 6.3.1. A prompt need not be made of words: here it is a frame of pixels that is added to every image of
a task, learned through the frozen model. Whoever cannot open the model can still adapt it.

    x' = x + P(delta)                                    delta: a border of p pixels, zero inside   (1)
    logits = s n(E_I(x')) W^T,   loss = cross-entropy    n: to unit length                          (2)

The pattern is added behind the normalisation of the pixels, and never clipped. It starts as noise of deviation 1, so
accuracy starts below zero-shot, and the learning rate of 40 is meant. Two variants of the paper learn one square of p x p
pixels, in the upper left corner or at a place drawn again for every batch (in the test, too).

What differs from the release: float32; the classifier is encoded once, the model gets no gradients of its own,
and what is kept is the last pattern (the release keeps the best on the test set); an incomplete last batch of an epoch is left out; in the
test a place follows from the batch, so that two tests agree; a random patch may lie at the lower and at
the right edge, too, which the release's draw leaves out by one pixel.

Dimensions: B batch, C classes, S image side, p width of the border, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch, Method, Recipe, option, rate_by_step
from vlmlab.methods.templates import HELP, choose
from vlmlab.registry import register


@register(
    "vp",
    title="VP: Exploring Visual Prompts for Adapting Large-Scale Models",
    paper="arXiv:2203.17274",
    year=2022,
    section="6.3.1",
    family="visual_prompt",
    setup="supervised",
    learns="a frame of pixels",
)
class VP(Method):
    """A learned pattern that is added to every image."""

    @dataclasses.dataclass
    class Config(Recipe):
        kind: str = option("padding", "what is learned", choices=("padding", "fixed_patch", "random_patch"))
        size: int = option(30, "width p of the border, or side of the patch, in pixels", 1, 512)
        templates: str = option("This is a photo of a {}", HELP)
        epochs: int = option(1000, "epochs of training", 1, 10000)
        batch_size: int = option(256, "training images a step", 1, 4096)
        lr: float = option(40.0, "learning rate after the warm-up", 0.0, 1000.0)
        weight_decay: float = option(0.0, "weight decay", 0.0, 1.0)
        warmup_steps: int = option(1000, "first steps, in which the rate rises in a straight line", 0, 100000)

    # The embedded text towers hardly read the release's sentence (chapter 6.2 measures what it costs).
    embedded: ClassVar[dict] = {
        "templates": "dataset",
        "size": 8,
        "epochs": 40,
        "most_steps": 400,
        "batch_size": 32,
        "warmup_steps": 20,
    }
    eats = "images"

    def prepare(self, task) -> None:
        self.set_classes(task.classes, task.templates)
        side, p = self.backbone.image_size, self.config.size
        if self.config.kind == "padding":
            if 2 * p >= side:
                raise VlmlabError(f"a border of {p} pixels covers an image of {side}; choose less than {side // 2}")
            shapes = {
                "pad_up": (p, side),
                "pad_down": (p, side),
                "pad_left": (side - 2 * p, p),
                "pad_right": (side - 2 * p, p),
            }
        else:
            if p > side:
                raise VlmlabError(f"a patch of {p} pixels is larger than an image of {side}; choose a smaller size")
            shapes = {"patch": (p, p)}
        noise = torch.Generator().manual_seed(task.seed)
        # delta of (1), each part [1, 3, height, width]
        self.delta = nn.ParameterDict(
            {
                name: nn.Parameter(torch.randn(1, 3, *shape, generator=noise).to(self.backbone.device))
                for name, shape in shapes.items()
            }
        )
        # Where the next random patch of training goes: a buffer, so that a run that is resumed goes on with it.
        self.places: Tensor
        self.register_buffer("places", torch.Generator().manual_seed(task.seed).get_state())

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        names = [name.lower().replace("_", " ").replace("-", " ") for name in classes]
        self.classifier = self.backbone.class_embeddings(names, choose(self.config.templates, templates))  # W [C, e]

    def pattern(self, at: tuple[int, int] = (0, 0)) -> Tensor:
        """P(delta) [1, 3, S, S]; `at` is the upper left corner (row, column) of a patch."""
        side, p, d = self.backbone.image_size, self.config.size, self.delta
        if self.config.kind == "padding":
            inside = torch.zeros(1, 3, side - 2 * p, side - 2 * p, device=d["pad_up"].device)
            middle = torch.cat([d["pad_left"], inside, d["pad_right"]], dim=3)
            return torch.cat([d["pad_up"], middle, d["pad_down"]], dim=2)
        row, column = at
        return F.pad(d["patch"], (column, side - p - column, row, side - p - row))

    def place(self, batch: Batch) -> tuple[int, int]:
        """Where a batch has its patch: again at every step of training, and in the test as its first image says."""
        if self.config.kind != "random_patch":
            return 0, 0
        free, draw = self.backbone.image_size - self.config.size, torch.Generator()
        if torch.is_grad_enabled():
            draw.set_state(self.places.cpu())
        else:
            draw.manual_seed(0 if batch.index is None else int(batch.index[0]))
        row, column = torch.randint(0, free + 1, (2,), generator=draw).tolist()
        if torch.is_grad_enabled():
            self.places = draw.get_state()
        return row, column

    def prompted(self, images: Tensor, at: tuple[int, int] = (0, 0)) -> Tensor:
        """x' of (1), [B, 3, S, S]."""
        return images + self.pattern(at)

    def logits(self, batch: Batch) -> Tensor:
        f = F.normalize(self.backbone.encode_image(self.prompted(batch.images, self.place(batch))), dim=-1)
        return self.backbone.logit_scale * f @ self.classifier.T  # [B, C] (2)

    def learning_rate(self, step: int, steps: int) -> float:
        return rate_by_step(step, steps, self.config.lr, self.config.warmup_steps)
