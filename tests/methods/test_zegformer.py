"""ZegFormer against its official numbers; what the two namings of a segment do to each other."""

import math

import pytest
import torch
from torch import nn

from tests.golden.tiny_clip import CLASSES, golden, tiny_backbone
from tests.methods.parity import same, same_gradient
from vlmlab.learning.fit import fit
from vlmlab.methods.method import Batch
from vlmlab.methods.segmentation.zegformer import ZegFormer, aligned_embeddings
from vlmlab.methods.templates import choose
from vlmlab.testing import toys


@pytest.fixture(scope="module")
def numbers():
    return {name: torch.from_numpy(array) for name, array in golden("zegformer").items()}


def official(numbers) -> ZegFormer:
    backbone = tiny_backbone("vit")
    backbone.model.logit_scale.data.fill_(math.log(100))
    method = ZegFormer(backbone, ZegFormer.Config())
    method.taught = {CLASSES[c] for c in (0, 2, 3)}
    method.project, method.null = nn.Linear(48, 64), nn.Parameter(numbers["in/null"].clone())
    method.project.load_state_dict({"weight": numbers["in/weight"], "bias": numbers["in/bias"]})
    method.set_classes(CLASSES, ["{}"])
    return method


def test_segments_are_named_as_in_the_release(numbers):
    method = official(numbers)
    words = method.backbone.class_embeddings(CLASSES, choose(method.config.templates, []))
    same(words, numbers["out/words"].numpy())
    found = method.names(numbers["in/z"], words)
    same(found, numbers["out/names"].numpy())
    (found.softmax(-1) * numbers["in/direction"]).sum().backward()
    same_gradient(method.project.weight.grad, numbers["grad/weight"].numpy())
    same_gradient(method.null.grad, numbers["grad/null"].numpy())


def test_the_maps_are_those_of_the_release(numbers):
    method = official(numbers)
    image = method.backbone.preprocess(numbers["in/image"].permute(1, 2, 0))
    method.propose = lambda images: (numbers["in/masks"][None], None)
    method.names = lambda z, words: numbers["in/scores"][None]
    with torch.no_grad():
        same(method.logits(Batch(images=image))[0, :, ::2, ::2], numbers["out/semseg"].numpy())


def test_an_empty_mask_and_a_line_are_looked_at_as_whole_images():
    backbone = toys.backbone()
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(1, 2, 32, 32, dtype=torch.bool)
    masks[0, 1, 4:9, 7] = True
    found = aligned_embeddings(backbone, images, masks)
    line = backbone.encode_image(torch.where(masks[0, 1], images, 0.0))
    nothing = backbone.encode_image(torch.zeros(1, 3, 32, 32))
    for own, expected in zip(found[0], (nothing, line), strict=True):
        torch.testing.assert_close(own, nn.functional.normalize(expected[0], dim=0), rtol=1e-3, atol=1e-3)


def test_clip_changes_the_order_of_unseen_classes_alone():
    config = ZegFormer.configure(toys.backbone(), epochs=1, batch_size=4, warmup_epochs=0, calibration=0.0)
    method, task = ZegFormer(toys.backbone(), config), toys.task_for("zegformer").seen_by("open-vocabulary")
    fit(method, task)
    batch = Batch(images=method.framed([toys.dense_dataset().test.images(0)])[0])
    masks, z = method.propose(batch.images)
    method.propose = lambda images: (masks[:, :1], z[:, :1])  # one segment, so that the maps are its names
    with torch.no_grad():
        both = method.logits(batch)[0, :, 0, 0]
        method.config.ensemble = False
        alone = method.logits(batch)[0, :, 0, 0]
        method.config.calibration = 0.25
        torch.testing.assert_close(method.logits(batch)[0, method.seen, 0, 0], alone[method.seen] - 0.25)
    assert torch.equal(both[method.seen].argsort(), alone[method.seen].argsort())
    assert not torch.allclose((both / alone)[method.unseen], (both / alone)[method.unseen][:1])
