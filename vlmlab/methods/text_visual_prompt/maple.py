"""MaPLe: Multi-modal Prompt Learning (arXiv:2210.03117, CVPR 2023).

Survey, section 6.3.1. Prompts in only one encoder leave the other where it was. MaPLe puts n learned tokens into the
first J layers of both, and does not learn the visual ones freely: each layer's are a linear image of the text ones, so
that the gradients of both branches meet in the same text tokens.

    text, block 1:        [SOS] P_0  of a name_c . [EOS]    P_0 [n, d] starts as the words "a photo"     (1)
    text, block j+1:      the prompt's rows become P_j      j = 1 .. J-1, free tokens, no positions      (2)
    image, block 1:       [CLS] patches  F_0(P_0)           appended last, after positions               (3)
    image, block j+1:     the last n tokens become F_j(P_j)      F_j: linear, d to the image's width D   (4)
    logits = s n(E_I) n(E_T)^T,   loss = cross-entropy                                                   (5)

`coupling` cuts the tie for the paper's ablations: "independent" has free tokens V_j in place of F_j(P_j) (IVLP),
"language" prompts only the text, "vision" only the image, with the sentence "a photo of a {}.".

What differs from the release: float32, where the release rounds prompts to half precision at insertion; the
widths are the backbone's instead of 512 and 768.

Dimensions: B batch, C classes, n prompt tokens, J layers with prompts, d text width, D image width, e joint width.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch, Method, Recipe, option
from vlmlab.methods.templates import SETS, spoken
from vlmlab.methods.text_prompt.prompts import assemble, placeholders, random_vectors
from vlmlab.registry import register

WORDS = "a photo of a"


@register(
    "maple",
    title="MaPLe: Multi-modal Prompt Learning",
    paper="arXiv:2210.03117",
    year=2023,
    section="6.3.1",
    family="text_visual_prompt",
    setup="few-shot",
    learns="deep text prompts and their projections to the image tower",
    needs=("text tokens", "image tokens"),
)
class MaPLe(Method):
    """Deep prompts in both towers, the visual ones derived from the text ones."""

    @dataclasses.dataclass
    class Config(Recipe):
        n_ctx: int = option(2, "prompt tokens n", 1, 16)
        depth: int = option(9, "layers with prompts J", 1, 48)
        coupling: str = option(
            "coupled", "tie between the towers", choices=("coupled", "independent", "language", "vision")
        )
        vision_n_ctx: int | None = option(None, "visual tokens where they are free; none: as many as n_ctx", 1, 64)
        vision_depth: int | None = option(None, "layers with free visual tokens; none: depth", 1, 48)
        epochs: int = option(5, "epochs of training", 1, 10000)
        batch_size: int = option(4, "training images a step", 1, 4096)
        lr: float = option(0.0035, "learning rate after the warm-up", 0.0, 10.0)

    embedded: ClassVar[dict] = {"depth": 3, "batch_size": 8, "optimizer": "adamw", "lr": 0.005, "epochs": 6}

    def __init__(self, backbone, config=None):
        super().__init__(backbone, config)
        config = self.config
        self.in_text = config.coupling != "vision"
        self.in_image = config.coupling != "language"
        self.eats = "images" if self.in_image else "features"
        coupled = config.coupling == "coupled"
        self.vision_n = config.n_ctx if coupled else config.vision_n_ctx or config.n_ctx
        self.vision_depth = config.depth if coupled else config.vision_depth or config.depth
        self._check_towers()

    @classmethod
    def needs(cls, config) -> tuple[str, ...]:
        return {"language": ("text tokens",), "vision": ("image tokens",)}.get(config.coupling, cls.info.needs)

    def prepare(self, task) -> None:
        self.set_classes(task.classes, task.templates)
        config, device = self.config, self.backbone.device
        generator = torch.Generator().manual_seed(task.seed)
        d, width = self.backbone.text.width, self.backbone.image.width

        def tokens(n: int, size: int) -> nn.Parameter:
            return nn.Parameter(random_vectors(n, size, generator=generator).to(device))

        def linear() -> nn.Linear:
            layer, bound = nn.Linear(d, width), d**-0.5
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
            return layer.to(device)

        if self.in_text:
            self.context = tokens(config.n_ctx, d)  # P_0
            if config.n_ctx <= 4:
                self.context.data = self.prompts.words.float().clone()
            # P_1 .. P_{J-1}
            self.deep_text = nn.ParameterList(tokens(config.n_ctx, d) for _ in range(config.depth - 1))
        if config.coupling == "coupled":
            # F_0, then F_1 .. F_{J-1}, which start as copies of one random layer.
            first, deep = linear(), linear()
            self.projections = nn.ModuleList([first, *(copy.deepcopy(deep) for _ in range(config.depth - 1))])
        elif self.in_image:
            self.visual = nn.ParameterList(tokens(self.vision_n, width) for _ in range(self.vision_depth))  # V_0 ..

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """The prompts of other classes around the same learned tokens."""
        super().set_classes(classes, templates)
        n = self.config.n_ctx
        if self.in_text:
            words = WORDS if n <= 4 else placeholders(n)
            self.prompts = assemble(self.backbone.text, classes, words, learned=n)  # "of a" stay as frozen words
        else:
            self.classifier = self.backbone.class_embeddings(spoken(classes), SETS["photo"])

    def visual_prompts(self) -> list[Tensor]:
        """The visual tokens of every prompted layer, each [n, D]: F_j(P_j) of (3) and (4), or the free V_j."""
        if self.config.coupling == "coupled":
            text = [self.context, *self.deep_text]
            return [project(prompt) for project, prompt in zip(self.projections, text, strict=True)]
        return list(self.visual)

    def logits(self, batch: Batch) -> Tensor:
        if self.in_text:
            features = self.prompts.features(self.backbone.text, self.context, deep=list(self.deep_text))  # (1), (2)
            w = F.normalize(features, dim=-1)  # [C, e]
        else:
            w = self.classifier
        if self.in_image:
            first, *deep = self.visual_prompts()
            f = F.normalize(self.backbone.image.forward(batch.images, first, deep), dim=-1)  # [B, e] (3), (4)
        else:
            f = self.image_features(batch)
        return self.backbone.logit_scale * f @ w.T  # [B, C] (5)

    def _check_towers(self) -> None:
        """Raises `VlmlabError` if a tower has fewer layers than are asked for."""
        image, text, name = self.backbone.image, self.backbone.text, self.backbone.name
        for prompted, depth, tower, which in (
            (self.in_text, self.config.depth, text, "text"),
            (self.in_image, self.vision_depth, image, "image"),
        ):
            if prompted and depth > tower.depth:
                raise VlmlabError(f"the {which} tower of {name} has {tower.depth} layers; use a depth of at most that")
