"""ProTeCt: Prompt Tuning for Taxonomic Open Set Classification (arXiv:2306.02240, CVPR 2024).

Survey, section 6.3.1. A robin is a bird is an animal, and one may be asked at any of these levels. A prompt that was tuned on
the leaves answers well there and contradicts itself above: "robin", but not "bird". ProTeCt tunes the same prompt on label
sets from all over the class tree, so that it stays right wherever it is asked.

    w_A = n(E_T([SOS] v_1 ... v_M [name] . [EOS])) for the names of a label set A,  logits_A = s f w_A^T      (1)
    L_cut  = CE(logits_A, the name in A that the image's class lies below),  A a random cut of the tree     (2)
    L_node = mean over nodes n of the mean over the images below n of CE(logits_A, ...),  A the children of n   (3)
    loss = L_cut + lambda L_node                                                                              (4)

A random cut closes every inner node but the root with probability `drop`; a closed node answers for all below it. In (3)
nodes count equally, as far as the batch has an image below them. What is learned is CoOp's context; at test time any
list of names is scored by (1).

All label sets are taken from the same names, so each name is encoded once per step and every label set is a choice of
columns: same numbers, same gradients.

What differs from the release: float32; no MaPLe as a host; an incomplete last batch is left out. The release moves its cosine
schedule once per step although its period counts epochs, so that the rate swings; `schedule` "step" does the same, "epoch"
is the field's.

Dimensions: B batch, C classes, A names of a label set, N inner nodes, D most children of a node, M context vectors, d text
width, e joint width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.datasets.hierarchy import LabelSet
from vlmlab.methods.method import Batch, Method, Recipe, option
from vlmlab.methods.text_prompt.prompts import Prompts, assemble, placeholders, random_vectors
from vlmlab.registry import register


@register(
    "protect",
    title="ProTeCt: Prompt Tuning for Taxonomic Open Set Classification",
    paper="arXiv:2306.02240",
    year=2023,
    section="6.3.1",
    family="text_prompt",
    setup="few-shot",
    tasks=("classification", "hierarchical classification"),
    learns="context vectors, on label sets from all over a class tree",
    needs=("text tokens",),
)
class ProTeCt(Method):
    """CoOp's context, asked at every level of a hierarchy."""

    @dataclasses.dataclass
    class Config(Recipe):
        n_ctx: int = option(16, "context vectors M", 1, 64)
        hierarchy: str = option("", "a JSON file {node: [child, ...]}; empty: the dataset's own tree")
        drop: float = option(0.1, "probability that a random cut closes a node", 0.0, 1.0)
        weight: float = option(0.5, "lambda, the weight of the nodes' loss", 0.0, 1000.0)
        schedule: str = option("step", "what the cosine's period counts against", choices=("step", "epoch"))
        batch_size: int = option(128, "training images a step", 1, 4096)
        epochs: int = option(200, "epochs of training", 1, 10000)
        lr: float = option(0.02, "learning rate after the warm-up", 0.0, 10.0)
        momentum: float = option(0.0, "momentum of SGD", 0.0, 1.0)
        weight_decay: float = option(0.0, "weight decay", 0.0, 1.0)
        warmup_lr: float = option(1e-3, "learning rate of the warm-up", 0.0, 1.0)

    # Rate and epochs were chosen on validation images of vehicles, scenes and objects (4 and 16 shots, two seeds), by
    # consistency and accuracy on cuts, which went on rising after CoOp's 60 epochs.
    embedded: ClassVar[dict] = {
        "optimizer": "adamw",
        "lr": 0.01,
        "epochs": 120,
        "most_steps": 1640,
        "batch_size": 32,
        "schedule": "epoch",
        "warmup_lr": 1e-5,
    }
    eats = "features"

    def prepare(self, task) -> None:
        self.tree = task.hierarchy(self.config.hierarchy)
        self.set_classes(task.classes, task.templates)
        # The names that training asks for: the leaves in label order, then the inner nodes but the root.
        self.names = [*self.tree.classes, *self.tree.inner[1:]]
        self.column = {name: i for i, name in enumerate(self.names)}
        self.all_prompts = self.prompts_of(self.names)
        sets = [self.tree.below(node) for node in self.tree.inner]
        most, device = max(len(one.names) for one in sets), self.backbone.device
        # For (3): the columns of every node's children [N, D], padded with -1, and the right child of each class [N, C].
        self.children = torch.tensor(
            [[*map(self.column.get, one.names), *[-1] * (most - len(one.names))] for one in sets], device=device
        )
        self.branch = torch.stack([one.of_class for one in sets]).to(device)
        noise = torch.Generator().manual_seed(task.seed)
        start = random_vectors(self.config.n_ctx, self.backbone.text.width, generator=noise)
        self.context = nn.Parameter(start.to(device))  # v [M, d]

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Any names, of leaves or of nodes, or of another dataset; the learned context stays."""
        super().set_classes(classes, templates)
        self.prompts = self.prompts_of(classes)

    def prompts_of(self, names: Sequence[str]) -> Prompts:
        return assemble(self.backbone.text, names, placeholders(self.config.n_ctx))

    def scores(self, batch: Batch, prompts: Prompts) -> Tensor:
        """Logits [B, A] of (1)."""
        w = F.normalize(prompts.features(self.backbone.text, self.context), dim=-1)
        return self.backbone.logit_scale * self.image_features(batch) @ w.T

    def logits(self, batch: Batch) -> Tensor:
        return self.scores(batch, self.prompts)

    def loss(self, batch: Batch) -> Tensor:
        every = self.scores(batch, self.all_prompts)  # [B, all names]
        cut = self.tree.cut(self.config.drop)
        return self.cut_loss(every, batch.labels, cut) + self.config.weight * self.node_loss(every, batch.labels)  # (4)

    def cut_loss(self, every: Tensor, labels: Tensor, cut: LabelSet) -> Tensor:
        """L_cut of (2) for logits of all names."""
        columns = [self.column[name] for name in cut.names]
        return F.cross_entropy(every[:, columns], cut.of_class.to(labels.device)[labels])

    def node_loss(self, every: Tensor, labels: Tensor) -> Tensor:
        """L_node of (3) for logits of all names."""
        logits = every[:, self.children].masked_fill(self.children < 0, float("-inf"))  # [B, N, D]
        right = self.branch[:, labels].T  # [B, N], -1 where the image does not lie below the node
        losses = F.cross_entropy(logits.flatten(0, 1), right.flatten(), ignore_index=-1, reduction="none")
        below = (right >= 0).sum(0)  # [N]
        return (losses.view_as(right).sum(0)[below > 0] / below[below > 0]).mean()

    def learning_rate(self, step: int, steps: int) -> float:
        """The field's, or the release's: one warm-up step, then a cosine over steps whose period is twice the epochs."""
        config = self.config
        if config.schedule == "epoch":
            return super().learning_rate(step, steps)
        if step < config.warmup_epochs:
            return config.warmup_lr
        return config.lr / 2 * (1 + math.cos(math.pi * (step - config.warmup_epochs) / self.epochs))
