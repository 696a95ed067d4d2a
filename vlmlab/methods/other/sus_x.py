"""SuS-X: Training-Free Name-Only Transfer of Vision-Language Models (arXiv:2211.16198, ICCV 2023).

Survey, section 6.3.3 (not among its systems; what the field built next). Tip-Adapter needs labelled images. SuS-X gets
them from the class names alone, drawn by a generator or retrieved from a heap of unlabelled images, and calls them the
support set. Then it predicts like Tip-Adapter, with a third opinion (TIP-X): images of one class need not lie close
together, but the texts say similar things about them.

    F [n, e] unit features of the support images, L [n, C] their names as one-hot labels                   (1)
    p = softmax(f W^T / T),   q_i = softmax(F_i W^T / T)          what the texts say, T = 0.5, cosines       (2)
    D_i = phi( sum_c p_c log(p_c / q_ic) )                        Kullback-Leibler divergence, rescaled      (3)
    logits = s f W^T + alpha exp(-(beta - beta f F^T)) L - gamma D L,   f = n(E_I(x))                        (4)

phi brings divergences linearly into the range that cosines have.

The support set, by `source`:
- "retrieved" (as SuS-LC, which asks LAION-5B): for every name the unlabelled images of highest cosine with its text. The heap
  here is the task's own training images, a few hundred and all of the right domain, where LAION is anything from the web.
  An image may be retrieved for several names, and for a wrong one.
- "drawn" (as SuS-SD, which asks Stable Diffusion): MicroWorld draws what the name says, objects as photos. It never draws the
  wrong thing, knows names that the backbone has never read, and draws birds or dishes just as the task's images are drawn.
  So gains are an upper end, but for the styles that it is not asked for: there is a gap to sketches and silhouettes.

It sees no label and no test image. What differs from the release: alpha, beta and gamma are fixed, where the release
searches 200,000 triples on labelled validation images and publishes no values (those of the configuration were chosen on the
validation images of some embedded datasets); phi is fixed by the support set instead of by all test images at once, so that
one prediction does not depend on others; all divergences count (the release leaves those of the last images, beyond a multiple
of 100, at 0); W comes from templates, so that the gain over zero-shot prediction is the support set's (`sentences` joins CuPL's,
as the release does); support images are encoded once, without augmentation; the scale s is the backbone's, which is 100 in
CLIP, where the release writes 100.

Dimensions: B batch, C classes, n support images, P images in the heap, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.datasets.descriptions import load_descriptions, of_classes
from vlmlab.datasets.drawn import draw_named
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch, Method, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.registry import register

ROWS_AT_ONCE = 2048  # of the support set with itself: bounds the memory


@register(
    "sus_x",
    title="SuS-X: Training-Free Name-Only Transfer of Vision-Language Models",
    paper="arXiv:2211.16198",
    year=2023,
    section="6.3.3",
    family="other",
    setup="unsupervised",
    learns="nothing (a support set that is drawn or retrieved by name)",
    status="extra",
)
class SuSX(Method):
    """Zero-shot logits, the vote of images found by name, and what the texts say about both."""

    @dataclasses.dataclass
    class Config:
        source: str = option("retrieved", "where the support images come from", choices=("retrieved", "drawn"))
        count: int = option(100, "support images per class (retrieved: at most half of the heap)", 1, 1000)
        alpha: float = option(2.0, "weight of the images' vote", 0.0, 100.0)
        beta: float = option(10.0, "sharpness of the vote", 0.0, 100.0)
        gamma: float = option(0.3, "weight of the likeness of what the texts say", 0.0, 100.0)
        temperature: float = option(0.5, "temperature T of what the texts say", 0.001, 100.0)
        sentences: bool = option(False, "average a language model's sentences with the templates (CuPL)")
        templates: str = option("dataset", HELP)

    embedded: ClassVar[dict] = {"count": 16}
    eats = "features"

    def prepare(self, task) -> None:
        self.seed = task.seed
        self.said = (
            load_descriptions(task.dataset.name, "sentences", task.dataset.classes) if self.config.sentences else {}
        )
        self.heap: Tensor | None = None
        if self.config.source == "retrieved":
            pictures = task.unlabelled
            if not len(pictures):
                raise VlmlabError("there are no unlabelled training images to retrieve from; choose another dataset")
            self.heap = F.normalize(self.encode(pictures), dim=-1)  # [P, e]
        self.set_classes(task.classes, task.templates)

    @torch.no_grad()
    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Other names get a support set of their own; retrieved from the same heap, which may not show them.

        Raises `VlmlabError` for a name that cannot be drawn, or has no sentence; the method then keeps the classes that
        it had.
        """
        sentences = choose(self.config.templates, templates)
        texts = [[sentence.format(name) for sentence in sentences] for name in spoken(classes)]
        if self.config.sentences:
            texts = [own + said for own, said in zip(texts, of_classes(self.said, classes), strict=True)]
        features = F.normalize(self.backbone.encode_text([t for group in texts for t in group]), dim=-1)
        means = [part.mean(0) for part in features.split([len(group) for group in texts])]
        classifier = F.normalize(torch.stack(means), dim=-1)
        support, labels = self._gathered(classes, classifier)
        super().set_classes(classes, templates)  # behind this line nothing is refused
        self.classifier = classifier  # W [C, e]
        self.keys = support  # F [n, e]
        self.values = F.one_hot(labels.to(support.device), len(classes)).to(support)  # L [n, C]
        self.say = self.opinion(support)  # log q [n, C]
        self.cosines, self.divergences = ranges(support, self.say)

    def _gathered(self, classes: Sequence[str], classifier: Tensor) -> tuple[Tensor, Tensor]:
        """The support set (1) of classes with texts [C, e]: unit features [n, e] and labels [n]."""
        if self.config.source == "drawn":
            size = min(self.backbone.image_size, 128)  # MicroWorld is not drawn larger
            pictures = draw_named(spoken(classes), self.config.count, size, self.seed)
            return F.normalize(self.encode(pictures), dim=-1), pictures.labels
        count = min(self.config.count, max(1, len(self.heap) // 2))
        found = (self.heap @ classifier.T).topk(count, 0).indices  # [count, C]
        return self.heap[found.T.flatten()], torch.arange(len(classes)).repeat_interleave(count)

    def opinion(self, f: Tensor) -> Tensor:
        """log p [B, C] of (2) for unit features f [B, e]."""
        return (f @ self.classifier.T / self.config.temperature).log_softmax(-1)

    def logits(self, batch: Batch) -> Tensor:
        f, config = self.image_features(batch), self.config
        vote = (-(config.beta - config.beta * f @ self.keys.T)).exp() @ self.values  # [B, C]
        apart = rescaled(divergence(self.opinion(f), self.say), self.divergences, self.cosines)  # D [B, n] (3)
        zero_shot = self.backbone.logit_scale * f @ self.classifier.T
        return zero_shot + config.alpha * vote - config.gamma * apart @ self.values  # (4)


def ranges(support: Tensor, say: Tensor) -> tuple[Tensor, Tensor]:
    """(lowest, highest) of the cosines and of the divergences among images [n, e] with opinions `say` [n, C]."""
    cosines, divergences = [], []
    for start in range(0, len(support), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        cosines.append((support[rows] @ support.T).aminmax())
        divergences.append(divergence(say[rows], say).aminmax())
    return _span(cosines), _span(divergences)


def _span(blocks: list[tuple[Tensor, Tensor]]) -> Tensor:
    """(lowest, highest) of the lowest and highest of several blocks."""
    lowest, highest = zip(*blocks, strict=True)
    return torch.stack([torch.stack(lowest).min(), torch.stack(highest).max()])


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Kullback-Leibler divergences KL(p_b || q_i), [B, n], of log probabilities p [B, C] and q [n, C]."""
    return (p.exp() * p).sum(-1, keepdim=True) - p.exp() @ q.T


def rescaled(x: Tensor, span: Tensor, target: Tensor) -> Tensor:
    """phi: the straight line that takes `span` (lowest, highest) to `target`."""
    return (x - span[0]) / (span[1] - span[0]).clamp_min(1e-12) * (target[1] - target[0]) + target[0]
