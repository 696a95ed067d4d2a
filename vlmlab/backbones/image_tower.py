"""The image encoder, opened: patch tokens with prompts among them, local features, attention maps.

open_clip hands out one vector per image. Systems of the survey also need prompt tokens (shallow or deep), a feature
per location (dense prediction) and the attention of each head. Three kinds of tower are opened behind one interface:
ViT, CLIP's modified ResNet with its attention pool, and timm's networks. Features equal open_clip's `encode_image`.

Legend: B batch, H x W image, h x w grid of locations, T tokens, n prompt tokens, d width, e joint width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from vlmlab.backbones.blocks import attention_map, check_blocks, finish, output, project, run_block
from vlmlab.errors import VlmlabError

Prompts: TypeAlias = Tensor | Callable[[Tensor], Tensor]
"""Prompts of a block: [n, d] or [B, n, d], or what makes [B, n, d] of the class and patch tokens there."""
Deep: TypeAlias = Sequence[Prompts]
"""Prompts of the blocks behind the first."""

WITH_TOKENS = "micro-vit, or a ViT of open_clip such as ViT-B-16/openai"


class ImageTower:
    """What the three kinds have in common.

    kind "vit", "resnet" or "timm"; width d of a token or of a location of the last map; depth (blocks); heads of an
    attention layer (0 without one); stride, the pixels (down, across) from one location to the next; supports, a subset
    of "tokens" (prompts), "attention" and "local".
    """

    kind: str
    stride: tuple[int, int]
    supports: frozenset[str]
    width: int
    depth: int
    heads: int

    def __init__(self, visual: nn.Module, name: str):
        self.visual, self.name = visual, name

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """How many locations (h, w) an image of that size has; a rest at the right or bottom has none."""
        return height // self.stride[0], width // self.stride[1]

    def forward(
        self, images: Tensor, prompts: Prompts | None = None, deep: Deep | None = None, behind_norm: bool = False
    ) -> Tensor:
        """Features [B, e] of normalised images [B, 3, H, W].

        `prompts` [n, d] or [B, n, d] join the tokens behind the last patch, after positions, before the first norm
        (MaPLe, arXiv:2210.03117) or, with `behind_norm`, after it (VPT, arXiv:2203.12119). `deep[j]` takes the place of
        what prompts there are at the input of block j+1 (counted from 0); its number of tokens is its own. Either may
        be a function that makes it of the class and patch tokens [B, 1 + h*w, d] there: prompts that look at the image.
        Raises `VlmlabError` if the tower has no tokens, or fewer blocks than prompts.
        """
        if prompts is not None or deep:
            raise self._refusal("prompt tokens", "visual prompts among the tokens (MaPLe, VPT)")
        return self.visual(images.to(self.dtype)).float()

    def local_features(self, images: Tensor, kind: str = "value") -> Tensor:
        """A feature per location in the joint space, [B, e, h, w], not normalised; `images` may have any size of at least
        one stride, but a ViT and a ResNet do not see what is left over behind the last whole one.

        "value": the last attention layer lets each location see only itself (MaskCLIP, arXiv:2112.01071, as released);
        "plain": the ordinary last layer (a ResNet's attention pool asked from every location, without positions);
        "pooled": the same with the pool's positions (DenseCLIP, PLOT); elsewhere than in a ResNet it is "plain";
        "key": the last layer's keys [B, d, h, w], not in the joint space (MaskCLIP's key smoothing).
        Raises `VlmlabError` if the tower has no such features.
        """
        raise NotImplementedError

    def attention(
        self, images: Tensor, prompts: Prompts | None = None, deep: Deep | None = None, behind_norm: bool = False
    ) -> list[Tensor]:
        """Attention weights per layer, each [B, heads, T, T]; row t is where token t looks, token 0 is the pooled one.

        Prompts are as for `forward`, and the last of the T tokens.
        """
        raise self._refusal("attention maps", "attention images")

    def check_prompts(self, system: str, blocks: int) -> None:
        """Raises `VlmlabError` if `system` cannot have prompts in the first `blocks` blocks of this tower."""
        if "tokens" not in self.supports:
            raise self._refusal("prompt tokens", f"the visual prompts of {system}")
        if blocks > self.depth:
            raise VlmlabError(
                f"{system} asks for prompts in {blocks} blocks and the image tower of {self.name} has {self.depth}; use "
                "fewer"
            )

    @property
    def dtype(self) -> torch.dtype:
        """The number type of the matrices, and so of the images that go in."""
        return next(p for p in self.visual.parameters() if p.dim() == 4).dtype

    def _refusal(self, what: str, needed_for: str) -> VlmlabError:
        return VlmlabError(f"{self.name} ({self.kind}) has no {what}; {needed_for} need a ViT: use {WITH_TOKENS}")


class VitTower(ImageTower):
    """A vision transformer: a class token, then h*w patch tokens, then prompts."""

    kind = "vit"
    supports = frozenset({"tokens", "attention", "local"})

    def __init__(self, visual: VisionTransformer, name: str):
        super().__init__(visual, name)
        self.width = visual.conv1.out_channels
        self.stride = tuple(visual.patch_size)
        self.depth = len(visual.transformer.resblocks)
        self.heads = visual.transformer.resblocks[0].attn.num_heads
        check_blocks(visual.transformer.resblocks, name)
        if visual.attn_pool is not None:
            self.supports = self.supports - {"local"}

    def forward(
        self, images: Tensor, prompts: Prompts | None = None, deep: Deep | None = None, behind_norm: bool = False
    ) -> Tensor:
        visual, blocks = self.visual, self.visual.transformer.resblocks
        x, own = self._tokens(images, prompts, behind_norm)
        self._check_deep(deep)
        pooled_only = visual.attn_pool is None and visual.pool_type == "tok"
        for j, block in enumerate(blocks):
            x = _with_prompts(x, own, deep, j)
            if pooled_only and j == self.depth - 1:
                x = run_block(block, x, rows=torch.zeros(len(x), dtype=torch.long, device=x.device))
            else:
                x = run_block(block, x)
        # Prompts do not take part in an average or in a pool with queries.
        pooled, _ = visual._pool(x[:, :own])
        return self._project(pooled).float()

    def local_features(self, images: Tensor, kind: str = "value") -> Tensor:
        """As for `ImageTower`; the value path of a ViT is its last block with the identity for an attention matrix."""
        if self.visual.attn_pool is not None and kind != "key":
            raise VlmlabError(f"{self.name} pools by learned queries, no location has features; use {WITH_TOKENS}")
        last, x = self.last_block(images)
        if kind == "key":
            (k,) = project(last, last.ln_1(x), "k")
            x = output(last, k)  # the release sends keys through the output projection, too
        elif kind == "value":
            (v,) = project(last, last.ln_1(x), "v")
            x = self._project(self.visual.ln_post(finish(last, x, v)))
        elif kind in ("plain", "pooled"):
            x = self._project(self.visual.ln_post(run_block(last, x)))
        else:
            raise _unknown_kind(kind)
        return x[:, 1:].transpose(1, 2).unflatten(2, self.grid(*images.shape[-2:])).float()

    def last_block(self, images: Tensor) -> tuple[nn.Module, Tensor]:
        """The last block, and the tokens [B, 1 + h*w, d] that go into it: for systems that attend in their own way there."""
        *first, last = self.visual.transformer.resblocks
        x, _ = self._tokens(images)
        for block in first:
            x = run_block(block, x)
        return last, x

    def joint(self, x: Tensor) -> Tensor:
        """Tokens [B, T, d] behind the last block in the joint space, [B, T, e], not normalised."""
        return self._project(self.visual.ln_post(x))

    def attention(
        self, images: Tensor, prompts: Prompts | None = None, deep: Deep | None = None, behind_norm: bool = False
    ) -> list[Tensor]:
        x, own = self._tokens(images, prompts, behind_norm)
        self._check_deep(deep)
        maps = []
        for j, block in enumerate(self.visual.transformer.resblocks):
            weights, x = attention_map(block, _with_prompts(x, own, deep, j))
            maps.append(weights.float())
        return maps

    def patches(self, images: Tensor) -> Tensor:
        """Patch embeddings [B, h*w, d] of images, without positions."""
        return self.visual.conv1(images.to(self.dtype)).flatten(2).transpose(1, 2)

    def placed(self, patches: Tensor, grid: tuple[int, int], mode: str = "bicubic", times: int = 1) -> Tensor:
        """The class token and patch embeddings [B, h*w, d] of a `grid` (h, w), with positions and before the first norm,
        [B, 1 + h*w, d].

        `mode`: how positions are interpolated; `times`: the class embedding is added so often (DenseCLIP's release does it twice).
        """
        first = times * self.visual.class_embedding.to(patches.dtype)
        x = torch.cat([first.expand(len(patches), 1, -1), patches], dim=1)
        return x + resized_positions(self.visual.positional_embedding, self.visual.grid_size, grid, mode).to(x.dtype)

    def _tokens(self, images: Tensor, prompts: Prompts | None = None, behind_norm: bool = False) -> tuple[Tensor, int]:
        """The input of the first block, [B, 1 + h*w + n, d], and how many of its tokens are no prompts, 1 + h*w."""
        x = self.placed(self.patches(images), self.grid(*images.shape[-2:]))
        own, norm = x.shape[1], self.visual.ln_pre
        return _joined(norm(x), prompts) if behind_norm else norm(_joined(x, prompts)), own

    def _project(self, x: Tensor) -> Tensor:
        return x if self.visual.proj is None else x @ self.visual.proj

    def _check_deep(self, deep: Deep | None) -> None:
        if deep and len(deep) > self.depth - 1:
            raise VlmlabError(
                f"deep prompts in {len(deep) + 1} blocks exceed the {self.depth} of the image tower of {self.name}; "
                "use fewer"
            )


def _joined(x: Tensor, prompts: Prompts | None) -> Tensor:
    """Tokens [B, T, d] with `prompts`, or what these make of them, behind the last."""
    if prompts is None:
        return x
    prompts = prompts(x) if callable(prompts) else prompts
    return torch.cat([x, prompts.to(x.dtype).expand(len(x), -1, -1)], dim=1)


def _with_prompts(x: Tensor, own: int, deep: Deep | None, j: int) -> Tensor:
    """The input of block j: the `own` first tokens of `x` [B, T, d], and the block's prompts if it has new ones."""
    if not deep or not 0 < j <= len(deep):
        return x
    return _joined(x[:, :own], deep[j - 1])


class ResNetTower(ImageTower):
    """CLIP's modified ResNet: a CNN whose last map [B, d, h, w] is pooled by one attention layer, queried by the mean of the map."""

    kind = "resnet"
    stride = (32, 32)
    supports = frozenset({"attention", "local"})

    def __init__(self, visual: ModifiedResNet, name: str):
        super().__init__(visual, name)
        self.width = visual.attnpool.k_proj.in_features
        self.depth = sum(len(stage) for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4))
        self.heads = visual.attnpool.num_heads

    def last_map(self, images: Tensor) -> Tensor:
        """The map [B, d, h, w] before the attention pool."""
        x = self.visual.stem(images.to(self.dtype))
        for stage in (self.visual.layer1, self.visual.layer2, self.visual.layer3, self.visual.layer4):
            x = stage(x)
        return x

    def forward(
        self, images: Tensor, prompts: Prompts | None = None, deep: Deep | None = None, behind_norm: bool = False
    ) -> Tensor:
        if prompts is not None or deep:
            return super().forward(images, prompts, deep)
        return self.pool(self.last_map(images), positions=True, queries=1)[0][:, 0].float()

    def local_features(self, images: Tensor, kind: str = "value") -> Tensor:
        """As for `ImageTower`; "value" and "key" are the pool's projections as 1x1 convolutions, without positions."""
        x = self.last_map(images)
        size, tokens = x.shape[-2:], x.flatten(2).transpose(1, 2)
        if kind == "value":
            y = self.values(tokens)
        elif kind == "key":
            y = self.visual.attnpool.k_proj(tokens)
        elif kind in ("plain", "pooled"):
            y = self.pool(x, positions=kind == "pooled")[0][:, 1:]
        else:
            raise _unknown_kind(kind)
        return y.transpose(1, 2).unflatten(2, size).float()

    def attention(
        self, images: Tensor, prompts: Prompts | None = None, deep: Deep | None = None, behind_norm: bool = False
    ) -> list[Tensor]:
        """One map [B, heads, 1 + h*w, 1 + h*w]; token 0 is the mean of the map."""
        if prompts is not None or deep:
            raise self._refusal("prompt tokens", "visual prompts among the tokens (MaPLe, VPT)")
        return [self.pool(self.last_map(images), positions=True)[1].float()]

    def pool(self, x: Tensor, positions: bool, queries: int | None = None) -> tuple[Tensor, Tensor]:
        """The attention pool on a map [B, d, h, w]: its output [B, q, e] for the first `queries` tokens (the mean of
        the map, then its locations; None is all), and its weights [B, heads, q, 1 + h*w]."""
        q, k, v = self.projected(self.pool_tokens(x, positions), queries)
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        return self.visual.attnpool.c_proj((weights @ v).transpose(1, 2).flatten(2)), weights

    def pool_tokens(self, x: Tensor, positions: bool = True, mode: str = "bicubic") -> Tensor:
        """What the attention pool reads of a map [B, d, h, w]: its mean, then its locations, [B, 1 + h*w, d], with `positions`
        that are interpolated by `mode`, or without."""
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1)
        if not positions:
            return tokens
        table = self.visual.attnpool.positional_embedding
        side = round((len(table) - 1) ** 0.5)
        return tokens + resized_positions(table, (side, side), x.shape[-2:], mode).to(x.dtype)

    def projected(self, tokens: Tensor, queries: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The pool's q, of the first `queries` tokens (None is all), k and v of tokens [B, T, d]: each [B, heads, T, d / heads]."""
        pool = self.visual.attnpool
        q, k, v = (
            linear(rows).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)
            for linear, rows in ((pool.q_proj, tokens[:, :queries]), (pool.k_proj, tokens), (pool.v_proj, tokens))
        )
        return q, k, v

    def values(self, tokens: Tensor) -> Tensor:
        """The pool's value path [B, T, e] of tokens [B, T, d]: every token as if the pool looked at it alone."""
        return self.visual.attnpool.c_proj(self.visual.attnpool.v_proj(tokens))


