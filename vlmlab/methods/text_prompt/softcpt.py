"""SoftCPT: Prompt Tuning with Soft Context Sharing for Vision-Language Models (arXiv:2208.13474, Neurocomputing 2024).

Survey, section 6.3.1. A context that is learned from a few images of one task overfits; related tasks could help, but one
context for all of them would be too stiff, and one for each shares nothing. SoftCPT shares softly: it asks the frozen text encoder
what the *name of the task* means, and a linear map that all tasks have in common turns the answer into the task's context.
Tasks whose names mean similar things get similar contexts.

    u_t = E_T([SOS] a_1 ... a_4 [name of task t] . [EOS])        a learned, shared by the tasks; u not normalised   (1)
    v^t = u_t P,   P [e, M d]                                    the context of task t, as M vectors                (2)
    w_c = n(E_T([SOS] v^t_1 ... v^t_M [name_c] . [EOS]))         for each class c of task t                         (3)
    logits = s f W_t^T,   f = n(E_I(x)),   W_t: the classes of the image's own task                               (4)
    loss = 1/B sum over the batch of -log softmax_y(logits)                                                         (5)

A batch mixes images of all tasks, and each is classified among its own task's classes. There are T + sum_t C_t texts, and
each task's context is encoded once for its classes.

The target is the dataset that is asked for; `companions` names the others (`datasets.multi_task`). A task is called what its
dataset is called. Without companions, one task is learned alone, by the same map: more parameters than CoOp, nothing shared.

This is the variant NATA: no class feature, and tokens a that the tasks share. What differs from the release: its other variants (a
context per class; tokens a per task) are left out; float32; a task's name is its dataset's (there it is read from a file); one
step per batch under one cosine, where the release registers one optimiser and its schedule under three names and so takes three
steps each time; no image is augmented unless training asks for views.

Dimensions: B batch, T tasks, C classes, M context vectors, d text width, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.datasets.multi_task import HELP, MultiTask
from vlmlab.methods.method import Batch, Method, Recipe, option
from vlmlab.methods.text_prompt.prompts import Prompts, assemble, placeholders, random_vectors
from vlmlab.registry import register


@register(
    "softcpt",
    title="SoftCPT: Prompt Tuning with Soft Context Sharing for Vision-Language Models",
    paper="arXiv:2208.13474",
    year=2022,
    section="6.3.1",
    family="text_prompt",
    setup="few-shot",
    learns="a map from the names of several tasks to their contexts",
    needs=("text tokens",),
)
class SoftCPT(Method):
    """Contexts for several tasks, made from their names."""

    @dataclasses.dataclass
    class Config(Recipe):
        companions: str = option("related", HELP)
        n_ctx: int = option(16, "context vectors M of a task", 1, 64)
        task_n_ctx: int = option(4, "learned tokens before the name of a task", 1, 64)

    embedded: ClassVar[dict] = {"optimizer": "adamw", "lr": 0.0005, "epochs": 100, "batch_size": 2048}
    eats = "features"

    def prepare(self, task) -> None:
        tasks = task.tasks if isinstance(task, MultiTask) else [task]
        self.set_classes(task.classes, task.templates)
        text, device = self.backbone.text, self.backbone.device
        # The target's prompts follow `set_classes`; these are the companions', whose classes stay.
        self.others = [self.class_prompts(other.classes) for other in tasks[1:]]
        names = [other.dataset.name.replace("-", " ") for other in tasks]
        self.task_prompts = assemble(text, names, placeholders(self.config.task_n_ctx))
        noise = torch.Generator().manual_seed(task.seed)
        shape = (self.config.task_n_ctx, text.width)
        self.task_context = nn.Parameter(random_vectors(*shape, generator=noise).to(device))  # a
        shape = (self.backbone.embed_dim, self.config.n_ctx * text.width)
        self.projection = nn.Parameter(random_vectors(*shape, generator=noise).to(device))  # P [e, M d]

    def learns_from(self, task):
        return task.together() if isinstance(task, MultiTask) else task.support

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Other classes of the target task, with its context."""
        super().set_classes(classes, templates)
        self.prompts = self.class_prompts(classes)

    def class_prompts(self, classes: Sequence[str]) -> Prompts:
        return assemble(self.backbone.text, classes, placeholders(self.config.n_ctx))

    def contexts(self) -> Tensor:
        """v of (2), [T, M, d]; the target's is the first."""
        u = self.task_prompts.features(self.backbone.text, self.task_context)  # [T, e] (1)
        return (u @ self.projection).unflatten(1, (self.config.n_ctx, -1))

    def class_features(self, prompts: Prompts, context: Tensor) -> Tensor:
        """Unit features w of (3), [C, e]."""
        return F.normalize(prompts.features(self.backbone.text, context), dim=-1)

    def logits(self, batch: Batch) -> Tensor:
        """Scores [B, C] among the classes of the target."""
        w = self.class_features(self.prompts, self.contexts()[0])
        return self.backbone.logit_scale * self.image_features(batch) @ w.T  # (4)

    def loss(self, batch: Batch) -> Tensor:
        f, contexts = self.image_features(batch), self.contexts()
        tasks = torch.zeros_like(batch.labels) if batch.tasks is None else batch.tasks
        total = f.new_zeros(())
        for t in tasks.unique().tolist():  # a small task may be absent from a batch
            own = tasks == t
            w = self.class_features([self.prompts, *self.others][t], contexts[t])
            logits = self.backbone.logit_scale * f[own] @ w.T
            total = total + F.cross_entropy(logits, batch.labels[own], reduction="sum")
        return total / len(f)  # (5)
