"""One transformer block of open_clip, opened: its projections, its attention and its second half as separate steps.

Both towers of CLIP are stacks of pre-norm blocks, x + Attention(LN1(x)) and then x + MLP(LN2(x)). Systems of the survey
need what lies inside of them: the keys and values of a shared prefix, values without attention (MaskCLIP), attention
maps, or only the row of one token in the last block. The steps below call the block's own modules, so an activation, a
norm or a layer scale is whatever the backbone has; they cover open_clip's default and custom blocks.

Legend: N sequences, T tokens, d width, h heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.errors import VlmlabError


def check_blocks(blocks: nn.ModuleList, name: str) -> None:
    """Raises `VlmlabError` if the blocks attend in a way that is not opened here (cosine attention of Swin v2)."""
    if getattr(blocks[0].attn, "logit_scale", None) is not None:
        raise VlmlabError(f"{name} has scaled cosine attention, which vlmlab does not open; choose another backbone")


def project(block: nn.Module, normed: Tensor, parts: str) -> tuple[Tensor, ...]:
    """The `parts` ("qkv", "kv", "q", "k" or "v") of tokens, each [N, h, T, d/h]; `normed` [N, T, d] is their LN1."""
    attn, width = block.attn, normed.shape[-1]
    first, last = "qkv".index(parts[0]) * width, ("qkv".index(parts[-1]) + 1) * width
    bias = None if attn.in_proj_bias is None else attn.in_proj_bias[first:last]
    joined, found = F.linear(normed, attn.in_proj_weight[first:last], bias), []
    if hasattr(attn, "low_rank"):  # CLIP-LoRA hangs its learned updates into blocks of its own
        joined = joined + attn.low_rank(normed, parts)
    for part, rows in zip(parts, joined.chunk(len(parts), -1), strict=True):
        rows = rows.unflatten(-1, (attn.num_heads, -1)).transpose(-3, -2)
        if part != "v" and hasattr(attn, f"ln_{part}"):  # custom blocks may normalise queries and keys
            rows = getattr(attn, f"ln_{part}")(rows)
        found.append(rows)
    return tuple(found)


def output(block: nn.Module, mixed: Tensor) -> Tensor:
    """Heads [N, h, T, d/h] joined and sent through the output projection: [N, T, d]."""
    attn = block.attn
    if getattr(attn, "head_scale", None) is not None:
        mixed = mixed * attn.head_scale
    mixed = mixed.transpose(-3, -2).flatten(-2)
    if hasattr(attn, "ln_inner"):
        mixed = attn.ln_inner(mixed)
    joined = attn.out_proj(mixed)
    if "o" in getattr(attn, "low_rank", {}):
        joined = joined + attn.low_rank(mixed, "o")
    return joined


def finish(block: nn.Module, x: Tensor, mixed: Tensor) -> Tensor:
    """The block's result for tokens `x` [N, T, d] whose attention gave `mixed` [N, h, T, d/h]: both residual sums."""
    update = output(block, mixed)
    if hasattr(block, "ln_attn"):
        update = block.ln_attn(update)
    x = x + block.ls_1(update)
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def run_block(
    block: nn.Module, x: Tensor, mask: Tensor | None = None, causal: bool = False, rows: Tensor | None = None
) -> Tensor:
    """The block on tokens `x` [N, T, d]: [N, T, d], or [N, 1, d] if only the tokens at `rows` [N] are asked for.

    `mask` is bool, true where attention is allowed, and broadcasts to [N, h, T, T] ([N, h, 1, T] with `rows`); `causal`
    lets a token see only itself and what stands before it, and takes the place of a mask.
    """
    normed = block.ln_1(x)
    if rows is None:
        q, k, v = project(block, normed, "qkv")
    else:
        k, v = project(block, normed, "kv")
        x = pick(x, rows)
        (q,) = project(block, pick(normed, rows), "q")
    return finish(block, x, F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal))


def pick(x: Tensor, rows: Tensor) -> Tensor:
    """Token `rows[n]` of sequence n of `x` [N, T, d]: [N, 1, d]."""
    return x[torch.arange(len(x), device=x.device), rows].unsqueeze(1)


def attention_map(block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The attention weights [N, h, T, T] (each row sums to one), and the block's result [N, T, d]."""
    q, k, v = project(block, block.ln_1(x), "qkv")
    weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
    return weights, finish(block, x, weights @ v)


def replace_rows(x: Tensor, first: int, new: Tensor) -> Tensor:
    """`x` [N, T, d] with its rows from `first` on replaced by `new` [n, d] or [N, n, d]."""
    new = new.to(x.dtype).expand(len(x), -1, -1)
    return torch.cat([x[:, :first], new, x[:, first + new.shape[1] :]], dim=1)
