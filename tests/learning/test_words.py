"""Nearest words go by direction, and tokens that are near to everything are left out."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from vlmlab.backbones import load_backbone
from vlmlab.learning.words import hubs, nearest_words, vocabulary


def test_a_hub_is_found_and_an_ordinary_row_is_not():
    generator = torch.Generator().manual_seed(0)
    common = F.normalize(torch.randn(16, generator=generator), dim=0)
    rows = F.normalize(torch.randn(400, 16, generator=generator), dim=1)
    rows[7] = common
    probes = F.normalize(common + 0.1 * torch.randn(200, 16, generator=generator), dim=1)
    probes[::2] = F.normalize(torch.randn(100, 16, generator=generator), dim=1)
    found = hubs(probes, rows)
    assert found[7] and found.float().mean() < 0.1


def test_different_vectors_have_different_neighbours_and_a_word_is_near_itself():
    text = load_backbone("micro-vit").text
    words, ids = vocabulary(text)
    chosen = [words.index("dog"), words.index("river")]
    own = text.embed(ids[chosen][None])[0]
    near = nearest_words(
        text, torch.cat([3 * own, torch.randn(4, text.width, generator=torch.Generator().manual_seed(1))])
    )
    assert [n.words[0] for n in near[:2]] == ["dog", "river"], "length does not matter"
    assert len({n.words[0] for n in near}) == 6
    assert all(n.cosines == tuple(sorted(n.cosines, reverse=True)) for n in near)
    assert near[0].cosines[0] > near[0].random_cosines[0]


@pytest.mark.parametrize("backbone", ["micro-vit", "photo"])
def test_no_word_is_near_to_many_vectors_however_short_they_are(backbone):
    """Learned vectors are a seventh as long as embeddings of words; by chance, a word is near to four or five of 400."""
    text = load_backbone(backbone).text
    _, ids = vocabulary(text)
    short = float(text.embed(ids[:500][None])[0].norm(dim=1).mean()) / 7
    vectors = F.normalize(torch.randn(400, text.width, generator=torch.Generator().manual_seed(3)), dim=1)
    near = nearest_words(text, short * vectors, count=10)
    times = Counter(word for one in near for word in one.words)
    assert max(times.values()) <= 7, times.most_common(5)
