"""PromptSRC: Self-regulating Prompts: Foundational Model Adaptation without Forgetting (arXiv:2307.06948, ICCV 2023).

Not in the survey; beside MaPLe it shows the other way to keep new classes. Prompts are free in both towers, and nothing ties them
to each other; instead the frozen model teaches. Features and predictions must stay near its own, and what is kept
in the end is a mean over the epochs, with little weight on the last.

    text, block j:   n learned tokens P_j behind [SOS]; P_0 starts as "a photo of a", j = 0 .. J-1          (1)
    image, block j:  n learned tokens V_j behind the patches (or other n and J than the text's)             (2)
    logits = s f w^T,   f = n(E_I),   w = n(E_T)
    f0 = n(E_I(x)) without prompts,   w0_c = n(mean over templates of E_T(template, c))                     (3)
    loss = CE + lambda_t mean|w - w0| + lambda_v mean|f - f0|                                               (4)
           + 1/(B C) sum_b KL(softmax(s f0 w0^T) || softmax(logits))                                        (5)
    kept = sum_t g_t theta_t / sum_t g_t,   g_t = exp(-(t - mu)^2 / (2 sigma^2)),   t = 1 .. epochs         (6)

theta_t is what was learned when epoch t ends. The means of (4) run over every entry, C x e and B x e. The features of (3) are
not normalised before their mean; the templates are the release's, the first sixty of OpenAI's eighty sentences.

What differs from the release: float32; a support image's f0 is computed once, unless training asks for crops; a run that is
stopped early keeps the weighted mean of the epochs that it saw; mu and sigma follow the number of epochs (the release
states mu = 15, sigma = 1 for 20), so that shorter runs average their third quarter, too.

Dimensions: B batch, C classes, n tokens, J layers with prompts, d text width, D image width, e joint width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch, Method, Recipe, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.methods.text_prompt.prompts import assemble, placeholders, random_vectors
from vlmlab.registry import register

WORDS = "a photo of a"


@register(
    "promptsrc",
    title="PromptSRC: Self-regulating Prompts: Foundational Model Adaptation without Forgetting",
    paper="arXiv:2307.06948",
    year=2023,
    section="6.3.1",
    family="text_visual_prompt",
    setup="few-shot",
    learns="deep prompts in both towers, held near the frozen model",
    needs=("text tokens", "image tokens"),
    status="extra",
)
class PromptSRC(Method):
    """Independent deep prompts that the frozen model regulates."""

    @dataclasses.dataclass
    class Config(Recipe):
        n_ctx: int = option(4, "tokens n in each prompted layer of each tower", 1, 16)
        depth: int = option(9, "layers with prompts J", 1, 48)
        vision_n_ctx: int | None = option(None, "tokens of the image tower; none: as many as n_ctx", 1, 64)
        vision_depth: int | None = option(None, "layers of the image tower with prompts; none: depth", 1, 48)
        text_weight: float = option(25.0, "lambda_t, price of leaving the frozen class features", 0.0, 1000.0)
        image_weight: float = option(10.0, "lambda_v, price of leaving the frozen image features", 0.0, 1000.0)
        logits_weight: float = option(1.0, "price of leaving the frozen predictions", 0.0, 1000.0)
        mean_epoch: float = option(0.75, "mu of the epochs' weights, as a share of the epochs", 0.0, 2.0)
        sd_epoch: float = option(
            0.05, "sigma of the epochs' weights, as a share of the epochs; 0: keep the last", 0.0, 100.0
        )
        templates: str = option("imagenet60", f"sentences of the teacher; {HELP}")
        epochs: int = option(20, "epochs of training", 1, 10000)
        batch_size: int = option(4, "training images a step", 1, 4096)
        lr: float = option(0.0025, "learning rate after the warm-up", 0.0, 10.0)

    # The teacher's sentences: the embedded text towers read few of OpenAI's, and would teach what they misread.
    embedded: ClassVar[dict] = {
        "depth": 3, "batch_size": 8, "optimizer": "adamw", "lr": 0.005, "epochs": 8, "most_steps": 700, "templates": "dataset"
    }  # fmt: skip
    eats = "images"

    def __init__(self, backbone, config=None):
        super().__init__(backbone, config)
        self.vision_depth = self.config.vision_depth or self.config.depth
        backbone.image.check_prompts("PromptSRC", self.vision_depth)
        if self.config.depth > backbone.text.depth:
            raise VlmlabError(
                f"PromptSRC asks for prompts in {self.config.depth} blocks and the text tower of {backbone.name} has "
                f"{backbone.text.depth}; use fewer"
            )

    def prepare(self, task) -> None:
        self.set_classes(task.classes, task.templates)
        config, noise = self.config, torch.Generator().manual_seed(task.seed)

        def tokens(*shape: int) -> nn.Parameter:
            return nn.Parameter(random_vectors(*shape, generator=noise).to(self.backbone.device))

        self.context = tokens(config.depth, config.n_ctx, self.backbone.text.width)  # P [J, n, d]
        if config.n_ctx <= 4:
            self.context.data[0] = self.prompts.words.float()
        self.visual = tokens(
            self.vision_depth, config.vision_n_ctx or config.n_ctx, self.backbone.image.width
        )  # V [J, n, D]
        self.kept: Tensor | None = None  # f0 of the support images
        if len(task.support):
            self.kept = F.normalize(self.encode(task.support), dim=-1)
        self._steps_an_epoch = 0
        # Sums of (6), in the state dict, so that a run that is resumed goes on with them.
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.register_buffer("weight", torch.zeros(()))
        for name in ("context", "visual"):
            self.register_buffer(f"{name}_sum", torch.zeros_like(getattr(self, name)))

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """The prompts and the frozen class features of these classes; the learned tokens stay."""
        super().set_classes(classes, templates)
        n = self.config.n_ctx
        self.prompts = assemble(self.backbone.text, classes, WORDS if n <= 4 else placeholders(n), learned=n)
        sentences = choose(self.config.templates, templates)
        with torch.no_grad():
            texts = [sentence.format(name) for name in spoken(classes) for sentence in sentences]
            features = self.backbone.encode_text(texts).unflatten(0, (len(classes), -1))
        self.written = F.normalize(features.mean(1), dim=-1)  # w0 [C, e] (3)

    def class_features(self) -> Tensor:
        """Unit w [C, e] under the prompts of (1)."""
        context, *deep = self.context
        return F.normalize(self.prompts.features(self.backbone.text, context, deep=deep), dim=-1)

    def unit_features(self, images: Tensor) -> Tensor:
        """Unit f [B, e] under the prompts of (2)."""
        visual, *deep = self.visual
        return F.normalize(self.backbone.image.forward(images, visual, deep), dim=-1)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """f [B, e] and w [C, e]."""
        return self.unit_features(images), self.class_features()

    def logits(self, batch: Batch) -> Tensor:
        f, w = self.features(batch.images)
        return self.backbone.logit_scale * f @ w.T  # [B, C]

    def loss(self, batch: Batch) -> Tensor:
        self._end_of_epoch()
        config, s = self.config, self.backbone.logit_scale
        f, w = self.features(batch.images)
        if self.kept is None or not batch.whole:
            f0 = self.image_features(Batch(images=batch.images))
        else:
            f0 = self.kept[batch.index.to(self.kept.device)]
        logits = s * f @ w.T
        taught = (s * f0 @ self.written.T).log_softmax(-1)
        kl = F.kl_div(logits.log_softmax(-1), taught, reduction="sum", log_target=True) / logits.numel()  # (5)
        near = config.text_weight * F.l1_loss(w, self.written) + config.image_weight * F.l1_loss(f, f0)  # (4)
        return F.cross_entropy(logits, batch.labels) + near + config.logits_weight * kl

    def optimizer(self, steps: int):
        self._steps_an_epoch = max(1, steps // self.epochs)
        return super().optimizer(steps)

    def before_step(self) -> None:
        self.step += 1

    def _end_of_epoch(self) -> None:
        """Add theta_t to the sums of (6) if epoch t has just ended; asked before each step and after the last."""
        step = int(self.step)
        if not self._steps_an_epoch or not step or step % self._steps_an_epoch:
            return
        config, epoch = self.config, step // self._steps_an_epoch
        if not config.sd_epoch:
            return
        z = (epoch - config.mean_epoch * self.epochs) / (config.sd_epoch * self.epochs)
        g = math.exp(-0.5 * z * z)
        self.weight += g
        self.context_sum += g * self.context.detach()
        self.visual_sum += g * self.visual.detach()

    def finish(self, task) -> None:
        """The weighted mean of (6) takes the place of the last epoch's tokens."""
        self._end_of_epoch()
        if float(self.weight) > 1e-8:  # a run that ended long before mu has no mean to speak of
            self.context.data = self.context_sum / self.weight
            self.visual.data = self.visual_sum / self.weight
