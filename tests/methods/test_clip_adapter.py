import pytest
import torch

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import task
from tests.methods.parity import of_variant, same, same_gradient
from vlmlab.methods.adapter.clip_adapter import CLIPAdapter
from vlmlab.methods.method import Batch
from vlmlab.methods.other.zero_shot import ZeroShot

LABELS = torch.arange(8) % 5
TEMPLATE = "a photo of a {}, a type of pet."


def prepared(backbone, **settings):
    method = CLIPAdapter(backbone, CLIPAdapter.configure(backbone, **settings))
    method.prepare(task(CLASSES, [TEMPLATE]))
    return method


@pytest.mark.parametrize(("variant", "tower"), [("ratio0.2", "vit"), ("asym_ratio0.2", "asym")])
def test_numbers_of_the_official_implementation(variant, tower):
    numbers, backbone = of_variant(golden("clip_adapter"), variant), tiny_backbone(tower)
    method = prepared(backbone)
    for layer, key in ((method.narrow, "adapter.fc.0.weight"), (method.wide, "adapter.fc.2.weight")):
        assert layer.weight.shape == numbers[f"param/{key}"].shape and layer.bias is None
        layer.weight.data = torch.from_numpy(numbers[f"param/{key}"])
    batch = Batch(features=backbone.encode_image(noise_images(32)), labels=LABELS)
    same(batch.features, numbers["mid/eval_image_encoder"])
    same(method.logits(batch), numbers["out/eval_logits"])
    loss = method.loss(batch)
    same(loss, numbers["out/loss"])
    loss.backward()
    same_gradient(method.narrow.weight.grad, numbers["grad/adapter.fc.0.weight"])
    same_gradient(method.wide.weight.grad, numbers["grad/adapter.fc.2.weight"])
    assert all(p.grad is None for p in backbone.parameters())


def test_without_the_adapter_s_share_it_is_zero_shot():
    backbone = tiny_backbone("vit")
    batch = Batch(images=noise_images(32))
    zero_shot = ZeroShot(backbone)
    zero_shot.prepare(task(CLASSES, [TEMPLATE]))
    same(prepared(backbone, ratio=0.0).logits(batch), zero_shot.logits(batch))
    silent = prepared(backbone)
    silent.wide.weight.data.zero_()
    same(silent.logits(batch), zero_shot.logits(batch))


def test_new_classes_keep_the_adapter():
    method = prepared(tiny_backbone("vit"))
    before = {k: v.clone() for k, v in method.state_dict().items()}
    method.set_classes(CLASSES[:2], [TEMPLATE])
    assert method.logits(Batch(images=noise_images(32))).shape == (8, 2)
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items()) and len(before) == 2


def test_the_seed_decides_the_start_and_the_caller_s_generator_does_not_move():
    backbone = tiny_backbone("vit")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, two = prepared(backbone), prepared(backbone)
    assert torch.equal(torch.rand(3), expected) and torch.equal(one.wide.weight, two.wide.weight)
