"""VL-PLM: scores, choice and weights of pseudo labels, and a student of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.methods.parity import same, same_gradient
from vlmlab.datasets.truth import Truth
from vlmlab.learning.fit import fit
from vlmlab.methods.dense.pseudo_labels import PseudoLabels, as_labels, chosen, matched, quality
from vlmlab.methods.dense.student import weighted_cross_entropy
from vlmlab.methods.detection.vl_plm import VLPLM, refined
from vlmlab.testing import toys

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "vl_plm.npz")


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[name])


def test_pseudo_labels_are_the_release_s():
    """Of given features of the crops at two scales; the release's loop at a temperature of 0.5, a threshold of 0.45."""
    embeddings = F.normalize(sum(F.normalize(golden(name), dim=-1) for name in ("crops1", "crops2")), dim=-1)
    method = VLPLM(toys.backbone(), VLPLM.Config(tau=0.5, threshold=0.45))
    method.new, method.text = list(range(5)), golden("text")
    same((2 * embeddings @ golden("text").T).softmax(-1), GOLDEN["probabilities"])
    regions = {"boxes": golden("boxes"), "objectness": golden("objectness"), "embeddings": embeddings}
    regions = {name: value[None] for name, value in regions.items()}
    found = method.pseudo_labels(regions | {"there": torch.ones(1, 24, dtype=torch.uint8)})
    order = found.weights[found.there].argsort(descending=True)
    assert 0 < len(order) < 24
    same(found.boxes[found.there][order], GOLDEN["pseudo_boxes"])
    same(found.weights[found.there][order], GOLDEN["pseudo_scores"])
    assert found.labels[found.there][order].tolist() == GOLDEN["pseudo_labels"].tolist()


def test_the_student_s_loss_is_the_release_s():
    logits = golden("logits").requires_grad_()
    loss = weighted_cross_entropy(logits, golden("labels"), golden("confidence"))
    loss.backward()
    same(loss, GOLDEN["loss"])
    same_gradient(logits.grad, GOLDEN["gradient"])


def test_doubles_are_those_of_a_class_in_an_image():
    box = torch.tensor([0.0, 0, 10, 10])
    boxes = box.expand(2, 3, 4).clone()
    scores = torch.tensor([[0.9, 0.8, 0.7], [0.6, 0.9, 0.1]])
    labels = torch.tensor([[1, 1, 2], [1, 1, 1]])
    found = chosen(boxes, scores, labels, torch.ones(2, 3, dtype=torch.bool), 0.5, 0.6)
    assert found.there.tolist() == [[True, False, True], [False, True, False]]
    assert (found.weights > 0).equal(found.there)


def test_what_a_proposal_meets_names_it_and_weighs_it():
    targets = PseudoLabels(
        torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 10, 10]]]),
        torch.tensor([[3, 1, 2]]),
        torch.tensor([[0.5, 1.0, 0.9]]),
        torch.tensor([[True, True, False]]),
    )
    proposals = torch.tensor([[[0.0, 0, 10, 12], [20, 20, 30, 31], [40, 40, 50, 50]]])
    labels, weights, best = matched(proposals, targets, 9)
    assert labels.tolist() == [[3, 1, 9]] and weights.tolist() == [[0.5, 1.0, 1.0]] and best[0, 2] == 0
    nothing = matched(proposals, as_labels([Truth(np.zeros((0, 4)), np.zeros(0))], "cpu"), 9)
    assert nothing[0].tolist() == [[9, 9, 9]]


def test_pseudo_labels_on_base_objects_go_and_the_report_counts():
    truth = Truth(np.float32([[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]]), np.int64([0, 5, 6]))
    pseudo = PseudoLabels(
        torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 51]]]),
        torch.tensor([[5, 5, 5]]),
        torch.ones(1, 3),
        torch.ones(1, 3, dtype=torch.bool),
    )
    left = pseudo.off(as_labels([truth.only([0])], "cpu"), 0.5)
    assert left.there.tolist() == [[False, True, True]]
    found = quality(left, [truth], [5, 6])
    assert found["boxes"] == 2 and found["precision"] == 50 and found["located"] == 100 and found["recall"] == 50
    assert quality(pseudo.off(as_labels([truth], "cpu"), 0.1), [truth], [5])["boxes"] == 0


def _task():
    return toys.task_for("vl_plm").seen_by("open-vocabulary")


def test_only_new_names_are_pseudo_labels_and_none_means_base_alone():
    config = VLPLM.configure(toys.backbone(), epochs=1, threshold=0.0, off_base=1.0)
    method = VLPLM(toys.backbone(), config)
    fit(method, _task())
    assert method.pseudo.there.any()
    assert set(method.pseudo.labels[method.pseudo.there].tolist()) <= set(method.new)
    assert set(method.granted.labels[method.granted.there].tolist()).isdisjoint(method.new)
    strict = VLPLM(toys.backbone(), VLPLM.configure(toys.backbone(), epochs=1, threshold=1.0))
    fit(strict, _task())
    assert not strict.pseudo.there.any()


def test_refinement_is_the_proposer_s_second_stage_again_and_again():
    method = VLPLM(toys.backbone(), VLPLM.configure(toys.backbone()))
    proposer = method.bank_of(4).proposer
    maps = proposer.maps(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    boxes = torch.tensor([[[4.0, 4, 30, 40], [10, 10, 50, 50]]])
    twice = refined(proposer, maps, refined(proposer, maps, boxes, 1), 1)
    assert torch.equal(twice, refined(proposer, maps, boxes, 2)) and not torch.equal(twice, boxes)
    assert torch.equal(refined(proposer, maps, boxes, 0), boxes)


def test_regions_from_the_disk_are_those_that_are_computed(tmp_path, monkeypatch):
    monkeypatch.setenv("VLMLAB_CACHE", str(tmp_path))
    images = _task().train
    methods = [VLPLM(toys.backbone(), VLPLM.configure(toys.backbone(), epochs=1)) for _ in range(2)]
    for method in methods:
        method.prepare(_task())
    for name, value in methods[0].closer(images).items():
        assert torch.equal(value, methods[1].closer(images)[name]), name
    assert list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("confidence", [True, False])
def test_confidence_is_a_weight(confidence):
    config = VLPLM.configure(toys.backbone(), threshold=0.0, off_base=1.0, confidence=confidence)
    method = VLPLM(toys.backbone(), config)
    method.prepare(_task())
    weights = method.pseudo.weights[method.pseudo.there]
    assert (weights == 1).all() != confidence
