"""MVLPT: Multitask Vision-Language Prompt Tuning (arXiv:2211.11720, WACV 2024).

Survey, section 6.3.1. A prompt that starts from noise has to learn from a few images what most tasks have in common. MVLPT
learns it beforehand, from several source tasks at once, and starts every target task from there. What is learned in both
stages is the same set of prompts; the recipe is the same, too.

    source stage: theta_0 random,  theta_S = argmin CE(s f W^T, y),  W: the classes of all source tasks together    (1)
    target stage: start at theta_S,  theta_T = argmin CE(s f W^T, y),  W: the target's classes                      (2)
    f = n(E_I(x; theta)),   W = n(E_T(theta around the names))                                                      (3)

theta is one of four carriers, the setting `carrier`:

    text    M context vectors around the name                                 (MCoOp)
    image   M tokens at the input of every block of the image tower           (MVPT)
    both    UPT: tokens for both towers, mixed by a small transformer         (MUPT)
    cocoop  CoCoOp: M context vectors that a network shifts by the image      (in the release, not in the paper)

In (1) the softmax runs over the classes of all sources, so that an image of one task must also be told from the classes of the
others; with `per_task` it is classified among its own task's.

The sources are the setting `companions` (`datasets.multi_task`), with `companion_shots` images per class; the target is the
dataset that is asked for. Without companions there is no source stage: that is the baseline.

What differs from the release: its `per_task` multiplies the logits of other tasks by 0, which can win; here they are left out. It
averages the prompts of three source runs, and keeps the best of a run by validation; here the source run has the seed of the target
run, and its last step counts. In UPT the tokens do attend to each other (see there; `mixing=alone` is the release's,
`mixing=apart` its PROJECT_METHOD identity). float32; no image is augmented unless training asks for views.

Dimensions: B batch, C classes, S source classes of all tasks, M prompt tokens, L image blocks, d text width, D image width,
e joint width.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.datasets.multi_task import HELP, MultiTask
from vlmlab.methods.method import Batch, Method, Recipe, option
from vlmlab.methods.templates import SETS, spoken
from vlmlab.methods.text_prompt.cocoop import CoCoOp
from vlmlab.methods.text_prompt.coop import CoOp
from vlmlab.methods.text_visual_prompt.upt import MIXINGS, UPT, projection, visual_prompts
from vlmlab.randomness import LocalRandom
from vlmlab.registry import register


@register(
    "mvlpt",
    title="MVLPT: Multitask Vision-Language Prompt Tuning",
    paper="arXiv:2211.11720",
    year=2022,
    section="6.3.1",
    family="text_visual_prompt",
    setup="few-shot",
    learns="text or visual prompts or both, first from source tasks",
    needs=("text tokens", "image tokens"),
)
class MVLPT(Method):
    """Prompts that start from what several source tasks have in common."""

    @dataclasses.dataclass
    class Config(Recipe):
        companions: str = option("related", f"source tasks; {HELP}")
        companion_shots: int = option(16, "labelled images per class of the source tasks", 1, 1000)
        per_task: bool = option(False, "classify a source image among the classes of its own task only")
        carrier: str = option("both", "the prompts", choices=("both", "text", "image", "cocoop"))
        n_ctx: int | None = option(
            None, "prompt tokens M (in every block); none: 4 for both towers and cocoop, 16 for one tower", 1, 64
        )
        visual_ctx: int | None = option(None, "tokens in every image block, with both towers; none: M", 1, 64)
        project: int | None = option(None, "width that visual prompts are learned at; none: the tower's", 1, 4096)
        position: str = option(
            "middle", "where the class name stands; cocoop: at the end", choices=("end", "middle", "front")
        )
        mixing: str = option(
            "together", "what a prompt of UPT attends to: all, or itself; apart: no network", choices=MIXINGS
        )
        epochs: int = option(200, "epochs of training, in each stage", 1, 10000)

    embedded: ClassVar[dict] = {
        "optimizer": "adamw",
        "lr": 0.002,
        "epochs": 15,
        "most_steps": 330,
        "batch_size": 32,
        "companion_shots": 8,
    }

    @classmethod
    def needs(cls, config) -> tuple[str, ...]:
        text = ("text tokens",)
        return {"text": text, "cocoop": text, "image": ("image tokens",)}.get(config.carrier, cls.info.needs)

    def __init__(self, backbone, config=None):
        super().__init__(backbone, config)
        config = self.config
        n_ctx = config.n_ctx or (4 if config.carrier in ("both", "cocoop") else 16)
        if config.carrier == "text":
            self.carrier = CoOp(backbone, CoOp.Config(n_ctx=n_ctx, position=config.position))
        elif config.carrier == "image":
            self.carrier = VisualPrompts(backbone, VisualPrompts.Config(n_ctx, config.project))
        elif config.carrier == "cocoop":
            self.carrier = CoCoOp(backbone, CoCoOp.Config(n_ctx=n_ctx, init=""))
        else:
            same = {name: getattr(config, name) for name in ("position", "mixing", "visual_ctx", "project")}
            self.carrier = UPT(backbone, UPT.Config(n_ctx=n_ctx, **same))
        self.eats = self.carrier.eats

    def prepare(self, task) -> None:
        super().prepare(task)
        self.carrier.prepare(task)  # theta_0, around the target's names
        if isinstance(task, MultiTask):
            names = [name for source in task.companions for name in source.classes]
            # The same parameters with other names around them: a shallow copy, kept out of the module tree.
            among_sources = copy.copy(self.carrier)
            among_sources.set_classes(names, task.templates)
            object.__setattr__(self, "among_sources", among_sources)
            # owner [S]: the number of the task that each source class belongs to; first: where a task's classes begin
            counts = torch.tensor([0, *(len(source.classes) for source in task.companions)])
            device = self.backbone.device
            self.owner = torch.repeat_interleave(torch.arange(len(counts)), counts).to(device)
            self.first = (counts.cumsum(0) - counts).to(device)

    def stages(self, task) -> list:
        """The source stage (1), if there are sources, and the target stage (2)."""
        return [task.sources(), task.support] if isinstance(task, MultiTask) else [task.support]

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        if self.carrier.classes:  # not yet in `prepare`, which does it
            self.carrier.set_classes(classes, templates)

    def logits(self, batch: Batch) -> Tensor:
        """Scores [B, C] among the target's classes."""
        return self.carrier.logits(batch)

    def loss(self, batch: Batch) -> Tensor:
        if batch.tasks is None:
            return F.cross_entropy(self.logits(batch), batch.labels)  # (2)
        logits = self.among_sources.logits(batch)  # [B, S]
        if self.config.per_task:
            logits = logits.masked_fill(self.owner != batch.tasks[:, None], float("-inf"))
        return F.cross_entropy(logits, self.first[batch.tasks] + batch.labels)  # (1)


class VisualPrompts(Method):
    """Tokens at the input of every block of the image tower, behind the first norm; the text is "a photo of a {}."."""

    eats = "images"

    @dataclasses.dataclass
    class Config:
        n_ctx: int = option(16, "prompt tokens M in every block", 1, 64)
        project: int | None = option(None, "width that they are learned at; none: the tower's", 1, 4096)

    def prepare(self, task) -> None:
        self.set_classes(task.classes, task.templates)
        image, noise = self.backbone.image, torch.Generator().manual_seed(task.seed)
        width = self.config.project or image.width
        start = visual_prompts(image, image.depth, self.config.n_ctx, width, noise)
        self.visual = nn.Parameter(start.to(self.backbone.device))  # [L, M, D]
        with LocalRandom(task.seed):
            self.visual_proj = projection(self.config.project, image.width).to(self.backbone.device)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        self.classifier = self.backbone.class_embeddings(spoken(classes), SETS["photo"])  # [C, e]

    def logits(self, batch: Batch) -> Tensor:
        first, *deep = self.visual_proj(self.visual)
        f = F.normalize(self.backbone.image.forward(batch.images, first, deep, behind_norm=True), dim=-1)
        return self.backbone.logit_scale * f @ self.classifier.T  # [B, C]
