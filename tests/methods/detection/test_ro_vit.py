"""RO-ViT: the release's cropped positions, focal contrast and fusion; what learns in which stage; the tower as its teacher."""

import copy

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import golden
from tests.methods.parity import same, same_gradient
from vlmlab.errors import VlmlabError
from vlmlab.methods.detection.ro_vit import (
    AREA,
    ASPECT,
    ROViT,
    cropped_positions,
    ensembled,
    focal_contrast,
    on_a_grid,
    random_regions,
)
from vlmlab.methods.method import Batch
from vlmlab.randomness import LocalRandom
from vlmlab.testing import toys


@pytest.fixture
def numbers():
    return {name: torch.from_numpy(array) for name, array in golden("ro_vit").items()}


def prepared(**settings) -> ROViT:
    method = ROViT(toys.backbone(), ROViT.configure(toys.backbone(), **settings))
    with LocalRandom(0):
        method.prepare(toys.task_for("ro_vit").seen_by("open-vocabulary"))
    return method


def test_positions_are_cropped_as_in_the_release(numbers):
    positions = numbers["in/positions"].requires_grad_()
    found = cropped_positions(positions, (4, 4), numbers["in/boxes"], 10)
    same(found, numbers["out/cropped"])
    (gradient,) = torch.autograd.grad((found * numbers["in/weight"]).sum(), positions)
    same_gradient(gradient, numbers["grad/positions"].numpy())


@pytest.mark.parametrize(("name", "settings"), [("official", {}), ("other", {"alpha": 0.3, "gamma": 2.0})])
def test_the_focal_contrast_is_the_release_s(numbers, name, settings):
    logits = numbers["in/logits"].requires_grad_()
    loss = focal_contrast(logits, **settings)
    same(loss, numbers[f"out/focal_{name}"])
    (gradient,) = torch.autograd.grad(loss, logits)
    same_gradient(gradient, numbers[f"grad/focal_{name}"].numpy())


def test_two_opinions_are_joined_as_in_the_release(numbers):
    p, q = (numbers[f"in/{name}"].softmax(-1).roll(-1, -1) for name in ("p", "q"))  # background last
    found = ensembled(p, q, numbers["in/base"] == 0, 0.35, 0.65)
    same(found, numbers["out/ensembled"].roll(-1, -1))
    same(found.sum(-1), torch.ones(4))


def test_regions_are_as_large_and_as_wide_as_they_should_be():
    with LocalRandom(0):
        boxes = random_regions(2000, 24, "cpu")
    assert boxes.min() >= 0 and boxes.max() <= 24
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    free = (width < 24) & (height < 24)  # those that were not cut
    area, aspect = (width * height / 24**2)[free], (width / height)[free]
    assert area.min() >= AREA[0] - 1e-4 and area.max() <= AREA[1] and area.min() < 0.11
    assert aspect.min() >= ASPECT[0] - 1e-4 and aspect.max() <= ASPECT[1] + 1e-4
    assert abs(float((aspect > 1).float().mean()) - 0.5) < 0.05


def test_the_tower_starts_as_the_backbone_s_and_sees_the_grid_that_it_is_given():
    method, backbone = prepared(zoom=1.0), toys.backbone()
    images = method.framed([toys.dense_dataset().train.images(i) for i in range(2)])[0]
    visual = backbone.image.visual
    found = method.tokens(images, visual.positional_embedding[1:][None])
    last, x = backbone.image.last_block(images)
    expected = visual.ln_post(last(x))[:, 1:]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(method.maps_of(images), found.mT.unflatten(2, (4, 4)), rtol=1e-4, atol=1e-4)
    assert method.maps_of(images).shape[-2:] == (4, 4) and prepared(zoom=2.0).maps_of(images).shape[-2:] == (8, 8)
    assert torch.equal(
        on_a_grid(visual.positional_embedding[1:], (4, 4), (4, 4)).flatten(2).mT[0], visual.positional_embedding[1:]
    )


def test_the_tower_learns_first_and_then_the_head_alone():
    method = prepared()
    images = method.pictures
    batch = Batch(index=torch.arange(6), truths=[images.truth(i) for i in range(6)])

    def reached() -> set[str]:
        method.zero_grad(set_to_none=True)
        with LocalRandom(0):
            method.loss(batch).backward()
        names = {name for name, p in method.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
        return {name.split(".")[0] for name in names}

    method.stage = 0
    assert reached() == {"tower", "log_scale", "offset"} and method.batch_size == method.config.pretrain_batch
    method.stage = 1
    assert reached() == {"student", "temperature"} and method.batch_size == method.config.batch_size
    assert len(method.token_maps) == len(images)


def test_arms_differ_by_their_positions_and_their_contrast_alone():
    losses = {}
    for positions in ("cropped", "whole"):
        for contrast in ("focal", "softmax"):
            method = prepared(positions=positions, contrast=contrast)
            with LocalRandom(0):
                losses[positions, contrast] = method.loss(Batch(index=torch.arange(6))).item()
    assert len(set(losses.values())) == 4
    method = prepared(pretrain_epochs=0)
    assert len(method.stages(toys.task_for("ro_vit"))) == 1
    assert {name.split(".")[0] for name, _ in method.named_parameters()} == {"student", "temperature"}


def test_the_tower_is_its_own_teacher():
    method = prepared(pretrain_epochs=0, zoom=1.0)
    images = method.framed([toys.dense_dataset().train.images(0)])[0]
    box = torch.tensor([[0.0, 0, 32, 32], [0, 0, 16, 16]])
    (found,) = method.teacher_scores(Batch(images=images), [box])
    maps = method.maps_of(images)[0]
    corner = F.normalize(method.joint(method.aligned(maps[None], box[None, 1:], 7)[0, 0].mean((1, 2))), dim=-1)
    torch.testing.assert_close(found[1], method.text @ corner)
    assert found.shape == (2, len(method.classes))


def test_images_without_captions_are_refused_unless_the_tower_stays():
    task = toys.task_for("ro_vit").seen_by("open-vocabulary")
    task._train = copy.copy(task._train)
    task._train._caption = None
    with pytest.raises(VlmlabError, match="pretrain_epochs=0"):
        ROViT(toys.backbone(), ROViT.configure(toys.backbone())).prepare(task)
    ROViT(toys.backbone(), ROViT.configure(toys.backbone(), pretrain_epochs=0)).prepare(task)
