"""Proposals, regions on the disk, and what the detectors over regions learn from."""

import dataclasses
import json
import shutil

import pytest
import torch
import torch.nn.functional as F

from vlmlab.datasets.truth import Truth
from vlmlab.errors import VlmlabError
from vlmlab.files import cache_path, data_path
from vlmlab.learning.fit import fit
from vlmlab.methods.dense import proposals
from vlmlab.methods.dense.boxes import iou
from vlmlab.methods.dense.region_learner import FREE, text_loss
from vlmlab.methods.dense.regions import RegionBank
from vlmlab.methods.detection.region_clip import scores_of
from vlmlab.methods.detection.vild import ViLD
from vlmlab.methods.method import Batch
from vlmlab.randomness import LocalRandom
from vlmlab.registry import load_system
from vlmlab.testing import toys


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VLMLAB_CACHE", str(tmp_path))
    return tmp_path


def prepared(**settings) -> ViLD:
    method = ViLD(toys.backbone(), ViLD.configure(toys.backbone(), **settings))
    with LocalRandom(0):
        method.prepare(toys.task_for("vild").seen_by("open-vocabulary"))
    return method


def batch_of_training(method: ViLD, positions: list[int]) -> Batch:
    images = method.learns_from(toys.task_for("vild").seen_by("open-vocabulary"))
    return Batch(index=torch.tensor(positions), truths=[images.truth(i) for i in positions])


# ------------------------------------------------------------------------------------------------- the proposer


def test_proposals_lie_in_the_image_and_the_most_promising_come_first():
    proposer = proposals.load_proposer()
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = proposer.maps(images)
    found = proposer.propose(maps, 7)
    assert maps.shape == (3, proposer.width, 16, 16) and found.boxes.shape == (3, 7, 4)
    assert found.boxes.min() >= 0 and found.boxes.max() <= 64
    assert (found.objectness.diff(dim=1) <= 0).all() and (found.boxes[~found.there] == 0).all()
    alone = proposer.propose(proposer.maps(images[1:2]), 7)
    torch.testing.assert_close(alone.boxes[0], found.boxes[1], rtol=1e-3, atol=1e-2)
    first = proposer.first_boxes(*proposer.anchor_scores(maps), 7)
    near = iou(first.boxes, first.boxes) - torch.eye(7)
    assert near[first.there[:, :, None] & first.there[:, None]].max() <= proposals.NEAR


