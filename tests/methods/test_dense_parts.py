"""Parts of segmenters: matching, mask losses, naming, activation maps, pixel encoder."""

import itertools

import pytest
import torch
import torchvision

from tests.golden.tiny_clip import golden, tiny_backbone
from tests.methods.parity import same, same_gradient
from vlmlab.methods.dense import cam, mask_queries, naming, pixels


@pytest.fixture
def segments():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 36, generator=generator, requires_grad=True)
    masks = (torch.rand(3, 36, generator=generator) > 0.6).float()
    names = torch.randn(5, 5, generator=generator)
    return logits, masks, names


def test_a_pair_costs_what_its_loss_is(segments):
    logits, masks, _ = segments
    focal, dice = mask_queries.focal_costs(logits, masks), mask_queries.dice_costs(logits, masks)
    for q, g in itertools.product(range(5), range(3)):
        one = logits[q : q + 1], masks[g : g + 1]
        torch.testing.assert_close(focal[q, g], mask_queries.focal_loss(*one, 1))
        torch.testing.assert_close(dice[q, g], mask_queries.dice_loss(*one, 1))
    theirs = torchvision.ops.sigmoid_focal_loss(logits[:3], masks, 0.25, 2, "none").mean(1).sum() / 3
    torch.testing.assert_close(mask_queries.focal_loss(logits[:3], masks, 3), theirs)


def test_the_matching_is_the_cheapest_of_all(segments):
    logits, masks, names = segments
    labels = torch.tensor([1, 0, 3])
    queries, found = mask_queries.match(names, logits, labels, masks, 1.0, 20.0, 1.0)
    cost = 20 * mask_queries.focal_costs(logits, masks) + mask_queries.dice_costs(logits, masks)
    cost = (cost - names.softmax(-1)[:, labels]).detach()
    total = min(float(cost[list(rows), range(3)].sum()) for rows in itertools.permutations(range(5), 3))
    assert float(cost[queries, found].sum()) == pytest.approx(total)
    assert sorted(found.tolist()) == [0, 1, 2]


def test_names_are_fused_by_class():
    p, q = torch.tensor([0.5, 0.25]), torch.tensor([0.125, 1.0])
    fused = naming.fused(p, q, torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(fused, torch.tensor([0.5, 0.5]))
    q = torch.tensor([[0.1, 0.3, 0.6]])
    torch.testing.assert_close(naming.seen_averaged(q, [0, 1]), torch.tensor([[0.2, 0.2, 0.6]]))
    assert q[0, 0] == pytest.approx(0.1)  # the given one is untouched


def test_pooling_sees_what_is_under_the_mask():
    features = torch.arange(8.0).reshape(1, 2, 2, 2)
    masks = torch.tensor([[[[1.0, 0], [0, 1]], [[0, 0], [0, 0]]]])
    torch.testing.assert_close(naming.mask_pooled(features, masks), torch.tensor([[[1.5, 5.5], [0, 0]]]))


def test_affinity_is_symmetric_and_stays_in_the_boxes():
    generator = torch.Generator().manual_seed(1)
    weights = cam.affinity(torch.rand(16, 16, generator=generator))
    torch.testing.assert_close(weights, weights.T)
    torch.testing.assert_close(weights.sum(0), torch.ones(16), atol=0.02, rtol=0)
    heat = torch.zeros(4, 4)
    heat[0, 0], heat[1, 1], heat[3, 3] = 1, 0.5, 0.3  # regions: the upper left; the corner is too weak
    inside = cam.inside_boxes(heat)
    assert inside.sum() == 4 and inside[:2, :2].all()
    changed = heat.clone()
    changed[3, 3] = 0.2  # outside of the boxes: spreads nowhere
    torch.testing.assert_close(cam.refined(heat, weights), cam.refined(changed, weights))
    assert not cam.refined(torch.zeros(4, 4), weights).any()


def test_grad_cam_weighs_channels_by_their_mean_gradient():
    activations, gradients = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    activations[0, 0, 0, 0], activations[0, 1, 1, 1] = 2, 5
    gradients[0, 0], gradients[0, 1] = 1, -1
    torch.testing.assert_close(cam.grad_cam(activations, gradients), torch.tensor([[[1.0, 0], [0, 0]]]))


def test_the_pixel_encoder_learns_and_the_tower_does_not():
    backbone = tiny_backbone("vit")
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, backbone.image_size, backbone.image_size, generator=generator)
    places = pixels.tokens(backbone.image, images, (1,))
    assert not places.requires_grad
    net = pixels.TextPixels(places.shape[1], 16)
    out = net(images, places)
    assert out.shape == (2, 16, backbone.image_size // 2, backbone.image_size // 2)
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert all(p.grad is None for p in backbone.image.visual.parameters())


def test_mask_losses_and_affinity_are_those_of_the_releases():
    numbers = golden("mask_queries_and_cam")
    logits = torch.from_numpy(numbers["in/logits"]).requires_grad_()
    masks = torch.from_numpy(numbers["in/masks"])
    for name, loss in (("focal", mask_queries.focal_loss), ("dice", mask_queries.dice_loss)):
        found = loss(logits[:3], masks, 3)
        same(found, numbers[f"out/{name}"])
        (gradient,) = torch.autograd.grad(found, logits)
        same_gradient(gradient[:3], numbers[f"grad/{name}"])
    same(mask_queries.focal_costs(logits, masks), numbers["out/focal_costs"])
    same(mask_queries.dice_costs(logits, masks), numbers["out/dice_costs"])
    same(cam.affinity(torch.from_numpy(numbers["in/attention"])), numbers["out/affinity"])


def test_a_box_at_the_border_ends_one_place_before_it():
    heat = torch.zeros(4, 5)
    heat[1:, 3:] = 1
    inside = cam.inside_boxes(heat)
    assert inside.sum() == 2 and inside[1:3, 3].all()
