"""RKD: official losses and transfer, what learns in which stage, names from captions."""

import copy
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import golden
from tests.methods.parity import same, same_gradient
from vlmlab.errors import VlmlabError
from vlmlab.learning.fit import fit
from vlmlab.methods.dense.regions import Regions
from vlmlab.methods.detection.rkd import (
    RKD,
    WeightTransfer,
    class_loss,
    distillation,
    image_label_loss,
    pseudo_boxes,
)
from vlmlab.methods.method import Batch
from vlmlab.randomness import LocalRandom
from vlmlab.testing import toys


@pytest.fixture
def numbers():
    return {name: torch.from_numpy(array) for name, array in golden("rkd").items()}


def prepared(**settings) -> RKD:
    method = RKD(toys.backbone(), RKD.configure(toys.backbone(), **settings))
    with LocalRandom(0):
        method.prepare(toys.task_for("rkd").seen_by("open-vocabulary"))
    return method


def batch_of(method: RKD, positions: list[int]) -> Batch:
    images = method.learns_from(toys.task_for("rkd").seen_by("open-vocabulary"))
    return Batch(index=torch.tensor(positions), truths=[images.truth(i) for i in positions])


def test_distances_and_relations_are_the_release_s(numbers):
    students, teachers = numbers["in/students"].requires_grad_(), numbers["in/teachers"]
    unit = F.normalize(students, dim=-1)
    same(distillation(unit, teachers, 0.15, 0), numbers["out/l1"])
    same(distillation(unit, teachers, 0, 0.15), numbers["out/irm"])
    (gradient,) = torch.autograd.grad(distillation(unit, teachers, 0.15, 0.15), students)
    same_gradient(gradient, numbers["grad/students"].numpy())


def test_the_class_loss_leaves_new_columns_out_as_the_release_does(numbers):
    logits, labels = numbers["in/logits"].requires_grad_(), numbers["in/labels"]
    base = [0, 1, 3]  # of five classes; 5 is background
    place = torch.tensor([0, 1, 3, 2, 3, 3])
    loss = class_loss(logits[:, base], place[labels])
    same(loss, numbers["out/cls"])
    (gradient,) = torch.autograd.grad(loss, logits)
    same_gradient(gradient, numbers["grad/logits"].numpy())


def test_the_loss_of_names_is_the_release_s_but_for_its_background_column(numbers):
    logits, names = numbers["in/named"].requires_grad_(), numbers["in/names"]
    loss = image_label_loss(logits[:, :5], names, torch.full((4,), 0.25), 1)
    same(loss + math.log(2), numbers["out/named"])
    (gradient,) = torch.autograd.grad(loss, logits)
    same_gradient(gradient[:, :5], numbers["grad/named"][:, :5].numpy())


def test_the_transfer_is_the_release_s(numbers):
    transfer = WeightTransfer(numbers["w/linear.weight"], numbers["w/linear.bias"])
    given = {name.removeprefix("w/"): value for name, value in numbers.items() if name.startswith("w/fc")}
    transfer.load_state_dict(given, strict=False)
    hidden = numbers["in/hidden"].requires_grad_()
    logits = 50 * F.normalize(transfer(hidden), dim=-1) @ numbers["in/text"].T
    same(logits, numbers["out/transfer"])
    at_hidden, at_fc1 = torch.autograd.grad(logits.square().sum(), (hidden, transfer.fc1.weight))
    same_gradient(at_hidden, numbers["grad/hidden"].numpy())
    same_gradient(at_fc1, numbers["grad/fc1"].numpy())


