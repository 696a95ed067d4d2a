"""Which words a learned context vector lies near, and why one should not over-read them.

CoOp's authors list the nearest words of each learned vector and find little sense in them. A list alone cannot show
that: every vector has nearest words. So the same is done for a random vector of the same norm, with both distances.

Dimensions: M context vectors, V words of the vocabulary, d text width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

WORD_END = "</w>"


@dataclasses.dataclass(frozen=True)
class NearWords:
    """What lies near one context vector.

    Attributes:
        words: whole words of the vocabulary, the nearest first.
        distances: Euclidean distance to each, in units of the token embeddings (as in CoOp's own inspection).
        random_words, random_distances: the same for a random vector of equal norm.
        norm: of the context vector.
    """

    words: tuple[str, ...]
    distances: tuple[float, ...]
    random_words: tuple[str, ...]
    random_distances: tuple[float, ...]
    norm: float


def vocabulary(tower) -> tuple[list[str], Tensor]:
    """The whole words of a text tower's tokenizer and their token ids [V]; pieces of words and symbols are left out."""
    inner = getattr(tower.tokenizer, "tokenizer", tower.tokenizer)
    if isinstance(getattr(inner, "decoder", None), dict):  # CLIP's byte-pair tokenizer marks the end of a word
        pairs = [(t.removesuffix(WORD_END), i) for i, t in inner.decoder.items() if t.endswith(WORD_END)]
    else:  # WordPiece marks what is not the beginning of one
        pairs = [(t, i) for t, i in inner.get_vocab().items() if not t.startswith("##")]
    words = [(word, index) for word, index in pairs if word.isascii() and word.isalpha() and len(word) > 1]
    return [word for word, _ in words], torch.tensor([index for _, index in words])


@torch.no_grad()
def nearest_words(tower, vectors: Tensor, count: int = 3, seed: int = 0) -> list[NearWords]:
    """For each of the vectors [M, d] the `count` nearest words, beside those of a random vector of the same norm."""
    words, ids = vocabulary(tower)
    table = tower.embed(ids.to(vectors.device)[None])[0].float()  # [V, d]
    vectors = vectors.detach().float()
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(vectors.shape, generator=generator).to(vectors)
    random = random / random.norm(dim=1, keepdim=True) * vectors.norm(dim=1, keepdim=True)
    near, far = (_nearest(table, v, words, count) for v in (vectors, random))
    norms = vectors.norm(dim=1).tolist()
    return [NearWords(*a, *b, norm) for a, b, norm in zip(near, far, norms, strict=True)]


def _nearest(table: Tensor, vectors: Tensor, words: Sequence[str], count: int) -> list[tuple]:
    distance, index = torch.cdist(vectors, table).topk(count, largest=False)
    return [
        (tuple(words[i] for i in row), tuple(round(d, 4) for d in ds))
        for row, ds in zip(index.tolist(), distance.tolist(), strict=True)
    ]
