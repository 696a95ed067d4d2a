import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import Pictures, task
from tests.methods.parity import learned, of_variant, same, same_gradients
from vlmlab.backbones.blocks import project
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.other.clip_lora import CLIPLoRA, LowRank
from vlmlab.methods.other.zero_shot import ZeroShot

LABELS = torch.arange(8) % 5
TEMPLATE = "a photo of a {}."


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("asym")  # towers of different widths and depths


def prepared(backbone, support=None, **settings):
    method = CLIPLoRA(backbone, CLIPLoRA.configure(backbone, **settings))
    method.prepare(task(CLASSES, [TEMPLATE], support=support))
    return method


def woken(backbone, **settings):
    """With updates that are not zero."""
    method, noise = prepared(backbone, **settings), torch.Generator().manual_seed(1)
    for update in method.updates:
        for up in update.up.values():
            up.data = 0.3 * torch.randn(up.shape, generator=noise)
    return method


@pytest.mark.parametrize(
    ("variant", "blocks", "settings"),
    [
        ("asym_qkv_both", {"visual.": range(3), "": range(3)}, {}),
        (
            "vit_qv_vision_last2",
            {"visual.": (2, 3)},
            {"rank": 4, "alpha": 2.0, "parts": "qv", "towers": "image", "last": 2},
        ),
    ],
)
def test_numbers_of_the_official_implementation(variant, blocks, settings):
    """Logits, loss and gradients of MaxZanella/CLIP-LoRA (commit 358f0d7), without dropout; its scale is 100."""
    numbers, backbone = of_variant(golden("clip_lora"), variant), tiny_backbone(variant.split("_")[0])
    backbone.model.logit_scale.data = torch.tensor(100.0).log()
    method = prepared(backbone, dropout=0.0, **settings)
    values, ours = learned(numbers), {}
    places = [f"{tower}transformer.resblocks.{j}" for tower, own in blocks.items() for j in own]
    for place, update in zip(places, method.updates, strict=True):
        for part in update.down:
            ours[f"{place}.attn.{part}_proj.w_lora_A"] = update.down[part]
            ours[f"{place}.attn.{part}_proj.w_lora_B"] = update.up[part]
    for name, tensor in ours.items():
        tensor.data = values[name]
    batch = Batch(images=noise_images(32), labels=LABELS)
    np.testing.assert_allclose(method.logits(batch).detach(), numbers["out/logits"], rtol=1e-4, atol=2e-4)
    loss = method.loss(batch)
    same(loss, numbers["out/loss"])
    loss.backward()
    same_gradients({name: tensor.grad for name, tensor in ours.items()}, numbers)


def test_it_starts_as_zero_shot_prediction(backbone):
    zero_shot = ZeroShot(backbone)
    zero_shot.prepare(task(CLASSES, [TEMPLATE]))
    batch = Batch(images=noise_images(32))
    same(prepared(backbone).logits(batch), zero_shot.logits(batch).numpy())


def test_the_update_is_that_of_merged_weights(backbone):
    method, batch = woken(backbone, rank=3, alpha=2.0), Batch(images=noise_images(32))
    zero = prepared(backbone).logits(batch)
    found = method.logits(batch).detach()
    assert (found - zero).abs().max() > 0.1
    merged = tiny_backbone("asym")
    blocks = [*merged.image.visual.transformer.resblocks, *merged.text.blocks]
    for block, update in zip(blocks, method.updates, strict=True):
        width = block.attn.in_proj_weight.shape[1]
        for k, part in enumerate("qkv"):
            delta = 2.0 / math.sqrt(3) * update.up[part] @ update.down[part]
            block.attn.in_proj_weight.data[k * width : (k + 1) * width] += delta.detach()
    zero_shot = ZeroShot(merged)
    zero_shot.prepare(task(CLASSES, [TEMPLATE]))
    same(found, zero_shot.logits(batch).numpy())


def test_the_backbone_is_shared_and_stays_as_it_was(backbone):
    before = {key: value.clone() for key, value in backbone.model.state_dict().items()}
    features = backbone.encode_image(noise_images(32))
    method = woken(backbone)
    image, text = method.towers
    assert image.visual is not backbone.model.visual
    assert image.visual.conv1.weight is backbone.model.visual.conv1.weight
    assert text.words.weight is backbone.text.words.weight
    optimizer, _ = method.optimizer(3)
    method.loss(Batch(images=noise_images(32), labels=LABELS)).backward()
    optimizer.step()
    assert torch.equal(backbone.encode_image(noise_images(32)), features)
    assert all(torch.equal(value, before[key]) for key, value in backbone.model.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())
    assert not any(hasattr(block.attn, "low_rank") for block in backbone.text.blocks)


def test_only_the_thin_matrices_learn(backbone):
    method = prepared(backbone)
    assert method.trainable_parameters == 3 * 2 * 2 * (3 * 128 + 3 * 192)  # qkv, A and B, rank 2, blocks times widths
    method.loss(Batch(images=noise_images(32), labels=LABELS)).backward()
    assert all(p.grad.abs().max() > 0 for u in method.updates for p in u.up.values())
    assert not any(p.grad.any() for u in method.updates for p in u.down.values())  # B is zero
    woke = woken(backbone)
    woke.loss(Batch(images=noise_images(32), labels=LABELS)).backward()
    assert all(p.grad.abs().max() > 0 for p in woke.parameters())


