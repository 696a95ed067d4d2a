"""ZSSeg (SimSeg): a simple baseline for open-vocabulary semantic segmentation (arXiv:2112.14757, ECCV 2022).

Survey, section 7.2.2. Two stages. A MaskFormer, taught by masks of seen classes, proposes segments and has an opinion of
their names; a frozen CLIP has another one, of each segment cut out of the image. The first knows the classes that it was
taught, the second all words, and they are multiplied accordingly.

    p = softmax(s [cos(h(z), t_1), ..., cos(h(z), t_C), cos(h(z), b)])     h: two layers, b learned; b is dropped     (1)
    q = softmax(s' cos(f(crop), t_c))     crop: box around (mask > 1/2), outside of it the mean colour               (2)
        1 for all classes where the mask is empty; s' is CLIP's own factor, 100 in the release
    P_c = p_c^w q_c^(1-w) for seen classes, p_c^(1-w) q_c^w for the others                                           (3)
    S_c(x) = sum over segments of P_c sigmoid(mask(x))                                                               (4)

The words t_c come from a prompt that is learned first, on crops of true masks of seen classes: 16 vectors before the
name, cross-entropy of (2). Then the segmenter is trained: cross-entropy + 20 focal + dice, after matching.

What differs from the release, beside what `dense.mask_first` says: in (2) the embedded settings cut squares a quarter
larger than the segment instead of tight stretched boxes, of which MicroCLIP names fewer right; h has hidden width 2 d
in place of 1024; the prompt learns from the crops of (2) without augmentation, painted with zero after normalisation
(the release paints with its unnormalised mean there, in training alone); prompts are not padded to 77.

Dimensions: B images, N segments, C classes, e joint width, d query width, S image side, R crops.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.methods.dense.mask_crops import SHAPES, in_bulk, mask_embeddings
from vlmlab.methods.dense.mask_first import CosineNames, Named
from vlmlab.methods.dense.mask_queries import segments_to_pixels
from vlmlab.methods.dense.naming import fused
from vlmlab.methods.method import Batch, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.methods.text_prompt.prompts import assemble, placeholders, random_vectors
from vlmlab.registry import register


@register(
    "zsseg",
    title="ZSSeg: A Simple Baseline for Open-Vocabulary Semantic Segmentation with a Pre-trained VLM",
    paper="arXiv:2112.14757",
    year=2022,
    section="7.2.2",
    family="segmentation",
    setup="open-vocabulary",
    tasks=("segmentation",),
    learns="a MaskFormer; before it, a text prompt",
    needs=("image blocks", "text tokens"),
)
class ZSSeg(CosineNames):
    """Segments of a MaskFormer, named by it and by CLIP."""

    @dataclasses.dataclass
    class Config(CosineNames.Config):
        scale: float = option(100.0, "factor of the segmenter's cosines", 0.0, 1000.0)
        weight: float = option(0.8, "w: exponent of the segmenter for seen classes, of CLIP for others", 0.0, 1.0)
        ensemble: bool = option(True, "CLIP names segments, too; without it, the segmenter alone does")
        n_ctx: int = option(16, "learned vectors before the name; 0: the templates", 0, 64)
        prompt_steps: int = option(16000, "steps of the prompt", 0, 10**6)
        prompt_lr: float = option(0.02, "learning rate of the prompt", 0.0, 10.0)
        prompt_shots: int = option(32, "crops per class that the prompt learns from", 1, 1000)
        templates: str = option("a sculpture of a {}.", f"without a learned prompt: {HELP}")
        shape: str = option("stretched", "how crops become square", choices=SHAPES)
        expand: float = option(1.0, "side of a crop over that of the segment's box", 0.5, 4.0)

    embedded: ClassVar[dict] = CosineNames.embedded | {
        "scale": 20.0,
        "prompt_steps": 100,
        "prompt_shots": 12,
        "templates": "dataset",
        "shape": "square",
        "expand": 1.25,
    }

    def prepare(self, task) -> None:
        self.register_buffer("context", None)  # [M, width of the text tower], once it is learned
        super().prepare(task)
        self.taught = {self.classes[c] for c in self.seen}
        self.cosine_head()
        if self.config.n_ctx:
            self.context = self.learned_prompt(task)
            self.words = self.unit_words()
        self.words_of_seen = self.words[self.seen]

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Other words for both classifiers; what was learned stays, and classes that were taught are known by their names."""
        super().set_classes(classes, templates)
        self.words = self.unit_words()

    # --- the words ---------------------------------------------------------------------------------------------------

    def unit_words(self) -> Tensor:
        """t_c: unit rows [C, e] of the learned prompt, or of the templates where there is none."""
        if self.context is None:
            return self.backbone.class_embeddings(spoken(self.classes), choose(self.config.templates, self.templates))
        with torch.no_grad():
            return prompted(self.backbone.text, self.classes, self.context)

    def learned_prompt(self, task) -> Tensor:
        """Context vectors [M, width of the text tower], learned by CLIP's cross-entropy on crops of true masks of seen classes."""
        config, device = self.config, self.backbone.device
        drawing = torch.Generator().manual_seed(task.seed)
        features, labels = self.true_crops(task.train, drawing)
        context = random_vectors(config.n_ctx, self.backbone.text.width, generator=drawing)
        context = nn.Parameter(context.to(device))
        optimizer = torch.optim.SGD([context], 1.0, momentum=0.9, weight_decay=5e-4)
        classes = [self.classes[c] for c in self.seen]
        prompts = prompts_of(self.backbone.text, classes, config.n_ctx)
        for step in range(config.prompt_steps if len(labels) else 0):
            for group in optimizer.param_groups:
                group["lr"] = prompt_rate(step, config.prompt_steps, config.prompt_lr)
            drawn = torch.randint(len(labels), (min(len(labels), config.batch_size),), generator=drawing).to(device)
            words = F.normalize(prompts.features(self.backbone.text, context), dim=-1)
            logits = self.backbone.logit_scale * features[drawn] @ words.T
            optimizer.zero_grad()
            F.cross_entropy(logits, labels[drawn]).backward()
            optimizer.step()
        return context.detach()

    def true_crops(self, pictures, drawing: torch.Generator) -> tuple[Tensor, Tensor]:
        """(unit embeddings [R, e], places among the seen classes [R]) of at most `prompt_shots` true segments per class."""
        room, labels = [self.config.prompt_shots] * len(self.seen), []

        def cuts() -> Iterator[tuple[Tensor, Tensor]]:
            for i in torch.randperm(len(pictures), generator=drawing).tolist():
                if not any(room):
                    return
                images, frames = self.framed([pictures.images(i)])
                semantic = frames[0].truth(pictures.truth(i)).semantic.to(images.device)
                places, masks, _ = self.truth(semantic.long())
                chosen = [n for n, k in enumerate(places.tolist()) if room[k]]
                if chosen:
                    for n in chosen:
                        room[int(places[n])] -= 1
                    labels.append(places[chosen])
                    yield images, masks[chosen].unflatten(1, semantic.shape).bool()

        features = in_bulk(self.encoded, cuts())
        if features is None:
            return torch.zeros(0, self.backbone.embed_dim), torch.zeros(0, dtype=torch.long)
        return features, torch.cat(labels)

    # --- the segmenter -----------------------------------------------------------------------------------------------

    def encoded(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """What CLIP sees in masks [B, N, S, S] (bool): (unit embeddings [B, N, e], which masks are not empty [B, N])."""
        return mask_embeddings(self.backbone, images, masks, self.config.expand, self.config.shape)

    def logits(self, batch: Batch) -> Tensor:
        found = self.named(batch.images)
        return segments_to_pixels(found.both, found.masks)  # (4)

    def named(self, images: Tensor) -> Named:
        masks, z = self.propose(images)
        every = self.names(z, self.words).float().softmax(-1)
        p = every[..., :-1]  # (1)
        if not self.config.ensemble:
            return Named(masks, every, None, p)
        q = self.clip_names(images, masks, self.words)  # (2)
        w = self.config.weight
        of_clip = torch.tensor([1 - w if name in self.taught else w for name in self.classes], device=p.device)
        return Named(masks, every, q, fused(p, q, of_clip))  # (3)


def prompts_of(text, classes: Sequence[str], count: int):
    """The class prompts [start | `count` vectors | name . end] without their vectors."""
    return assemble(text, classes, placeholders(count))


def prompted(text, classes: Sequence[str], context: Tensor) -> Tensor:
    """Unit rows [C, e] of the classes behind the context [M, width]."""
    return F.normalize(prompts_of(text, classes, len(context)).features(text, context), dim=-1)


def prompt_rate(step: int, steps: int, lr: float) -> float:
    """A cosine to zero; before it, for the first 160th of the steps, a 200th of the rate."""
    return 0.005 * lr if step < steps // 160 else lr / 2 * (1 + math.cos(math.pi * step / steps))
