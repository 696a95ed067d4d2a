"""ZSSeg and the parts of its family: the official numbers, what learns, what is kept."""

import dataclasses
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.golden.tiny_clip import CLASSES, golden, tiny_backbone
from tests.methods.parity import same, same_gradient
from vlmlab.datasets.truth import NOTHING, UNLABELLED
from vlmlab.errors import VlmlabError
from vlmlab.learning.fit import fit
from vlmlab.methods.dense import mask_crops
from vlmlab.methods.dense.mask_former import MaskFormer, segments, set_loss
from vlmlab.methods.method import Batch
from vlmlab.methods.segmentation.zsseg import ZSSeg, prompt_rate, prompted
from vlmlab.testing import toys


@pytest.fixture(scope="module")
def numbers():
    return {name: torch.from_numpy(array) for name, array in golden("zsseg").items()}


def official(numbers) -> ZSSeg:
    """ZSSeg as the numbers have it: tight stretched crops, a given prompt, segments z that are embeddings already."""
    backbone = tiny_backbone("vit")
    backbone.model.logit_scale.data.fill_(math.log(100))  # which the release writes down
    method = ZSSeg(backbone, ZSSeg.Config(scale=20.0))
    method.context = numbers["in/context"]
    method.taught = {CLASSES[c] for c in (0, 2, 3)}
    method.embed, method.null = nn.Identity(), nn.Parameter(numbers["in/null"])
    method.set_classes(CLASSES, ["{}"])
    return method


def test_the_prompt_is_the_release_s(numbers):
    context = numbers["in/context"].clone().requires_grad_()
    found = prompted(tiny_backbone("vit").text, CLASSES, context)
    same(found, numbers["out/text"][:5].numpy())
    (gradient,) = torch.autograd.grad((found * numbers["in/direction"]).sum(), context)
    same_gradient(gradient, numbers["grad/context"].numpy())


def test_segments_are_named_as_in_the_release(numbers):
    method, z = official(numbers), numbers["in/z"].clone().requires_grad_()
    found = method.names(z, method.words)
    same(5 * found, numbers["out/logits"].numpy())
    (found.softmax(-1) * numbers["in/names"][0]).sum().backward()
    same_gradient(z.grad, numbers["grad/z"].numpy())
    same_gradient(method.null.grad, numbers["grad/null"].numpy())


def test_crops_are_those_of_the_release(numbers):
    backbone = tiny_backbone("vit")
    image = backbone.preprocess(numbers["in/image"].permute(1, 2, 0))
    masks = numbers["in/masks"] > 0
    valid = masks.flatten(1).any(1)
    assert torch.equal(valid, numbers["out/valid"])
    crops = mask_crops.cut(image.expand(5, -1, -1, -1), masks[valid], 32)
    same(crops[:, :, ::3, ::3], numbers["out/regions"].numpy())


def test_the_maps_are_those_of_the_release(numbers):
    method = official(numbers)
    image = method.backbone.preprocess(numbers["in/image"].permute(1, 2, 0))
    method.propose = lambda images: (numbers["in/masks"][None], numbers["in/z"][None])
    with torch.no_grad():
        same(method.logits(Batch(images=image))[0, :, ::2, ::2], numbers["out/semseg"].numpy())


def test_the_loss_is_the_release_s(numbers):
    names, masks = (numbers[f"in/{name}"].clone().requires_grad_() for name in ("names", "pred_masks"))
    loss = set_loss(names, masks.flatten(2), [segments(semantic) for semantic in numbers["in/semantic"]])
    same(loss, numbers["out/loss"].numpy())
    loss.backward()
    same_gradient(names.grad, numbers["grad/names"].numpy())
    same_gradient(masks.grad, numbers["grad/pred_masks"].numpy())


def test_pixels_without_a_granted_class_teach_nothing():
    semantic = torch.tensor([[0, 0, UNLABELLED], [NOTHING, 1, UNLABELLED]])
    labels, true, counted = segments(semantic)
    assert labels.tolist() == [0, 1] and true.sum(1).tolist() == [2, 1] and counted.sum() == 4
    masks = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    set_loss(torch.zeros(1, 4, 3), masks, [(labels, true, counted)]).backward()
    gradient = masks.grad.unflatten(2, (2, 3))
    assert (gradient[..., 2] == 0).all() and gradient[
        ..., 1, 0
    ].abs().sum() > 0  # what shows no class is outside of masks


def test_an_image_without_segments_teaches_its_queries_nothing_but_their_names():
    masks = torch.randn(1, 4, 6, requires_grad=True)
    names = torch.zeros(1, 4, 3, requires_grad=True)
    set_loss(names, masks, [segments(torch.full((2, 3), NOTHING))]).backward()
    assert not masks.grad.any() and names.grad[..., 2].max() < 0


@pytest.mark.parametrize("shape", mask_crops.SHAPES)
def test_all_crops_at_once_are_pytorch_s_one_by_one(shape):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 20, 28, generator=generator)
    masks = torch.zeros(4, 20, 28, dtype=torch.bool)
    for mask, (y, x, h, w) in zip(masks, ((2, 3, 5, 9), (0, 0, 20, 28), (10, 20, 1, 1), (15, 1, 5, 3)), strict=True):
        mask[y : y + h, x : x + w] = True
    boxes = mask_crops.crop_boxes(mask_crops.mask_boxes(masks), 1.25, shape, 20, 28)
    found = mask_crops.cut(images, masks, 16, 1.25, shape, paint=False)
    for image, (x0, y0, x1, y1), crop in zip(images, boxes.tolist(), found, strict=True):
        assert 0 <= x0 < x1 <= 28 and 0 <= y0 < y1 <= 20
        assert shape != "square" or abs((x1 - x0) - (y1 - y0)) <= 1
        one = F.interpolate(image[None, :, y0:y1, x0:x1], size=(16, 16), mode="bicubic")
        torch.testing.assert_close(crop, one[0], rtol=1e-4, atol=1e-4)


