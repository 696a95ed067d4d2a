"""The text encoder, opened: from words to tokens, from token embeddings to features, with what prompt learning needs.

open_clip encodes token ids, always at the full context length. A learned prompt is not made of ids, and in a causal
tower nothing after the end-of-text token can reach it; so here features come from embeddings, at the length that is
needed, and a prefix that all classes share is encoded once. The numbers are those of open_clip's own `encode_text`.

Legend: N texts, L tokens, d text width, e joint width, M context vectors, P prefix tokens, S suffix tokens, C classes,
B prefixes (one per image in conditional prompts), R suffix tokens of all classes together, h heads.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from open_clip.hf_model import HFTextEncoder
from torch import Tensor, nn

from vlmlab.backbones.blocks import check_blocks, finish, project, replace_rows, run_block
from vlmlab.errors import VlmlabError


class TextTower:
    """CLIP's text transformer.

    width d; context_length (the longest sequence); depth (blocks); causal (a token sees only what stands before it);
    special (start tokens before the first word).
    """

    def __init__(self, model: nn.Module, tokenizer: Callable, name: str):
        """`model` is an open_clip model (or its text tower), `tokenizer` maps texts to ids [N, context_length].

        Raises `VlmlabError` if its attention is of a kind that is not opened here.
        """
        # open_clip's CLIP keeps the parts of its text tower at its own top level, CustomTextCLIP in `.text`.
        self.text = getattr(model, "text", model)
        self.tokenizer, self.name = tokenizer, name
        self.width = self.text.ln_final.weight.shape[0]
        self.context_length = self.text.context_length
        self.depth = len(self.blocks)
        self.causal = self.text.attn_mask is not None
        check_blocks(self.blocks, name)

    @property
    def plain(self) -> bool:
        """Whether this is CLIP's own transformer, whose blocks a system may change."""
        return type(self) is TextTower

    @property
    def takes_prompts(self) -> bool:
        """Whether vectors can be learned among the embeddings of a text: its feature is read at an end-of-text token, or, in a
        tower that sees both ways, at the last place, padding or not (SigLIP)."""
        return self._pooling in ("argmax", "eos") or (self._pooling == "last" and not self.causal)

    @property
    def _pooling(self) -> str:
        return getattr(self.text, "text_pool_type", None) or self.text.pool_type

    @property
    def blocks(self) -> nn.ModuleList:
        return self.text.transformer.resblocks

    @property
    def words(self) -> nn.Embedding:
        """The table of word embeddings."""
        return self.text.token_embedding

    @functools.cached_property
    def special(self) -> int:
        """How many start tokens stand before the first word: what an empty and a one-letter text have in common."""
        empty, letter = self.tokenize(["", "a"])
        return int((empty != letter).int().argmax())

    @functools.cached_property
    def padding(self) -> int:
        """The id behind the last token of a text."""
        return int(self.tokenize([""])[0, -1])

    def extent(self, tokens: Tensor) -> Tensor:
        """How many tokens [N] of ids [N, L] are no padding, start and end tokens counted."""
        real = tokens != self.padding
        return torch.where(real, torch.arange(1, tokens.shape[1] + 1, device=tokens.device), 0).amax(1)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids [N, context_length]; a text that is too long is cut, its end token kept."""
        return self.tokenizer(list(texts)).to(self.words.weight.device)

    def check_names(self, names: Sequence[str], template: str = "{}") -> None:
        """Raises `VlmlabError` if a class name tokenises to nothing, like another one, or if its end is cut off in the sentence.

        Tokenizers fold much: upper and lower case, accents, white space, whatever they have no word for.
        """
        names = [name.replace("_", " ") for name in names]
        empty, *_ = tokens = self.tokenize(["", *names])
        nothing = (tokens[1:] == empty).all(1)
        if nothing.any():
            name = names[int(nothing.int().argmax())]
            raise VlmlabError(f"the class name '{name}' holds no word that {self.name} reads; give the class another")
        read: dict[tuple[int, ...], str] = {}
        for name, row in zip(names, tokens[1:].tolist(), strict=True):
            other = read.setdefault(tuple(row), name)
            if other != name:
                raise VlmlabError(
                    f"{self.name} reads the class names '{other}' and '{name}' as the same tokens, so that it cannot tell them "
                    "apart; give one of them another name, in classnames.txt or as the name of its folder"
                )
        cut = self.tokenize([template.format(name) for name in names])[:, -1] != empty[-1]  # no room for padding
        if cut.any():
            name = names[int(cut.int().argmax())]
            raise VlmlabError(
                f"the class name '{name[:40]}...' does not fit into the {self.context_length} tokens of {self.name}; "
                "shorten it"
            )

    def embed(self, tokens: Tensor) -> Tensor:
        """Word embeddings [N, L, d] of ids [N, L], without positions."""
        return self.words(tokens)

    def end_of_text(self, tokens: Tensor) -> Tensor:
        """The position [N] of the token whose last state becomes the text's feature."""
        kind = self._pooling
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

    def local_features(self, tokens: Tensor) -> Tensor:
        """A feature in the joint space for every token, [N, L, e], of ids [N, L]: each state after the last block goes
        through the head that the end token's goes through (TaI-DPT, arXiv:2211.12739). In a causal tower a token has
        seen what stands before it; rows behind the end token mean nothing."""
        self._check(tokens.shape[1], None, 0)
        x = self._positioned(self.embed(tokens), 0)
        for block in self.blocks:
            x = run_block(block, x, causal=self.causal)
        return self._head(x)

    def forward(
        self,
        embeddings: Tensor,
        end: Tensor,
        deep: Sequence[Tensor | None] | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Features [N, e] of token embeddings [N, L, d] (positions are added here); `end` [N] is the pooled position.

        L may be any length up to the context length; a causal tower cuts off what stands behind the last `end`. (A
        tower that is not causal and attends to its padding, as SigLIP's does, needs the padding, too.)
        `deep[j]` [M, d] or [N, M, d] replaces positions special .. special+M-1 at the input of block j+1 (counted from
        0), without positions: deep text prompts (MaPLe, arXiv:2210.03117, section 3.2); None leaves a block as it is.
        `mask` [N, L] is true for tokens that may be attended to; without it, all may.
        Raises `VlmlabError` if the sequence or the prompts do not fit.
        """
        if self.causal:
            embeddings = embeddings[:, : int(end.max()) + 1]
        length = embeddings.shape[1]
        self._check(length, deep, length)
        seen = None if mask is None else mask[:, None, None, :length]  # [N, 1, 1, L]
        if self.causal:
            past = (torch.arange(length, device=end.device) <= end[:, None])[:, None, None]
            for_end = past if seen is None else past & seen
            if seen is not None:
                seen = seen & torch.ones(length, length, dtype=torch.bool, device=end.device).tril()
        else:
            for_end = seen
        x = self._positioned(embeddings, 0)
        for j, block in enumerate(self.blocks):
            if deep and 0 < j <= len(deep) and deep[j - 1] is not None:
                x = replace_rows(x, self.special, deep[j - 1])
            if j < self.depth - 1:
                x = run_block(block, x, seen, causal=self.causal and seen is None)
            else:  # only the pooled token's state is read after the last block
                x = run_block(block, x, for_end, rows=end)
        return self._head(x[:, 0])

    def with_word_tokens(self, embeddings: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
        """(features [N, e] as of `forward`, features [N, L', e] of the single tokens) of token embeddings [N, L, d].

        A token's own feature is what the last block and the head make of it alone: its value in place of the attention, on top
        of the end token's state, as in BARON (arXiv 2302.13996). A causal tower cuts off what stands behind the last `end` (L' is
        what is left) and computes no padding: behind the `end` of a shorter text stand features of other tokens.
        """
        if not self.causal:
            return self._with_all_word_tokens(embeddings, end)
        embeddings = embeddings[:, : int(end.max()) + 1]
        self._check(embeddings.shape[1], None, 0)
        rows, slot = _side_by_side(end, embeddings.shape[1])
        *first, last = self.blocks
        y = self._positioned(embeddings, 0).flatten(0, 1)[rows]  # [R, d]: the tokens of all texts, without padding
        for block in first:
            q, k, v = (part[:, slot] for part in project(block, block.ln_1(y), "qkv"))  # each [h, N, L, d/h]
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            y = finish(block, y, mixed.flatten(1, 2)[:, rows])
        normed, ends = last.ln_1(y), slot.gather(1, end[:, None])[:, 0]  # [N]
        k, values = project(last, normed, "kv")
        (q,) = project(last, normed[ends], "q")
        past = (torch.arange(slot.shape[1], device=end.device) <= end[:, None])[:, None]  # [N, 1, L]
        mixed = F.scaled_dot_product_attention(q.unsqueeze(2), k[:, slot], values[:, slot], attn_mask=past)
        text = torch.arange(len(end), device=end.device).repeat_interleave(end + 1)  # [R]
        alone = finish(last, y[ends][text], values)
        return self._head(finish(last, y[ends], mixed.flatten(1, 2))), self._head(alone)[slot]

    def _with_all_word_tokens(self, embeddings: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
        """The same in a tower that sees both ways, in which padding counts."""
        self._check(embeddings.shape[1], None, 0)
        *first, last = self.blocks
        x = self._positioned(embeddings, 0)
        for block in first:
            x = run_block(block, x)
        rows = torch.arange(len(x), device=x.device)
        (values,) = project(last, last.ln_1(x), "v")
        alone = finish(last, x[rows, end][:, None].expand_as(x), values)
        return self._head(run_block(last, x)[rows, end]), self._head(alone)

    def forward_shared_prefix(
        self, prefix: Tensor, suffix: Tensor, end: Tensor, deep: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Features of all classes behind a prefix that they share: `forward` on [prefix; suffix], at less cost.

        prefix [P, d] gives [C, e]; prefix [B, P, d] (one per image) gives [B, C, e]. suffix [C, S, d] is what follows
        (class name, full stop, end token), `end` [C] the pooled position inside of it; `deep` as in `forward`, inside
        of the prefix ([M, d], or [B, M, d]).

        In a causal tower the prefix never sees a class, so its keys and values are computed once per block; a class
        costs only its own few tokens, which attend to [keys and values of the prefix; their own past]. No padding is
        computed but inside of the attention. Values and gradients are those of the full computation. A tower that
        is not causal sees both ways: there the sequences are simply joined.
        """
        prefixes = prefix if prefix.dim() == 3 else prefix[None]
        if not self.causal:
            return self._joined(prefixes, suffix, end, deep).reshape(*prefix.shape[:-2], len(suffix), -1)
        suffix = suffix[:, : int(end.max()) + 1]
        count, (classes, length) = len(prefixes), suffix.shape[:2]
        self._check(prefixes.shape[1] + length, deep, prefixes.shape[1])

        # Names differ in length: the tokens of all classes stand in one row of R, and `slot` [C, S] finds each there.
        real = torch.arange(length, device=end.device) <= end[:, None]
        rows, slot = _side_by_side(end, length)
        ends = slot.gather(1, end[:, None])[:, 0]  # [C]
        past = torch.ones(length, length, dtype=torch.bool, device=end.device).tril()

        x = self._positioned(prefixes, 0)  # [B, P, d]
        y = self._positioned(suffix, prefixes.shape[1]).flatten(0, 1)[rows].expand(count, -1, -1)  # [B, R, d]
        for j, block in enumerate(self.blocks):
            last = j == self.depth - 1
            if deep and 0 < j <= len(deep):
                x = replace_rows(x, self.special, deep[j - 1])
            *query, prefix_k, prefix_v = project(block, block.ln_1(x), "kv" if last else "qkv")
            if not last:
                mixed = F.scaled_dot_product_attention(*query, prefix_k, prefix_v, is_causal=True)
                x = finish(block, x, mixed)
            normed = block.ln_1(y)
            if last:  # only the end tokens ask
                k, v = (part[:, :, slot] for part in project(block, normed, "kv"))
                (q,) = project(block, normed[:, ends], "q")
                mixed = _attend_after_prefix(q.unsqueeze(3), prefix_k, prefix_v, k, v, real[:, None])
                y = finish(block, y[:, ends], mixed.flatten(2, 3))
            else:
                q, k, v = (part[:, :, slot] for part in project(block, normed, "qkv"))  # each [B, h, C, S, d/h]
                mixed = _attend_after_prefix(q, prefix_k, prefix_v, k, v, past)
                y = finish(block, y, mixed.flatten(2, 3)[:, :, rows])
        return self._head(y).reshape(*prefix.shape[:-2], classes, -1)

    def _joined(self, prefixes: Tensor, suffix: Tensor, end: Tensor, deep: Sequence[Tensor] | None) -> Tensor:
        """The same without sharing: features [B*C, e] of every prefix [B, P, d] before every suffix [C, S, d]."""
        count, classes = len(prefixes), len(suffix)
        before = prefixes.repeat_interleave(classes, 0)
        each = [d if d.dim() == 2 else d.repeat_interleave(classes, 0) for d in deep or ()]
        sequences = torch.cat([before, suffix.repeat(count, 1, 1)], dim=1)
        return self.forward(sequences, (end + prefixes.shape[1]).repeat(count), deep=each)

    def _positioned(self, embeddings: Tensor, first: int) -> Tensor:
        dtype = self.text.transformer.get_cast_dtype()
        positions = self.text.positional_embedding[first : first + embeddings.shape[1]]
        return embeddings.to(dtype) + positions.to(dtype)

    def _head(self, x: Tensor) -> Tensor:
        """Pooled states [..., d] to features [..., e], in float32 whatever the precision of the tower."""
        x, projection = self.text.ln_final(x), self.text.text_projection
        if isinstance(projection, nn.Linear):
            x = projection(x)
        elif projection is not None:
            x = x @ projection
        return x.float()

    def _check(self, length: int, deep: Sequence[Tensor] | None, room: int) -> None:
        """Raises `VlmlabError` if `length` tokens, or deep prompts in the first `room` of them, do not fit."""
        if length > self.context_length:
            raise VlmlabError(
                f"a prompt of {length} tokens exceeds the {self.context_length} of {self.name}; use fewer of them"
            )
        if not deep:
            return
        if len(deep) >= self.depth:
            raise VlmlabError(
                f"deep prompts in {len(deep) + 1} blocks exceed the {self.depth} of the text tower of {self.name}; "
                "use fewer"
            )
        most = max(d.shape[-2] for d in deep if d is not None)
        if self.special + most > room:
            raise VlmlabError(f"deep text prompts of {most} tokens do not fit into a prefix of {room}; use fewer")


def _side_by_side(end: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Texts of `end` + 1 tokens [N] without their padding: (places [R] of their tokens among all N L, in which of the R rows each
    token [N, L] is then found; that of padding is the one before it)."""
    real = torch.arange(length, device=end.device) <= end[:, None]
    slot = (real.flatten().cumsum(0) - 1).unflatten(0, real.shape).clamp_min(0)
    return real.flatten().nonzero()[:, 0], slot


def _attend_after_prefix(
    q: Tensor, prefix_k: Tensor, prefix_v: Tensor, k: Tensor, v: Tensor, allowed: Tensor
) -> Tensor:
    """Attention of suffix tokens to a prefix and to their own past: [B, h, C, Q, d/h] for queries of that shape.

    k, v [B, h, C, S, d/h] of the suffixes, prefix_k, prefix_v [B, h, P, d/h]; `allowed` broadcasts to [C, Q, S].
    The scores to the prefix are one matrix product over all classes: its keys are never copied per class.
    """
    to_prefix = (q.flatten(2, 3) @ prefix_k.transpose(-2, -1)).unflatten(2, q.shape[2:4])
    to_own = (q @ k.transpose(-2, -1)).masked_fill(~allowed, float("-inf"))
    weights = (torch.cat([to_prefix, to_own], -1) * q.shape[-1] ** -0.5).softmax(-1)
    on_prefix, on_own = weights.split([prefix_k.shape[2], k.shape[3]], -1)
    return (on_prefix.flatten(2, 3) @ prefix_v).unflatten(2, q.shape[2:4]) + on_own @ v


class _Deep(threading.local):
    def __init__(self) -> None:  # once in every thread that looks
        self.rows: dict[int, tuple[int, Tensor]] = {}


_deep = _Deep()
"""Of the thread that asks: id of a block -> (first row, rows) that take their place in its input. Threads share the blocks."""


def _put_deep_prompts(block: nn.Module, args: tuple) -> tuple | None:
    if id(block) not in _deep.rows:
        return None
    first, rows = _deep.rows[id(block)]
    return replace_rows(args[0], first, rows), *args[1:]


class HuggingFaceTextTower(TextTower):
    """A text encoder of the transformers library behind open_clip's adapter, such as the sentence encoder of `photo`.

    It sees both ways, so nothing of a prefix can be shared; only the padding is left out.
    """

    takes_prompts = True

    def __init__(self, model: nn.Module, tokenizer: Callable, name: str):
        self.text = model.text
        self.tokenizer, self.name = tokenizer, name
        self.width = self.words.weight.shape[1]
        self.context_length = getattr(tokenizer, "context_length", None) or self.text.context_length
        self.depth = len(self.blocks)
        self.causal = False
        for block in self.blocks:
            block.register_forward_pre_hook(_put_deep_prompts)

    @property
    def blocks(self) -> nn.ModuleList:
        # Its name differs from family to family; the stack of layers is the first list in each of them.
        return next(module for module in self.text.transformer.modules() if isinstance(module, nn.ModuleList))

    @property
    def words(self) -> nn.Embedding:
        return self.text.transformer.get_input_embeddings()

    def end_of_text(self, tokens: Tensor) -> Tensor:
        """The last token [N] that is not padding; the adapter's pooler reads the tokens up to it."""
        kept = (tokens != self.text.config.pad_token_id).int()
        return kept.shape[1] - 1 - kept.flip(-1).argmax(-1)

    def encode(self, tokens: Tensor) -> Tensor:
        end = self.end_of_text(tokens)
        tokens = tokens[:, : int(end.max()) + 1]
        return self.forward(self.embed(tokens), end, mask=tokens != self.text.config.pad_token_id)

    def forward(
        self, embeddings: Tensor, end: Tensor, deep: Sequence[Tensor] | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """As for `TextTower`, but that without a `mask` what stands behind `end` is padding."""
        length = int(end.max()) + 1
        embeddings = embeddings[:, :length]
        self._check(length, deep, length)
        if mask is None:
            mask = torch.arange(length, device=end.device) <= end[:, None]
        mask = mask[:, :length].long()
        with self._deep_prompts(deep):
            states = self.text.transformer(inputs_embeds=embeddings, attention_mask=mask)
        return self.text.proj(self.text.pooler(states, mask)).float()

    def local_features(self, tokens: Tensor) -> Tensor:
        """As for `TextTower`; every token's state goes through the pooler as if it were the whole text."""
        mask = (tokens != self.text.config.pad_token_id).long()
        states = self.text.transformer(input_ids=tokens, attention_mask=mask)
        alone = type(states)(last_hidden_state=states.last_hidden_state.flatten(0, 1)[:, None])
        pooled = self.text.pooler(alone, torch.ones_like(tokens).flatten()[:, None])
        return self.text.proj(pooled).unflatten(0, tokens.shape).float()

    @contextlib.contextmanager
    def _deep_prompts(self, deep: Sequence[Tensor] | None) -> Iterator[None]:
        """While active, `deep[j]` replaces the prompt's rows at the input of block j+1, for this thread alone."""
        before = _deep.rows
        _deep.rows = {
            id(b): (self.special, rows)
            for b, rows in zip(self.blocks[1:], deep or (), strict=False)
            if rows is not None
        }
        try:
            yield
        finally:
            _deep.rows = before


class ClosedTextTower(TextTower):
    """CoCa's text tower, which appends a class token of its own: texts can be encoded, prompts cannot be learned."""

    takes_prompts = False

    def encode(self, tokens: Tensor) -> Tensor:
        features = self.text(tokens)
        return (features[0] if isinstance(features, tuple) else features).float()

    def local_features(self, tokens: Tensor) -> Tensor:
        raise VlmlabError(f"{self.name} (CoCa) shows no features of words; use micro-vit, or ViT-B-32/openai")

    def forward(
        self, embeddings: Tensor, end: Tensor, deep: Sequence[Tensor] | None = None, mask: Tensor | None = None
    ) -> Tensor:
        raise VlmlabError(f"{self.name} (CoCa) takes no learned prompts; use micro-vit, or ViT-B-32/openai")

    def forward_shared_prefix(
        self, prefix: Tensor, suffix: Tensor, end: Tensor, deep: Sequence[Tensor] | None = None
    ) -> Tensor:
        return self.forward(suffix, end)


def open_text_tower(model: nn.Module, tokenizer: Callable, name: str) -> TextTower:
    """The text tower of an open_clip model, of the kind that it is."""
    text = getattr(model, "text", model)
    if isinstance(text, HFTextEncoder):
        return HuggingFaceTextTower(model, tokenizer, name)
    closed = getattr(text, "cls_emb", None) is not None
    return (ClosedTextTower if closed else TextTower)(model, tokenizer, name)
