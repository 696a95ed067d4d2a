"""DetPro: prompts that are learned on CLIP's embeddings of boxes, loose and tight, and a ViLD whose words they speak.

Du et al., "Learning to Prompt for Open-Vocabulary Object Detection with Vision-Language Model", arXiv 2203.14940; code:
dyabel/detpro.

A hand-written prompt describes a photograph of an object; a detector sees boxes that cut an object or show none. DetPro learns
continuous contexts on the cached embeddings f_r of proposals and true boxes, first:

    group g of contexts V^g: regions whose IoU with a granted box is in [bound_g, bound_(g+1))         five groups
    t_c^g = n(E_T([V^g_1 ... V^g_M, name_c .]))                                                        (1)
    L_g = ( sum_fg w_y CE(f_r . t^g / tau, y_r) + w_0 sum_bg SCE(f_r . t^g / tau) ) / sum of weights   (2)
    SCE(l) = -1/C_b sum_c log softmax(l)_c      background is no class, so all base classes are equally wrong
    w_c = 1 / frequency of class c among the group's regions, background's counted twice by the number of classes
    t_c = n( sum_g n(t_c^g) )                                                                          (3)

Background are regions with an IoU in [0.1, 0.5), a tenth of them. Each group has its own context, and the sum of the L_g
gives each the gradient that it would have alone. Then the heads of ViLD-ensemble learn with the words (3) (`detection.vild`),
the logits of new classes left out; at test the temperature is 0.007 instead of the 0.01 of training.

What differs from the release: see `dense.region_learner`; a batch of (2) holds the regions of some images instead of 512 drawn
from all, and frequencies are those of all training regions, as there. `hand` is ours: a sentence in place of learned
contexts, for the arm to compare with. Embedded: three groups of four vectors, all of the background.

Dimensions: N images, n regions of an image, R regions, G groups, M vectors of a context, d width of the text tower, C classes,
C_b base classes, e joint width, F features of a region.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import typing
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.boxes import iou
from vlmlab.methods.dense.crops import SHAPES, crop_embeddings
from vlmlab.methods.dense.fusion import geometric
from vlmlab.methods.dense.pseudo_labels import as_labels
from vlmlab.methods.dense.region_learner import EMBEDDED
from vlmlab.methods.detection.vild import ViLD
from vlmlab.methods.method import Batch, option
from vlmlab.methods.text_prompt.prompts import assemble, placeholders, random_vectors
from vlmlab.registry import register

BACKGROUND = (0.1, 0.5)
"""IoU with the nearest granted box, from and below, of a region that shows background."""


@register(
    "detpro",
    title="DetPro: Learning to Prompt for Open-Vocabulary Object Detection with Vision-Language Model",
    paper="arXiv:2203.14940",
    year=2022,
    section="7.1.2",
    family="detection",
    setup="open-vocabulary",
    learns="context vectors by the quality of boxes, heads on regions",
    tasks=("detection",),
    needs=("text tokens",),
)
class DetPro(ViLD):
    """Contexts learned on regions, then ViLD-ensemble."""

    @dataclasses.dataclass
    class Config(ViLD.Config):
        head: str = option("ensemble", "what the head learns from", choices=("vild", "text", "image", "ensemble"))
        n_ctx: int = option(8, "context vectors M of a group", 1, 64)
        bounds: str = option("0.5 0.6 0.7 0.8 0.9", "IoU from which each group begins; the last one ends at 1")
        negatives_share: float = option(0.1, "share of the background regions that contexts learn from", 0.0, 1.0)
        negatives_weight: float = option(1.0, "factor on the weight of background; 0 leaves its term out", 0.0, 100.0)
        tau: float = option(0.01, "temperature of the contexts' loss; 0: the backbone's own", 0.0, 1.0)
        context_epochs: int = option(6, "epochs of the contexts", 1, 1000)
        context_optimizer: str = option("sgd", "optimiser of the contexts", choices=("sgd", "adamw"))
        context_lr: float = option(2e-3, "learning rate of the contexts", 0.0, 10.0)
        sharpen: float = option(1 / 0.7, "factor on the logits at test: 0.01 / 0.007", 0.0, 100.0)
        hand: str = option("", "a sentence with {} in place of learned contexts")
        crop_shape: str = option("centred", "how a box is cut out", choices=SHAPES)
        epochs: int = option(20, "epochs of the heads over the training images", 1, 10000)
        batch_size: int = option(16, "images a step", 1, 4096)
        lr: float = option(0.02, "learning rate of the heads after the warm-up", 0.0, 10.0)
        weight_decay: float = option(2.5e-5, "weight decay", 0.0, 1.0)

    embedded: typing.ClassVar[dict] = EMBEDDED | {
        "scale": 0.0,
        "distill": 2.0,
        "soften": 0.3,
        "sharpen": 1.0,
        "n_ctx": 4,
        "bounds": "0.5 0.7 0.85",
        "negatives_share": 1.0,
        "tau": 0.0,
        "context_epochs": 3,
        "context_optimizer": "adamw",
        "context_lr": 0.01,
    }

    def prepare(self, task) -> None:
        self.bounds = _bounds(self.config.bounds)
        super().prepare(task)
        self.unnamed = 0  # logits of new classes are -1e11 in training, not 0 as in ViLD
        if self.config.hand:
            return
        shape = (len(self.bounds), self.config.n_ctx, self.backbone.text.width)
        noise = torch.Generator().manual_seed(task.seed)
        self.context = nn.Parameter(random_vectors(*shape, generator=noise).to(self.backbone.device))  # [G, M, d]
        self.base_prompts, self.spoken = assemble(self.backbone.text, self.base_names, self._room), None
        self._collect(self.learns_from(task), noise)

    def _collect(self, images, noise: torch.Generator) -> None:
        """Embeddings, labels and groups of the proposals and true boxes of all training images, and the weights of classes."""
        truths = [frame.truth(images.truth(i)) for i, frame in enumerate(self.frames_of)]
        device, base = self.backbone.device, len(self.base)
        known = as_labels(truths, device)
        boxes, true = known.boxes, known.there  # [N, Q, 4], [N, Q]
        place = torch.full((len(self.classes),), base, device=device)
        place[self.base] = torch.arange(base, device=device)
        bank, digest = self.learned, hashlib.sha256(boxes.cpu().numpy().tobytes()).hexdigest()[:16]

        def compute(positions: range) -> dict[str, Tensor]:
            pixels, _ = self.framed([images.images(i) for i in positions])
            own = boxes[positions.start : positions.stop]
            return {"embeddings": crop_embeddings(self.backbone, pixels, own, bank.scales, bank.shape)}

        tight = bank.stored(images, f"objects {digest} {bank.scales} {bank.shape}", compute)["embeddings"]
        overlap, which = (iou(self.regions.boxes, boxes) * true[:, None]).max(-1)  # [N, P]
        labels = place[known.labels]
        self.embeddings = torch.cat([self.regions.embeddings, tight], 1)  # [N, n, e]
        self.overlap = torch.cat([overlap, true.float()], 1)
        labels = torch.cat([labels.gather(1, which), labels], 1)
        there = torch.cat([self.regions.there, true], 1)
        low, high = BACKGROUND
        background = there & (self.overlap >= low) & (self.overlap < high)
        drawn = torch.rand(background.shape, generator=noise).to(device) < self.config.negatives_share
        self.group = grouped(self.overlap, self.bounds).masked_fill(~there, -1)  # [N, n]
        self.group[background & drawn] = len(self.bounds)
        self.label = labels.masked_fill(self.group == len(self.bounds), base)
        self.weights = class_weights(self.group, self.label, len(self.bounds), base)
        self.weights[:, -1] *= self.config.negatives_weight

    @classmethod
    def needs(cls, config) -> tuple[str, ...]:
        return () if config.hand else cls.info.needs

    def stages(self, task) -> list:
        """The contexts, then the heads; the heads alone if the prompt is written by hand."""
        images = self.learns_from(task)
        return [images] if self.config.hand else [images, images]

    @property
    def learns_contexts(self) -> bool:
        """Whether it is the turn of the contexts."""
        return self.stage == 0 and not self.config.hand

    @property
    def planned_epochs(self) -> int:
        return self.config.context_epochs if self.learns_contexts else self.config.epochs

    def optimizer(self, steps: int):
        if not self.learns_contexts:
            return super().optimizer(steps)
        config = self.config
        kind = torch.optim.SGD if config.context_optimizer == "sgd" else torch.optim.AdamW
        optimizer = kind([self.context], 1.0, weight_decay=0.0)
        batches = max(1, steps // config.context_epochs)
        rate = lambda step: config.context_lr / 2 * (1 + math.cos(math.pi * (step // batches) / config.context_epochs))  # noqa: E731
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)

    # --- words -------------------------------------------------------------------------------------------------------

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, [self.config.hand] if self.config.hand else templates)
        self.templates = list(templates)
        self.prompts = None if self.config.hand else assemble(self.backbone.text, classes, self._room)
        self.spoken = None

    @property
    def _room(self) -> str:
        return placeholders(self.config.n_ctx)

    @property
    def text(self) -> Tensor:
        """(3): unit words [C, e] of the classes; before there are contexts, those of the templates."""
        if "context" not in self._parameters:
            return self.written
        if self.spoken is None:
            with torch.no_grad():
                each = F.normalize(self.prompts.features(self.backbone.text, self.context), dim=-1).float()
                self.spoken = ensemble(each)
        return self.spoken

    @text.setter
    def text(self, words: Tensor) -> None:
        self.written = words

    def load_state_dict(self, state, strict: bool = True, assign: bool = False):
        self.spoken = None
        return super().load_state_dict(state, strict, assign)

    # --- learning ----------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Tensor:
        if self.learns_contexts:
            self.spoken = None  # the step that follows changes the contexts
            index = batch.index.to(self.embeddings.device)
            return self.contexts_loss(self.embeddings[index], self.label[index], self.group[index])
        self.base_text = self.text[self.base]
        return super().loss(batch)

    def contexts_loss(self, embeddings: Tensor, labels: Tensor, group: Tensor) -> Tensor:
        """The sum of (2) over the groups: embeddings [..., e], labels [...] and groups [...] of regions."""
        words = F.normalize(self.base_prompts.features(self.backbone.text, self.context), dim=-1)  # [G, C_b, e] (1)
        scale = 1 / self.config.tau if self.config.tau else float(self.backbone.logit_scale)
        used = group >= 0
        logits = scale * torch.einsum("re,gce->grc", embeddings[used], words)
        labels, group = labels[used], group[used]
        total = logits.new_zeros(())
        for g, weights in enumerate(self.weights):
            own = (group == g) | (group == len(self.bounds))
            total = total + graded_loss(logits[g][own], labels[own], weights)
        return total

    def scores(self, features: Tensor) -> Tensor:
        """[..., C] of the features of regions [..., F]: as ViLD's, at the temperature of the test."""
        p = q = None
        if self.config.head != "image":
            soften = self.config.soften if self.config.head == "ensemble" else 1.0
            logits = self.classifier(self.text_head(features), self.text)
            p = (self.config.sharpen * soften * logits).softmax(-1)[..., :-1]
        if self.config.head in ("image", "ensemble"):
            cosines = F.normalize(self.image_head(features), dim=-1) @ self.text.T
            q = (self.config.sharpen * self.scale * cosines).softmax(-1)
        if p is None or q is None:
            return q if p is None else p
        return geometric(p, q, self.is_new)


