"""RePrompt: Retrieval-Enhanced Visual Prompt Learning for Few-shot Classification (arXiv:2306.02243, 2023).

Survey, section 6.3.1. A learned visual prompt must squeeze all that it saw into a few tokens, the same for every image.
RePrompt keeps the labelled images at hand instead: an image looks up its neighbours in a store, and they help in three
places: they become prompts, they say how hard a training image is, and they vote.

    store: g_i = n(E_I(x_i)), y_i of every support image;   f0 = n(E_I(x)) is the query                     (1)
    a_i = softmax over the k nearest of beta f0 . g_i;   in training an image does not find itself           (2)
    r = sum_i a_i [g_i ; w_(y_i)],   prompts R = MLP(r)   m tokens from image block j0 on                      (3)
    f = n(E_I(x; learned tokens V_1 .. V_L of every block, and R)),   p = softmax(s f W^T)                     (4)
    q_c = sum_i a_i [y_i = c]                                                  the neighbours' vote           (5)
    loss = mean (1 + gamma (-log q_y)) CE(p, y)                                                               (6)
    prediction = lambda q + (1 - lambda) p                                                                    (7)

lambda is chosen on validation images after training. `retrieval=false` is the same prompt without (2), (3), (5) to (7).

No code was released, and of the paper only abstract and introduction could be read here: this is RePrompt in its spirit. A
store of training images that serves prompts, training and prediction is the paper's; the equations (2), (3), (6) and (7) in
detail and all sizes are a reconstruction (the weighting of (6) is that of retrieval prompts in language, RetroPrompt,
arXiv:2205.14704), so published numbers are not expected.

With one shot no neighbour of the right class is left in training; the store then only votes, as (7). For classes other than
those of the store the vote is left out, and the prompts stay.

Dimensions: B batch, C classes, N stored images, k neighbours, n learned and m retrieved tokens, L image blocks, D image
width, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.methods.method import Batch, Method, Recipe, option
from vlmlab.methods.retrieval import Neighbours, Store, interpolated
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.methods.text_prompt.prompts import random_vectors
from vlmlab.randomness import LocalRandom
from vlmlab.registry import register

HARDEST = 5.0  # -log q_y of an image without a neighbour of its class, which would be infinite
SHARES = [step / 20 for step in range(20)]  # lambda is searched among these


@register(
    "reprompt",
    title="RePrompt: Retrieval-Enhanced Visual Prompt Learning for Few-shot Classification",
    paper="arXiv:2306.02243",
    year=2023,
    section="6.3.1",
    family="visual_prompt",
    setup="few-shot",
    learns="deep visual prompts, and a network that makes prompts of retrieved neighbours",
    needs=("image tokens",),
)
class RePrompt(Method):
    """Deep visual prompts that look things up."""

    @dataclasses.dataclass
    class Config(Recipe):
        n_ctx: int = option(8, "learned tokens n of every image block", 1, 64)
        n_retrieved: int = option(4, "tokens m made of the neighbours", 1, 64)
        from_block: int = option(7, "first block with retrieved tokens, j0, counted from 1", 1, 48)
        hidden: int = option(128, "width of the network that makes them", 1, 4096)
        retrieval: bool = option(True, "use the store at all")
        neighbours: int = option(16, "neighbours k", 1, 10000)
        sharpness: float = option(30.0, "beta, sharpness of the neighbours' weights", 0.0, 1000.0)
        gamma: float = option(0.2, "extra weight of hard training images", 0.0, 100.0)
        share: float | None = option(None, "lambda, share of the vote; none: chosen on validation images", 0.0, 1.0)
        templates: str = option("dataset", HELP)

    embedded: ClassVar[dict] = {"batch_size": 16, "optimizer": "adamw", "lr": 0.002, "epochs": 10, "from_block": 4}
    eats = "images"

    def __init__(self, backbone, config=None):
        super().__init__(backbone, config)
        backbone.image.check_prompts("RePrompt", self.config.from_block)

    def prepare(self, task) -> None:
        config, image, e = self.config, self.backbone.image, self.backbone.embed_dim
        features = self.encode(task.support) if len(task.support) else torch.zeros(0, e)
        self.store = Store(features, task.support.labels, len(task.classes))
        self.stored_classes = list(task.classes)
        self.set_classes(task.classes, task.templates)
        self.values = torch.cat([self.store.keys, self.classifier[self.store.labels]], dim=-1)  # [g_i ; w_(y_i)] of (3)
        self.in_training = config.retrieval and task.shots > 1
        self.register_buffer("share", torch.tensor(config.share or 0.0))  # lambda, to be saved with what was learned
        with LocalRandom(task.seed):
            self.visual = nn.Parameter(random_vectors(image.depth, config.n_ctx, image.width))  # V [L, n, D]
            if self.in_training:
                self.maker = nn.Sequential(
                    nn.Linear(2 * e, config.hidden),
                    nn.GELU(),
                    nn.Linear(config.hidden, config.n_retrieved * image.width),
                )
        self.to(self.backbone.device)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """The classifier of these classes, in any order; store and prompts stay, and the store votes for its own classes only."""
        super().set_classes(classes, templates)
        sentences = choose(self.config.templates, templates)
        self.classifier = self.backbone.class_embeddings(spoken(classes), sentences)  # W [C, e]
        self.votes = self.config.retrieval and sorted(classes) == sorted(self.stored_classes)
        self.order = [self.stored_classes.index(name) for name in classes] if self.votes else []

    def look_up(self, f0: Tensor, own: Tensor | None = None) -> Neighbours:
        """(2) for unit features f0 [B, e]; `own` [B] are the places of training images in the store."""
        return self.store.nearest(f0, self.config.neighbours, self.config.sharpness, own)

    def prompted(self, images: Tensor, found: Neighbours) -> Tensor:
        """s f W^T of (4), [B, C]."""
        prompts = list(self.visual)
        if self.in_training:
            made = self.maker(self.store.mean(found, self.values))  # R of (3)
            made = made.unflatten(-1, (self.config.n_retrieved, -1))  # [B, m, D]
            for j in range(self.config.from_block - 1, len(prompts)):
                prompts[j] = torch.cat([prompts[j].expand(len(made), -1, -1), made], dim=1)
        first, *deep = prompts
        f = F.normalize(self.backbone.image.forward(images, first, deep, behind_norm=True), dim=-1)
        return self.backbone.logit_scale * f @ self.classifier.T

    def logits(self, batch: Batch) -> Tensor:
        found = self.look_up(self.image_features(batch))
        logits = self.prompted(batch.images, found)
        if not self.votes:
            return logits
        return interpolated(logits, self.store.probabilities(found)[:, self.order], float(self.share))  # (7)

    def loss(self, batch: Batch) -> Tensor:
        own = batch.index  # none: an image from elsewhere, which is not in the store
        index = None if own is None else own.to(self.store.keys.device)
        f0 = self.store.keys[index] if batch.whole else self.image_features(batch)
        found = self.look_up(f0, index if self.in_training else None)
        each = F.cross_entropy(self.prompted(batch.images, found), batch.labels, reduction="none")
        if self.in_training:
            right = self.store.probabilities(found).gather(1, batch.labels[:, None])[:, 0]  # q_y
            each = each * (1 + self.config.gamma * (-right.log()).clamp_max(HARDEST))  # (6)
        return each.mean()

    @torch.no_grad()
    def finish(self, task) -> None:
        """lambda: the smallest share with the best accuracy on the validation images."""
        if not self.votes or self.config.share is not None or not len(task.val):
            return
        right, labels = torch.zeros(len(SHARES)), task.val.labels.to(self.backbone.device)
        for images in self.in_turn(task.val):
            found = self.look_up(self.image_features(Batch(images=images)))
            logits, votes = self.prompted(images, found), self.store.probabilities(found)
            own, labels = labels[: len(images)], labels[len(images) :]
            for i, share in enumerate(SHARES):
                right[i] += int((interpolated(logits, votes, share).argmax(-1) == own).sum())
        self.share = torch.tensor(SHARES[int(right.argmax())])
