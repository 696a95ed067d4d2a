import json
import zlib

import numpy as np
import pytest
import torch

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import task
from tests.methods.parity import same
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.other.fine_tuning import FineTuning
from vlmlab.methods.other.wise_ft import WiSEFT, merge
from vlmlab.methods.other.zero_shot import ZeroShot

LABELS = torch.arange(8) % 5


def prepared(system, backbone=None, **settings):
    backbone = backbone or tiny_backbone("vit")
    method = system(backbone, system.configure(backbone, **settings))
    method.prepare(task(CLASSES))
    return method


def noise(kind, key, shape):
    return np.random.Generator(np.random.PCG64(zlib.crc32(f"wiseft:{kind}{key}".encode()))).standard_normal(shape)


def official(key):
    """The release's name of one of our tensors."""
    names = {"head.weight": "classification_head.weight", "head.bias": "classification_head.bias"}
    return names.get(key) or key.replace("visual.", "image_encoder.model.visual.", 1)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("kind", ["plain", "fisher_floor0.001"])
def test_numbers_of_the_official_implementation(kind, alpha):
    numbers = golden("wiseft")
    keys = set(numbers["state_dict_keys"].tolist())
    method = prepared(WiSEFT, templates="imagenet80")
    start = method.state_dict()
    assert {official(k) for k in start} <= keys
    end = {k: v + 0.02 * torch.from_numpy(noise("", official(k), v.shape)).float() for k, v in start.items()}
    fisher = None
    if kind != "plain":
        fisher = tuple(
            {
                k: torch.from_numpy(np.abs(noise(f"fisher{i}:", official(k), v.shape)))
                for k, v in start.items()
                if "visual" in k
            }
            for i in (0, 1)
        )
    method.load_state_dict(merge(start, end, alpha, fisher, 1e-3))
    same(method.head.weight, numbers[f"{kind}/alpha{alpha}/head_weight"])
    same(method.visual.proj, numbers[f"{kind}/alpha{alpha}/visual_proj"])
    same(method.logits(Batch(images=noise_images(32))), numbers[f"{kind}/alpha{alpha}/logits"])


def test_the_head_begins_as_the_zero_shot_classifier():
    numbers = golden("wiseft")
    method = prepared(FineTuning, templates="imagenet80")
    same(method.head.weight, numbers["openai_imagenet_template/zeroshot_head_weight"])
    same(method.logits(Batch(images=noise_images(32))), numbers["openai_imagenet_template/zeroshot_logits"])


def test_gradients_reach_the_copy_and_not_the_backbone():
    backbone = tiny_backbone("vit")
    before = {k: v.clone() for k, v in backbone.model.state_dict().items()}
    method = prepared(FineTuning, backbone, lr=1e-3, warmup_steps=0)
    optimizer, schedule = method.optimizer(2)
    for _ in range(2):
        optimizer.zero_grad()
        method.loss(Batch(images=noise_images(32), labels=LABELS)).backward()
        unused = [n for n, p in method.named_parameters() if p.grad is None]
        method.before_step()
        total = torch.stack([p.grad.norm() for p in method.parameters() if p.grad is not None]).norm()
        assert not unused and total <= 1.0 + 1e-4
        optimizer.step()
        schedule.step()
    assert all(torch.equal(v, before[k]) for k, v in backbone.model.state_dict().items())
    assert not torch.equal(method.visual.proj, before["visual.proj"])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_backbone_in_half_precision_is_tuned_in_float32(kind):
    backbone = tiny_backbone("vit")
    backbone.model.to(kind)
    method = prepared(FineTuning, backbone, lr=1e-5, warmup_steps=0)
    assert {parameter.dtype for parameter in method.parameters()} == {torch.float32}
    before = {name: value.detach().clone() for name, value in method.visual.named_parameters()}
    optimizer, _ = method.optimizer(1)
    method.loss(Batch(images=noise_images(32), labels=LABELS)).backward()
    optimizer.step()
    moved = [float((value != before[name]).float().mean()) for name, value in method.visual.named_parameters()]
    assert min(moved) > 0.5, "so small a step is lost in half precision"
    assert {value.dtype for value in backbone.model.parameters()} == {kind}


def test_without_fine_tuned_weights_there_is_no_average():
    with pytest.raises(VlmlabError, match="fit it first"):
        prepared(WiSEFT, tiny_backbone("vit")).blend(0.5)


def test_the_ends_of_the_line_are_zero_shot_and_fine_tuned():
    backbone = tiny_backbone("vit")
    method = prepared(WiSEFT, backbone, templates="dataset")
    for parameter in method.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    batch = Batch(images=noise_images(32))
    tuned = method.logits(batch).detach()
    method.finish(None)
    assert (method.logits(batch) - tuned).abs().max() > 1e-2
    method.blend(1.0)
    same(method.logits(batch), tuned)
    method.blend(0.0)
    zero_shot = ZeroShot(backbone)
    zero_shot.prepare(task(CLASSES))
    same(method.logits(batch), zero_shot.logits(batch))


def test_without_fisher_information_of_a_tensor_its_average_is_plain():
    start, end = {"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, 6.0])}
    same(merge(start, end, 0.25, ({}, {}), floor=0.5)["a"], merge(start, end, 0.25)["a"])
    weighed = merge(start, end, 0.25, ({"a": torch.tensor([0.0, 2.0])}, {"a": torch.tensor([1.5, 0.1])}), floor=0.5)
    same(weighed["a"], torch.tensor([(0.375 + 1.125) / 0.75, (3.0 + 0.75) / 1.625]))


def test_counters_are_not_averaged_and_other_classes_are_refused():
    merged = merge({"n": torch.tensor(3)}, {"n": torch.tensor(7)}, 0.5)
    assert merged["n"] == 3 and json.dumps(int(merged["n"]))
    with pytest.raises(VlmlabError, match="belongs to its classes"):
        prepared(FineTuning).set_classes(CLASSES[:2], ["{}"])