def _bounds(text: str) -> list[float]:
    """The numbers of `bounds`. Raises `VlmlabError` unless they ascend between 0.5 and 1."""
    try:
        found = [float(word) for word in text.split()]
    except ValueError as error:
        raise VlmlabError(f"setting bounds must be numbers with blanks between, not {text!r}") from error
    if not found or found != sorted(set(found)) or found[0] < 0.5 or found[-1] >= 1:
        raise VlmlabError(f"setting bounds must ascend from 0.5 or more to below 1, and {text!r} does not")
    return found


def grouped(overlap: Tensor, bounds: Sequence[float]) -> Tensor:
    """Group of regions by their IoU [...]: g where it is in [bound_g, bound_(g+1)), and -1 below the first."""
    edges = torch.tensor(list(bounds), device=overlap.device, dtype=overlap.dtype)
    return torch.searchsorted(edges, overlap.contiguous(), right=True) - 1


def class_weights(group: Tensor, labels: Tensor, groups: int, base: int) -> Tensor:
    """w [G, C_b + 1] of (2): 1 / (C_b n_c / n) for a class with n_c of the n regions that a group and background have
    together, 1 / (2 n_0 / n) for background; 1 where nothing is counted. `group` is G where a region is background."""
    negatives = (group == groups).sum()
    counts = torch.stack([labels[group == g].bincount(minlength=base + 1)[: base + 1] for g in range(groups)]).float()
    total = counts.sum(1, keepdim=True) + negatives
    frequency = base * counts / total.clamp_min(1)
    frequency[:, base] = 2 * negatives / total[:, 0].clamp_min(1)
    return torch.where(frequency > 0, 1 / frequency.clamp_min(1e-12), 1.0)


def graded_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """(2) of one group: logits [R, C_b], labels [R] in 0 to C_b (background), weights [C_b + 1]. 0 without a region."""
    base = logits.shape[1]
    weight = weights[labels]
    likelihood = logits.log_softmax(-1)
    named = -likelihood.gather(1, labels.clamp_max(base - 1)[:, None])[:, 0]
    losses = torch.where(labels == base, -likelihood.mean(-1), named)
    return (weight * losses).sum() / weight.sum().clamp_min(1e-12)


def ensemble(words: Tensor) -> Tensor:
    """(3): n( sum_g n(t^g) ) of words [G, C, e]: [C, e]."""
    return F.normalize(F.normalize(words, dim=-1).sum(0), dim=-1)
