"""CoOp: Learning to Prompt for Vision-Language Models (arXiv:2109.01134, IJCV 2022).

Survey, section 6.3.1. Which words stand around a class name moves zero-shot accuracy by points, and nobody knows the
best ones. CoOp makes the words continuous: M free vectors in the space of word embeddings, fitted by cross-entropy
through the frozen text encoder. A task is then stored in M x d numbers.

    t_c = [SOS] v_1 ... v_M [name_c] . [EOS]            one context for all classes, or v^c per class (CSC)   (1)
    w_c = n(E_T(t_c)),   f = n(E_I(x))                  n: to unit length                                    (2)
    logits = s f W^T,   loss = cross-entropy                                                                 (3)

The name may also stand in the middle of the context or in front of it. With the name at the end, a context that all
classes share is encoded once instead of C times: same numbers, same gradients.

In the release the epochs follow the shots, but ImageNet has 50 always. On base and new classes, and on other datasets, its
authors start CoOp from "a photo of a" with M = 4 (CoCoOp, arXiv:2203.05557, section 4 and the configuration whose name ends in
ctxv1): so do the protocols base-to-new and cross-dataset here, unless `init` ("" for M vectors of noise), another `n_ctx` or `csc` is set.

What differs from the release: float32 instead of half precision; no image is augmented unless training asks for
views; if a word of `init` is several tokens, all of them learn (there, as many tokens as there are words).

Dimensions: B batch, C classes, M context vectors, d text width, e joint width, L prompt length.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.methods.method import Batch, Method, RecipeByShots, option
from vlmlab.methods.text_prompt.prompts import assemble, first_words, random_vectors
from vlmlab.registry import register


@register(
    "coop",
    title="CoOp: Learning to Prompt for Vision-Language Models",
    paper="arXiv:2109.01134",
    year=2022,
    section="6.3.1",
    family="text_prompt",
    setup="few-shot",
    learns="context vectors",
    needs=("text tokens",),
)
class CoOp(Method):
    """M learned vectors in place of the words around the class name."""

    @dataclasses.dataclass
    class Config(RecipeByShots):
        n_ctx: int = option(16, "context vectors M", 1, 64)
        init: str = option("", "words that the context starts from, such as 'a photo of a'; they set M and are shared")
        csc: bool = option(False, "class-specific contexts")
        position: str = option("end", "where the class name stands", choices=("end", "middle", "front"))

    embedded: ClassVar[dict] = {"optimizer": "adamw", "lr": 0.01, "epochs": 60}
    by_protocol: ClassVar[dict] = {"base-to-new": {"init": "a photo of a"}, "cross-dataset": {"init": "a photo of a"}}
    start_implies: ClassVar[dict] = {"n_ctx": 4, "csc": False}
    eats = "features"

    def prepare(self, task) -> None:
        self.shots = task.shots
        self.learned_on: list[str] = list(task.classes)
        self.set_classes(task.classes, task.templates)
        config, d = self.config, self.backbone.text.width
        if config.init:
            start = self.prompts.words.float()  # as in the release, words are shared by the classes whatever csc says
        else:
            shape = (len(self.classes), config.n_ctx, d) if config.csc else (config.n_ctx, d)
            start = random_vectors(*shape, generator=torch.Generator().manual_seed(task.seed))
        self.context = nn.Parameter(start.to(self.backbone.device))  # [M, d], or [C, M, d] if class-specific

    @property
    def planned_epochs(self) -> int:
        return self.config.passes(self.shots)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """The prompts of other classes, with the same learned context.

        Raises `VlmlabError` for class-specific contexts, which mean nothing for other classes.
        """
        if self.config.csc and not self.config.init:
            self.refuse_other_classes(
                classes, "class-specific contexts cannot move to other classes; use CoOp with csc=false for them"
            )
        super().set_classes(classes, templates)
        words = first_words(self.config.init, self.config.n_ctx)
        self.prompts = assemble(self.backbone.text, classes, words)
        m = len(self.prompts.words)
        before = {"end": m, "middle": m // 2, "front": 0}[self.config.position]  # context vectors ahead of the name
        self.order = self.prompts.order(before)

    def class_features(self) -> Tensor:
        """E_T(t_c) of (1): [C, e], not normalised."""
        text, prompts = self.backbone.text, self.prompts
        if self.config.position == "end" and self.context.dim() == 2:
            return prompts.features(text, self.context)
        return prompts.features_around(text, self.context, self.order)

    def logits(self, batch: Batch) -> Tensor:
        w = F.normalize(self.class_features(), dim=-1)  # [C, e] (2)
        return self.backbone.logit_scale * self.image_features(batch) @ w.T  # [B, C] (3)
