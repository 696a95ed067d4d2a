"""A phrase and its part of a scene: what the variants share, how looks are pooled, and what the ceilings look at."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vlmlab.errors import VlmlabError
from vlmlab.studies.directions import parts


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture(scope="module")
def made():
    """Groups of random tokens, in whose first variant one token is near the phrase, and covered by the object."""
    words, tokens = unit(12, 16), unit(12, 6, 9, 16, seed=1)
    tokens[:, 0, 4] = F.normalize(words + 0.3 * unit(12, 16, seed=2), dim=-1)
    ink = torch.zeros(12, 6, 9)
    ink[:, :, 4] = 0.5
    pixels, boxes = np.zeros((12, 6, 2, 2, 3), np.uint8), np.zeros((12, 6, 4))
    return parts.Groups("base", (("red", "cat"),) * 12, words, words, tokens.mean(2), tokens, ink, pixels, boxes)


def test_variants_differ_in_what_they_should_and_in_nothing_else():
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn, (colour, category), caption = parts.variants(rng, parts.KINDS["base"])
        same = drawn[0]
        one, other = same.objects
        assert (colour, category) == (one.colour, one.category) and colour != other.colour
        assert all(word in caption for o in same.objects for word in (o.category, o.colour))
        for scene, name in zip(drawn, parts.VARIANTS, strict=True):
            assert (scene.style, scene.background, scene.seed) == (same.style, same.background, same.seed)
            for mine, theirs in zip(scene.objects, same.objects, strict=True):
                assert (mine.x, mine.y, mine.radius, mine.seed) == (theirs.x, theirs.y, theirs.radius, theirs.seed)
            first, second = scene.objects
            assert (first.category != category) == name.startswith("category") and second.category == other.category
            assert (first.colour != colour) == ("colour" in name or "exchanged" in name)
            colours = {first.colour, second.colour} == {one.colour, other.colour}
            assert colours == ("new" not in name) and (second.colour != other.colour) == ("exchanged" in name)


def test_attention_is_the_best_token_when_it_is_sharp_and_the_mean_when_it_is_flat(made):
    word, tokens = made.words[3], made.tokens[3]
    torch.testing.assert_close(parts.attended(word, tokens, tau=1e-4), parts.nearest(word, tokens))
    mean = F.normalize(tokens.mean(1), dim=-1) @ word
    torch.testing.assert_close(parts.attended(word, tokens, tau=1e4), mean, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(parts.attended(word, tokens, torch.eye(16)), parts.attended(word, tokens))
    together = parts.attended(made.words[:, None], made.tokens)
    torch.testing.assert_close(together, parts.scores(made, parts.attended))


def test_the_first_variant_must_beat_the_three_of_a_change(made):
    given = torch.tensor([[2.0, 1, 9, 1, 1, 9], [1.0, 1, 0, 0, 0, 0]])
    assert parts.first(given, "new") == 50  # a tie is not found, and the other change does not count
    assert parts.first(given, "exchanged") == 50
    assert parts.first(parts.scores(made, parts.nearest), "new") == 100
    assert parts.retrieval(made, parts.nearest) == 100
    with pytest.raises(VlmlabError, match="change of colour"):
        parts.first(given, "painted over")


def test_the_true_mask_pools_what_it_covers(made):
    torch.testing.assert_close(parts.inside(made), made.tokens[:, :, 4])
    assert parts.first(parts.against(made, parts.inside(made)), "exchanged") == 100


def test_what_is_learned_lowers_the_loss_on_its_groups(made):
    hard = dataclasses.replace(made, tokens=unit(12, 6, 9, 16, seed=3))  # no token is near the phrase

    def loss(A):
        given = parts.attended(hard.words[:, None], hard.tokens, A)
        return F.cross_entropy(parts.SCALE * given, torch.zeros(12, dtype=torch.long))

    assert loss(parts.learned(hard, steps=30)) < 0.9 * loss(torch.eye(16))


def test_looks_at_drawn_scenes():
    found = parts.groups("novel", count=3, seed=5)
    side = found.pixels.shape[2]
    assert found.windows.shape == (3, 6, 5, found.words.shape[1]) and found.crops.shape == found.features.shape
    assert [box[2] - box[0] for box in parts._boxes(side)] == [40] * 5 and parts._boxes(side)[3][2:] == (side, side)
    assert bool((found.ink.sum(-1) > 0).all()) and float(found.ink.max()) <= 1
    one = found.pixels[1, 0]
    x0, y0, x1, y1 = (int(v) for v in found.boxes[1, 0])
    assert bool((found.pixels[1, 3][y0:y1, x0:x1] != one[y0:y1, x0:x1]).any()), "the box holds what was replaced"
    told = parts.told(found, found.crops[:, 0])
    assert set(told) == {"category", "colour"} and all(0 <= value <= 100 for value in told.values())
    assert parts.groups("novel", count=3, seed=5) is found
    with pytest.raises(VlmlabError, match="kind of categories"):
        parts.groups("known")
