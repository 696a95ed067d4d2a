"""OADP: official losses, crops, masks and object token; what each level asks for."""

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import golden, tiny_backbone
from tests.methods.parity import same, same_gradient
from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.fusion import geometric
from vlmlab.methods.dense.roi_head import TextClassifier
from vlmlab.methods.detection.oadp import (
    OADP,
    asymmetric,
    finer_grid,
    object_embeddings,
    object_tokens,
    outside,
    roomy,
    tiles,
)
from vlmlab.methods.method import Batch
from vlmlab.randomness import LocalRandom
from vlmlab.testing import toys


@pytest.fixture
def numbers():
    return {name: torch.from_numpy(array) for name, array in golden("oadp").items()}


def prepared(**settings) -> OADP:
    method = OADP(toys.backbone(), OADP.configure(toys.backbone(), **settings))
    with LocalRandom(0):
        method.prepare(toys.task_for("oadp").seen_by("open-vocabulary"))
    return method


def batch_of(method: OADP, positions: list[int]) -> Batch:
    images = method.learns_from(toys.task_for("oadp").seen_by("open-vocabulary"))
    return Batch(index=torch.tensor(positions), truths=[images.truth(i) for i in positions])


def test_the_asymmetric_loss_is_the_release_s(numbers):
    logits = numbers["in/logits"].requires_grad_()
    loss = asymmetric(logits.sigmoid(), numbers["in/named"])
    same(loss, numbers["out/asymmetric"])
    same_gradient(torch.autograd.grad(loss, logits)[0], numbers["grad/logits"].numpy())


def test_new_classes_are_counted_in_the_loss_of_names_as_in_the_release(numbers):
    """There their logit is -inf, which costs nothing, and the mean is over all columns."""
    method = prepared(scale=10.0)
    features = numbers["in/head_features"].requires_grad_()
    weight = numbers["in/head_weight"].requires_grad_()
    method.base_text, method.base, method.unnamed = numbers["in/head_text"][:4], torch.arange(4), 2
    students = F.normalize(F.linear(features, weight, numbers["in/head_bias"]), dim=-1)
    same(10 * students @ method.base_text.T, numbers["out/head_logits"])
    loss = method.named_loss(students, numbers["in/head_named"])
    same(loss, numbers["out/head_asl"])
    at_features, at_weight = torch.autograd.grad(loss, (features, weight))
    same_gradient(at_features, numbers["grad/head_features"].numpy())
    same_gradient(at_weight, numbers["grad/head_weight"].numpy())


def test_logits_are_sharper_at_test_as_in_the_release(numbers):
    method = prepared(scale=10.0, soften=1.0, sharpen=OADP.Config().sharpen)
    projected = F.linear(numbers["in/head_features"], numbers["in/text_weight"], numbers["in/text_bias"])
    classifier = TextClassifier(12, method.scale)
    with torch.no_grad():
        classifier.background.copy_(numbers["in/text_background"])
        same(method.config.sharpen * classifier(projected, numbers["in/head_text"]), numbers["out/test_logits"])
        features = method.features(method.regions.maps[:2], method.regions.boxes[:2])
        p = (method.classifier(method.text_head(features), method.text) / 0.7).softmax(-1)[..., :-1]
        q = (10 / 0.7 * F.normalize(method.object_head(features), dim=-1) @ method.text.T).softmax(-1)
        torch.testing.assert_close(method.scores(features), geometric(p, q, method.is_new))


def test_relations_among_tiles_are_the_release_s(numbers):
    method = prepared(blocks=1e-9, block_labels=0.0, block_relations=1.0)
    students = numbers["in/students"].requires_grad_()
    method.base_text = torch.zeros(len(method.base), students.shape[1])
    loss = method.level(F.normalize(students, dim=-1), numbers["in/teachers"], torch.zeros(6, len(method.base)) > 0)
    same(loss, numbers["out/relations"])
    same_gradient(torch.autograd.grad(loss, students)[0], numbers["grad/students"].numpy())


