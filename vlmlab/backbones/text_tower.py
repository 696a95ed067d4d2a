"""The text encoder, opened: from words to tokens, from token embeddings to features, with what prompt learning needs in between.

open_clip encodes token ids, always at the full context length. A learned prompt is not made of ids, and in a causal tower nothing after
the end-of-text token can reach it; so here features come from embeddings, at the length that is needed, and a prefix that
all classes share is encoded once. All of it gives the numbers of open_clip's own `encode_text`.

Legend: N texts, L tokens, d text width, e joint width, M context vectors, P prefix tokens, S suffix tokens, C classes, B prefixes
(one per image in conditional prompts), h heads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from open_clip.hf_configs import arch_dict
from open_clip.hf_model import HFTextEncoder
from torch import Tensor, nn

from vlmlab.backbones.blocks import check_blocks, finish, pick, project, replace_rows, run_block
from vlmlab.errors import VlmlabError


class TextTower:
    """CLIP's text transformer.

    width d, context_length (longest sequence), depth (blocks), causal (a token sees only what stands before it),
    special (start tokens before the first word).
    """

    def __init__(self, model: nn.Module, tokenizer: Callable, name: str):
        """`model` is an open_clip model, `tokenizer` maps a list of texts to ids [N, context_length]."""
        # open_clip's CLIP keeps the parts of its text tower at its own top level, CustomTextCLIP in `.text`.
        self.text = getattr(model, "text", model)
        self.tokenizer, self.name = tokenizer, name
        self.width = self.text.ln_final.weight.shape[0]
        self.context_length = self.text.context_length
        self.depth = len(self.blocks)
        self.causal = self.text.attn_mask is not None
        check_blocks(self.blocks, name)

    @property
    def blocks(self) -> nn.ModuleList:
        return self.text.transformer.resblocks

    @property
    def special(self) -> int:
        """How many start tokens stand before the first word: what an empty text and a one-letter text have in common."""
        empty, letter = self.tokenize(["", "a"])
        return int((empty != letter).int().argmax())

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids [N, context_length]; a text that is too long is cut, its end token kept."""
        return self.tokenizer(list(texts)).to(self.text.token_embedding.weight.device)

    def embed(self, tokens: Tensor) -> Tensor:
        """Word embeddings [N, L, d] of ids [N, L], without positions."""
        return self.text.token_embedding(tokens)

    def end_of_text(self, tokens: Tensor) -> Tensor:
        """The position [N] of the token whose last state becomes the text's feature."""
        kind = getattr(self.text, "text_pool_type", None) or self.text.pool_type
        if kind == "argmax":
            return tokens.argmax(-1)  # CLIP's end token has the highest id
        if kind == "eos":
            end_id = getattr(self.text, "text_eos_id", None) or self.text.eos_id
            return (tokens == end_id).int().argmax(-1)
        if kind in ("first", "last"):
            return torch.full((len(tokens),), 0 if kind == "first" else tokens.shape[1] - 1, device=tokens.device)
        raise VlmlabError(f"the text tower of {self.name} does not pool its tokens; choose another backbone")

    def encode(self, tokens: Tensor) -> Tensor:
        """Features [N, e] of ids [N, L], as open_clip's `encode_text` gives them."""
        end = self.end_of_text(tokens)
        if self.causal:
            tokens = tokens[:, : int(end.max()) + 1]
        return self.forward(self.embed(tokens), end)

    def forward(self, embeddings: Tensor, end: Tensor, deep: Sequence[Tensor] | None = None, mask: Tensor | None = None) -> Tensor:
        """Features [N, e] from token embeddings [N, L, d] (positions are added here); `end` [N] is the pooled position.

        L may be any length up to the context length; a causal tower cuts off what stands behind the last `end`.
        `deep[j]` [M, d] or [N, M, d] replaces positions special .. special+M-1 at the input of block j+1 (counted from 0), without
        positions: deep text prompts (MaPLe, arXiv:2210.03117, section 3.2.1). `mask` [N, L] is true for tokens that may be attended to.
        Raises `VlmlabError` if the sequence or the prompts do not fit.
        """
        if self.causal:
            embeddings = embeddings[:, : int(end.max()) + 1]
            mask = None if mask is None else mask[:, : embeddings.shape[1]]
        length = embeddings.shape[1]
        self._check(length, deep, length)
        allowed = torch.ones(length, length, dtype=torch.bool, device=embeddings.device)
        allowed = allowed.tril() if self.causal else allowed
        if mask is not None:
            allowed = allowed & mask[:, None, None, :]
        x = self._positioned(embeddings, 0)
        for j, block in enumerate(self.blocks):
            if deep and 0 < j <= len(deep):
                x = replace_rows(x, self.special, deep[j - 1])
            if j < self.depth - 1:
                x = run_block(block, x, allowed)
            else:
                x = run_block(block, x, allowed.expand(len(x), 1, length, length)[torch.arange(len(x)), :, end, None], rows=end)
        return self._head(x[:, 0])

    def forward_shared_prefix(self, prefix: Tensor, suffix: Tensor, end: Tensor, deep: Sequence[Tensor] | None = None) -> Tensor:
        """Features of every class for a prefix that the classes share: exactly `forward` on [prefix; suffix], at a fraction of its cost.

        prefix [P, d] gives [C, e]; prefix [B, P, d] (one per image) gives [B, C, e]. suffix [C, S, d] are the embeddings of what follows
        (class name, full stop, end token), `end` [C] the pooled position inside the suffix; `deep` as in `forward`, inside the prefix.

        In a causal tower the prefix never sees a class, so its keys and values are computed once per block; a class costs only its own
        few rows, which attend to [keys and values of the prefix; their own past]. Gradients are those of the full computation.
        A tower that is not causal sees both ways: there the sequences are simply joined.
        """
        prefixes = prefix if prefix.dim() == 3 else prefix[None]
        count, classes = len(prefixes), len(suffix)
        if not self.causal:
            joined = torch.cat([prefixes[:, None].expand(-1, classes, -1, -1), suffix.expand(count, -1, -1, -1)], dim=2).flatten(0, 1)
            each = [d if d.dim() == 2 else d.repeat_interleave(classes, 0) for d in deep or ()]
            features = self.forward(joined, (end + prefixes.shape[1]).repeat(count), deep=each)
            return features.unflatten(0, (count, classes)) if prefix.dim() == 3 else features

        suffix = suffix[:, : int(end.max()) + 1]
        length, width = suffix.shape[1:]
        self._check(prefixes.shape[1] + length, deep, prefixes.shape[1])
        ends = end.repeat(count)
        x = self._positioned(prefixes, 0)
        y = self._positioned(suffix, prefixes.shape[1]).repeat(count, 1, 1)  # [B*C, S, d]
        causal = torch.ones(length, length, dtype=torch.bool, device=y.device).tril()
        for j, block in enumerate(self.blocks):
            last = j == self.depth - 1
            if deep and 0 < j <= len(deep):
                x = replace_rows(x, self.special, deep[j - 1])
            *query, prefix_keys, prefix_values = project(block, block.ln_1(x), "kv" if last else "qkv")
            normed = block.ln_1(y)
            if last:
                keys, values = project(block, normed, "kv")
                (q,) = project(block, pick(normed, ends), "q")
                allowed = causal[ends][:, None, None]
                y = pick(y, ends)
            else:
                q, keys, values = project(block, normed, "qkv")
                allowed = causal
                x = finish(block, x, F.scaled_dot_product_attention(*query, prefix_keys, prefix_values, is_causal=True))
            y = finish(block, y, _attend_after_prefix(q, prefix_keys, prefix_values, keys, values, allowed))
        features = self._head(y[:, 0])
        return features.unflatten(0, (count, classes)) if prefix.dim() == 3 else features

    def _positioned(self, embeddings: Tensor, first: int) -> Tensor:
        dtype = self.text.transformer.get_cast_dtype()
        positions = self.text.positional_embedding[first : first + embeddings.shape[1]]
        return embeddings.to(dtype) + positions.to(dtype)

    def _head(self, x: Tensor) -> Tensor:
        """Pooled states [N, d] to features [N, e], in float32 whatever the precision of the tower."""
        x, projection = self.text.ln_final(x), self.text.text_projection
        if isinstance(projection, nn.Linear):
            x = projection(x)
        elif projection is not None:
            x = x @ projection
        return x.float()

    def _check(self, length: int, deep: Sequence[Tensor] | None, room: int) -> None:
        if length > self.context_length:
            raise VlmlabError(f"a prompt of {length} tokens is longer than the {self.context_length} of {self.name}; use fewer context tokens")
        if not deep:
            return
        if len(deep) > self.depth - 1:
            raise VlmlabError(f"deep prompts for {len(deep) + 1} blocks, but the text tower of {self.name} has {self.depth}; use fewer")
        if self.special + max(d.shape[-2] for d in deep) > room:
            raise VlmlabError(f"deep text prompts of {deep[0].shape[-2]} tokens do not fit into the {room} tokens of the prompt; use fewer")


