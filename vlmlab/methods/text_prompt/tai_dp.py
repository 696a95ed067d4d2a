"""TaI-DP: Texts as Images in Prompt Tuning for Multi-Label Image Recognition (arXiv:2211.12739, CVPR 2023).

Survey, section 6.3.1. In CLIP's space a sentence lies near the images that it describes. So sentences can stand in for
images: prompts are learned on captions, whose labels are the nouns in them, and used on images. Captions cost nothing,
and say several things at once, as images show them. Two contexts are learned: one is compared with the whole, the other
with the parts (words of a sentence, places of an image), so that a small thing is not lost in the whole.

    h = n(E_T(caption)),  H_l = n(E_T(caption)_l)     feature of the sentence, and of each of its words   (1)
    z_g = 4 h W_g^T,  c = H W_l^T                     W_g, W_l [C, e] unit features of the two prompts    (2)
    z_l = 4 sum_l a_l c_l,  a = softmax_l(t c)        t = 50 over words, 40 over places                   (3)
    loss = rank(z_g) + rank(z_l),
    rank(z) = mean_B sum_(i there, j not) max(0, 1 - z_i + z_j)                                           (4)

In place of rank, the release also has the sigmoid cross-entropy and the asymmetric loss of DualCoOp (`loss`: sigmoid, asl),
both as means over [B, C]; contexts of every class's own (`csc`); and factors that are learned as exponentials, from e^3 on
(`learn_scale` for the 4 of (2) and (3), `learn_t` for t, then one and the same over words and places).

An image takes the place of the caption with its global feature for h and its local features for H; its score is
(z_g + z_l) / 2. As in the release, start and end token count as words, and in a ResNet neither feature has seen the
attention pool's positions.

What differs from the release: captions come from scenes of MicroWorld, or from a text file, where the release has those of COCO
and OpenImages; nouns are found by their name and plural, where it has a lemmatiser and a list of synonyms; the last epoch is
kept, where it chooses one on test images; t over places is 40 and the learning rate 1e-4 for every dataset, where it has 4 and
1e-3 for NUS-WIDE (--set place_scale=4 --set lr=0.001); in a ViT, which
it does not run, the global feature is the class token's and local ones are MaskCLIP's.

Dimensions: B batch, C classes, L words or places, M context vectors, d text width, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.datasets.captions import template_captions
from vlmlab.methods.method import Batch, Method, Recipe, option
from vlmlab.methods.templates import HELP, choose
from vlmlab.methods.text_prompt.dualcoop import asymmetric_loss
from vlmlab.methods.text_prompt.prompts import assemble, placeholders, random_vectors
from vlmlab.registry import register

PLAIN, COPIES = "a photo of a {}.", 9  # beside the captions, every class in so many copies of this sentence
SENTENCES_AT_ONCE = 256  # bounds the memory of one pass through the text tower
FIRST_LOG = 3.0  # logarithm of the factors that are learned, at the start
KEPT = 2**30  # bytes of word features up to which they are kept, instead of made again for every batch


@register(
    "tai_dp",
    title="TaI-DP: Texts as Images in Prompt Tuning for Multi-Label Image Recognition",
    paper="arXiv:2211.12739",
    year=2023,
    section="6.3.1",
    family="text_prompt",
    setup="text-only",
    tasks=("multi-label classification",),
    learns="a context for the whole and one for the parts, from captions alone",
    needs=("text tokens", "local features"),
)
class TaIDP(Method):
    """Prompts learned on sentences, used on images."""

    @dataclasses.dataclass
    class Config(Recipe):
        n_ctx: int = option(16, "context vectors M of each prompt", 1, 64)
        captions: int = option(118287, "captions that are drawn from scenes", 1, 1000000)
        sentences: str = option("", "a text file with one caption a line; empty: captions of scenes")
        templates: str = option("imagenet80", f"sentences about one class each, beside the captions; {HELP}")
        scale: float = option(4.0, "factor of all scores", 0.0, 1000.0)
        word_scale: float = option(50.0, "t over the words of a caption", 0.0, 1000.0)
        place_scale: float = option(40.0, "t over the places of an image", 0.0, 1000.0)
        margin: float = option(1.0, "by how much what is there must lead", 0.0, 100.0)
        loss: str = option("ranking", "loss of both scores", choices=("ranking", "sigmoid", "asl"))
        csc: bool = option(False, "class-specific contexts")
        learn_scale: bool = option(False, "learn the factor of all scores, from e^3 on, instead of `scale`")
        learn_t: bool = option(False, "learn one t, from e^3 on, instead of `word_scale` and `place_scale`")
        batch_size: int = option(512, "captions a step", 1, 4096)
        epochs: int = option(20, "epochs over the captions", 1, 10000)
        lr: float = option(1e-4, "learning rate after the warm-up", 0.0, 10.0)

    # Few captions, so that a fit takes some ten seconds of a core; rate and epochs were chosen on tableau's validation images.
    embedded: ClassVar[dict] = {
        "captions": 800,
        "templates": "dataset",
        "optimizer": "adamw",
        "lr": 0.003,
        "epochs": 12,
        "batch_size": 128,
    }
    eats = "images"

    def prepare(self, task) -> None:
        config, d = self.config, self.backbone.text.width
        self.learned_on = list(task.classes)
        self.set_classes(task.classes, task.templates)
        noise, device = torch.Generator().manual_seed(task.seed), self.backbone.device
        shape = (len(task.classes), config.n_ctx, d) if config.csc else (config.n_ctx, d)
        self.whole, self.parts = (
            nn.Parameter(random_vectors(*shape, generator=noise).to(device)) for _ in "gl"
        )  # the two contexts [M, d], or [C, M, d]
        self.log_scale = nn.Parameter(torch.tensor(FIRST_LOG, device=device)) if config.learn_scale else None
        self.log_t = nn.Parameter(torch.tensor(FIRST_LOG, device=device)) if config.learn_t else None
        single = template_captions(task.classes, [PLAIN] * COPIES + choose(config.templates, task.templates))
        self.sentences = task.captions(config.captions, config.sentences) + single
        self.tokens = self.backbone.text.tokenize(self.sentences.sentences)
        self.tokens = self.tokens[:, : int(self.backbone.text.end_of_text(self.tokens).max()) + 1]
        self.kept: tuple[Tensor, Tensor, Tensor] | None = None
        if 4 * self.tokens.numel() * self.backbone.embed_dim <= KEPT:
            chunks = [self.read(tokens) for tokens in self.tokens.split(SENTENCES_AT_ONCE)]
            self.kept = tuple(torch.cat(part) for part in zip(*chunks, strict=True))

    def learns_from(self, task):
        """The captions: no image is seen."""
        return self.sentences

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Raises `VlmlabError` for other classes than those that class-specific contexts were learned for."""
        if self.config.csc:
            self.refuse_other_classes(
                classes, "class-specific contexts cannot move to other classes; use csc=false for them"
            )
        super().set_classes(classes, templates)
        self.prompts = assemble(self.backbone.text, classes, placeholders(self.config.n_ctx))
        self.order = self.prompts.order(self.config.n_ctx)

    def class_features(self, context: Tensor) -> Tensor:
        """Unit features [C, e] of the prompts with one of the two contexts."""
        text = self.backbone.text
        if self.config.csc:
            return F.normalize(self.prompts.features_around(text, context, self.order), dim=-1)
        return F.normalize(self.prompts.features(text, context), dim=-1)

    @torch.no_grad()
    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h [B, e] and H [B, L, e] of (1) for captions' token ids [B, L], and which of them are words, [B, L]."""
        text = self.backbone.text
        every = F.normalize(text.local_features(tokens), dim=-1)
        words = torch.arange(tokens.shape[1], device=tokens.device) < text.extent(tokens)[:, None]
        return F.normalize(text.encode(tokens), dim=-1), every, words

    @torch.no_grad()
    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Unit global [B, e] and local [B, L, e] features of images."""
        image = self.backbone.image
        if image.kind == "resnet":
            x = image.last_map(images)
            whole = image.pool(x, positions=False, queries=1)[0][:, 0]
            places = image.values(x.flatten(2).transpose(1, 2))
        else:
            whole = self.backbone.encode_image(images)
            places = image.local_features(images).flatten(2).transpose(1, 2)
        return F.normalize(whole.float(), dim=-1), F.normalize(places.float(), dim=-1)

    def scores(self, whole: Tensor, parts: Tensor, t: float, real: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z_g and z_l of (2) and (3), each [B, C]; `real` [B, L] is false for what is no word."""
        scale = self.config.scale if self.log_scale is None else self.log_scale.exp()
        t = t if self.log_t is None else self.log_t.exp()
        z_g = scale * whole @ self.class_features(self.whole).T
        c = parts @ self.class_features(self.parts).T  # [B, L, C]
        looks = t * c if real is None else (t * c).masked_fill(~real[..., None], float("-inf"))
        return z_g, scale * (looks.softmax(1) * c).sum(1)

    def logits(self, batch: Batch) -> Tensor:
        whole, places = self.look(batch.images)
        z_g, z_l = self.scores(whole, places, self.config.place_scale)
        return (z_g + z_l) / 2

    def loss(self, batch: Batch) -> Tensor:
        """Of captions: `batch.index` says which, `batch.labels` [B, C] what they name."""
        index = batch.index.to(self.tokens.device)
        if self.kept is None:
            whole, parts, words = self.read(self.tokens[index])
        else:
            whole, parts, words = (part[index] for part in self.kept)
        z_g, z_l = self.scores(whole, parts, self.config.word_scale, words)
        return sum(self.loss_of(z, batch.labels) for z in (z_g, z_l))

    def loss_of(self, z: Tensor, labels: Tensor) -> Tensor:
        """The chosen loss of scores [B, C] for labels [B, C] of 0 and 1."""
        if self.config.loss == "sigmoid":
            return F.binary_cross_entropy_with_logits(z, labels.to(z))
        if self.config.loss == "asl":
            return asymmetric_loss(torch.zeros_like(z), z, labels) / z.numel()  # sigmoid(z) is softmax of (0, z)
        return ranking_loss(z, labels, self.config.margin)


def ranking_loss(z: Tensor, labels: Tensor, margin: float = 1.0) -> Tensor:
    """rank of (4) for scores [B, C] and labels [B, C] of 0 and 1: every pair of a class there and one that is not."""
    pairs = (labels[:, :, None] == 1) & (labels[:, None, :] == 0)  # [B, C there, C not]
    behind = (margin - z[:, :, None] + z[:, None, :]).clamp(min=0)
    return (behind * pairs).sum((1, 2)).mean()
