"""SSIW: Semantic Segmentation In-the-Wild Without Seeing Any Segmentation Examples (arXiv:2112.03185, 2021).

Survey, section 7.2.2. If one knows which classes an image shows, CLIP can be asked where: a method that explains a decision tells
which places a similarity came from. The answer is rough. It gets better when many augmented images of the same image are asked,
and it is good enough for pseudo labels of the pixels; what segments a single image from a few labelled pixels does the rest.
No network is trained on masks, or on any images at all.

    s_c = s cos(f(X), t_c),   A_l the attention of block l, g_l = ds_c / dA_l                          (1)
    R <- R + mean over heads of (g_l * A_l)^+ R, from R = 1, over the last blocks                      (2)
    M_c = minmax(mean over views of the row of the class token in R, laid back onto the image)         (3)
    y(x) = argmax_c M_c(x), taken for certain where M_y(x) is in the upper part among those of class y (4)
    P = argmin  sum over certain x of |P(x) - onehot(y(x))|^2 + sum over neighbours of w |P(x) - P(x')|^2  (5)
    w = exp(-beta |colour(x) - colour(x')|^2)

This is a reconstruction: there is no code, and of the paper only what its abstract says was at hand: image-level class names,
given or found automatically; maps by interpretability, refined by test-time augmentation; pseudo labels; single-image
segmentation. Ours are the relevance of Chefer et al. (arXiv:2103.15679) for the first, mirrored images and crops for the second,
certainty by quantiles for the third, and the random walker (Grady, 2006) with soft seeds for the last. So are all settings.
Another paper that calls its code SSIW ("The devil is in the labels", arXiv:2202.02002) has nothing to do with it.

Where no names are given, the `names` that CLIP finds most similar in any view are taken for those of the image; all others
score their cosine less 2, below every score of a name that was taken.

Dimensions: B images, C classes, n pairs of an image and a class, e joint width, T = h w places, S image side, G = S/2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.backbones.blocks import attention_map, run_block
from vlmlab.methods.dense import cam
from vlmlab.methods.dense.segmenter import Segmenter
from vlmlab.methods.method import Batch, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.registry import register

STEPS = ("relevance", "views", "segmented")
ABSENT = 2.0  # what a name that was not taken loses
FLOOR = 1e-4  # of the weights between neighbours, so that every pixel is reached
SLIGHT = 1e-9  # on the diagonal, for an image without any label
AT_ONCE = 16  # images whose G^2 x G^2 systems are solved together


@register(
    "ssiw",
    title="SSIW: Semantic Segmentation In-the-Wild Without Seeing Any Segmentation Examples",
    paper="arXiv:2112.03185",
    year=2021,
    section="7.2.2",
    family="segmentation",
    setup="training-free",
    tasks=("segmentation",),
    learns="nothing",
    needs=("image blocks",),
)
class SSIW(Segmenter):
    """Relevance of places to the names of an image, over views, spread along its colours."""

    @dataclasses.dataclass
    class Config:
        step: str = option(
            "segmented",
            "how far it goes: relevance (2) of the image alone; its mean over views (3); segmented (5)",
            choices=STEPS,
        )
        names: int = option(5, "names that are taken of an image whose names are not given", 1, 10000)
        layers: int = option(1, "last blocks that relevance goes through", 1, 100)
        mirror: bool = option(True, "mirrored images are views, too")
        crop: float = option(0.75, "side of the four crops in the corners that are views; 1: no crops", 0.1, 1.0)
        certain: float = option(0.5, "share of a class's pixels whose pseudo label is certain", 0.01, 1.0)
        beta: float = option(90.0, "how much a step of colour (0 to 1) separates neighbours", 0.0, 1e6)
        templates: str = option("photo", HELP)

    embedded: ClassVar[dict] = {"templates": "dataset"}

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        self.words = self.backbone.class_embeddings(spoken(classes), choose(self.config.templates, templates))  # [C, e]

    def logits(self, batch: Batch) -> Tensor:
        """[B, C, S, S]: scores of the names that are taken, 0 to 1, and below 0 of the others."""
        images = batch.images
        cosines = self.similarities(images)
        best = cosines.topk(min(self.config.names, cosines.shape[1]), 1).indices
        shown = torch.zeros_like(cosines, dtype=torch.bool).scatter(1, best, True)
        scores = self.maps_of(images, shown, self.config.step)
        scores = torch.where(shown[..., None, None], scores, (cosines - ABSENT)[..., None, None])
        return F.interpolate(scores, images.shape[-2:], mode="bilinear")

    @torch.no_grad()
    def similarities(self, images: Tensor) -> Tensor:
        """The largest cosine of every class with any view of an image, [B, C]."""
        found = [
            F.normalize(self.backbone.encode_image(seen), dim=-1) @ self.words.T for seen, *_ in self.views_of(images)
        ]
        return torch.stack(found).amax(0).float()

    # --- maps --------------------------------------------------------------------------------------------------------

    def maps_of(self, images: Tensor, shown: Tensor, step: str = "segmented") -> Tensor:
        """Scores [B, C, G, G] of 0 to 1 after a step of `STEPS`, of normalised images [B, 3, S, S]; 0 for classes not `shown` [B, C]."""
        pairs = shown.nonzero()
        side = images.shape[-1] // 2
        total, count = images.new_zeros(len(pairs), side, side), images.new_zeros(side, side)
        for seen, mirrored, (top, left, size) in self.views_of(images, step != "relevance"):
            maps = relevance(self.backbone, seen, pairs[:, 0], self.words[pairs[:, 1]], self.config.layers)
            maps = maps.flip(-1) if mirrored else maps
            rows, columns = slice(top // 2, (top + size) // 2), slice(left // 2, (left + size) // 2)
            height, width = count[rows, columns].shape
            total[:, rows, columns] += F.interpolate(maps[:, None], (height, width), mode="bilinear")[:, 0]
            count[rows, columns] += 1
        scores = images.new_zeros(*shown.shape, side, side)
        scores[pairs[:, 0], pairs[:, 1]] = cam.unit_range(total / count)
        return self.segmented(images, scores, shown) if step == "segmented" else scores

    def views_of(self, images: Tensor, several: bool = True) -> Iterator[tuple[Tensor, bool, tuple[int, int, int]]]:
        """(images [B, 3, S, S], whether they are mirrored, (top, left, side) of the original that they show)."""
        full = images.shape[-1]
        side = max(2, 2 * round(self.config.crop * full / 2))
        places = [(0, 0, full)]
        if several and side < full:
            places += [(top, left, side) for top in (0, full - side) for left in (0, full - side)]
        for top, left, size in places:
            seen = images[..., top : top + size, left : left + size]
            seen = F.interpolate(seen, (full, full), mode="bilinear") if size < full else seen
            yield seen, False, (top, left, size)
            if several and self.config.mirror:
                yield seen.flip(-1), True, (top, left, size)

    def segmented(self, images: Tensor, scores: Tensor, shown: Tensor) -> Tensor:
        """(4) and (5) for scores [B, C, G, G] of the classes `shown` [B, C]: probabilities [B, C, G, G]."""
        seeds = pseudo_labels(scores, shown, self.config.certain)
        spread = self.backbone.std.to(images.device).view(3, 1, 1)
        colours = F.interpolate(images.float(), scores.shape[-2:], mode="area") * spread
        found = [
            walked(colour, seed, self.config.beta)
            for colour, seed in zip(colours.split(AT_ONCE), seeds.split(AT_ONCE), strict=True)
        ]
        return torch.cat(found)


@torch.enable_grad()
def relevance(backbone, images: Tensor, of: Tensor, words: Tensor, layers: int) -> Tensor:
    """(2) of places [n, h, w] to unit vectors of words [n, e], in images [B, 3, S, S] number `of` [n]; not scaled.

    A tower of fewer blocks than `layers` gives all that it has.
    """
    tower = backbone.image
    blocks = tower.visual.transformer.resblocks
    first = max(0, len(blocks) - layers)
    with torch.no_grad():
        x, _ = tower._tokens(images)
        for block in blocks[:first]:
            x = run_block(block, x)
    x, attention = x[of].detach().requires_grad_(), []
    for block in blocks[first:]:
        weights, x = attention_map(block, x)
        attention.append(weights)
    feature = F.normalize(tower._project(tower.visual._pool(x)[0]).float(), dim=-1)
    similarity = backbone.logit_scale.detach().float() * (feature * words).sum()
    gradients = torch.autograd.grad(similarity, attention)
    with torch.no_grad():
        r = torch.eye(x.shape[1], device=x.device).expand(len(x), -1, -1)
        for weights, gradient in zip(attention, gradients, strict=True):
            r = r + (gradient.float() * weights.float()).clamp_min(0).mean(1) @ r
        return r[:, 0, 1:].unflatten(1, tower.grid(*images.shape[-2:]))


def pseudo_labels(scores: Tensor, shown: Tensor, certain: float) -> Tensor:
    """(4) of scores [B, C, H, W] of the classes `shown` [B, C]: one-hot [B, C, H, W] where certain, else zeros.

    Of the pixels of each class, those with the upper `certain` share of scores. A pixel without a score above 0, or with two
    equal best ones, is of no class.
    """
    scores = scores.masked_fill(~shown[..., None, None], 0.0)
    best = scores == scores.amax(1, keepdim=True)
    label = best & (scores > 0) & (best.sum(1, keepdim=True) == 1)
    ordered = scores.masked_fill(~label, 0.0).flatten(2).sort(2, descending=True).values
    last = (certain * label.flatten(2).sum(2, keepdim=True)).ceil().long().clamp_min(1) - 1
    return (label & (scores >= ordered.gather(2, last)[..., None])).float()


def walked(colours: Tensor, seeds: Tensor, beta: float) -> Tensor:
    """The minimum (5) for colours [B, 3, H, W] and seeds [B, C, H, W], one-hot or zeros: [B, C, H, W], 0 to 1.

    The condition of the minimum is linear: (diag(certain) + L) P = seeds, L the Laplacian of the grid of four neighbours.
    """
    height, width = colours.shape[-2:]
    count = height * width
    number = torch.arange(count, device=colours.device).view(height, width)
    pairs = [(number[:, :-1], number[:, 1:]), (number[:-1], number[1:])]
    a, b = (torch.cat([pair[k].flatten() for pair in pairs]) for k in (0, 1))
    flat = colours.double().flatten(2)
    w = torch.exp(-beta * (flat[..., a] - flat[..., b]).square().sum(1)) + FLOOR  # [B, edges]
    system = flat.new_zeros(len(flat), count, count)
    system[:, a, b], system[:, b, a] = -w, -w
    known = seeds.double().flatten(2)
    system.diagonal(dim1=1, dim2=2).copy_(known.sum(1) - system.sum(2) + SLIGHT)
    found = torch.cholesky_solve(known.mT, torch.linalg.cholesky(system))
    return found.mT.unflatten(2, (height, width)).to(seeds.dtype)