def _attend_after_prefix(q: Tensor, prefix_k: Tensor, prefix_v: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
    """Attention of suffix rows to a prefix and to their own past, [B*C, h, R, d/h].

    q [B*C, h, R, d/h]; k, v [B*C, h, S, d/h] of the suffix; prefix_k, prefix_v [B, h, P, d/h]; `allowed` broadcasts to [B*C, h, R, S].
    Scores to the prefix are one matrix product over all classes: its keys are never copied per class.
    """
    grouped = q.unflatten(0, (len(prefix_k), -1))  # [B, C, h, R, d/h]
    to_prefix = torch.einsum("bchrx,bhpx->bchrp", grouped, prefix_k).flatten(0, 1)
    to_own = (q @ k.transpose(-2, -1)).masked_fill(~allowed, float("-inf"))
    weights = (torch.cat([to_prefix, to_own], -1) * q.shape[-1] ** -0.5).softmax(-1)
    on_prefix, on_own = weights.split([prefix_k.shape[2], k.shape[2]], -1)
    from_prefix = torch.einsum("bchrp,bhpx->bchrx", on_prefix.unflatten(0, (len(prefix_k), -1)), prefix_v)
    return from_prefix.flatten(0, 1) + on_own @ v


class HuggingFaceTextTower(TextTower):
    """A text encoder of the transformers library behind open_clip's adapter, such as the sentence encoder of `photo`.

    It sees both ways, so nothing of a prefix can be shared; only the padding is left out.
    """

    def __init__(self, model: nn.Module, tokenizer: Callable, name: str):
        self.text = model.text
        self.tokenizer, self.name = tokenizer, name
        self.width = self.text.transformer.get_input_embeddings().weight.shape[1]
        self.context_length = getattr(tokenizer, "context_length", None) or self.text.context_length
        self.depth = len(self.blocks)
        self.causal = False

    @property
    def blocks(self) -> nn.ModuleList:
        transformer = self.text.transformer
        return getattr(getattr(transformer, "encoder", transformer), arch_dict[self.text.config.model_type]["config_names"]["layer_attr"])

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        return self.tokenizer(list(texts)).to(self.text.transformer.get_input_embeddings().weight.device)

    def embed(self, tokens: Tensor) -> Tensor:
        return self.text.transformer.get_input_embeddings()(tokens)

    def end_of_text(self, tokens: Tensor) -> Tensor:
        """The last token [N] that is not padding; the adapter's pooler reads the tokens up to it."""
        kept = (tokens != self.text.config.pad_token_id).int()
        return kept.shape[1] - 1 - kept.flip(-1).argmax(-1)

    def encode(self, tokens: Tensor) -> Tensor:
        end = self.end_of_text(tokens)
        tokens = tokens[:, : int(end.max()) + 1]
        return self.forward(self.embed(tokens), end, mask=tokens != self.text.config.pad_token_id)

    def forward(self, embeddings: Tensor, end: Tensor, deep: Sequence[Tensor] | None = None, mask: Tensor | None = None) -> Tensor:
        embeddings = embeddings[:, : int(end.max()) + 1]
        length = embeddings.shape[1]
        self._check(length, deep, length)
        if mask is None:
            mask = torch.arange(length, device=end.device) <= end[:, None]
        mask = mask[:, :length].long()
        with self._deep_prompts(deep):
            states = self.text.transformer(inputs_embeds=embeddings, attention_mask=mask)
        return self.text.proj(self.text.pooler(states, mask)).float()

    @contextlib.contextmanager
    def _deep_prompts(self, deep: Sequence[Tensor] | None) -> Iterator[None]:
        """While active, `deep[j]` replaces the prompt's rows at the input of block j+1; removed even if the pass fails."""
        first, handles = self.special if deep else 0, []

        def put(rows: Tensor) -> Callable:
            return lambda block, args: (replace_rows(args[0], first, rows), *args[1:])

        try:
            for block, rows in zip(self.blocks[1:], deep or (), strict=False):
                handles.append(block.register_forward_pre_hook(put(rows)))
            yield
        finally:
            for handle in handles:
                handle.remove()


def open_text_tower(model: nn.Module, tokenizer: Callable, name: str) -> TextTower:
    """The text tower of an open_clip model.

    Raises `VlmlabError` for a tower that appends a class token of its own (CoCa): its features are not those of a word's position.
    """
    text = getattr(model, "text", model)
    if isinstance(text, HFTextEncoder):
        return HuggingFaceTextTower(model, tokenizer, name)
    if getattr(text, "cls_emb", None) is not None:
        raise VlmlabError(f"the text tower of {name} is CoCa's, which vlmlab does not open; choose a CLIP, such as ViT-B-32/openai")
    return TextTower(model, tokenizer, name)
