import pytest
import torch
import torch.nn.functional as F

from vlmlab.errors import VlmlabError
from vlmlab.methods.retrieval import Store, interpolated

LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


@pytest.fixture
def store():
    return Store(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), LABELS, 3)


def queries(count=4):
    return F.normalize(torch.randn(count, 8, generator=torch.Generator().manual_seed(1)), dim=-1)


def test_neighbours_are_the_nearest_with_softmax_weights(store):
    found = store.nearest(queries(), 3, sharpness=5.0)
    cosines = queries() @ store.keys.T
    for row, index, weights in zip(cosines, found.index, found.weights, strict=True):
        assert index.tolist() == row.argsort(descending=True)[:3].tolist()
        torch.testing.assert_close(weights, (5 * row[index]).softmax(0))
    assert store.keys.norm(dim=-1).sub(1).abs().max() < 1e-6


def test_all_keys_with_a_flat_kernel_give_the_share_of_each_class(store):
    uneven = Store(store.keys, torch.tensor([0, 0, 0, 0, 1, 2]), 4)
    votes = uneven.probabilities(uneven.nearest(queries(), 100, sharpness=0.0))
    torch.testing.assert_close(votes, torch.tensor([4 / 6, 1 / 6, 1 / 6, 0]).expand(4, -1))


def test_the_vote_of_all_keys_is_the_term_of_a_cache_made_a_probability(store):
    beta = 3.0
    votes = store.probabilities(store.nearest(queries(), 6, beta))
    cache = (-beta * (1 - queries() @ store.keys.T)).exp() @ F.one_hot(LABELS, 3).float()  # Tip-Adapter's
    torch.testing.assert_close(votes, cache / cache.sum(-1, keepdim=True))


def test_a_picture_does_not_find_itself(store):
    own = torch.tensor([4, 0, 3])
    found = store.nearest(store.keys[own], 10, sharpness=100.0, own=own)
    assert found.index.shape == (3, 5) and not (found.index == own[:, None]).any()
    assert (store.nearest(store.keys[own], 10, 100.0).index[:, 0] == own).all()
    with pytest.raises(VlmlabError, match="ask for more shots"):
        Store(store.keys[:1], LABELS[:1], 3).nearest(queries(), 1, 1.0, own=torch.zeros(4, dtype=torch.long))


def test_means_follow_the_weights(store):
    found = store.nearest(queries(), 2, sharpness=5.0)
    values = torch.randn(6, 5)
    expected = (found.weights[..., None] * values[found.index]).sum(1)
    torch.testing.assert_close(store.mean(found, values), expected)


def test_interpolation_is_of_probabilities(store):
    logits, votes = 3 * torch.randn(4, 3), store.probabilities(store.nearest(queries(), 2, 5.0))
    for share in (0.0, 0.3, 1.0):
        mixed = interpolated(logits, votes, share)
        torch.testing.assert_close(mixed.softmax(-1), share * votes + (1 - share) * logits.softmax(-1))
    assert interpolated(logits, torch.zeros(4, 3), 1.0).isfinite().all()


def test_an_empty_store_says_what_is_missing():
    with pytest.raises(VlmlabError, match="at least one shot"):
        Store(torch.zeros(0, 8), torch.zeros(0, dtype=torch.long), 3)
