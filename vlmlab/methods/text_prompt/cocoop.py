"""CoCoOp: Conditional Prompt Learning for Vision-Language Models (arXiv:2203.05557, CVPR 2022).

Survey, section 6.3.1. CoOp's context fits the classes that it saw, and new classes of the same dataset pay for it. CoCoOp
makes the context depend on the image: a small network turns the image's feature into one vector, which shifts every
context vector. What is learned is no longer one prompt but how to prompt.

    f = n(E_I(x)),   pi = relu(f A + a) D + b            the meta-net, e -> e/16 -> d           (1)
    v_m(x) = v_m + pi                                    one shift for all M vectors            (2)
    w_c(x) = n(E_T([SOS] v_1(x) ... v_M(x) [name_c] . [EOS])),   logits_c = s f . w_c(x)        (3)

Every image now has class prompts of its own: B x C texts a batch, which is why the release trains with one image at a
time. Here a prefix is encoded once per image and its classes attend to it, so that whole batches fit; the numbers are
those of one image at a time.

What differs from the release: float32; no image is augmented unless training asks for views.

Dimensions: B batch, C classes, M context vectors, d text width, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.methods.method import Batch, Method, Recipe, option
from vlmlab.methods.text_prompt.prompts import assemble, first_words, random_vectors
from vlmlab.randomness import LocalRandom
from vlmlab.registry import register

PROMPTS_AT_ONCE = 2048  # image-class pairs in one pass without gradients: bounds the memory


@register(
    "cocoop",
    title="CoCoOp: Conditional Prompt Learning for Vision-Language Models",
    paper="arXiv:2203.05557",
    year=2022,
    section="6.3.1",
    family="text_prompt",
    setup="few-shot",
    learns="context vectors and a network that shifts them by the image",
    needs=("text tokens",),
)
class CoCoOp(Method):
    """A context that depends on the image."""

    @dataclasses.dataclass
    class Config(Recipe):
        n_ctx: int = option(4, "context vectors M, if no words are given", 1, 64)
        init: str = option("a photo of a", "words that the context starts from; they set M (empty: random)")
        batch_size: int = option(1, "training images a step", 1, 4096)
        epochs: int = option(10, "epochs of training", 1, 10000)

    embedded: ClassVar[dict] = {"optimizer": "adamw", "lr": 0.02, "epochs": 10, "most_steps": 540, "batch_size": 8}
    eats = "features"

    def prepare(self, task) -> None:
        self.set_classes(task.classes, task.templates)
        d, e = self.backbone.text.width, self.backbone.embed_dim
        with LocalRandom(task.seed):
            start = self.prompts.words.float() if self.config.init else random_vectors(self.config.n_ctx, d)
            net = nn.Sequential(nn.Linear(e, e // 16), nn.ReLU(), nn.Linear(e // 16, d))
        self.context = nn.Parameter(start.clone().to(self.backbone.device))  # v [M, d]
        self.meta_net = net.to(self.backbone.device)  # (1)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        words = first_words(self.config.init, self.config.n_ctx)
        self.prompts = assemble(self.backbone.text, classes, words)

    def class_features(self, f: Tensor) -> Tensor:
        """Unit class features [B, C, e] for each of the unit image features f [B, e]."""
        shifted = self.context + self.meta_net(f)[:, None]  # v(x) [B, M, d] (2)
        return F.normalize(self.prompts.features(self.backbone.text, shifted), dim=-1)

    def logits(self, batch: Batch) -> Tensor:
        f = self.image_features(batch)
        at_once = len(f) if torch.is_grad_enabled() else max(1, PROMPTS_AT_ONCE // len(self.classes))
        w = ((part, self.class_features(part)) for part in f.split(at_once))
        return self.backbone.logit_scale * torch.cat([torch.einsum("be,bce->bc", part, own) for part, own in w])  # (3)
