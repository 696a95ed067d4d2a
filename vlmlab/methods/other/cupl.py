"""CuPL: What does a platypus look like? Generating customized prompts for zero-shot image classification (arXiv:2209.03320, ICCV 2023).

Survey, section 6.3.3. Templates say the same about every class. A language model, asked what a class looks like, says what sets
it apart; its sentences take the place of the templates. Nothing is trained and no image is needed.

    w_c = n(mean_i n(E_T(sentence_c,i)))                 sentences of class c, as many as there are     (1)
    logits = s f W^T,   f = n(E_I(x))                    n: to unit length                              (2)

With `both`, the templates join the sentences in one mean, so that each side weighs by its number.

What differs from the release: the scale s of (2), which changes no prediction. The sentences that come with vlmlab are few
(data/descriptions); the published files load, too.

Dimensions: B batch, C classes, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.datasets.descriptions import load_descriptions, of_classes
from vlmlab.methods.method import Batch, Method, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.registry import register


@register(
    "cupl",
    title="CuPL: Generating customized prompts for zero-shot image classification",
    paper="arXiv:2209.03320",
    year=2022,
    section="6.3.3",
    family="other",
    setup="zero-shot",
    learns="nothing (a language model's sentences)",
)
class CuPL(Method):
    """Sentences of a language model in place of templates."""

    @dataclasses.dataclass
    class Config:
        descriptions: str = option("", "a .json file {class: [sentence, ...]}, or a dataset's name; empty: this one's")
        both: bool = option(False, "average sentences and templates together")
        templates: str = option("dataset", HELP)

    eats = "features"

    def prepare(self, task) -> None:
        self.sentences = load_descriptions(
            self.config.descriptions or task.dataset.name,
            "sentences",
            () if self.config.descriptions else task.dataset.classes,  # a file that is named is no other
        )
        self.set_classes(task.classes, task.templates)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Raises `VlmlabError` if a class has no sentence; the method then keeps the classes that it had."""
        said = of_classes(self.sentences, classes)
        if self.config.both:
            own = choose(self.config.templates, templates)
            said = [[*s, *(t.format(name) for t in own)] for s, name in zip(said, spoken(classes), strict=True)]
        with torch.no_grad():
            features = F.normalize(self.backbone.encode_text([s for group in said for s in group]), dim=-1)
        means = [part.mean(0) for part in features.split([len(group) for group in said])]
        super().set_classes(classes, templates)
        self.classifier = F.normalize(torch.stack(means), dim=-1)  # W [C, e] (1)

    def logits(self, batch: Batch) -> Tensor:
        return self.backbone.logit_scale * self.image_features(batch) @ self.classifier.T  # [B, C] (2)