def test_an_empty_mask_has_no_box_and_no_embedding():
    masks = torch.zeros(1, 2, 32, 32, dtype=torch.bool)
    masks[0, 1, 3:9, 4:6] = True
    assert mask_crops.mask_boxes(masks[0]).tolist() == [[0, 0, 0, 0], [4, 3, 6, 9]]
    found, valid = mask_crops.mask_embeddings(toys.backbone(), torch.randn(1, 3, 32, 32), masks)
    assert valid.tolist() == [[False, True]] and not found[0, 0].any()
    assert found[0, 1].norm().item() == pytest.approx(1, abs=1e-4)
    found, valid = mask_crops.mask_embeddings(toys.backbone(), torch.randn(1, 3, 32, 32), masks[:, :1])
    assert not valid.any() and not found.any()


def test_names_do_not_bend_masks_by_their_pooled_tokens():
    net = MaskFormer(32, (4, 4), 5, 2, 64)
    generator = torch.Generator().manual_seed(0)
    outputs = net(torch.randn(2, 3, 32, 32, generator=generator), torch.randn(2, 32, 4, 4, generator=generator))
    assert [masks.shape for masks, _ in outputs] == [(2, 5, 16, 16)] * 2 and outputs[0][1].shape == (2, 5, 64)
    outputs[-1][1].sum().backward()
    assert net.pooled.weight.grad.abs().sum() > 0 and all(p.grad is None for p in net.mask.parameters())
    outputs = net(torch.randn(1, 3, 48, 32), torch.randn(1, 32, 6, 4))  # another size than it was built for
    assert outputs[0][0].shape == (1, 5, 24, 16)


def run(**settings):
    config = ZSSeg.configure(toys.backbone(), **({"epochs": 3, "warmup_epochs": 0, "batch_size": 4} | settings))
    method, task = ZSSeg(toys.backbone(), config), toys.task_for("zsseg")
    return method, fit(method, task.seen_by("open-vocabulary"))


def test_kept_tokens_are_those_that_would_be_computed(monkeypatch):
    kept, record = run(prompt_steps=2)
    assert len(kept.frozen._kept) == 12
    monkeypatch.setattr("vlmlab.methods.dense.pixels.MOST_KEPT", 0)
    _, again = run(prompt_steps=2)
    assert again.losses == pytest.approx(record.losses, rel=1e-4)


def test_the_prompt_learns_from_seen_classes_alone(monkeypatch):
    method, _ = run(prompt_steps=0, epochs=1)
    task = toys.task_for("zsseg").seen_by("open-vocabulary")
    features, labels = method.true_crops(task.train, torch.Generator().manual_seed(0))
    assert len(features) == len(labels) and set(labels.tolist()) <= set(range(len(method.seen)))
    before = method.context
    after, _ = run(prompt_steps=40, prompt_lr=0.002, epochs=1)
    assert not torch.equal(before, after.context)
    assert "context" in method.state_dict() and "context" not in dict(method.named_parameters())
    words = [
        F.cross_entropy(method.backbone.logit_scale * features @ m.words_of_seen.T, labels) for m in (method, after)
    ]
    assert words[1] < words[0]
    assert run(n_ctx=0, epochs=1)[0].context is None


def test_crops_are_encoded_in_bulk_as_one_by_one(monkeypatch):
    method, _ = run(prompt_steps=0, epochs=1)
    task = toys.task_for("zsseg").seen_by("open-vocabulary")
    monkeypatch.setattr(mask_crops, "AT_ONCE", 1000)
    features, labels = method.true_crops(task.train, torch.Generator().manual_seed(0))
    monkeypatch.setattr(mask_crops, "AT_ONCE", 1)
    one, others = method.true_crops(task.train, torch.Generator().manual_seed(0))
    assert torch.equal(labels, others) and len(labels) > 3
    torch.testing.assert_close(features, one, rtol=1e-4, atol=1e-5)


def test_no_class_gives_the_prompt_more_crops_than_it_may():
    method, _ = run(prompt_steps=0, prompt_shots=1, epochs=1)
    task = toys.task_for("zsseg").seen_by("open-vocabulary")
    _, labels = method.true_crops(task.train, torch.Generator().manual_seed(0))
    assert labels.unique(return_counts=True)[1].tolist() == [1] * len(labels)


def test_a_backbone_without_patch_tokens_is_refused():
    with pytest.raises(VlmlabError, match=r"needs a ViT: use micro-vit"):
        ZSSeg(tiny_backbone("rn")).prepare(toys.task_for("zsseg").seen_by("open-vocabulary"))


def test_what_was_taught_is_known_by_name():
    method, _ = run(prompt_steps=0, epochs=1)
    images = method.framed([toys.dense_dataset().test.images(i) for i in range(2)])[0]
    with torch.no_grad():
        maps = {}
        for weight, taught in itertools.product((0.5, 0.8), (set(), set(method.classes))):
            method.config, method.taught = dataclasses.replace(method.config, weight=weight), taught
            maps[weight, bool(taught)] = method.logits(Batch(images=images))
    assert torch.equal(maps[0.5, True], maps[0.5, False]) and not torch.allclose(maps[0.8, True], maps[0.8, False])


def test_the_prompt_s_rate_rises_and_falls():
    assert prompt_rate(0, 16000, 0.02) == pytest.approx(1e-4) and prompt_rate(100, 16000, 0.02) == pytest.approx(
        0.02, rel=1e-3
    )
    assert prompt_rate(15999, 16000, 0.02) < 1e-8
