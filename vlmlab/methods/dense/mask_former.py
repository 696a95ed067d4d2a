"""A small MaskFormer (arXiv:2107.06278) on frozen tokens: N queries, each with a mask and with what it says of its segment.

    E, M = TokenNet(x, tokens)                        pixel embeddings, mixed tokens (see `pixels`)            (1)
    Q_0 = query + mean of M over a cell               every query begins as a cell of the image                (2)
    Q_l = DecoderLayer(Q_{l-1}, M + position)                                                                  (3)
    mask = mlp(Q_l) . E / sqrt(m) + b(Q_l)            logits per pixel                                         (4)
    z = Q_l + W (mean of the frozen tokens under sg(mask))                                                     (5)

(2) and (5) let it start where CLIP already is: from nothing, queries do not learn forty names in a minute. The original has
a ResNet with a pixel decoder for (1), queries that know nothing of the image for (2), post-norm layers with dropout and an inner
width of 2048, positions in keys alone, an mlp of three layers without norm, root and b in (4), and z = Q_l.

Dimensions: B images, N queries, d width, m pixel channels, L d' token channels, h x w places, G segments, P pixels, K names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.datasets.truth import UNLABELLED, Truth
from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.mask_queries import dice_loss, focal_loss, match_all, stacked
from vlmlab.methods.dense.naming import mask_pooled
from vlmlab.methods.dense.pixels import TokenNet, halved

PIXEL_CHANNELS = 48
MIXED = 128  # channels of TokenNet's mixed tokens


class Attention(nn.Module):
    """Multi-head attention of x [B, N, d] over y [B, M, d], 32 channels a head: [B, N, d]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // 32)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query(x), self.key(y), self.value(y))
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """Queries [B, N, d] look at each other, then at the memory [B, M, d], then each thinks by itself; pre-norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_own, self.norm_other, self.norm_inner = (nn.LayerNorm(width) for _ in range(3))
        self.own, self.other = Attention(width), Attention(width)
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        x = self.norm_own(queries)
        queries = queries + self.own(x, x)
        queries = queries + self.other(self.norm_other(queries), memory)
        return queries + self.inner(self.norm_inner(queries))


class MaskFormer(nn.Module):
    """(images [B, 3, S, S], tokens [B, L d', h, w]) -> per layer (mask logits [B, N, S/2, S/2], z [B, N, d]).

    Without `pooled`, z = Q_l: for a system that looks at its segments in another way than (5).
    """

    def __init__(
        self, token_width: int, grid: tuple[int, int], queries: int, layers: int, width: int, pooled: bool = True
    ) -> None:
        super().__init__()
        self.net = TokenNet(token_width, PIXEL_CHANNELS)
        self.into = nn.Linear(MIXED, width) if width != MIXED else nn.Identity()
        self.query = nn.Parameter(0.1 * torch.randn(queries, width))
        self.position = nn.Parameter(0.1 * torch.randn(1, width, *grid))
        self.layers = nn.ModuleList(DecoderLayer(width) for _ in range(layers))
        self.mask = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, PIXEL_CHANNELS)
        )
        self.bias = nn.Linear(width, 1)
        self.pooled = nn.Linear(token_width, width) if pooled else None

    def forward(
        self, images: Tensor, places: Tensor, told: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """`told` changes (E [B, m, S/2, S/2], M [B, d, h, w]) before the queries see them."""
        pixels, mixed = self.net(images, places)  # (1)
        mixed = self.into(mixed.movedim(1, -1)).movedim(-1, 1)  # [B, d, h, w]
        if told is not None:
            pixels, mixed = told(pixels, mixed)
        queries = self.query + self._cells(mixed)  # (2)
        position = self.position
        if position.shape[-2:] != mixed.shape[-2:]:
            position = F.interpolate(position, size=mixed.shape[-2:], mode="bilinear")
        memory = (mixed + position).flatten(2).transpose(1, 2)  # [B, h w, d]
        places, found = places.float(), []
        for layer in self.layers:
            queries = layer(queries, memory)  # (3)
            masks = torch.einsum("bnm,bmhw->bnhw", self.mask(queries), pixels) / math.sqrt(PIXEL_CHANNELS)
            masks = masks + self.bias(queries)[..., None]  # (4)
            z = queries
            if self.pooled is not None:
                under = F.adaptive_avg_pool2d(masks.detach().float().sigmoid(), places.shape[-2:])
                z = queries + self.pooled(mask_pooled(places, under))  # (5)
            found.append((masks, z))
        return found

    def _cells(self, mixed: Tensor) -> Tensor:
        """[B, N, d]: the means of the cells of the finest square grid of at most N cells; the other queries begin as the
        mean of all."""
        side = math.isqrt(len(self.query))
        cells = F.adaptive_avg_pool2d(mixed, side).flatten(2).transpose(1, 2)
        return torch.cat([cells, cells.mean(1, keepdim=True).expand(-1, len(self.query) - side**2, -1)], 1)


def segments(semantic: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(labels [G], masks [G, P] of 0 and 1, counted [P] bool) of the class indices [H, W] of one image.

    A segment is all that an image shows of a class. Pixels whose class is not granted are not counted.
    """
    flat = semantic.flatten().long()
    labels = flat[flat >= 0].unique()
    return labels, (flat == labels[:, None]).float(), flat != UNLABELLED


def panoptic_segments(
    truth: Truth, grounds: Sequence[int], half: Callable[[Tensor], Tensor] = halved
) -> tuple[Tensor, Tensor, Tensor]:
    """As `segments`, of a ground truth: each instance by itself, then what shows each of the classes `grounds`.

    `half` says how masks are made smaller. Raises `VlmlabError` if there are no instances.
    """
    things, shown, counted = instance_segments(truth, half)
    labels, masks, _ = segments(half(truth.semantic))
    stuff = torch.isin(labels, torch.tensor(list(grounds), dtype=torch.long, device=labels.device))
    return torch.cat([things, labels[stuff]]), torch.cat([shown, masks[stuff]]), counted


def instance_segments(truth: Truth, half: Callable[[Tensor], Tensor] = halved) -> tuple[Tensor, Tensor, Tensor]:
    """As `panoptic_segments`, of the instances alone."""
    if truth.instances is None or truth.semantic is None:
        raise VlmlabError(
            "these images have no masks of single objects; choose a dataset with instances, such as tableau"
        )
    masks = half(truth.instances).flatten(1).float()
    there = masks.any(1)
    return truth.labels[there], masks[there], half(truth.semantic).flatten() != UNLABELLED


def set_loss(
    names: Tensor,
    masks: Tensor,
    truths: Sequence[tuple[Tensor, Tensor, Tensor]],
    null_weight: float = 0.1,
    mask_weight: float = 20.0,
    dice_weight: float = 1.0,
) -> Tensor:
    """What one decoder layer is taught: cross-entropy + mask_weight focal + dice_weight dice, after matching.

    Args:
        names: logits [B, N, K + 1], "no object" last.
        masks: logits [B, N, P].
        truths: per image labels [G] below K, masks [G, P] of 0 and 1, and which pixels count [P] (see `segments`).

    The cross-entropy is a mean over all queries, weighted by 1 for names and `null_weight` for "no object"; the mask losses
    are sums over the segments of the batch over their number.
    """
    labels = [own for own, _, _ in truths]
    pairs, matched = matched_masks(names, masks, truths, 1.0, mask_weight, dice_weight)
    target = torch.full(names.shape[:2], names.shape[-1] - 1, device=names.device)
    for b, (own, (queries, columns)) in enumerate(zip(labels, pairs, strict=True)):
        target[b, queries.to(target.device)] = own[columns.to(own.device)]
    weights = torch.ones(names.shape[-1], device=names.device)
    weights[-1] = null_weight
    return F.cross_entropy(names.flatten(0, 1), target.flatten(), weights) + matched


def matched_masks(
    names: Tensor,
    masks: Tensor,
    truths: Sequence[tuple[Tensor, Tensor, Tensor]],
    class_cost: float,
    mask_weight: float,
    dice_weight: float,
) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """(pairs of queries and segments of each image, mask_weight focal + dice_weight dice of the pairs); arguments as for
    `set_loss`. With a `class_cost` of 0, names do not count in matching."""
    labels = [own for own, _, _ in truths]
    true = stacked([own for _, own, _ in truths])  # [B, G, P]
    counted = torch.stack([own for _, _, own in truths]).to(masks.dtype)  # [B, P]
    pairs = match_all(names, masks, labels, true, counted, class_cost, mask_weight, dice_weight)
    image = torch.cat([torch.full_like(rows, b) for b, (rows, _) in enumerate(pairs)]).to(masks.device)
    query, segment = (torch.cat(side).to(masks.device) for side in zip(*pairs, strict=True))
    own, true, counted = masks[image, query], true[image, segment], counted[image]
    count = max(1, sum(len(some) for some in labels))
    focal = focal_loss(own, true, count, counted=counted)
    return pairs, mask_weight * focal + dice_weight * dice_loss(own, true, count, counted)
