"""VCD: Visual Classification via Description from Large Language Models (arXiv:2210.07183, ICLR 2023).

Survey, section 6.3.3. Ask a language model which features tell a class from others, and compare the image with each
feature by itself. The mean decides, and the parts explain: one sees which descriptor spoke for a class and which did not.

    t_c,i = "name_c, which is/has/... descriptor_c,i"                                       (1)
    score_c = mean_i f . n(E_T(t_c,i)),   f = n(E_I(x))      n: to unit length              (2)
    logits = s score

Unlike CuPL's, the mean of the features is not normalised again: a class whose descriptors disagree has a shorter vector.

The connecting word of (1) follows the first letters of a descriptor, as in the release: "which is" before the letter a and
before "used", "which" before has, often, typically, may and can, else "which has". Letters and not words decide, so that
"antennae" become "which is antennae" and "canine teeth" "which canine teeth"; published numbers were made with that. The
word stays where the name comes after the descriptor ("which has green leaves, oak tree"), unless `clause` is off (the
release's apply_descriptor_modification); without a name the release leaves descriptors as they are.

What differs from the release: the scale s, which changes no prediction; no full stop ends a sentence, which the release adds for
ImageNet only. Its baseline is the bare name (zero_shot with templates=name), and a class without descriptors has the one sentence
"name, which has ".

Dimensions: B batch, C classes, D descriptors of all classes together, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.datasets.descriptions import load_descriptions, of_classes
from vlmlab.methods.method import Batch, Method, option
from vlmlab.methods.templates import spoken
from vlmlab.registry import register

STARTS = ("has", "often", "typically", "may", "can")


@register(
    "vcd",
    title="VCD: Visual Classification via Description from Large Language Models",
    paper="arXiv:2210.07183",
    year=2022,
    section="6.3.3",
    family="other",
    setup="zero-shot",
    learns="nothing (a language model's descriptors)",
)
class VCD(Method):
    """The mean similarity to a class's descriptors."""

    @dataclasses.dataclass
    class Config:
        descriptions: str = option(
            "", "a .json file {class: [descriptor, ...]}, or a dataset's name; empty: this one's"
        )
        name: str = option(
            "before", "where the class name stands; nowhere: descriptors alone", choices=("before", "after", "nowhere")
        )
        clause: bool = option(True, "put which is, which has, ... before a descriptor with a name beside it")
        aggregate: str = option("mean", "how the descriptors of a class are joined", choices=("mean", "max", "sum"))

    eats = "features"

    def prepare(self, task) -> None:
        self.descriptors = load_descriptions(
            self.config.descriptions or task.dataset.name,
            "descriptors",
            () if self.config.descriptions else task.dataset.classes,  # a file that is named is no other
        )
        self.set_classes(task.classes, task.templates)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Raises `VlmlabError` if a class has no descriptor; the method then keeps the classes that it had."""
        config, descriptors = self.config, of_classes(self.descriptors, classes)
        texts = [
            sentence(name, d, config.name, config.clause)
            for name, own in zip(spoken(classes), descriptors, strict=True)
            for d in own
        ]
        with torch.no_grad():
            features = F.normalize(self.backbone.encode_text(texts), dim=-1)
        super().set_classes(classes, templates)
        self.own, self.texts, self.features = descriptors, texts, features  # per class; of all together; [D, e]
        counts = torch.tensor([len(own) for own in descriptors])
        self.owner = torch.arange(len(counts)).repeat_interleave(counts)  # the class of each descriptor [D]

    def similarities(self, f: Tensor) -> Tensor:
        """Cosines [B, D] of unit image features f [B, e] with every descriptor."""
        return f @ self.features.T

    def logits(self, batch: Batch) -> Tensor:
        cosines = self.similarities(self.image_features(batch))
        joined = torch.zeros(len(cosines), len(self.classes)).to(cosines)
        how = {"mean": "mean", "sum": "sum", "max": "amax"}[self.config.aggregate]
        owner = self.owner.to(cosines.device).expand_as(cosines)
        return self.backbone.logit_scale * joined.scatter_reduce(1, owner, cosines, how, include_self=False)  # (2)

    @torch.no_grad()
    def explain(self, f: Tensor, c: int) -> list[tuple[str, float]]:
        """(descriptor, cosine with the unit image feature f [e]) of class c, the strongest first."""
        cosines = self.similarities(f[None])[0][self.owner == c].tolist()
        return sorted(zip(self.own[c], cosines, strict=True), key=lambda pair: -pair[1])


def sentence(name: str, descriptor: str, where: str = "before", clause: bool = True) -> str:
    """t of (1): "oak tree, which has green leaves"; `where` "after" gives "which has green leaves, oak tree", and without
    the `clause` "green leaves, oak tree"; "nowhere" gives "green leaves"."""
    if where == "nowhere":
        return descriptor
    if clause:
        verb = "has "
        if descriptor.startswith(("a", "used")):
            verb = "is "
        elif descriptor.startswith(STARTS):
            verb = ""
        descriptor = f"which {verb}{descriptor}"
    return f"{descriptor}, {name}" if where == "after" else f"{name}, {descriptor}"
