"""Zero-shot prediction with CLIP: Learning Transferable Visual Models From Natural Language Supervision
(arXiv:2103.00020).

Survey, section 3.4.1. A contrastively trained model scores any image against any sentence, so a classifier is a list
of sentences, one or several per class. Several sentences per class are averaged as features, not as predictions, which
makes an ensemble of templates as cheap as one. Nothing is learned: this is the line that every transfer system is
measured against.

    w_c = n( mean_t n(E_T(template_t with name_c)) )    n: to unit length           (1)
    logits = s f W^T,   f = n(E_I(x))                   s: the learned logit scale  (2)

Dimensions: B batch, C classes, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from vlmlab.methods.method import Batch, Method, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.registry import register


@register(
    "zero_shot",
    title="CLIP zero-shot: Learning Transferable Visual Models From Natural Language Supervision",
    paper="arXiv:2103.00020",
    year=2021,
    section="3.4.1",
    family="other",
    setup="zero-shot",
    tasks=("classification", "multi-label classification"),
    learns="nothing",
)
class ZeroShot(Method):
    """Cosine similarity to the class sentences."""

    @dataclasses.dataclass
    class Config:
        templates: str = option("dataset", HELP)

    eats = "features"

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        sentences = choose(self.config.templates, templates)
        self.classifier = self.backbone.class_embeddings(spoken(classes), sentences)  # [C, e] (1)

    def logits(self, batch: Batch) -> Tensor:
        return self.backbone.logit_scale * self.image_features(batch) @ self.classifier.T  # [B, C] (2)
