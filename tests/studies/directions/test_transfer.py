"""Directions of transfer: streams do not look ahead, pools are what they are said to be, arms have equally many sentences."""

import numpy as np
import pytest
import torch

from vlmlab.errors import VlmlabError
from vlmlab.studies.directions import descriptions, marks, test_time, unlabelled
from vlmlab.studies.directions.encoded import encoded, zero_shot

DATASET = "textures"


def test_orders_hold_the_same_images_and_sorted_is_sorted():
    streams = {order: test_time.stream(DATASET, order, 1, 120) for order in test_time.ORDERS}
    for one in streams.values():
        assert torch.equal(one.labels.sort().values, streams["shuffled"].labels.sort().values)
    labels = streams["sorted"].labels
    assert torch.equal(labels, labels.sort().values)
    changes = {name: int((one.labels.diff() != 0).sum()) for name, one in streams.items()}
    assert changes["sorted"] < changes["in runs"] < changes["shuffled"]
    assert torch.equal(
        test_time.stream(DATASET, seed=1, images=50).features, test_time.stream(DATASET, seed=1, images=50).features
    )
    with pytest.raises(VlmlabError, match="unknown order"):
        test_time.stream(DATASET, "by size")


def test_features_belong_to_their_images():
    one, every = test_time.stream(DATASET, seed=3, images=20), encoded(DATASET)
    place = (every.features @ one.features[7]).argmax()
    assert np.array_equal(one.images.images(7), every.images.images(int(place)))
    assert int(one.labels[7]) == int(every.labels[place])


def ahead(features, words, scale):
    logits = zero_shot(features, words, scale)
    return logits - logits.softmax(-1).mean(0).log()


def test_who_looks_ahead_is_told():
    one = test_time.stream(DATASET, images=80)
    assert test_time.causal(test_time.tda(), one) and test_time.causal(test_time.debiased(0.5), one)
    assert not test_time.causal(ahead, one)


def test_zero_shot_gains_nothing_and_an_oracle_all():
    one = test_time.stream(DATASET, images=80)
    assert one.gain(zero_shot) == 0
    oracle = lambda features, words, scale: torch.eye(len(words))[one.labels]  # noqa: E731
    assert one.gain(oracle) == pytest.approx(100 - one.accuracy(zero_shot))


def test_debiasing_with_nothing_to_believe_is_zero_shot():
    one = test_time.stream(DATASET, images=40)
    assert torch.equal(
        test_time.debiased(0.0)(one.features, one.words, one.scale), zero_shot(one.features, one.words, one.scale)
    )


def test_pools_hold_what_was_asked_for():
    one, belongs = unlabelled.pool("aerial", present=3, seed=2, images=100)
    assert len(one.labels.unique()) == 3 and bool(belongs.all()) and len(one.words) == 10
    one, belongs = unlabelled.pool("aerial", foreign=0.2, seed=2, images=100)
    assert int((~belongs).sum()) == 20 and len(one.features) == 100
    strange = encoded(unlabelled.FOREIGN).features
    assert bool(((one.features[~belongs] @ strange.T).max(-1).values > 1 - 1e-5).all())
    with pytest.raises(VlmlabError, match="1 to 10 classes"):
        unlabelled.pool("aerial", present=11)


def test_no_belief_in_balance_is_transclip():
    one, belongs = unlabelled.pool("aerial", seed=1, images=100)
    ours, theirs = (r(one.features, one.words, one.scale) for r in (unlabelled.balanced(0.0), unlabelled.transclip))
    assert torch.allclose(ours, theirs)
    assert unlabelled.gain(zero_shot, one, belongs) == 0


@pytest.mark.parametrize("dataset", descriptions.DATASETS)
def test_arms_have_equally_many_sentences_and_only_true_ones_are_true(dataset):
    true, shuffled, random = (descriptions.written(dataset, arm, 1) for arm in ("true", "shuffled", "random"))
    known = descriptions.parts(dataset)
    for name, texts in true.items():
        assert all(part in text for part, text in zip(known[name], texts, strict=True))
        assert len(random[name]) == len(texts) and not any(
            part in text for part in known[name] for text in random[name]
        )
    assert sorted(len(t) for t in shuffled.values()) == sorted(len(t) for t in true.values())
    said = {tuple(text.split(" with ", 1)[1] for text in texts) for texts in shuffled.values()}
    assert said == set(known.values()), "the same phrases, dealt out otherwise"
    assert sum(tuple(text.split(" with ", 1)[1] for text in shuffled[name]) == known[name] for name in known) <= len(
        known
    ) - len(set(known.values()))


def test_marks_change_what_they_say():
    found = marks.scenes(6, 1)
    assert bool((found.target != found.other).all())
    picture, box = found.pictures[0].pixels, found.boxes[0]
    before = picture.copy()
    images = {mark: marks.marked(picture, box, mark) for mark in marks.MARKS}
    assert np.array_equal(picture, before) and np.array_equal(images["plain"], picture)
    assert all(not np.array_equal(images[mark], picture) for mark in ("circle", "blur", "crop"))
    red = (images["circle"] == marks.RED).all(-1)
    assert red.any() and np.array_equal(images["circle"][~red], picture[~red])
    x0, y0, x1, y1 = box
    centre = (slice((y0 + y1) // 2, (y0 + y1) // 2 + 1), slice((x0 + x1) // 2, (x0 + x1) // 2 + 1))
    assert np.array_equal(images["blur"][centre], picture[centre])
    with pytest.raises(VlmlabError, match="unknown mark"):
        marks.marked(picture, box, "arrow")


def test_a_perfect_feature_is_followed_and_the_map_solves_its_equation():
    found = marks.scenes(6, 1)
    words = marks.words(found.classes)
    assert marks.followed(words[found.target], found, words) == (100.0, 100.0)
    f = marks.features(found)
    A = marks.learned(f, found, words, ridge=0.5)
    gradient = f.T @ (f + f @ A - words[found.target]) + 0.5 * A
    assert float(gradient.abs().max()) < 1e-4
