"""BARON: official positions, neighbourhoods and contrast; words that are left out, and bags that are no negatives."""

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import golden, tiny_backbone
from tests.methods.parity import same, same_gradient
from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.roi_head import TextClassifier
from vlmlab.methods.dense.student import weighted_cross_entropy
from vlmlab.methods.detection.baron import (
    BARON,
    PositionWords,
    Queue,
    inside,
    looked_at,
    neighbourhood,
    neighbours,
    promising,
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


def test_middles_of_bags_are_sure_large_and_apart():
    boxes = torch.tensor(
        [[[0.0, 0, 20, 20], [1, 0, 21, 20], [30, 0, 60, 6], [30, 30, 34, 34], [30, 30, 50, 50], [0, 40, 20, 60]]]
    )
    scores = torch.tensor([[0.9, 0.99, 0.95, 0.95, 0.9, 0.8]])
    there = torch.ones(1, 6, dtype=torch.bool)
    found = promising(boxes, scores, there, 64.0, 0.25, 0.01, 0.85, 0.1)
    assert found[0].nonzero().flatten().tolist() == [1, 4]  # a better one on it, too slim, too small, not sure
    found = promising(boxes, scores / 2, there, 64.0, 0.25, 0.01, 0.85, 0.1)
    assert found[0].nonzero().flatten().tolist() == [1]  # nothing is sure: the best one alone
    assert not promising(boxes, scores, ~there, 64.0, 0.25, 0.01, 0.85, 0.1).any()


def test_bags_are_drawn_around_granted_objects_and_by_default_as_in_the_release():
    config = BARON.Config()
    assert (config.sure, config.apart, config.slim, config.small, config.granted) == (0.85, 0.1, 0.25, 0.01, True)
    method = prepared(granted=True, apart=0.1)
    batch = batch_of(method, [0, 1])
    boxes, there = method.centres(method.regions_of(batch), batch.truths)
    for own, which, truth in zip(boxes, there, batch.truths, strict=True):
        assert all((own[which] == box).all(1).any() for box in truth.boxes)


def asym() -> BARON:
    """BARON's parts on the backbone of the golden numbers, without a task."""
    backbone = tiny_backbone("asym")
    method = BARON(backbone, BARON.Config())
    ids = backbone.text.tokenize(["a"])
    ends = backbone.text.embed(ids)[0, [0, int(backbone.text.end_of_text(ids)[0])]].detach()
    object.__setattr__(method, "ends", ends)
    return method


def test_what_a_region_says_its_loss_and_their_gradients_are_the_release_s(numbers):
    """Background counts 0.7, and the mean is over the number of regions, not over their weights."""
    method, words = asym(), numbers["in/head_words"].requires_grad_()
    sequences, end, _ = sentences(words, numbers["in/head_there"], method.ends)
    classifier = TextClassifier(32, 50.0)
    with torch.no_grad():
        classifier.background.copy_(numbers["in/head_background"])
    spoken = method.backbone.text.forward(sequences, end)
    same(classifier(spoken, numbers["in/head_names"]), numbers["out/head_logits"])
    base = numbers["in/head_base"] > 0
    place = torch.cat([base.long().cumsum(0) - 1, base.sum()[None]])
    logits = classifier(spoken, numbers["in/head_names"][base])
    labels = place[numbers["in/head_labels"]]
    loss = weighted_cross_entropy(logits, labels, torch.ones(len(labels)), BARON.Config().background)
    same(loss, numbers["out/head_loss"])
    at_words, at_background = torch.autograd.grad(loss, (words, classifier.background))
    same_gradient(at_words, numbers["grad/head_words"].numpy())
    same_gradient(at_background, numbers["grad/head_background"].numpy())


def test_the_loss_of_names_is_that_mean():
    method = prepared(bag=0.0, single=0.0, word_drop=0.0, dropout=0.0, negatives=0)
    batch = batch_of(method, [0, 1, 2])
    regions = method.regions_of(batch)
    own = method.matched(regions.boxes, regions.there, batch.truths)
    words = method.words_of(method.features(regions.maps, own.boxes)[own.there])
    losses = F.cross_entropy(
        method.classifier(method.spoken(words), method.base_text), own.labels[own.there], reduction="none"
    )
    background = own.labels[own.there] == len(method.base)
    assert background.any() and not background.all()
    same(method.loss(batch), (losses * torch.where(background, 0.7, 1.0)).mean().detach())


def test_tokens_of_words_and_patches_are_the_release_s(numbers):
    method, bags = asym(), [numbers["in/bag0"], numbers["in/bag1"]]
    words = torch.zeros(2, 5, 192)
    there = torch.zeros(2, 5, dtype=torch.bool)
    for i, bag in enumerate(bags):
        words[i, : len(bag)], there[i, : len(bag)] = bag, True
    sequences, end, place = sentences(words, there, method.ends)
    with torch.no_grad():
        texts, tokens = method.backbone.text.with_word_tokens(sequences, end)
        views, patches = looked_at(method.backbone.image, numbers["in/crops"])
    same(F.normalize(texts, dim=-1), numbers["out/bag_features"])
    for i, bag in enumerate(bags):
        same(tokens[i, place[i, : len(bag)]], numbers[f"out/bag_tokens{i}"])
    same(F.normalize(views, dim=-1), numbers["out/views"])
    same(patches, numbers["out/patches"])


def test_bags_of_other_boxes_are_negatives_even_if_they_span_the_same_place(monkeypatch):
    """Of nine boxes, two that lie in opposite corners span what all nine span; only orders of the same bag are alike."""
    method, seen = prepared(groups=2, orders=2), []
    chosen = torch.zeros(2, 9)
    chosen[0, [0, 4, 8]], chosen[1] = 1, 1
    monkeypatch.setattr("vlmlab.methods.detection.baron.neighbours", lambda *_: chosen)
    monkeypatch.setattr(Queue, "contrast", lambda self, a, b, alike, *_: seen.append(alike) or a.sum())
    batch = batch_of(method, [0])
    regions = method.regions_of(batch)
    with LocalRandom(0):
        method.bags_of(batch, regions.maps, torch.tensor([0]), torch.tensor([[12.0, 12, 20, 20]]))
    assert seen[0].int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]


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
        alone = [tower.with_word_tokens(tower.embed(ids[i : i + 1]), end[i : i + 1])[1][0] for i in range(2)]
    assert tokens.shape == (2, int(end.max()) + 1, features.shape[1])
    for own, one in zip(tokens, alone, strict=True):  # the shorter text is not touched by the longer one beside it
        torch.testing.assert_close(own[: len(one)], one, rtol=1e-4, atol=1e-4)


def test_padding_costs_nothing_and_changes_nothing():
    tower = toys.backbone().text
    ids = tower.tokenize(["a cat", "a small red tree"])
    end, embedded = tower.end_of_text(ids), tower.embed(ids).detach().requires_grad_(True)
    found = []
    for own in (tower.with_word_tokens, tower._with_all_word_tokens):
        # The second one is for towers that see both ways; what a mask would hide stands behind the end.
        features, tokens = own(embedded[1:, : int(end[1]) + 1], end[1:])
        (gradient,) = torch.autograd.grad(features.square().sum() + tokens.square().sum(), embedded)
        found.append((features, tokens, gradient))
    assert found[0][1].shape == found[1][1].shape
    assert not found[0][2][0].any() and found[0][2][1, : int(end[1]) + 1].any()


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
