"""CLIP-ES: the release's maps, what the softmax and the attention change, where the threshold comes from."""

import dataclasses

import pytest
import torch

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.parity import same
from vlmlab.datasets.truth import NOTHING
from vlmlab.errors import VlmlabError
from vlmlab.learning.fit import fit
from vlmlab.methods.dense import cam
from vlmlab.methods.dense.cam_student import cam_miou
from vlmlab.methods.segmentation.clip_es import CLIPES
from vlmlab.testing import toys


def read(words: str = "ground, sky", **settings) -> CLIPES:
    """The system on the tiny CLIP of the reference numbers, ready to make maps."""
    backbone = tiny_backbone("asym")
    method = CLIPES(backbone, CLIPES.configure(backbone, background_words=words, **settings))
    method.set_classes(CLASSES, ["a photo of a {}."])
    method.grounds = []
    method.set_map_words()
    return method


def test_maps_are_those_of_the_release():
    numbers = golden("clip_es")
    method = read(", ".join(numbers["in/background"].tolist()))
    same(method.words, numbers["out/text"])
    shown = torch.from_numpy(numbers["in/shown"]) > 0
    pairs, maps, wide = method.maps_of(noise_images(32, 3), shown)
    assert pairs.tolist() == numbers["out/pairs"].tolist()
    same(maps, numbers["out/maps"])
    same(wide, numbers["out/spread"])
    assert (numbers["out/spread"].max((1, 2)) > 0).sum() >= 3  # a region in the last column has no box at all


@pytest.mark.parametrize("size", ["", "wide_"])
def test_images_of_any_size_have_the_release_s_probabilities_and_maps(size):
    numbers = golden("clip_es")
    method = read(", ".join(numbers["in/background"].tolist()))
    images = torch.from_numpy(numbers["in/wide_images"]) if size else noise_images(32, 3)
    shown, seen, target = torch.from_numpy(numbers[f"in/{size}shown"]) > 0, [], method.target
    method.target = lambda *given: seen.append(target(*given)) or seen[0]
    pairs, maps, wide = method.maps_of(images, shown)
    same(seen[0].gather(1, pairs[:, 1:])[:, 0], numbers[f"out/{size}p"])
    same(maps, numbers[f"out/{size}maps"])
    same(wide, numbers[f"out/{size}spread"])


def test_probabilities_are_those_of_the_release():
    method = read()
    features = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    features = torch.nn.functional.normalize(features, dim=-1)
    shown = torch.tensor([[True, False, True, False, False], [False, True, False, False, False]])
    p = method.target(features, shown)
    assert (p[~shown] == 0).all() and (p.sum(1) < 1).all()  # background words have the rest
    alone = read(target="present").target(features, shown)
    torch.testing.assert_close(alone, p / p.sum(1, keepdim=True))
    assert (alone[1, 1] == 1) and read(target="logit").target(features, shown).abs().max() > 1


def test_one_class_alone_has_no_gradient_without_background_words():
    """The softmax of one score is 1, whatever the image: such a map is empty, and the words are what mends it."""
    shown = torch.tensor([[True, False, False, False, False]])
    _, alone, _ = read(target="present").maps_of(noise_images(32, 1), shown)
    _, with_words, _ = read().maps_of(noise_images(32, 1), shown)
    assert alone.max() == 0 and with_words.max() > 0.99


def test_stuff_is_a_background_word_and_gets_no_map():
    method = read("sky, oak tree, tabby cat")
    assert len(method.background) == 1  # what is a class of things is no background
    method.grounds = [3]
    method.set_map_words()
    assert len(method.background) == 2
    pairs, _, _ = method.maps_of(noise_images(32, 1), torch.ones(1, 5, dtype=torch.bool))
    assert pairs[:, 1].tolist() == [0, 1, 2, 4]
    with pytest.raises(VlmlabError, match="no background word is left"):
        read("tabby cat")


def test_an_image_without_a_thing_has_no_map():
    pairs, maps, wide = read().maps_of(noise_images(32, 2), torch.zeros(2, 5, dtype=torch.bool))
    assert len(pairs) == len(maps) == len(wide) == 0
    scores, names = cam.strongest(maps, pairs, 2)
    assert scores.shape == names.shape == (2, *maps.shape[1:]) and (scores == -1).all()


def test_the_strongest_map_names_the_place():
    maps = torch.tensor([[[0.2, 0.9]], [[0.5, 0.1]], [[0.3, 0.3]]])
    scores, names = cam.strongest(maps, torch.tensor([[0, 4], [0, 2], [2, 1]]), 3)
    torch.testing.assert_close(scores, torch.tensor([[[0.5, 0.9]], [[-1.0, -1.0]], [[0.3, 0.3]]]))
    assert names[0].tolist() == [[2, 4]] and names[2].tolist() == [[1, 1]]


def test_the_threshold_is_the_best_of_those_on_validation_images():
    scores = torch.tensor([[[0.8, 0.6, 0.3, 0.1]]])
    names, truth = torch.tensor([[[0, 0, 0, 0]]]), torch.tensor([[[0, 0, 2, -1]]])
    assert cam.cam_iou(scores, names, truth, 0.5, 2) == 100
    assert cam.cam_iou(scores, names, truth, 0.7, 2) == pytest.approx(50)
    assert cam.cam_iou(scores, names, truth, 0.05, 2) == pytest.approx(100 * (2 / 3 + 0) / 2)
    assert cam.best_threshold(scores, names, truth, 2) == pytest.approx(0.3)


def prepared(**settings) -> tuple[CLIPES, object]:
    task = toys.task_for("clip_es").seen_by("weakly supervised")
    method = CLIPES(toys.backbone(), CLIPES.configure(toys.backbone(), **settings))
    fit(method, task, should_stop=lambda: True)
    return method, task


def test_pseudo_labels_name_what_the_image_shows_and_its_one_stuff():
    method, task = prepared(threshold=0.3)
    shown = task.train.labels > 0
    for own, labels in zip(method.pseudo, shown, strict=True):
        assert set(own.unique().tolist()) <= {NOTHING, *labels.nonzero().flatten().tolist()}
    assert (method.pseudo == NOTHING).any() and (method.pseudo >= 0).any()
    stuff = dataclasses.replace(task.dataset, grounds=(task.classes[-1],))
    with_stuff = type(task)(toys.backbone(), stuff, 0, seed=1).seen_by("weakly supervised")
    fit(method, with_stuff, should_stop=lambda: True)
    last = len(task.classes) - 1
    for own, labels in zip(method.pseudo, shown, strict=True):
        assert (own == (NOTHING if labels[last] else last)).sum() == 0
    assert (method.pseudo == last).any()


def test_the_threshold_comes_from_the_setting_from_validation_images_or_is_fixed():
    assert prepared(threshold=0.3)[0].threshold == 0.3
    method, task = prepared()
    assert method.threshold in cam.THRESHOLDS
    assert method.chosen_threshold(task.val.subset([])) == CLIPES.fixed_threshold
    found = cam_miou(method, task.val, task.val)
    assert found["validation"] == found["oracle"] >= found["fixed"]
