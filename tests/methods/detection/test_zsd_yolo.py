"""ZSD-YOLO: the release's matches, loss, self-labels and suppression; what self-labels change."""

import pytest
import torch

from tests.golden.tiny_clip import golden
from tests.methods.parity import same, same_gradient
from vlmlab.methods.dense.boxes import class_nms
from vlmlab.methods.dense.pseudo_labels import PseudoLabels
from vlmlab.methods.detection.zsd_yolo import ZSDYOLO, chosen_self_labels, matches
from vlmlab.methods.method import Batch
from vlmlab.randomness import LocalRandom
from vlmlab.testing import toys


@pytest.fixture
def numbers():
    return {name: torch.from_numpy(array) for name, array in golden("zsd_yolo").items()}


def known_of(numbers) -> tuple[PseudoLabels, torch.Tensor]:
    """Boxes of two images, and CLIP's embeddings of them; label -1 where nobody named one."""
    boxes, teachers = torch.zeros(2, 3, 4), torch.zeros(2, 3, 12)
    labels, there = torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3, dtype=torch.bool)
    for i in range(2):
        own = numbers[f"in/boxes{i}"]
        boxes[i, : len(own)], labels[i, : len(own)], there[i, : len(own)] = own, numbers[f"in/labels{i}"], True
        teachers[i, : len(own)] = numbers[f"in/embeddings{i}"]
    return PseudoLabels(boxes, labels, there.float(), there), teachers


class Eight(ZSDYOLO):
    """With cells of eight pixels."""

    stride = 8.0


def of_release(numbers, **settings) -> ZSDYOLO:
    method = Eight(toys.backbone(), ZSDYOLO.Config(**settings))
    method.register_buffer("sides", numbers["in/sides"])
    method.temperature = torch.nn.Parameter(torch.tensor(2.1))
    method.base_text = method.text = numbers["in/text"]
    method.classes, method.base_names = list("abcde"), ["a", "b", "d"]
    return method


def prepared(**settings) -> ZSDYOLO:
    method = ZSDYOLO(toys.backbone(), ZSDYOLO.configure(toys.backbone(), **settings))
    with LocalRandom(0):
        method.prepare(toys.task_for("zsd_yolo").seen_by("open-vocabulary"))
    return method


def test_boxes_are_matched_with_the_release_s_anchors_and_cells(numbers):
    image, _, anchor, cell = matches(known_of(numbers)[0], numbers["in/sides"], 8.0, (8, 8), 4.0)
    found = torch.stack([image, anchor, cell[:, 1], cell[:, 0]], 1).tolist()
    expected = torch.stack([numbers[f"out/{name}"] for name in ("image", "anchor", "y", "x")], 1).tolist()
    assert len(found) == 45 and sorted(found) == sorted(expected)


def test_the_loss_and_its_gradients_are_the_release_s(numbers):
    settings = {
        "power": 1.3,
        "image": 0.8,
        "words": 1.7,
        "self_share": 0.6,
        "boxes": 0.07,
        "objects": 1.4,
        "names": 0.9,
    }
    method, said = of_release(numbers, **settings), numbers["in/said"].requires_grad_()
    loss = method.loss_of(said, *known_of(numbers))
    same(loss, numbers["out/loss"][0])
    at_said, at_temperature = torch.autograd.grad(loss, (said, method.temperature))
    same_gradient(at_said, numbers["grad/said"].numpy())
    same_gradient(at_temperature[None], numbers["grad/temperature"].numpy())


@pytest.mark.parametrize("groups", [False, True], ids=["all", "groups"])
def test_what_is_left_at_test_is_what_the_release_leaves(numbers, groups):
    method = of_release(numbers, groups=groups, keep=0.2)
    method.said = lambda maps: maps
    places = method.at_places(numbers["in/test"])
    kept = class_nms(places.boxes, places.scores, 0.4) & (places.scores > 0)
    for i in range(2):
        expected = numbers[f"out/{'groups' if groups else 'all'}{i}"]
        row, label = kept[i].nonzero(as_tuple=True)
        best = places.scores[i, row, label].argsort(descending=True)[: len(expected)]
        found = torch.cat([places.boxes[i, row], places.scores[i, row, label][:, None], label[:, None].float()], 1)
        torch.testing.assert_close(found[best], expected, rtol=1e-4, atol=1e-3)


def test_self_labels_are_the_release_s(numbers):
    candidates, expected = numbers["in/candidates"], numbers["out/self_labels"]
    granted = PseudoLabels(
        numbers["in/boxes0"][None, :2], torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2), torch.ones(1, 2).bool()
    )
    boxes, scores = candidates[None, :, :4], candidates[None, :, 4]
    found = chosen_self_labels(boxes, scores, scores > 0.3, granted, 0.2, 8.0)
    left = boxes[found.there]
    assert 0 < len(expected) < (scores > 0.3).sum()
    assert sorted(left[:, 0].tolist()) == sorted(expected[:, 0].tolist())
    assert (found.labels == -1).all() and (found.boxes[~found.there] == 0).all()


def test_self_labels_are_no_background_and_have_no_name():
    method, without = prepared(objectness=0.0), prepared(self_labels=False)
    assert without.targets is without.granted and method.targets.there.sum() > method.granted.there.sum()
    extra = method.targets.labels[:, method.granted.there.shape[1] :]
    assert (extra == -1).all()
    rows = torch.tensor([[1.0, 2], [3, 4]], requires_grad=True)
    method.base_text = torch.eye(2)
    teachers, labels = torch.zeros(2, 2), torch.tensor([-1, 0])
    named = method.embedding_loss(rows, teachers, labels)
    method.config.words = 0.0
    (gradient,) = torch.autograd.grad(named - method.embedding_loss(rows, teachers, labels), rows)
    assert (gradient[0] == 0).all() and (gradient[1] != 0).any()  # words teach the named row alone


def test_an_image_without_a_box_still_teaches_that_nothing_is_there():
    method = prepared()
    method.targets.there[:] = False
    with LocalRandom(0):
        loss = method.loss(Batch(index=torch.tensor([0, 1])))
    loss.backward()
    assert loss > 0 and method.out.weight.grad.abs().max() > 0