class TimmTower(ImageTower):
    """A network of the timm library behind open_clip's adapter, such as the EfficientNet of `photo`."""

    kind = "timm"
    supports = frozenset({"local"})
    heads = 0

    def __init__(self, visual: TimmModel, name: str):
        super().__init__(visual, name)
        self.width = visual.trunk.num_features
        self.depth = len(visual.trunk.feature_info)
        self.stride = (visual.trunk.feature_info[-1]["reduction"],) * 2

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """timm's networks pad their maps, so that a rest has a location of its own."""
        return -(-height // self.stride[0]), -(-width // self.stride[1])

    def local_features(self, images: Tensor, kind: str = "value") -> Tensor:
        """Every location of the last map goes through the network's own pooling and head as if it were the whole map.

        All kinds but "key" are the same, since no attention of timm's is bypassed.
        """
        if kind == "key":
            raise self._refusal("keys", "the keys of MaskCLIP's key smoothing")
        if kind not in ("value", "plain", "pooled"):
            raise _unknown_kind(kind)
        trunk = self.visual.trunk
        size = tuple(images.shape[-2:])
        if hasattr(trunk, "patch_embed") and size != tuple(self.visual.image_size):
            raise VlmlabError(f"{self.name} takes images of {self.visual.image_size}, not {size}; use {WITH_TOKENS}")
        x = trunk.forward_features(images.to(self.dtype))
        if x.dim() == 3:  # tokens of a transformer; its pooling gets one patch in place of all tokens
            extra = trunk.num_prefix_tokens
            grid = self.grid(*size)
            alone = x[:, extra:].flatten(0, 1)[:, None].expand(-1, 1 + extra, -1)
        else:
            if getattr(trunk, "output_fmt", "NCHW") == "NHWC":
                x = x.permute(0, 3, 1, 2)
            grid = tuple(x.shape[-2:])
            alone = x.permute(0, 2, 3, 1).flatten(0, 2)[..., None, None]
            if getattr(trunk, "output_fmt", "NCHW") == "NHWC":
                alone = alone.permute(0, 2, 3, 1)
        features = self.visual.head(trunk.forward_head(alone))
        return features.unflatten(0, (len(images), *grid)).permute(0, 3, 1, 2).float()


def resized_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int], mode: str = "bicubic") -> Tensor:
    """Position embeddings [1 + h*w, d] of an `old` grid for a `new` one: the first row kept, the others interpolated."""
    old, new = (old[0], old[1]), (new[0], new[1])  # as tuples
    if old == new:
        return positions
    grid = positions[1:].float().T.unflatten(1, old)[None]
    grid = F.interpolate(grid, size=new, mode=mode, align_corners=False)
    return torch.cat([positions[:1], grid[0].flatten(1).T.to(positions.dtype)])


def open_image_tower(visual: nn.Module, name: str) -> ImageTower:
    """The image tower of an open_clip model, of the kind that it is."""
    if isinstance(visual, VisionTransformer):
        return VitTower(visual, name)
    if isinstance(visual, ModifiedResNet):
        return ResNetTower(visual, name)
    if isinstance(visual, TimmModel):
        return TimmTower(visual, name)
    raise VlmlabError(
        f"the image tower of {name} ({type(visual).__name__}) is none that vlmlab opens; choose a ViT, a ResNet or timm's"
    )


def _unknown_kind(kind: str) -> ValueError:
    return ValueError(f"local features are 'value', 'plain', 'pooled' or 'key', not '{kind}'")


def copied_tower(tower: ImageTower) -> ImageTower:
    """The same tower over a copy of its weights, which may learn: the backbone stays as it is for everything else that uses it."""
    return open_image_tower(copy.deepcopy(tower.visual), tower.name)
