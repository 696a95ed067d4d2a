"""VT-CLIP: Enhancing Vision-Language Models with Visual-guided Texts (arXiv:2112.02399, 2021).

Survey, section 6.3.3. A class text is one vector, whatever the image shows. VT-CLIP lets it look at the image before the
two are compared: every class asks the places of the image, by attention, takes in what fits, and keeps its old knowledge as
a residual. CALIP does the same without a learned weight; here the few labelled images teach what to look for.

    q_c = w_c Wq,   k_p = z_p Wk,   v_p = z_p Wv         w_c the class text, z_p the image's place p     (1)
    A = softmax_p(q_c k_p^T / sqrt(e / h))               in each of h heads                                (2)
    t_c = w_c + (A v)_c Wo                               Wo = 0 at first, which is zero-shot prediction    (3)
    logits_c = s f n(t_c)^T,   loss = cross-entropy      f = n(E_I(x)), n: to unit length                  (4)

Places are those of the map in front of the ResNet's attention pool, as in the paper. A ViT has no such map: there, and in
timm's networks, they are the places after the last layer, in the joint space. w and z are brought to mean 0 and deviation 1
over their channels before the projections.

A reconstruction: no code was released, and of the paper only its words on (1) to (4) could be read. Heads, the norms before
the projections, the zero at the start, and the recipe (CoOp's) are this project's choice; a feed-forward part is left out.

Dimensions: B batch, C classes, P places, D width of a place, e joint width, h heads.
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
from vlmlab.randomness import LocalRandom
from vlmlab.registry import register


@register(
    "vt_clip",
    title="VT-CLIP: Enhancing Vision-Language Models with Visual-guided Texts",
    paper="arXiv:2112.02399",
    year=2021,
    section="6.3.3",
    family="other",
    setup="few-shot",
    learns="attention from class texts to the places of the image",
    needs=("local features",),
)
class VTCLIP(Method):
    """Class texts that look at the image before they are compared with it."""

    @dataclasses.dataclass
    class Config(RecipeByShots):
        heads: int = option(8, "attention heads h; the joint width must be a multiple", 1, 64)
        templates: str = option("dataset", HELP)

    embedded: ClassVar[dict] = {"optimizer": "adamw", "lr": 0.0005, "epochs": 15}
    eats = "images"

    def prepare(self, task) -> None:
        self.shots = task.shots
        self.set_classes(task.classes, task.templates)
        e, heads = self.backbone.embed_dim, self.config.heads
        if e % heads:
            raise VlmlabError(
                f"the joint width {e} of {self.backbone.name} is no multiple of {heads} heads; set another"
            )
        image = self.backbone.image
        width = image.width if image.kind == "resnet" else e  # D
        with LocalRandom(task.seed):
            layers = {"q": nn.Linear(e, e, False), "k": nn.Linear(width, e, False), "v": nn.Linear(width, e, False)}
            self.attention = nn.ModuleDict(layers | {"o": nn.Linear(e, e, False)}).to(self.backbone.device)
        nn.init.zeros_(self.attention["o"].weight)
        self.kept: tuple[Tensor, Tensor] | None = None  # of the support images
        if len(task.support):
            chunks = [self.seen(images) for images in self.in_turn(task.support)]
            self.kept = tuple(torch.cat(part) for part in zip(*chunks, strict=True))

    @property
    def planned_epochs(self) -> int:
        return self.config.passes(self.shots)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        sentences = choose(self.config.templates, templates)
        self.classifier = self.backbone.class_embeddings(spoken(classes), sentences)  # w [C, e]

    @torch.no_grad()
    def seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """f [B, e], of unit length, and the places z [B, P, D] of images [B, 3, S, S]."""
        image = self.backbone.image
        if image.kind == "resnet":
            places = image.last_map(images).float()
        else:
            places = image.local_features(images, kind="plain")
        f = F.normalize(self.backbone.encode_image(images), dim=-1)
        return f, places.flatten(2).transpose(1, 2)

    def logits(self, batch: Batch) -> Tensor:
        return self.scores(*self.seen(batch.images))

    def loss(self, batch: Batch) -> Tensor:
        if self.kept is None or not batch.whole:
            return super().loss(batch)
        return F.cross_entropy(self.scores(*(part[batch.index] for part in self.kept)), batch.labels)

    def scores(self, f: Tensor, z: Tensor) -> Tensor:
        """Logits [B, C] of unit features f [B, e] and places z [B, P, D]."""
        texts = F.normalize(self.guided(z)[0], dim=-1)
        return self.backbone.logit_scale * torch.einsum("be,bce->bc", f, texts)  # (4)

    def guided(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The visual-guided texts t [B, C, e], not normalised, and where they looked: A [B, h, C, P]."""
        heads, w, z = self.config.heads, standardised(self.classifier), standardised(z)
        q = self.attention["q"](w).unflatten(-1, (heads, -1)).transpose(0, 1)  # [h, C, e/h] (1)
        k, v = (self.attention[part](z).unflatten(-1, (heads, -1)).transpose(1, 2) for part in "kv")  # [B, h, P, e/h]
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)  # A [B, h, C, P] (2)
        taken = (weights @ v).transpose(1, 2).flatten(2)  # [B, C, e]
        return self.classifier + self.attention["o"](taken), weights  # (3)


def standardised(x: Tensor) -> Tensor:
    """x [..., D] with mean 0 and deviation 1 over the channels."""
    return F.layer_norm(x, x.shape[-1:])
