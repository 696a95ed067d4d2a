"""VPT (variational): Variational prompt tuning improves generalization of vision-language models (arXiv:2210.02390).

Survey, section 6.3.1. Not *visual* prompt tuning, which has the same letters: nothing is added to the image here. Published
as "Bayesian Prompt Learning for Image-Language Model Generalization" (ICCV 2023). One learned prompt is one point, and it fits the classes
that it saw. VPT learns a Gaussian around a prompt instead, whose centre and width depend on the image, and averages the
predictions of prompts drawn from it. A prior holds the Gaussian away from a point.

    f = n(E_I(x)),   mu(x) = MLP_1(f),   log var(x) = MLP_2(f)        e -> e/2 -> e/2 -> d, with ELU          (1)
    r_l = mu(x) + sqrt(var(x)) eps_l,   eps_l ~ N(0, I),   l = 1 .. L                                         (2)
    v_lm = v_m + r_l                                                  one shift for all M vectors             (3)
    w_lc = n(E_T([SOS] v_l1 ... v_lM [name_c] . [EOS])),   p_l = softmax_c(s f . w_lc)                        (4)
    log p(x) = log (1/L) sum_l p_l                                    what is predicted                       (5)
    loss = - log p(x)_y + beta mean over dimensions of KL(N(mu, var) || N(0, 1))                              (6)
    KL(N(mu, var) || N(0, 1)) = (mu^2 + var - 1 - log var) / 2                                                (7)

(6) takes the logarithm of the mean, not the mean of logarithms: the samples share the work out. With `conditional=false`, mu and
log var are two learned vectors that do not look at the image; the released scripts run only this form, although the paper's
idea, the survey's description and the code's default are (1).

Every sample of every image is one context, which is encoded once and put before all class names: B x L contexts and B x L x C
names a batch. The release does one image at a time; the numbers are the same.

What differs from the release: float32; the noise of a prediction is drawn once, from the task's seed, and is the same for all
images, so that a prediction depends neither on what came before nor on its neighbours (there it is drawn again each time); no
image is augmented unless training asks for views.

Dimensions: B batch, C classes, L samples, M context vectors, d text width, e joint width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.methods.method import Batch, Method, Recipe, option
from vlmlab.methods.text_prompt.prompts import assemble, first_words, random_vectors
from vlmlab.randomness import LocalRandom
from vlmlab.registry import register

PROMPTS_AT_ONCE = 4096  # image-sample-class triples in one pass without gradients: bounds the memory


@register(
    "variational_prompt_tuning",
    title="VPT (variational, not visual): Variational prompt tuning improves generalization of vision-language models",
    paper="arXiv:2210.02390",
    year=2022,
    section="6.3.1",
    family="text_prompt",
    setup="few-shot",
    learns="context vectors and a Gaussian of shifts that depends on the image",
    needs=("text tokens",),
)
class VariationalPromptTuning(Method):
    """A distribution of contexts instead of one."""

    @dataclasses.dataclass
    class Config(Recipe):
        n_ctx: int = option(4, "context vectors M, if no words are given", 1, 64)
        init: str = option("a photo of a", "words that the context starts from; they set M (empty: random)")
        conditional: bool = option(True, "let the distribution depend on the image (the released scripts do not)")
        samples: int = option(20, "prompts L drawn per image; the release takes 5 to 40, by dataset", 1, 1000)
        weight: float = option(0.001, "beta, weight of the divergence from the prior", 0.0, 1000.0)
        batch_size: int = option(1, "training images a step", 1, 4096)
        epochs: int = option(20, "epochs of training; the release takes 10 to 60, by dataset", 1, 10000)

    embedded: ClassVar[dict] = {
        "optimizer": "adamw",
        "lr": 0.005,
        "epochs": 20,
        "most_steps": 120,
        "batch_size": 32,
        "samples": 3,
    }
    eats = "features"

    def prepare(self, task) -> None:
        self.set_classes(task.classes, task.templates)
        d, e, device = self.backbone.text.width, self.backbone.embed_dim, self.backbone.device
        with LocalRandom(task.seed):
            start = self.prompts.words.float() if self.config.init else random_vectors(self.config.n_ctx, d)
            self.context = nn.Parameter(start.clone().to(device))  # v [M, d]
            if self.config.conditional:
                self.mean, self.log_variance = _mlp(e, d).to(device), _mlp(e, d).to(device)  # (1)
            else:
                self.mean = nn.Parameter(torch.zeros(1, d, device=device))
                self.log_variance = nn.Parameter(torch.rand(1, d).to(device))  # not near zero: as in the release
            self.noise = torch.randn(self.config.samples, d).to(device)  # eps [L, d] of every prediction

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        words = first_words(self.config.init, self.config.n_ctx)
        self.prompts = assemble(self.backbone.text, classes, words)

    def posterior(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """mu and log var of (1) for unit image features f [B, e]: each [B, d], or [1, d] if unconditional."""
        if self.config.conditional:
            return self.mean(f), self.log_variance(f)
        return self.mean, self.log_variance

    def contexts(self, mu: Tensor, log_variance: Tensor, eps: Tensor) -> Tensor:
        """v_l of (3), [B, L, M, d], with noise eps [L, d] or [B, L, d]."""
        shift = mu[:, None] + (log_variance / 2).exp()[:, None] * eps  # r [B, L, d] (2)
        return self.context + shift[:, :, None]

    def sample_logits(self, f: Tensor, eps: Tensor) -> Tensor:
        """Logits [B, L, C] under every drawn prompt, for unit image features f [B, e]."""
        contexts = self.contexts(*self.posterior(f), eps)
        w = self.prompts.features(self.backbone.text, contexts.flatten(0, 1)).unflatten(0, contexts.shape[:2])
        w = F.normalize(w, dim=-1).expand(len(f), -1, -1, -1)  # [B, L, C, e] (4)
        return self.backbone.logit_scale * torch.einsum("be,blce->blc", f, w)

    def log_probabilities(self, f: Tensor, eps: Tensor) -> Tensor:
        """log p(x) of (5), [B, C]."""
        log_p = self.sample_logits(f, eps).log_softmax(-1)
        return log_p.logsumexp(1) - math.log(log_p.shape[1])

    def logits(self, batch: Batch) -> Tensor:
        """log p(x) [B, C]: its softmax is p(x) itself."""
        f = self.image_features(batch)
        at_once = (
            len(f) if torch.is_grad_enabled() else max(1, PROMPTS_AT_ONCE // (len(self.noise) * len(self.classes)))
        )
        return torch.cat([self.log_probabilities(part, self.noise) for part in f.split(at_once)])

    def loss(self, batch: Batch) -> Tensor:
        f = self.image_features(batch)
        mu, log_variance = self.posterior(f)
        eps = torch.randn(len(mu), self.config.samples, mu.shape[-1]).to(f)  # again each step, and for each image
        fit = F.nll_loss(self.log_probabilities(f, eps), batch.labels)
        return fit + self.config.weight * divergence(mu, log_variance).mean()  # (6)


def divergence(mu: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mu, var) || N(0, 1)) of (7), the mean over the last dimension."""
    return 0.5 * (mu.square() + log_variance.exp() - 1 - log_variance).mean(-1)


def _mlp(e: int, d: int) -> nn.Sequential:
    half = e // 2
    return nn.Sequential(nn.Linear(e, half), nn.ELU(), nn.Linear(half, half), nn.ELU(), nn.Linear(half, d))