@pytest.mark.parametrize(
    ("settings", "blocks"),
    [({}, 6), ({"towers": "image"}, 3), ({"towers": "text"}, 3), ({"last": 1}, 2), ({"last": 100}, 6)],
)
def test_towers_and_blocks_can_be_chosen(backbone, settings, blocks):
    method = woken(backbone, **settings)
    assert len(method.updates) == blocks
    f, w = method.towers[0].forward(noise_images(32)), method.towers[1].encode(method.tokens)
    changed = [
        not torch.allclose(f, backbone.encode_image(noise_images(32)), atol=1e-4),
        not torch.allclose(w, backbone.encode_text(method.tokens), atol=1e-4),
    ]
    assert changed == [settings.get("towers") != "text", settings.get("towers") != "image"]


def test_dropout_acts_in_learning_alone(backbone):
    method, batch = woken(backbone, dropout=0.5), Batch(images=noise_images(32), labels=LABELS)
    torch.manual_seed(0)
    one, two = method.loss(batch), method.loss(batch)
    assert abs(float(one.detach() - two.detach())) > 1e-4
    assert torch.equal(method.logits(batch), method.logits(batch))
    calm = woken(backbone, dropout=0.0)
    same(calm.loss(batch), F.cross_entropy(method.logits(batch), LABELS).detach().numpy())


def test_a_part_without_update_adds_nothing(backbone):
    update = LowRank(8, "qv", 2, 1.0, torch.Generator().manual_seed(0))
    for up in update.up.values():
        up.data.fill_(1.0)
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1))
    q, k, v = update(x, "qkv").chunk(3, -1)
    assert not k.any() and q.abs().min() > 0
    same(update(x, "kv"), torch.cat([k, v], -1).detach().numpy())
    block = backbone.text.blocks[0]
    normed = torch.randn(2, 3, 192, generator=torch.Generator().manual_seed(2))
    plain = project(block, normed, "qkv")
    same(torch.cat(project(block, normed, "kv")), torch.cat(plain[1:]).numpy())


def test_the_number_of_steps_follows_the_shots(backbone):
    support = Pictures([0, 1, 2, 3, 4] * 14)  # 70 images: two batches of 32
    method = CLIPLoRA(backbone)
    method.prepare(task(CLASSES, [TEMPLATE], shots=14, support=support))
    assert method.epochs * 2 == 500 * 14
    assert prepared(backbone, support, steps=7).epochs == 4
    optimizer, schedule = method.optimizer(10)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(2e-4) and rates == sorted(rates, reverse=True)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-6)


def test_new_classes_keep_the_updates(backbone):
    method = woken(backbone)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    method.set_classes(["zebra", "violin"], [TEMPLATE])
    assert method.logits(Batch(images=noise_images(32))).shape == (8, 2)
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


def test_towers_without_attention_blocks_are_refused():
    resnet = tiny_backbone("rn")
    with pytest.raises(VlmlabError, match="towers=text"):
        prepared(resnet)
    assert len(prepared(resnet, towers="text").updates) == 4


def test_a_way_out_is_told_only_where_it_is_one(backbone, monkeypatch):
    # As `photo`: neither tower can be changed. The stand-ins only have another class.
    resnet = tiny_backbone("rn")
    for one in (resnet, backbone):
        monkeypatch.setattr(one, "text", copy.copy(one.text))
        one.text.__class__ = type("Closed", (type(one.text),), {})
    for towers in ("both", "image", "text"):
        with pytest.raises(VlmlabError, match="use micro-vit") as error:
            prepared(resnet, towers=towers)
        assert "towers=" not in str(error.value)
    with pytest.raises(VlmlabError, match="towers=image"):
        prepared(backbone)


def test_texts_that_do_not_change_are_encoded_once(backbone, monkeypatch):
    method, batch = woken(backbone, towers="image"), Batch(images=noise_images(32), labels=LABELS)
    f, w = (
        F.normalize(x, dim=-1) for x in (method.towers[0].forward(batch.images), backbone.encode_text(method.tokens))
    )
    text, encoded = method.towers[1], []
    monkeypatch.setattr(text, "encode", lambda tokens, own=text.encode: (encoded.append(len(tokens)), own(tokens))[1])
    assert torch.equal(method.logits(batch), backbone.logit_scale * f @ w.T)
    method.loss(batch).backward()
    assert not encoded
    method.set_classes(CLASSES[:2], [TEMPLATE])
    assert method.logits(batch).shape == (8, 2) and encoded == [2]


def test_the_output_projection_can_have_an_update(backbone):
    """Added to the weight, it gives the same: W_o + s' B A."""
    method = prepared(backbone, parts="qkvo", rank=2)
    for update in method.updates:
        for part in "qkv":
            assert update.up[part].abs().max() == 0
        update.up["o"].data.normal_(generator=torch.Generator().manual_seed(1))
    images = noise_images(32)
    changed = method.logits(Batch(images=images))
    image, text = method.towers
    blocks = [*image.visual.transformer.resblocks, *text.blocks]
    weights = [block.attn.out_proj.weight.clone() for block in blocks]
    assert len(blocks) == len(method.updates)
    try:
        for block, update in zip(blocks, method.updates, strict=True):
            block.attn.out_proj.weight.data += update.factor * update.up["o"].data @ update.down["o"].data
            update.up["o"].data.zero_()
        torch.testing.assert_close(method.logits(Batch(images=images)), changed, rtol=1e-4, atol=1e-4)
    finally:
        for block, weight in zip(blocks, weights, strict=True):
            block.attn.out_proj.weight.data.copy_(weight)
    assert (method.logits(Batch(images=images)) - changed).abs().max() > 1e-3
