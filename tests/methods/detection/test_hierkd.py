"""HierKD: the release's assignment, losses and gradients; what captions may say; which boxes CLIP is shown."""

import copy

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import golden
from tests.methods.parity import same, same_gradient
from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.crops import letterboxed
from vlmlab.methods.dense.one_stage import by_place
from vlmlab.methods.dense.pseudo_labels import PseudoLabels
from vlmlab.methods.detection.hierkd import (
    HierKD,
    attended,
    caption_loss,
    drawn_places,
    moved,
    nearest_anchors,
    patches_of,
    without_names,
)
from vlmlab.methods.method import Batch
from vlmlab.randomness import LocalRandom
from vlmlab.testing import toys


@pytest.fixture
def numbers():
    return {name: torch.from_numpy(array) for name, array in golden("hierkd").items()}


def known_of(numbers) -> PseudoLabels:
    boxes, labels, there = (
        torch.zeros(2, 3, 4),
        torch.zeros(2, 3, dtype=torch.long),
        torch.zeros(2, 3, dtype=torch.bool),
    )
    for i in range(2):
        own = numbers[f"in/boxes{i}"]
        boxes[i, : len(own)], labels[i, : len(own)], there[i, : len(own)] = own, numbers[f"in/labels{i}"], True
    return PseudoLabels(boxes, labels, there.float(), there)


def prepared(**settings) -> HierKD:
    method = HierKD(toys.backbone(), HierKD.configure(toys.backbone(), **settings))
    with LocalRandom(0):
        method.prepare(toys.task_for("hierkd").seen_by("open-vocabulary"))
    return method


def test_places_learn_the_objects_that_the_release_gives_them(numbers):
    found = nearest_anchors(numbers["in/anchors"], known_of(numbers))
    assert torch.equal(found, numbers["out/assigned"])
    nothing = known_of(numbers)
    nothing.there[:] = False
    assert (nearest_anchors(numbers["in/anchors"], nothing) == -1).all()


def test_losses_and_gradients_are_the_release_s(numbers):
    method = HierKD(toys.backbone(), HierKD.Config(negatives=1.0))
    method.base, method.base_text = torch.arange(5), numbers["in/words"]
    method.tau = torch.nn.Parameter(torch.tensor(12.0))
    method.class_weight = torch.nn.Parameter(torch.tensor(1.3))
    method.background = torch.nn.Parameter(numbers["in/background"])
    raw, deltas, quality = (numbers[f"in/{name}"].requires_grad_() for name in ("raw", "deltas", "quality"))
    kappa = torch.tensor(7.0, requires_grad=True)
    embeddings = F.normalize(by_place(raw), dim=-1)
    boxes = moved(numbers["in/anchors"], by_place(deltas))
    shown = []

    def crops(index, image, given):
        at = (given[:, None] == boxes[image]).all(-1).float().argmax(1)  # which place said this box
        shown.append(len(given))
        return numbers["in/teachers"][image, at]

    method.crops = crops
    loss = method.loss_at_places(
        embeddings, boxes, by_place(quality)[..., 0], numbers["in/anchors"], known_of(numbers), torch.arange(2)
    )
    expected = sum(numbers[f"out/{name}"] for name in ("cls", "box", "quality", "instances")) + 1.3
    same(loss, expected)
    assert shown == [8]  # of ten positive places, two say a box that misses its object
    patches = patches_of(embeddings.mT.unflatten(2, (8, 8)), 3)
    same(attended(patches, numbers["in/captions"]), numbers["out/attended"])
    captions = caption_loss(patches, numbers["in/captions"], kappa)
    same(captions, numbers["out/captions"])
    inputs = {"raw": raw, "deltas": deltas, "quality": quality, "kappa": kappa}
    inputs |= {"tau": method.tau, "class_weight": method.class_weight}
    gradients = torch.autograd.grad(loss + captions, list(inputs.values()))
    for name, gradient in zip(inputs, gradients, strict=True):
        same_gradient(gradient, numbers[f"grad/{name}"].numpy())


def test_a_tenth_of_the_places_without_an_object_is_drawn():
    positive = torch.zeros(1000, dtype=torch.bool)
    positive[[3, 500]] = True
    with LocalRandom(0):
        drawn = drawn_places(positive, 0.1)
    assert drawn[:2].tolist() == [3, 500] and len(drawn) == 2 + 99 and len(drawn.unique()) == len(drawn)
    assert not len(drawn_places(torch.zeros(10, dtype=torch.bool), 0.1))


def test_captions_without_new_nouns_lose_nothing_else():
    said = ["Two cats and a red cup.", "a cup", "a catalogue of dogs"]
    assert without_names(said, ["cat", "cup"]) == ["Two object and a red object.", "a object", "a catalogue of dogs"]
    assert without_names(said, []) == said
    every, base = prepared(), prepared(new_nouns=False)
    images = toys.dense_dataset().train
    speaks = [any(name in images.caption(i) for name in every.new_names) for i in range(len(images))]
    changed = (every.said != base.said).any(1)
    assert every.new_names and changed.tolist() == speaks and not all(speaks)


def test_images_without_captions_are_refused_unless_none_is_read():
    task = toys.task_for("hierkd").seen_by("open-vocabulary")
    task._train = copy.copy(task._train)
    task._train._caption = None
    for settings, refused in (({}, True), ({"captions": 0.0}, False)):
        method = HierKD(toys.backbone(), HierKD.configure(toys.backbone(), **settings))
        if refused:
            with pytest.raises(VlmlabError, match="captions=0"):
                method.prepare(task)
        else:
            method.prepare(task)


def test_clip_is_shown_the_boxes_that_places_say():
    method = prepared(distil_boxes="predicted", crop_shape="letterboxed")
    index = torch.tensor([0, 2])
    boxes = torch.tensor([[2.0, 3, 14, 15], [15, 16, 29, 28], [3, 3, 20, 15]])
    found = method.crops(index, torch.tensor([0, 0, 1]), boxes)
    alone = method.crops(index[1:], torch.tensor([0]), boxes[2:])
    torch.testing.assert_close(found[2:], alone)
    with LocalRandom(0):
        method.loss(Batch(index=index)).backward()
    assert method.embedding.weight.grad.abs().max() > 0


def test_a_letterboxed_crop_keeps_proportions_and_is_zero_beside_the_box():
    images = torch.ones(1, 3, 8, 8)
    crop = letterboxed(images, torch.tensor([[0.0, 1, 2, 5, 4]]), 8)[0, 0]
    assert torch.equal(crop[2:6], torch.ones(4, 8)) and crop.sum() == 32
