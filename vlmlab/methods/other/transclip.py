"""TransCLIP: Boosting Vision-Language Models with Transduction (arXiv:2406.01837, NeurIPS 2024).

Survey, section 6.3.3 (not among its systems; what the field built next). Zero-shot prediction looks at one image at a
time. A heap of unlabelled images says more: those of one class lie together, even where text and image disagree about
the place. TransCLIP predicts for all test images at once. It fits one Gaussian per class to their features, lets near
images agree, and does not let them go far from what the texts say. Every step has a closed form; no gradient is taken.

    y_i = softmax(s f_i T^T)                  what the texts say, f_i = n(E_I(x_i)), T one sentence a class  (1)
    z_i ~ y_i^lambda exp( (g_i + 50 m_i) / 50 ),   z_i sums to 1                                             (2)
      g_ic = -1/2 sum_d (f_i - mu_c)_d^2 / v_d                     log of the Gaussian of class c
      m_i = 1/(2 k) sum_j (W_ij + W_ji) z_j                        what the neighbours think
    mu_c = n( sum_i z_ic f_i ),   v = sum_ic z_ic (f_i - mu_c)^2 / sum_ic z_ic                               (3)

W_ij = f_i f_j if j is among the k = 3 nearest images of i, else 0. mu_c begins as the mean of the 8 images that the
texts are surest of, weighted by y; v as 1/e. Ten rounds of (2), swept five times, and (3); then (2) once more. The
prediction is z.

With `labelled`, the support images join: their z is their label and never changes, they are neighbours, and they weigh
gamma 50 / |S| each in (3) where a test image weighs 1 / |Q|; mu_c begins as their mean, lambda is one half, and gamma is chosen
on the validation images, each judged by its nearest test image.

What it sees: the class names, and all images that it is to predict at once, without their labels. So its accuracy is not
comparable with that of systems that see one image at a time, and it depends on the others: on a few images at a time,
or where classes are missing, it is another system. Nothing is learned beforehand.

What differs from the release: the scale s is the backbone's, which is 100 in CLIP, where the release writes 100; the number
of classes is that of the names, where the release counts it in the test labels. With labels: a support image keeps its
nearest neighbour (the release drops it as if it were the image itself); the neighbours of tests and of support images are
in the same order as their z (the release mixes the two orders up); and every gamma begins again, so that one does not depend on
the others (the release goes on from where the last gamma ended). And v is never below 0.0003/e: few images may lie on
their own means, v would vanish, and rounding would decide. So one image alone gets what the texts say of it; the release
refuses fewer than 8.

Dimensions: Q images together, S support images, N = Q + S, C classes, e joint width, k neighbours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch, Method, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.registry import register

LIKELIHOOD = 50.0
"""By how much the Gaussian's part is divided in (2), as in the release."""
LEAST = 3e-4
"""The least v, as a share of 1/e: for a few images alone, whose v would vanish."""
GAMMAS = (0.002, 0.01, 0.02, 0.2)
"""Weights of the support images that are tried."""
ROWS_AT_ONCE = 2048  # of the similarity of all images with all: bounds the memory


