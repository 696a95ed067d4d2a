"""A pixel encoder on the tokens of a frozen tower, and the losses per pixel.

There is no pretrained backbone beside CLIP here, so the frozen image tower stands in for one: its patch tokens after a few
blocks say what is where, and a small convolutional stem on the pixels says where exactly it ends.

Dimensions: B images, S image side, h x w places of the tower, d its width, L blocks that are read, m channels out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.backbones.blocks import run_block
from vlmlab.methods.dense.dense import Dense
from vlmlab.methods.method import Batch

MOST_KEPT = 2**29  # numbers of frozen tokens that stay in memory: 2 GB


@torch.no_grad()
def tokens(image, images: Tensor, after: Sequence[int]) -> Tensor:
    """Patch tokens of a ViT tower after the blocks `after` (counted from 1), each layer-normalised: [B, L d, h, w].

    `image` is the tower (`backbone.image`), `images` [B, 3, S, S] normalised.
    """
    x, _ = image._tokens(images)
    found = []
    for j, block in enumerate(image.visual.transformer.resblocks, 1):
        if j > max(after):
            break
        x = run_block(block, x)
        if j in after:
            found.append(F.layer_norm(x[:, 1:].float(), x.shape[-1:]))
    return torch.cat(found, -1).transpose(1, 2).unflatten(2, image.grid(*images.shape[-2:]))


def thirds(depth: int) -> list[int]:
    """The blocks whose tokens are read: the last one of each third of `depth` blocks, counted from 1."""
    return sorted({max(1, depth // 3), max(1, 2 * depth // 3), depth})


class Frozen:
    """What a frozen tower says of the training images, read once: `of(batch)` is what `read` gives for the batch's images.

    Kept on the CPU, in an order that a resumed run repeats, unless it is more than `most` numbers
    (`MOST_KEPT`).
    """

    def __init__(self, method: Dense, pictures, read: Callable[[Tensor], Tensor], most: int | None = None) -> None:
        self.method, self.pictures, self.read = method, pictures, read
        self.most = MOST_KEPT if most is None else most
        self._kept: Tensor | None = None
        self._too_large = False

    def of(self, batch: Batch) -> Tensor:
        """[B, ...] for a batch of training images, or of any others."""
        if batch.masks is None or not batch.whole or self._too_large:
            return self.read(batch.images)
        if self._kept is None:
            each = self.read(batch.images[:1]).numel()
            self._too_large = each * len(self.pictures) > self.most
            if self._too_large:
                return self.read(batch.images)
            parts = self.method.framed_in_turn(self.pictures)
            self._kept = torch.cat([self.read(images).cpu() for _, images, _ in parts])
        return self._kept[batch.index.cpu()].to(batch.images.device)


class TokenNet(nn.Module):
    """Images [B, 3, S, S] and frozen tokens [B, L d, h, w] -> (pixels [B, m, S/2, S/2], the tokens mixed [B, 128, h, w])."""

    def __init__(self, token_width: int, width: int = 48) -> None:
        super().__init__()
        self.at_half, self.at_quarter = _convolution(3, 32, stride=2), _convolution(32, 48, stride=2)
        self.mix = nn.Sequential(
            nn.Conv2d(token_width, 128, 1, bias=False), nn.GroupNorm(8, 128), nn.ReLU(), _Residual(128)
        )
        self.from_tokens, self.from_quarter = nn.Conv2d(128, 64, 1), nn.Conv2d(48, 64, 1)
        self.join = nn.Sequential(_convolution(64, 64), nn.Conv2d(64, width, 1))
        self.from_half = nn.Conv2d(32, width, 1)
        self.out = _convolution(width, width)

    def forward(self, images: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        half = self.at_half(images)
        quarter = self.at_quarter(half)
        mixed = self.mix(places.float())
        y = self.join(_like(self.from_tokens(mixed), quarter) + self.from_quarter(quarter))
        return self.out(_like(y, half) + self.from_half(half)), mixed


class TextPixels(nn.Module):
    """Pixels in the joint space: a `TokenNet`, and a linear path from the tokens that starts it near what CLIP knows.

    (images [B, 3, S, S], tokens [B, L d, h, w]) -> [B, e, S/2, S/2], not normalised.
    """

    def __init__(self, token_width: int, embed_dim: int, width: int = 48) -> None:
        super().__init__()
        self.net = TokenNet(token_width, width)
        self.head = nn.Conv2d(width, embed_dim, 1)
        self.direct = nn.Conv2d(token_width, embed_dim, 1)
        self.mixed = nn.Conv2d(128, embed_dim, 1)

    def forward(self, images: Tensor, places: Tensor) -> Tensor:
        pixels, mixed = self.net(images, places)
        return self.head(pixels) + _like(self.direct(places.float()) + self.mixed(mixed), pixels)


def halved(masks: Tensor) -> Tensor:
    """Class indices or masks [..., S, S] at half the size, [..., S/2, S/2]: every second pixel."""
    return masks[..., ::2, ::2]


def _like(x: Tensor, other: Tensor) -> Tensor:
    return F.interpolate(x, size=other.shape[-2:], mode="bilinear", align_corners=False)


def _convolution(a: int, b: int, stride: int = 1) -> nn.Sequential:
    groups = min(8, b // 4)
    return nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.GroupNorm(groups, b), nn.ReLU())


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            _convolution(width, width), nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.GroupNorm(8, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.inner(x))