def test_the_proposer_is_the_pinned_one(tmp_path, monkeypatch):
    shutil.copytree(data_path("proposer"), tmp_path / "proposer")
    monkeypatch.setenv("VLMLAB_DATA", str(tmp_path))
    monkeypatch.setattr(proposals, "_read", proposals._read.__wrapped__)
    proposals.load_proposer()
    file = tmp_path / "proposer" / "proposer.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(VlmlabError, match="vlmlab build proposer"):
        proposals.load_proposer()
    (tmp_path / "proposer" / "proposer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(VlmlabError, match="vlmlab build proposer"):
        proposals.load_proposer()


def test_reading_the_proposer_moves_no_random_number():
    proposals._read.cache_clear()
    with LocalRandom(0):
        proposals.load_proposer()  # reads the file
        drawn = torch.rand(3)
    with LocalRandom(0):
        assert torch.equal(torch.rand(3), drawn)


def test_the_card_says_what_the_proposer_saw():
    card = json.loads(data_path("proposer", "proposer.json").read_text(encoding="utf-8"))
    assert "base categories only" in card["learned_from"]
    assert card["parameters"] == sum(p.numel() for p in proposals.load_proposer().parameters())


# ------------------------------------------------------------------------------------------------ regions, cached


def images():
    return toys.dense_dataset().train


def test_cached_regions_are_those_that_were_computed(cache, monkeypatch):
    framed = toys.system_of("vild")(toys.backbone()).framed
    fresh, frames = RegionBank(toys.backbone(), 5).regions(framed, images())
    assert len(list(cache_path("regions").rglob("*.safetensors"))) == 1
    bank = RegionBank(toys.backbone(), 5)
    monkeypatch.setattr(bank, "find", None)  # whoever computes fails
    read, frames_read = bank.regions(framed, images())
    uncached, _ = RegionBank(toys.backbone(), 5, disk=False).regions(framed, images())
    for field in dataclasses.fields(fresh):
        value = getattr(fresh, field.name)
        assert torch.equal(value, getattr(read, field.name)) and torch.equal(value, getattr(uncached, field.name))
    assert frames_read == frames
    torch.testing.assert_close(fresh.embeddings.norm(dim=-1), torch.ones(12, 5), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("other", [{"count": 4}, {"scales": (1.2,)}, {"shape": "square"}])
def test_another_recipe_has_another_file(cache, other):
    framed = toys.system_of("vild")(toys.backbone()).framed
    for recipe in ({}, other):
        bank = RegionBank(toys.backbone(), **{"count": 5, **recipe})
        found, _ = bank.regions(framed, images())
        computed = bank.find(framed([images().images(0)])[0], crops=True)
        torch.testing.assert_close(found.embeddings[0], computed.embeddings[0], rtol=1e-2, atol=2e-3)
    assert len(list(cache_path("regions").rglob("*.safetensors"))) == 2


def test_a_damaged_file_is_made_again(cache):
    framed = toys.system_of("vild")(toys.backbone()).framed
    first, _ = RegionBank(toys.backbone(), 5).regions(framed, images(), crops=False)
    (file,) = cache_path("regions").rglob("*.safetensors")
    file.write_bytes(b"nothing")
    again, _ = RegionBank(toys.backbone(), 5).regions(framed, images(), crops=False)
    assert torch.equal(first.maps, again.maps) and again.embeddings is None and file.stat().st_size > 1000


# ------------------------------------------------------------------------------------------------ what is learned from


def test_a_box_has_the_name_of_the_base_object_that_it_meets():
    method = prepared(negatives=40, proposals=3)
    base = len(method.base)
    novel = next(c for c in range(len(method.classes)) if c not in method.base.tolist())
    assert 0 < base < len(method.classes)
    proposed = torch.tensor([[[2.0, 2, 12, 12], [3, 2, 13, 12], [16, 16, 30, 30]], [[0.0, 0, 9, 9]] * 3])
    own = Truth(torch.tensor([[2.0, 2, 12, 12]]), method.base[1:2].cpu())
    none = Truth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    there = torch.tensor([[True, True, True], [True, False, False]])
    with LocalRandom(0):
        found = method.matched(proposed, there, [own, none])
    assert found.labels[0, :4].tolist() == [1, 1, base, 1] and (found.labels[1] == base).all()
    assert found.there[0, :4].tolist() == [True, True, True, True]
    assert found.there[1, :4].tolist() == [True, False, False, False]  # there is no object in the second image
    noise = iou(found.boxes[0, 4:], own.boxes)[:, 0]
    assert torch.equal(found.there[0, 4:], noise < FREE) and found.there[0, 4:].any() and not found.there[0, 4:].all()
    with LocalRandom(0):  # what the setup hides is background, and no box of it is added
        hidden = method.matched(proposed, there, [Truth(own.boxes, torch.tensor([novel])), none])
    assert (hidden.labels == base).all() and not hidden.there[0, 3]


def test_without_a_proposal_and_an_object_a_step_is_made_all_the_same():
    method = prepared(head="ensemble", negatives=0)
    method.regions.there[:] = False
    batch = batch_of_training(method, [0, 1])
    batch.truths = [Truth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))] * 2
    loss = method.loss(batch)
    assert loss.item() == 0
    loss.backward()


def test_the_text_loss_is_the_release_s():
    """New logits times 0, with background in front there and behind here."""
    random = torch.Generator().manual_seed(0)
    base, new = 4, 3
    logits = torch.randn(6, base + 1, generator=random, requires_grad=True)
    labels = torch.tensor([0, 3, 4, 4, 1, 2])
    full = torch.cat([logits, torch.randn(6, new, generator=random)], 1)
    mask = torch.cat([torch.ones(base + 1), torch.zeros(new)])
    theirs = F.cross_entropy(full * mask, labels)
    ours = text_loss(logits, labels, new)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ours, theirs)))


@pytest.mark.parametrize(
    ("head", "learning"),
    [
        ("text", {"text_head", "classifier"}),
        ("vild", {"text_head", "classifier"}),
        ("image", {"image_head"}),
        ("ensemble", {"text_head", "classifier", "image_head"}),
    ],
)
def test_gradients_reach_the_heads_of_the_setting(head, learning):
    method = prepared(head=head)
    with LocalRandom(0):
        method.loss(batch_of_training(method, [0, 1, 2])).backward()
    assert {name.split(".")[0] for name, p in method.named_parameters() if p.grad.abs().max() > 0} == learning
    assert all(p.grad is None for p in method.tested.proposer.parameters())


def test_the_heads_of_the_ensemble_learn_apart():
    method = prepared(head="ensemble", distill=0.0)
    with LocalRandom(0):
        method.loss(batch_of_training(method, [0, 1, 2])).backward()
    assert all(p.grad.abs().max() == 0 for p in method.image_head.parameters())


