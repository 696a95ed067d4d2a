"""LASP: Text-to-Text Optimization for Language-Aware Soft Prompting of Vision & Language Models (arXiv:2210.01115, CVPR 2023).

Survey, section 6.3.1. A learned prompt overfits to the images of its classes because nothing reminds it of language. LASP adds
a second classification that needs no image: hand-written sentences of every class must be assigned to the class whose
learned prompt is nearest. Classes without any image can take part, which keeps room for them.

    w_c = n(E_T([SOS] v_1 ... v_M [name_c] . [EOS]) + b)             v, b learned                       (1)
    L_I = CE(s f W^T, y),   f = n(E_I(x; LayerNorms learned, too))                                      (2)
    L_T = mean over l, j of CE(s h_lj W_all^T, j),   h_lj = n(E_T(template_l with name_j))              (3)
    loss = L_I + alpha L_T

The sentences h are the samples of (3) and the learned prompts are the classifier. With probability one half a step, noise of
deviation 0.05 is added to all h, which are not normalised again. W_all holds every class of the dataset, whether it has
images in this task or not (as in the released runs); `virtual=false` keeps to the task's own.

The release trains with four recipes, by dataset: alpha 5 or 10, 10 to 300 epochs, warm-up of 1 to 7, batches of 1 or 32; the
one of most datasets is the default here. A step's gradient is scaled down to norm 1 if its norm is larger.

What differs from the release: float32; one group of prompts (as there; the paper has several); the scale and shift of the blocks'
LayerNorms are learned on a copy of the image tower; b lives in the joint space and so does not need equal widths. On the
embedded backbones h comes from ImageNet's seven sentences, which are among the 35, and AdamW works without a limit of the norm.

Dimensions: B batch, C classes, A classes of the whole dataset, L templates, M context vectors, d text width, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.backbones.image_tower import copied_tower
from vlmlab.methods.method import Batch, Method, Recipe, optimizer_of, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.methods.text_prompt.prompts import assemble, first_words, random_vectors
from vlmlab.registry import register


@register(
    "lasp",
    title="LASP: Text-to-Text Optimization for Language-Aware Soft Prompting of Vision & Language Models",
    paper="arXiv:2210.01115",
    year=2022,
    section="6.3.1",
    family="text_prompt",
    setup="few-shot",
    learns="context vectors, a bias, LayerNorms of the image tower",
    needs=("text tokens",),
)
class LASP(Method):
    """CoOp that must also recognise sentences."""

    @dataclasses.dataclass
    class Config(Recipe):
        n_ctx: int = option(4, "context vectors M, if no words are given", 1, 64)
        init: str = option("a photo of a", "words that the context starts from; they set M (empty: random)")
        weight: float = option(5.0, "alpha, weight of the text-to-text loss", 0.0, 1000.0)
        noise: float = option(0.05, "deviation of the noise on the sentences", 0.0, 10.0)
        virtual: bool = option(True, "let all classes of the dataset take part in the text-to-text loss")
        bias: bool = option(True, "learn b")
        tune_norms: bool = option(True, "learn the LayerNorms of the image tower's blocks, if it is a ViT")
        norms_rate: float = option(0.1, "their learning rate, relative to the others'", 0.0, 1.0)
        templates: str = option("lasp35", HELP)
        clip: float = option(1.0, "largest norm of a step's gradient", 0.001, 1000.0)
        lr: float = option(0.032, "learning rate after the warm-up", 0.0, 10.0)
        epochs: int = option(25, "epochs of training", 1, 10000)
        warmup_epochs: int = option(3, "first epochs, at the constant warm-up rate", 0, 100)

    embedded: ClassVar[dict] = {
        "optimizer": "adamw", "lr": 0.03, "epochs": 8, "most_steps": 540, "warmup_epochs": 1, "batch_size": 8,
        "templates": "imagenet7", "clip": 1000.0,
    }  # fmt: skip
    eats = "images"

    def prepare(self, task) -> None:
        self.all_names = list(task.classes)
        if self.config.virtual and getattr(task, "dataset", None) is not None:
            self.all_names += [name for name in task.dataset.classes if name not in set(task.classes)]
        self.set_classes(task.classes, task.templates)
        text, config = self.backbone.text, self.config
        start = self.prompts.words.float()
        if not config.init:
            start = random_vectors(*start.shape, generator=torch.Generator().manual_seed(task.seed))
        self.context = nn.Parameter(start.clone().to(self.backbone.device))  # v [M, d]
        if config.bias:
            self.b = nn.Parameter(torch.zeros(1, self.backbone.embed_dim, device=self.backbone.device))  # [1, e]
        self.tower = [self.backbone.image]
        if config.tune_norms and self.backbone.image.kind == "vit":
            # A copy, because the backbone stays frozen for everything else that uses it; only its norms learn.
            self.tower = [copied_tower(self.backbone.image)]
            visual = self.tower[0].visual.requires_grad_(False)
            blocks = visual.transformer.resblocks
            self.norms = nn.ModuleList(
                [norm.requires_grad_(True) for block in blocks for norm in (block.ln_1, block.ln_2)]
            )
        self.everyone = assemble(text, self.all_names, self.words)
        sentences = choose(config.templates, task.templates)
        with torch.no_grad():
            h = self.backbone.encode_text([s.format(name) for s in sentences for name in spoken(self.all_names)])
        self.sentences = F.normalize(h, dim=-1).unflatten(0, (len(sentences), -1))  # h [L, A, e]

    def train(self, mode: bool = True) -> LASP:
        """Stays in evaluation mode."""
        return super().train(False)

    def optimizer(self, steps: int):
        """Two groups: the LayerNorms at a tenth of the rate, but in the warm-up, whose rate is everybody's."""
        config = self.config
        norms = [p for name, p in self.named_parameters() if name.startswith("norms")]
        others = [p for name, p in self.named_parameters() if not name.startswith("norms")]
        groups = [{"params": others}, *([{"params": norms}] if norms else [])]
        optimizer = optimizer_of(config, groups)

        def norms_rate(step: int) -> float:
            warming_up = step * self.epochs // steps < config.warmup_epochs
            return (1.0 if warming_up else config.norms_rate) * self.learning_rate(step, steps)

        rates = [lambda step: self.learning_rate(step, steps), norms_rate]
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rates[: len(groups)])

    def before_step(self) -> None:
        nn.utils.clip_grad_norm_(self.parameters(), self.config.clip)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        self.prompts = assemble(self.backbone.text, classes, self.words)

    @property
    def words(self) -> str:
        """What makes room for the context in (1)."""
        return first_words(self.config.init, self.config.n_ctx)

    def class_features(self, prompts) -> Tensor:
        """Unit w of (1) for the classes of `prompts`."""
        features = prompts.features(self.backbone.text, self.context)
        return F.normalize(features + self.b if self.config.bias else features, dim=-1)

    def logits(self, batch: Batch) -> Tensor:
        f = F.normalize(self.tower[0].forward(batch.images), dim=-1)
        return self.backbone.logit_scale * f @ self.class_features(self.prompts).T  # [B, C]

    def loss(self, batch: Batch) -> Tensor:
        noisy = float(torch.rand(())) < 0.5
        noise = self.config.noise * torch.randn(self.sentences.shape).to(self.sentences) if noisy else 0.0
        return F.cross_entropy(self.logits(batch), batch.labels) + self.config.weight * self.text_to_text(noise)

    def text_to_text(self, noise: Tensor | float = 0.0) -> Tensor:
        """L_T of (3), with `noise` [L, A, e] added to the sentences."""
        h = (self.sentences + noise).flatten(0, 1)  # [L A, e]
        scores = self.backbone.logit_scale * h @ self.class_features(self.everyone).T  # [L A, A]
        return F.cross_entropy(scores, torch.arange(len(self.all_names), device=h.device).repeat(len(self.sentences)))