def test_the_distilled_projection_is_frozen_and_the_transfer_learns():
    method = prepared(transfer=True, rkd_epochs=1)
    project = method.student.project

    def reached() -> set[str]:
        method.zero_grad(set_to_none=True)
        with LocalRandom(0):
            method.loss(batch_of(method, [0, 1, 2, 3])).backward()
        return {name for name, p in method.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}

    method.stage = 0
    student = {name for name, _ in method.named_parameters() if name.startswith("student")}
    assert reached() == student  # the projection is the classifier's, too
    batch, regions = batch_of(method, [0, 1]), method.regions_of(batch_of(method, [0, 1]))
    with LocalRandom(0):
        own = method.labelled(batch, regions)
        hidden = method.student.hidden(method.features(regions.maps, own.boxes)[own.there], learning=True)
        logits = method.scale * F.normalize(method.student.project(hidden), dim=-1) @ method.base_text.T
        expected = class_loss(logits, own.labels[own.there]) + method._distillation(regions)
    with LocalRandom(0):
        same(method.loss(batch), expected.detach())
    with torch.no_grad():
        project.weight.mul_(0.5)  # a step of the first stage
    method.stage = 1
    second = reached()
    assert second == {name for name, _ in method.named_parameters()} - {
        f"student.project.{n}" for n in ("weight", "bias")
    }
    assert torch.equal(method.transfer.frozen, project.weight) and torch.equal(method.transfer.bias, project.bias)
    assert len(prepared(transfer=True, rkd_epochs=0).stages(toys.task_for("rkd"))) == 1


def test_the_defaults_are_the_release_s_and_embedded_settings_stand_beside_them():
    config = RKD.Config()
    assert (config.crop_scales, config.crop_shape, config.transfer, config.scale) == ("1", "centred", True, 50.0)
    assert not RKD.configure(toys.backbone()).transfer


def test_a_fit_that_stops_between_its_stages_ends_like_an_unbroken_one(tmp_path):
    task = toys.task_for("rkd").seen_by("open-vocabulary")

    def fitted(checkpoint=None, most=100) -> dict[str, torch.Tensor]:
        settings = {"transfer": True, "rkd_epochs": 1, "epochs": 1}
        method, done = RKD(toys.backbone(), RKD.configure(toys.backbone(), **settings)), []
        fit(method, task, lambda *_: done.append(1), lambda: len(done) >= most, checkpoint, toys.bank())
        return method.state_dict()

    whole = fitted()
    assert not torch.equal(whole["transfer.frozen"], fitted(tmp_path / "run", 1)["transfer.frozen"])
    again = fitted(tmp_path / "run")
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_captions_name_boxes_of_new_classes_too():
    method = prepared()
    box, there = method.named_boxes
    images = toys.dense_dataset().train
    for i in range(len(images)):
        assert there[i].nonzero().flatten().tolist() == sorted(set(images.truth(i).labels.tolist()))
    assert there[:, method.is_new].any()
    assert box.max() < method.regions.boxes.shape[1]
    assert prepared(image_labels=0.0).named_boxes is None


def test_the_pseudo_box_is_the_nearest_proposal_that_there_is():
    embeddings = F.normalize(torch.tensor([[[1.0, 0], [0, 1], [1, 1]], [[1, 0], [0, 1], [1, 1]]]), dim=-1)
    there = torch.tensor([[True, True, True], [False, False, False]])
    regions = Regions(torch.zeros(2, 1, 1, 1), torch.zeros(2, 3, 4), torch.zeros(2, 3), there, embeddings)
    box, named = pseudo_boxes(regions, torch.eye(2), torch.tensor([[0, 1], [1, 0]]))
    assert box[0].tolist() == [0, 1] and named.tolist() == [[False, True], [False, False]]
    regions = dataclasses.replace(regions, there=torch.tensor([[False, True, True]] * 2))
    assert pseudo_boxes(regions, torch.eye(2), torch.ones(2, 2))[0][0].tolist() == [2, 1]


def test_images_without_captions_are_refused_unless_none_is_read():
    task = toys.task_for("rkd").seen_by("open-vocabulary")
    task._train = copy.copy(task._train)
    task._train._caption = None
    for settings, refused in (({}, True), ({"image_labels": 0.0}, False)):
        method = RKD(toys.backbone(), RKD.configure(toys.backbone(), **settings))
        if refused:
            with pytest.raises(VlmlabError, match="image_labels=0"):
                method.prepare(task)
        else:
            method.prepare(task)


def test_scores_are_sigmoids_of_their_own_class_alone():
    method = prepared()
    images = method.framed([toys.dense_dataset().test.images(0)])[0]
    found = method.tested.find(images)
    logits = method.logits_of(method.features(found.maps, found.boxes), method.text)
    scores = torch.cat([one.scores for one in method.detect(Batch(images=images))])
    assert scores.dtype == torch.float32 and logits.shape[-1] == len(method.classes)
    assert scores.max() == pytest.approx(float(logits[found.there].sigmoid().max()), abs=1e-6)
