"""BARON: official positions, neighbourhoods and contrast; words that are left out, and bags that are no negatives."""

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import golden, tiny_backbone
from tests.methods.parity import same, same_gradient
from vlmlab.errors import VlmlabError
from vlmlab.methods.detection.baron import (
    BARON,
    PositionWords,
    Queue,
    inside,
    neighbourhood,
    neighbours,
    sentences,
    spanned,
)
from vlmlab.methods.method import Batch
from vlmlab.randomness import LocalRandom
from vlmlab.testing import toys


@pytest.fixture
def numbers():
    return {name: torch.from_numpy(array) for name, array in golden("baron").items()}


def prepared(**settings) -> BARON:
    method = BARON(toys.backbone(), BARON.configure(toys.backbone(), **settings))
    with LocalRandom(0):
        method.prepare(toys.task_for("baron").seen_by("open-vocabulary"))
    return method


def batch_of(method: BARON, positions: list[int]) -> Batch:
    images = method.learns_from(toys.task_for("baron").seen_by("open-vocabulary"))
    shown = method.framed([images.images(i) for i in positions])[0]
    return Batch(images=shown, index=torch.tensor(positions), truths=[images.truth(i) for i in positions])


def test_positions_are_the_release_s(numbers):
    positions = PositionWords(2, 12, 16)
    positions.load_state_dict({k.removeprefix("w/"): v for k, v in numbers.items() if k.startswith("w/")})
    found = positions(numbers["in/places"])
    same(found, numbers["out/positions"])
    (gradient,) = torch.autograd.grad(found.square().sum(), positions.pos_proj[2].weight)
    same_gradient(gradient, numbers["grad/positions"].numpy())


def test_neighbourhoods_are_the_release_s(numbers):
    boxes = numbers["in/boxes"]
    same(neighbourhood(boxes, -0.1), numbers["out/neighbourhood"])
    same(neighbours(boxes, 64.0, 3.0, 0.3, 0.3, -0.1), numbers["out/chances"])
    cut = neighbourhood(boxes, -0.1).clamp(0, 64)
    spans = spanned(cut, numbers["in/chosen"])
    same(spans, numbers["out/spans"])
    chosen = inside(cut, spans)[numbers["in/chosen"]].unflatten(0, (5, 3))
    same(chosen, numbers["out/inside"])


def test_the_contrast_of_bags_is_the_release_s(numbers):
    texts = numbers["in/texts"].requires_grad_()
    queue = Queue(5, 6)
    queue.a[:3], queue.b[:3] = numbers["in/queue_texts"], numbers["in/queue_views"]
    queue.images[:3] = numbers["in/queue_images"].long()
    alike = torch.eye(4, dtype=torch.bool)
    alike[0, 1] = alike[1, 0] = True  # one bag in two orders
    loss = queue.contrast(F.normalize(texts, dim=-1), numbers["in/views"], alike, torch.tensor([7, 7, 7, 9]), 30.0)
    same(loss, numbers["out/bag"])
    same_gradient(torch.autograd.grad(loss, texts)[0], numbers["grad/texts"].numpy())
    assert queue.images.tolist() == [7, 7, 7, 9, 3]  # the newest first, the oldest forgotten


def test_sentences_hold_the_words_that_are_there_in_their_order():
    words = torch.arange(1.0, 7).reshape(2, 3, 1)
    there = torch.tensor([[True, False, True], [False, True, False]])
    found, end, place = sentences(words, there, torch.tensor([[10.0], [20.0]]))
    assert found[..., 0].tolist() == [[10, 1, 3, 20, 20], [10, 5, 20, 20, 20]]
    assert end.tolist() == [3, 2] and place.tolist() == [[1, 3, 2], [2, 1, 2]]


def test_word_tokens_stand_beside_the_feature_that_the_tower_gives():
    tower = toys.backbone().text
    ids = tower.tokenize(["a cat", "a small red tree"])
    end = tower.end_of_text(ids)
    with torch.no_grad():
        features, tokens = tower.with_word_tokens(tower.embed(ids), end)
        torch.testing.assert_close(features, tower.encode(ids), rtol=1e-4, atol=1e-4)
    assert tokens.shape == (2, ids.shape[1], features.shape[1])


def test_some_words_are_left_out_and_never_all():
    method = prepared(words=4, word_drop=0.9)
    with LocalRandom(0):
        heard = method.heard((500, 4), torch.device("cpu"))
    assert heard.any(1).all() and 0.05 < heard[:, 1:].float().mean() < 0.15


def test_gradients_reach_the_words_through_the_frozen_tower():
    method = prepared()
    with LocalRandom(0):
        method.loss(batch_of(method, [0, 1, 2])).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())
    assert all(p.grad is None for p in toys.backbone().text.text.parameters())


def gradient_of_positions(**settings):
    method = prepared(**settings)
    with LocalRandom(0):
        method.loss(batch_of(method, [0, 1, 2])).backward()
    return [p.grad for p in method.positions.parameters()]


def test_bags_and_single_regions_can_be_left_out_one_by_one():
    assert all(grad is None for grad in gradient_of_positions(bag=0.0, single=0.0))
    for one in ({"bag": 0.0}, {"single": 0.0}):
        assert any(grad.abs().max() > 0 for grad in gradient_of_positions(**one))


def test_a_tower_without_tokens_is_refused():
    with pytest.raises(VlmlabError, match="ViT"):
        BARON(tiny_backbone("rn"))