def test_distillation_asks_for_no_label():
    """It moves towards the crops of all proposals, those of unlabelled new objects among them."""
    method = prepared(head="image")
    batch = batch_of_training(method, [0, 1])
    before = method.loss(batch)
    batch.truths = [Truth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))] * 2
    torch.testing.assert_close(method.loss(batch), before, rtol=0.5, atol=0)  # dropout alone differs
    config = ViLD.configure(toys.backbone(), head="image", dropout=0.0)
    method.config = config
    method.image_head.dropout = 0.0
    students = method.image_head(method.features(method.regions.maps, method.regions.boxes))
    distance = (F.normalize(students, dim=-1) - F.normalize(method.regions.embeddings, dim=-1)).abs().sum(-1)
    index = torch.arange(len(distance))
    expected = config.distill * distance[method.regions.there].mean()
    torch.testing.assert_close(method.loss(Batch(index=index)), expected)


def test_what_is_learned_from_follows_the_image_s_place_and_not_the_batch_s():
    method = prepared(head="image", dropout=0.0)
    own = method.regions.at(torch.tensor([5]))
    batch = batch_of_training(method, [5])
    with LocalRandom(0):
        expected = method.loss(batch)
    method.regions = dataclasses.replace(own)
    method.frames_of = [method.frames_of[5]]
    batch.index = torch.tensor([0])
    with LocalRandom(0):
        torch.testing.assert_close(method.loss(batch), expected)


# ------------------------------------------------------------------------------------------------------ naming


def test_the_frozen_backbone_names_by_softmax_and_objectness():
    text = torch.eye(3)
    embeddings = F.normalize(torch.tensor([[3.0, 1, 0], [0, 0, 1]]), dim=-1)
    found = scores_of(embeddings, torch.tensor([0.25, 1.0]), text, 2.0)
    expected = (torch.tensor([[0.25], [1.0]]) * (2 * embeddings).softmax(-1)).sqrt()
    torch.testing.assert_close(found, expected)


def test_an_image_without_a_proposal_has_no_detection():
    method = prepared()
    batch = Batch(images=method.framed([images().images(0)])[0])
    found = method.tested.find(batch.images)
    found.there[:] = False
    assert len(method.detect(batch)[0]) == 0 and len(method.proposals(batch)[0]) == 0
    assert method.logits(batch).abs().max() == 0


def test_the_ensemble_trusts_the_text_head_on_base_and_the_image_head_on_new():
    method = prepared(head="ensemble")
    features = torch.randn(2, 4, method.text_head.layers[0].in_features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        p = (method.config.soften * method.classifier(method.text_head(features), method.text)).softmax(-1)[..., :-1]
        q = (method.scale * F.normalize(method.image_head(features), dim=-1) @ method.text.T).softmax(-1)
        share = torch.where(method.is_new, 2 / 3, 1 / 3)
        torch.testing.assert_close(method.scores(features), p ** (1 - share) * q**share)


def test_images_without_boxes_are_refused():
    task = toys.task_for("vild").seen_by("open-vocabulary")
    task._train = toys.dense_dataset().train.without_truth()
    with pytest.raises(VlmlabError, match="learns from boxes"):
        fit(ViLD(toys.backbone()), task)


@pytest.mark.parametrize("key", ["ro_vit", "promptdet"])
def test_who_multiplies_no_cosines_by_a_constant_takes_no_scale(key):
    """Both learn their factor; a setting that changes nothing is refused."""
    with pytest.raises(VlmlabError, match="scale"):
        load_system(key).read_setting("scale", 50.0)


def test_a_bank_that_remembers_computes_each_batch_once_and_says_the_same(monkeypatch):
    bank = RegionBank(toys.backbone(), 4, (1.2,), "square", disk=False)
    drawing = torch.Generator().manual_seed(0)
    side = toys.backbone().image_size
    first, second = (torch.rand(2, 3, side, side, generator=drawing) for _ in range(2))
    plain = {name: bank.find(images.clone(), crops=True) for name, images in (("first", first), ("second", second))}
    computed = []
    own = bank._computed
    monkeypatch.setattr(bank, "_computed", lambda images: computed.append(len(images)) or own(images))
    with bank.remembering():
        for _ in range(2):
            for name, images in (("first", first), ("second", second)):
                found = bank.find(images.clone(), crops=True)
                assert torch.equal(found.boxes, plain[name].boxes)
                assert torch.equal(found.embeddings, plain[name].embeddings)
        given = first.clone()
        bank.give(given, [torch.tensor([[0.0, 0, 9, 9]]), torch.zeros(0, 4)])
        assert bank.find(given, crops=True).boxes.shape == (2, 1, 4)  # true boxes stand for proposals
        bank.find(second.clone())
        assert torch.equal(bank.find(first.clone()).boxes, plain["first"].boxes)  # and are not remembered
    assert computed == [2, 2]
    bank.find(first.clone())
    assert computed == [2, 2, 2]
