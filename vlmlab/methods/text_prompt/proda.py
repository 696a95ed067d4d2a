"""ProDA: Prompt Distribution Learning (arXiv:2205.03340, CVPR 2022).

Survey, section 6.3.1 (not among its systems). One prompt describes a class in one way; images of it differ in many. ProDA
learns K prompts at once and takes the class weights that they give for samples of a distribution. In the space of words
such prompts have nothing in common, but what the text encoder makes of them lies together, so that a Gaussian fits there.
The loss of a random classifier from this Gaussian has no closed form; an upper bound of its mean has, and is minimised.

    w_kc = n(E_T(prompt k with name_c)),   mu_c = mean_k w_kc                    n: to unit length         (1)
    S_ij = sum_k (w_ki - mu_i) (w_kj - mu_j) / (K + 1),   per dimension          [e] for every i, j        (2)
    E_w[-log p(y | f)] <= -log softmax_y(s f mu^T + s^2/2 v_y),   f = n(E_I(x))                            (3)
    v_yj = sum_d f_d^2 (S_yy + S_jj - 2 S_yj)_d            the variance of (w_j - w_y) f                   (4)
    R = mean over k != l of |p_k p_l^T|,   p_k = n(E_T(prompt k without a name))                           (5)
    loss = (3) + lambda R;   prediction: logits = s f mu^T                                                 (6)

(3) is Jensen's inequality: -log softmax_y = log sum_j exp(s (w_j - w_y) f), the mean goes inside of the logarithm, and a
Gaussian's exponential has the mean exp(s (mu_j - mu_y) f + s^2/2 v_yj). The dimensions of the joint space count as
independent. (5) keeps the prompts different in meaning. Half of them end with the class name; a quarter has it in the
middle and a quarter in front.

A step looks at a few of the K prompts, and (2) is estimated from these. Prompts that end with the name are encoded with their
context only once for all classes.

What is sure: the authors' repository has no code. The equations are the paper's idea; sizes (32 prompts of 16 vectors, 4 a step),
the K + 1 of (2), the absolute value in (5) and the positions are those on which two public re-implementations agree; lambda
is said to be 0.1. What differs from them: float32; the prompts of a step are drawn again each time instead of in rounds, so
that a resumed run needs to know no round; (5) is taken over the pairs among the prompts of the step, not among all K, which
costs a step less and has the same mean; the recipe is CoOp's.

Dimensions: B batch, C classes, K prompts, M context vectors, d text width, e joint width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.methods.method import Batch, Method, Recipe, option
from vlmlab.methods.text_prompt.prompts import assemble, placeholders, random_vectors
from vlmlab.registry import register

FRONT, MIDDLE, END = range(3)
"""Where the class name stands in a prompt."""


@register(
    "proda",
    title="ProDA: Prompt Distribution Learning",
    paper="arXiv:2205.03340",
    year=2022,
    section="6.3.1",
    family="text_prompt",
    setup="few-shot",
    learns="many contexts, as samples of a Gaussian of class weights",
    needs=("text tokens",),
    status="extra",
)
class ProDA(Method):
    """A Gaussian over the class weights, from many learned prompts."""

    @dataclasses.dataclass
    class Config(Recipe):
        n_prompts: int = option(32, "prompts K", 1, 128)
        n_ctx: int = option(16, "context vectors M of each", 1, 64)
        prompts_at_once: int = option(4, "prompts that a step looks at", 1, 128)
        orthogonality: float = option(0.1, "weight lambda of the prompts' likeness in meaning", 0.0, 100.0)
        batch_size: int = option(20, "training images a step", 1, 4096)
        epochs: int = option(100, "epochs of training", 1, 10000)

    embedded: ClassVar[dict] = {
        "optimizer": "adamw", "lr": 0.02, "epochs": 30, "batch_size": 32, "n_prompts": 8, "n_ctx": 4, "prompts_at_once": 2
    }  # fmt: skip
    eats = "features"

    def prepare(self, task) -> None:
        self.set_classes(task.classes, task.templates)
        noise = torch.Generator().manual_seed(task.seed)
        shape = (self.config.n_prompts, self.config.n_ctx, self.backbone.text.width)
        self.context = nn.Parameter(random_vectors(*shape, generator=noise).to(self.backbone.device))  # [K, M, d]

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        words = placeholders(self.config.n_ctx)
        self.prompts = assemble(self.backbone.text, classes, words)
        k = self.config.n_prompts
        places = [FRONT] * (k // 4) + [MIDDLE] * (k // 4) + [END] * (k - 2 * (k // 4))
        self.places = torch.tensor(places)  # [K]; on the CPU, which looks up what each prompt needs
        self.orders = {FRONT: self.prompts.order(0), MIDDLE: self.prompts.order(self.config.n_ctx // 2)}
        self.mean: Tensor | None = None

    def weights(self, chosen: Tensor) -> Tensor:
        """w [k, C, e] of (1) for the prompts `chosen` [k], in this order."""
        text, prompts = self.backbone.text, self.prompts
        places = self.places[chosen]
        found: dict[int, Tensor] = {}
        for place in places.unique().tolist():
            own = chosen[places == place]
            context = self.context[own]  # [k', M, d]
            if place == END:
                features = prompts.features(text, context)  # [k', C, e]
            else:
                features = torch.stack([prompts.features_around(text, c, self.orders[place]) for c in context])
            found |= dict(zip(own.tolist(), features, strict=True))
        return F.normalize(torch.stack([found[k] for k in chosen.tolist()]), dim=-1)

    def logits(self, batch: Batch) -> Tensor:
        mu = self.mean if self.mean is not None else self.weights(torch.arange(self.config.n_prompts)).mean(0)
        if not torch.is_grad_enabled():
            self.mean = mu.detach()  # prediction asks for the same K C prompts again and again
        return self.backbone.logit_scale * self.image_features(batch) @ mu.T  # (6)

    def loss(self, batch: Batch) -> Tensor:
        self.mean = None  # what is learned moves it
        count = min(self.config.prompts_at_once, self.config.n_prompts)
        chosen = torch.randperm(self.config.n_prompts)[:count]
        w = self.weights(chosen)  # [k, C, e]
        logits = bound(self.image_features(batch), w, batch.labels, self.backbone.logit_scale)
        return F.cross_entropy(logits, batch.labels) + self.config.orthogonality * self.likeness(chosen)

    def likeness(self, chosen: Tensor) -> Tensor:
        """R of (5) among the prompts `chosen` [k]; 0 for a single one."""
        if len(chosen) < 2:
            return self.context.sum() * 0
        text, m = self.backbone.text, self.config.n_ctx
        tokens = text.tokenize([placeholders(m) + "."])
        end = text.end_of_text(tokens)
        sentence = text.embed(tokens[:, : int(end) + 1])  # [1, L, d]
        start, rest = sentence[0, : text.special], sentence[:, text.special + m :]
        prefix = torch.cat([start.expand(len(chosen), -1, -1), self.context[chosen].type_as(start)], 1)
        p = F.normalize(text.forward_shared_prefix(prefix, rest, end - prefix.shape[1])[:, 0], dim=-1)  # [k, e]
        others = ~torch.eye(len(p), dtype=torch.bool, device=p.device)
        return (p @ p.T)[others].abs().mean()


def bound(f: Tensor, w: Tensor, labels: Tensor, scale: float | Tensor) -> Tensor:
    """Logits [B, C] whose cross-entropy is (3), for unit features f [B, e], samples w [K, C, e] and labels [B]."""
    mu = w.mean(0)  # [C, e]
    centred = w - mu
    s = torch.einsum("kie,kje->ije", centred, centred) / (len(w) + 1)  # S [C, C, e] (2)
    own = s.diagonal().T  # S_jj [C, e]
    square = f**2  # [B, e]
    variance = square @ own.T + (square * own[labels]).sum(-1, keepdim=True)  # S_jj + S_yy [B, C]
    variance = variance - 2 * torch.einsum("be,bje->bj", square, s[labels])  # v_y (4)
    return scale * f @ mu.T + scale**2 / 2 * variance  # (3)