@register(
    "transclip",
    title="TransCLIP: Boosting Vision-Language Models with Transduction",
    paper="arXiv:2406.01837",
    year=2024,
    section="6.3.3",
    family="other",
    setup="transductive",
    learns="nothing (a Gaussian per class, fitted to the images that it predicts)",
    status="extra",
)
class TransCLIP(Method):
    """All test images are predicted together."""

    @dataclasses.dataclass
    class Config:
        labelled: bool = option(False, "let the support images join, with their labels")
        text_weight: float | None = option(
            None, "lambda, the weight of the texts; none: 1, or 0.5 with labels", 0.0, 10.0
        )
        neighbours: int = option(3, "images k that an image agrees with", 1, 100)
        rounds: int = option(10, "updates of the Gaussians", 0, 1000)
        sweeps: int = option(5, "updates of the assignments in a round", 1, 100)
        surest: int = option(8, "images that a Gaussian begins with", 1, 1000)
        templates: str = option("dataset", f"only the first is used; {HELP}")

    eats = "features"

    def prepare(self, task) -> None:
        self.support: Tensor | None = None  # those of an earlier task would make `set_classes` refuse this one's names
        super().prepare(task)
        if not self.config.labelled:
            return
        if not len(task.support):
            raise VlmlabError("TransCLIP with labels needs labelled images; ask for a shot, or set labelled=false")
        self.support = F.normalize(self.encode(task.support), dim=-1)  # [S, e]
        self.given = F.one_hot(task.support.labels, len(task.classes)).to(self.support)  # their z [S, C]
        self.val = F.normalize(self.encode(task.val), dim=-1)  # [V, e]
        self.val_labels = task.val.labels.to(self.val.device)
        self.learned_on: list[str] = list(task.classes)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Raises `VlmlabError` for other classes than those of the support images, if these take part."""
        if getattr(self, "support", None) is not None:
            self.refuse_other_classes(
                classes, "labelled images say nothing about other classes; use TransCLIP with labelled=false"
            )
        super().set_classes(classes, templates)
        sentence = choose(self.config.templates, templates)[0]
        self.classifier = self.backbone.class_embeddings(spoken(classes), [sentence])  # T [C, e]

    @torch.no_grad()
    def logits(self, batch: Batch) -> Tensor:
        """log z [Q, C] of all images of the batch, which are predicted together."""
        f = self.image_features(batch)
        y = (self.backbone.logit_scale * f @ self.classifier.T).softmax(-1)  # (1)
        if self.support is None:
            return self.assigned(f, y).clamp_min(1e-30).log()
        nearest = (self.val @ f.T).argmax(-1) if len(self.val) else None
        found: list[tuple[int, Tensor]] = []
        for gamma in GAMMAS:
            z = self.assigned(f, y, gamma)
            right = 0 if nearest is None else int((z[nearest].argmax(-1) == self.val_labels).sum())
            found.append((right, z))
        best = max(range(len(found)), key=lambda i: found[i][0])  # the smallest gamma that is best
        return found[best][1].clamp_min(1e-30).log()

    def assigned(self, f: Tensor, y: Tensor, gamma: float = 0.0) -> Tensor:
        """z [Q, C] of unit features f [Q, e] with text predictions y [Q, C]; `gamma` weighs the support images."""
        config, labelled = self.config, self.support is not None
        weight = config.text_weight if config.text_weight is not None else (0.5 if labelled else 1.0)
        everything = torch.cat([f, self.support]) if labelled else f  # [N, e]
        near = affinity(everything, f, config.neighbours)
        known = self.given if labelled else y[:0]  # [S, C]
        # In (3) every test image weighs 1/Q and every support image 50 gamma / S.
        share = torch.full((len(everything), 1), 1 / len(f)).to(f)
        if labelled:
            share[len(f) :] = 50 * gamma / len(self.support)
            mu = F.normalize(self.given.T @ self.support, dim=-1)
        else:
            mu = beginning(f, y, config.surest)
        v, z = torch.full_like(f[0], 1 / f.shape[1]), y
        for turn in range(config.rounds + 1):
            g = log_gaussian(f, mu, v)
            for _ in range(config.sweeps):
                z = swept(z, known, y, g, near, weight, config.neighbours)  # (2)
            if turn < config.rounds:
                mu, v = gaussians(everything, share * torch.cat([z, known]))  # (3)
        return z


def affinity(everything: Tensor, f: Tensor, k: int) -> Tensor:
    """W, sparse [N, Q]: cosines of every image with its k nearest test images; `f` [Q, e] are the first of all."""
    k = min(k, len(f) - 1)
    if k < 1:
        return torch.zeros(len(everything), len(f), device=f.device).to_sparse()
    columns, values = [], []
    for start in range(0, len(everything), ROWS_AT_ONCE):
        part = everything[start : start + ROWS_AT_ONCE] @ f.T
        rows = torch.arange(start, min(start + len(part), len(f)), device=f.device)
        part[rows - start, rows] = -torch.inf  # no image is its own neighbour
        value, column = part.topk(k, -1)
        values.append(value)
        columns.append(column)
    column, value = torch.cat(columns), torch.cat(values)
    row = torch.arange(len(everything), device=f.device)[:, None].expand_as(column)
    index = torch.stack([row.flatten(), column.flatten()])
    return torch.sparse_coo_tensor(index, value.flatten(), (len(everything), len(f)), check_invariants=False).coalesce()


def beginning(f: Tensor, y: Tensor, surest: int) -> Tensor:
    """The first mu [C, e]: for every class the mean of the images f [Q, e] of largest y, weighted by it."""
    value, index = y.topk(min(surest, len(y)), 0)  # each [surest, C]
    return F.normalize(torch.einsum("kc,kce->ce", value, f[index]), dim=-1)


def log_gaussian(f: Tensor, mu: Tensor, v: Tensor) -> Tensor:
    """g [Q, C] of (2), without the constant, for means mu [C, e] and the variance v [e] that all classes share."""
    inverse = 1 / v
    square = (f**2) @ inverse[:, None] - 2 * (f * inverse) @ mu.T + (mu**2) @ inverse  # (f - mu)^2 / v, multiplied out
    return -square / 2


def swept(z: Tensor, known: Tensor, y: Tensor, g: Tensor, near: Tensor, weight: float, k: int) -> Tensor:
    """One sweep of (2): new z [Q, C] from the old one, the support's `known` z [S, C] and W = `near` [N, Q]."""
    everyone = torch.cat([z, known])  # [N, C]
    neighbours = near.T @ everyone + (near @ z)[: len(z)]  # [Q, C]
    exponent = g / LIKELIHOOD + neighbours / (2 * k)
    exponent = exponent - exponent.amax(1, keepdim=True)  # cancels; keeps exp in range
    new = y**weight * exponent.exp()
    return new / new.sum(1, keepdim=True)


def gaussians(everything: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """mu [C, e] and v [e] of (3) for features [N, e] with weighted assignments z [N, C]."""
    mu = F.normalize(z.T @ everything, dim=-1)
    # sum_ic z_ic (f_i - mu_c)^2, multiplied out so that no [N, C, e] is built
    mass = z.sum(0)  # [C]
    square = z.sum(1) @ everything**2 - 2 * ((z.T @ everything) * mu).sum(0) + mass @ mu**2
    return mu, (square / mass.sum()).clamp_min(LEAST / everything.shape[1])
