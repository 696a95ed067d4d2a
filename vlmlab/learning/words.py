"""Which words a learned context vector lies near, and why one should not over-read them.

CoOp's authors list the nearest words of each learned vector and find little sense in them. A list alone cannot show
that: every vector has nearest words. So the same is done for random vectors of the same norm, with both cosines.

Near is meant by direction: the cosine. Some words are near to almost any vector and would stand in every list (Radovanovic et
al., "Hubs in Space", JMLR 2010). Two things are done about these hubs. Unit vectors are centred, so that what all embeddings
share does not count (Suzuki et al., "Centering Similarity Measures to Reduce Hubs", EMNLP 2013): x / |x| - m, where m is the
mean of the vocabulary's unit vectors. The length goes first: a learned vector is a seventh as long as the embedding of a word
here, and a mean of embeddings would turn it far enough to make hubs that were not there. And words that are still among the
nearest of too many random directions are left out.

Dimensions: M context vectors, V words of the vocabulary, d text width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

WORD_END = "</w>"
PROBES, HUB = 500, 4.0
"""A hub is among the ten nearest words of random vectors more than `HUB` times as often as a word is on average."""


@dataclasses.dataclass(frozen=True)
class NearWords:
    """What lies near one context vector.

    Attributes:
        words: whole words of the vocabulary, the nearest first.
        cosines: with each, of centred unit vectors.
        random_words, random_cosines: the same for a random vector of equal norm.
        norm: of the context vector.
    """

    words: tuple[str, ...]
    cosines: tuple[float, ...]
    random_words: tuple[str, ...]
    random_cosines: tuple[float, ...]
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
    mean = F.normalize(table, dim=-1).mean(0)  # m [d]
    rows = _centred(table, mean)
    probes = torch.randn(PROBES, len(mean), generator=generator).to(vectors)
    rows[hubs(_centred(probes, mean), rows)] = 0  # no direction: near to nothing
    near, far = (_nearest(rows, _centred(v, mean), words, count) for v in (vectors, random))
    norms = vectors.norm(dim=1).tolist()
    return [NearWords(a[0], a[1], b[0], b[1], norm) for a, b, norm in zip(near, far, norms, strict=True)]


def _centred(vectors: Tensor, mean: Tensor) -> Tensor:
    """Unit vectors [n, d] along x / |x| - m."""
    return F.normalize(F.normalize(vectors, dim=-1) - mean, dim=-1)


def hubs(probes: Tensor, rows: Tensor, count: int = 10) -> Tensor:
    """Which rows [V] of unit vectors [V, d] are among the `count` nearest of the unit probes [P, d] far too often."""
    often = torch.bincount((probes @ rows.T).topk(count, dim=1).indices.flatten(), minlength=len(rows))
    return often > HUB * max(1.0, len(probes) * count / len(rows))


def _nearest(
    rows: Tensor, vectors: Tensor, words: Sequence[str], count: int
) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
    cosine, index = (vectors @ rows.T).topk(count)
    return [
        (tuple(words[i] for i in row), tuple(round(c, 4) for c in cs))
        for row, cs in zip(index.tolist(), cosine.tolist(), strict=True)
    ]
