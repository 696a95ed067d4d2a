import copy
import math

import pytest
import torch

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import task
from tests.methods.parity import of_variant, same, same_gradient
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.other.zero_shot import ZeroShot
from vlmlab.methods.visual_prompt.vp import VP

LABELS = torch.arange(8) % 5


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("vit")


def prepared(backbone, **settings):
    method = VP(backbone, VP.configure(backbone, **settings))
    method.prepare(task(CLASSES))
    return method


VARIANTS = ("padding_4", "padding_7", "fixed_patch_5", "random_patch_5")


def test_every_stored_variant_is_tested():
    assert {key.split("/")[0] for key in golden("visual_prompting")} == {*VARIANTS, "templates"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_numbers_of_the_official_implementation(variant, backbone, monkeypatch):
    numbers = of_variant(golden("visual_prompting"), variant)
    kind, _, size = variant.rpartition("_")
    method = prepared(backbone, kind=kind, size=int(size))
    for name, parameter in method.delta.items():
        assert parameter.shape == numbers[f"param/{name}"].shape
        parameter.data = torch.from_numpy(numbers[f"param/{name}"])
    if kind == "random_patch":
        at = tuple(numbers["offsets_rowstart_colstart"].tolist())
        plain = method.pattern
        monkeypatch.setattr(method, "pattern", lambda _: plain(at))
    images = noise_images(32)
    same((method.prompted(images) - images)[0], numbers["out/prompted_minus_input_first_image"])
    batch = Batch(images=images, labels=LABELS)
    same(method.logits(batch), numbers["out/logits"])
    loss = method.loss(batch)
    same(loss, numbers["out/loss"])
    loss.backward()
    for name, parameter in method.delta.items():
        same_gradient(parameter.grad, numbers[f"grad/{name}"])
    assert all(p.grad is None for p in backbone.parameters())


@pytest.mark.parametrize("kind", ["padding", "fixed_patch", "random_patch"])
def test_a_prompt_of_pixels_needs_no_tokens(kind):
    """A ResNet has none, and takes every kind."""
    resnet = tiny_backbone("rn")
    method = prepared(resnet, kind=kind, size=9)
    method.loss(Batch(images=noise_images(64), labels=LABELS)).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())
    assert all(p.grad is None for p in resnet.parameters())


def test_a_pattern_of_nothing_is_zero_shot_and_a_frame_leaves_the_inside_alone(backbone):
    method = prepared(backbone, size=6)
    assert method.trainable_parameters == 12 * 6 * (32 - 6)
    pattern = method.pattern()
    assert pattern[..., 6:-6, 6:-6].abs().max() == 0 and pattern[..., :6, :].abs().min() > 0
    for parameter in method.delta.values():
        parameter.data.zero_()
    zero_shot = ZeroShot(backbone)
    zero_shot.prepare(task(CLASSES, ["This is a photo of a {}"]))
    same(method.logits(Batch(images=noise_images(32))), zero_shot.logits(Batch(images=noise_images(32))))


def test_random_patches_move_and_stay_inside(backbone):
    method = prepared(backbone, kind="random_patch", size=5)
    seen = set()
    for _ in range(20):
        at = method.place(Batch(images=noise_images(32)))
        added = (method.prompted(noise_images(32), at) - noise_images(32))[0, 0].abs() > 1e-4
        rows, columns = added.any(1).nonzero().flatten(), added.any(0).nonzero().flatten()
        assert len(rows) <= 5 and len(columns) <= 5
        seen.add((int(rows[0]), int(columns[0])))
    assert len(seen) > 5


def test_a_test_leaves_the_places_of_training_alone_and_gives_the_same_twice(backbone):
    method, other = (prepared(backbone, kind="random_patch", size=5) for _ in range(2))
    batch = Batch(images=noise_images(32), index=torch.arange(3, 35))
    with torch.no_grad():
        same(method.logits(batch), method.logits(batch))
    assert [method.place(batch) for _ in range(5)] == [other.place(batch) for _ in range(5)]
    saved = copy.deepcopy(method.state_dict())
    ahead = [method.place(batch) for _ in range(5)]
    method.load_state_dict(saved)
    assert [method.place(batch) for _ in range(5)] == ahead, "a run that is resumed goes on with the same places"


def test_the_rate_rises_and_falls_step_by_step(backbone):
    method = prepared(backbone, size=4, warmup_steps=10)
    assert method.learning_rate(0, 110) == pytest.approx(4.0) and method.learning_rate(9, 110) == pytest.approx(40.0)
    assert method.learning_rate(60, 110) == pytest.approx(20.0)
    assert method.learning_rate(109, 110) == pytest.approx(20 * (1 + math.cos(math.pi * 0.99)), abs=1e-6)


def test_a_frame_that_covers_the_picture_is_refused(backbone):
    with pytest.raises(VlmlabError, match="choose less than 16"):
        prepared(backbone)