def test_crops_and_masks_are_the_release_s(numbers):
    torch.testing.assert_close(roomy(numbers["in/boxes"], 8.0, 32.0), numbers["out/crops"], rtol=1e-4, atol=1e-4)
    hidden = outside(numbers["in/mask_boxes"], numbers["in/mask_crops"], (8, 8))
    assert torch.equal(hidden.float(), numbers["out/masks"])


def test_the_object_token_is_the_release_s(numbers):
    tower = tiny_backbone("vit").image
    assert finer_grid(tower, 32, 2) == (8, 8) and finer_grid(tower, 32, 1) == (4, 4)
    with torch.no_grad():
        same(object_tokens(tower, numbers["in/images"], numbers["out/masks"].bool(), 2), numbers["out/tokens"])


def test_what_lies_outside_of_the_box_hardly_reaches_the_token():
    """Directly never; through the patches inside, which see everything, it does: so one block is looked at."""
    backbone = tiny_backbone("vit")
    tower = backbone.image
    tower.visual.transformer.resblocks = tower.visual.transformer.resblocks[:1]
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    changed = images.clone()
    changed[..., 16:] = 0
    left = torch.zeros(1, 4, 4, dtype=torch.bool)
    left[..., 2:] = True  # the right half is hidden
    with torch.no_grad():
        one, other = (object_tokens(tower, i, left, 1) for i in (images, changed))
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        seen = object_tokens(tower, changed, torch.zeros_like(left), 1)
    assert (seen - one).abs().max() > 1e-2


def test_a_token_that_sees_all_patches_is_nearly_the_class_token():
    backbone = toys.backbone()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        token = object_tokens(backbone.image, images, torch.zeros(2, 4, 4, dtype=torch.bool), 1)
        torch.testing.assert_close(token, backbone.encode_image(images), rtol=1e-3, atol=1e-3)


def test_tiles_overlap_by_half_and_cover_the_image():
    found = tiles(2, 32)
    assert found.shape == (9, 4) and found.min() == 0 and found.max() == 32
    assert [0, 0, 16, 16] in found.tolist() and [8, 16, 24, 32] in found.tolist()


def test_a_tile_names_the_base_objects_that_it_shows():
    method = prepared()
    base = len(method.base)
    boxes = torch.tensor([[[2.0, 2, 10, 10], [20, 20, 30, 30], [0, 0, 32, 32]]])
    labels = torch.tensor([[1, base, 0]])
    found = method.named_in(tiles(2, 32)[None], boxes, labels, torch.tensor([[True, True, False]]))
    assert found.shape == (1, 9, base) and found[0, 0].nonzero().flatten().tolist() == [1]
    assert not found[0, -1].any()  # a new object has no name, and a region is no object


@pytest.mark.parametrize(
    ("settings", "asleep"),
    [({}, set()), ({"blocks": 0.0}, {"block_head"}), ({"whole": 0.0}, {"whole_head"})],
)
def test_gradients_reach_the_heads_of_the_levels_that_are_on(settings, asleep):
    method = prepared(**settings)
    with LocalRandom(0):
        method.loss(batch_of(method, [0, 1, 2, 3])).backward()
    parts = {
        name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None and p.grad.abs().max() > 0
    }
    assert parts == {"text_head", "classifier", "object_head", "block_head", "whole_head"} - asleep


def test_its_teacher_is_the_object_token():
    method = prepared(expand=4.0)
    images = torch.rand(2, 3, *[toys.backbone().image_size] * 2)
    boxes = [torch.tensor([[4.0, 4, 20, 12], [2.0, 2, 9, 9]]), torch.tensor([[0.0, 6, 10, 16]])]
    first, second = method.teacher_scores(Batch(images=images), boxes)
    assert first.shape == (2, len(method.classes)) and second.shape == (1, len(method.classes))
    alone = object_embeddings(method.backbone, images[:1], boxes[0][None], 4.0, method.config.finer)[0]
    torch.testing.assert_close(first, alone @ method.text.T, rtol=1e-4, atol=1e-5)


def test_a_tower_without_tokens_is_refused():
    with pytest.raises(VlmlabError, match="ViT"):
        OADP(tiny_backbone("rn"))
