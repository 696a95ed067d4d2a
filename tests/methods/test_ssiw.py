"""SSIW: relevance as Chefer et al. release it, what views and the walk add, which names are taken."""

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.parity import same
from vlmlab.methods.method import Batch
from vlmlab.methods.segmentation.ssiw import ABSENT, SSIW, pseudo_labels, relevance, walked


def method(**settings) -> SSIW:
    backbone = tiny_backbone("asym")
    system = SSIW(backbone, SSIW.configure(backbone, **settings))
    system.set_classes(CLASSES, ["a photo of a {}."])
    return system


@pytest.mark.parametrize(("layers", "name"), [(1, "last"), (3, "all"), (50, "all")])
def test_relevance_is_that_of_the_release(layers, name):
    numbers, backbone = golden("ssiw"), tiny_backbone("asym")
    words = backbone.class_embeddings(CLASSES, ["a photo of a {}."])
    same(words, numbers["out/text"])
    of = torch.arange(2).repeat_interleave(5)
    found = relevance(backbone, noise_images(32, 2), of, words.repeat(2, 1), layers)
    same(found.flatten(1), numbers[f"out/relevance_{name}"].reshape(10, -1))
    assert (numbers[f"out/relevance_{name}"] > 0).any() and not found.requires_grad


def test_relevance_is_of_one_image_and_one_word():
    system = method()
    words = system.words[[2, 4]]
    both = relevance(system.backbone, noise_images(32, 2), torch.tensor([1, 0]), words, 2)
    alone = relevance(system.backbone, noise_images(32, 2)[1:], torch.tensor([0]), words[:1], 2)
    torch.testing.assert_close(both[:1], alone)


def test_views_are_laid_back_where_they_come_from():
    system = method(crop=0.5)
    images = torch.arange(32.0).expand(1, 3, 32, 32)  # the value of a pixel is its column
    views = list(system.views_of(images))
    assert len(views) == 10 and [m for _, m, _ in views] == [False, True] * 5
    for seen, mirrored, (_, left, size) in views:
        seen = seen.flip(-1) if mirrored else seen
        back = F.interpolate(seen, (size, size), mode="area")
        torch.testing.assert_close(back[0, 0, 0], torch.arange(left, left + size).float(), atol=0.3, rtol=0)
    assert len(list(system.views_of(images, several=False))) == 1
    system.config.crop, system.config.mirror = 1.0, False
    assert len(list(system.views_of(images))) == 1


def test_maps_of_a_mirrored_image_are_mirrored_when_mirrored_images_are_views():
    system, images = method(), noise_images(32, 1)
    shown = torch.tensor([[True, False, True, True, False]])
    maps = system.maps_of(images, shown, "views")
    torch.testing.assert_close(system.maps_of(images.flip(-1), shown, "views").flip(-1), maps, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(system.maps_of(images.flip(-1), shown, "relevance").flip(-1), maps, atol=0.05)
    assert (maps[0, [1, 4]] == 0).all() and (maps[0, [0, 2, 3]].amax((1, 2)) > 0.99).all()


def test_only_certain_pixels_are_labelled():
    scores = torch.tensor([[[[0.9, 0.2, 0.0, 0.5]], [[0.1, 0.1, 0.0, 0.5]], [[1.0, 1.0, 1.0, 1.0]]]])
    shown = torch.tensor([[True, True, False]])
    assert pseudo_labels(scores, shown, 1.0)[0, :, 0].tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert pseudo_labels(scores, shown, 0.5)[0, :, 0].tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def energy(p, colours, seeds, beta):
    """(5), written out."""
    certain = seeds.sum(1, keepdim=True)
    value = (certain * (p - seeds).square()).sum()
    for axis in (2, 3):
        n = p.shape[axis]
        d = (colours.narrow(axis, 1, n - 1) - colours.narrow(axis, 0, n - 1)).square().sum(1, keepdim=True)
        step = (p.narrow(axis, 1, n - 1) - p.narrow(axis, 0, n - 1)).square()
        value = value + ((torch.exp(-beta * d) + 1e-4) * step).sum()
    return value


def test_the_walk_is_the_minimum_and_a_distribution():
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(2, 3, 5, 6, generator=generator, dtype=torch.float64)
    label = torch.randint(0, 6, (2, 5, 6), generator=generator)
    seeds = F.one_hot(label, 6).permute(0, 3, 1, 2)[:, :3].double()  # half of the pixels are not certain
    p = walked(colours, seeds, 10.0).requires_grad_()
    (gradient,) = torch.autograd.grad(energy(p, colours, seeds, 10.0), p)
    assert gradient.abs().max() < 1e-4
    torch.testing.assert_close(p.sum(1), torch.ones(2, 5, 6, dtype=torch.float64), atol=1e-3, rtol=0)
    nothing = walked(colours, torch.zeros_like(seeds), 10.0)
    assert (nothing == 0).all()


def test_a_label_spreads_to_an_edge_of_colour():
    colours = torch.zeros(1, 3, 8, 8)
    colours[..., 3:] = 1.0
    seeds = torch.zeros(1, 2, 8, 8)
    seeds[0, 0, 4, 0], seeds[0, 1, 4, 7] = 1, 1
    found = walked(colours, seeds, 90.0).argmax(1)[0]
    assert (found[:, :3] == 0).all() and (found[:, 3:] == 1).all()
    blind = walked(colours, seeds, 0.0).argmax(1)[0]
    assert (blind[4, :4] == 0).all()  # half-way, whatever the colours are


def test_names_that_are_not_taken_lie_below():
    system, images = method(names=2, step="views"), noise_images(32, 3)
    scores = system.logits(Batch(images=images))
    cosines = system.similarities(images)
    for own, cosine in zip(scores, cosines, strict=True):
        taken = set(cosine.topk(2).indices.tolist())
        assert set(own.argmax(0).unique().tolist()) <= taken
        for c in set(range(5)) - taken:
            torch.testing.assert_close(own[c], (cosine[c] - ABSENT).expand(32, 32))
    whole = F.normalize(system.backbone.encode_image(images), dim=-1) @ system.words.T
    assert (cosines >= whole - 1e-6).all() and (cosines > whole + 1e-3).any()
