import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import task
from tests.methods.parity import learned, of_variant, same, same_gradients
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.other.taskres import TaskRes
from vlmlab.methods.templates import choose

LABELS = torch.arange(8) % 5
TEMPLATES = ["a photo of a {}.", "itap of a {}."]


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("vit")


def prepared(backbone, **settings):
    method = TaskRes(backbone, TaskRes.configure(backbone, **settings))
    method.prepare(task(CLASSES, TEMPLATES))
    return method


@pytest.mark.parametrize(("variant", "alpha"), [("vit_pets", 0.5), ("rn_imagenet", 1.0), ("asym_underscores", 0.5)])
def test_numbers_of_the_official_implementation(variant, alpha):
    """Base, logits, loss and gradient of geekyutao/TaskRes (commit 5195359)."""
    numbers, backbone = of_variant(golden("taskres"), variant), tiny_backbone(variant.split("_")[0])
    method = TaskRes(backbone, TaskRes.configure(backbone, alpha=alpha))
    classes = [name.replace(" ", "_") for name in CLASSES] if variant == "asym_underscores" else CLASSES
    method.prepare(task(classes, numbers["templates"].tolist()))
    same(method.base, numbers["mid/base_text_features"])
    (name, value), *_ = learned(numbers).items()
    method.residual.data = value
    batch = Batch(images=noise_images(64 if variant == "rn_imagenet" else 32), labels=LABELS)
    same(method.logits(batch), numbers["out/logits"])
    loss = method.loss(batch)
    same(loss, numbers["out/loss"])
    loss.backward()
    same_gradients({name: method.residual.grad}, numbers)


def test_the_sentences_for_imagenet_have_a_name():
    assert sorted(golden("taskres")["rn_imagenet/templates"]) == sorted(choose("imagenet7+photo", []))


def test_it_starts_at_the_mean_of_the_raw_text_features(backbone):
    method = prepared(backbone)
    raw = torch.stack([backbone.encode_text([t.format(c) for c in CLASSES]) for t in TEMPLATES]).mean(0)
    same(method.base, raw)
    assert (method.base.norm(dim=-1) - 1).abs().min() > 0.01  # not normalised
    f = F.normalize(backbone.encode_image(noise_images(32)), dim=-1)
    same(method.logits(Batch(images=noise_images(32))), backbone.logit_scale * f @ F.normalize(raw, dim=-1).T)


def test_a_residual_turns_its_own_class_only(backbone):
    method = prepared(backbone)
    batch = Batch(features=backbone.encode_image(noise_images(32)))
    before = method.logits(batch)
    method.residual.data[2] = torch.randn(64, generator=torch.Generator().manual_seed(0))
    changed = (method.logits(batch) - before).abs().amax(0)
    assert changed[2] > 1e-3 and changed[[0, 1, 3, 4]].max() < 1e-5
    w = F.normalize(method.base + 0.5 * method.residual, dim=-1)
    same(method.logits(batch), backbone.logit_scale * F.normalize(batch.features, dim=-1) @ w.detach().T)


def test_only_residuals_learn_by_adam_with_decay_in_the_gradient(backbone):
    method = prepared(backbone)
    assert [name for name, _ in method.named_parameters()] == ["residual"] and method.trainable_parameters == 5 * 64
    optimizer, _ = method.optimizer(10)
    assert type(optimizer) is torch.optim.Adam and optimizer.defaults["weight_decay"] == 5e-4
    method.loss(Batch(features=backbone.encode_image(noise_images(32)), labels=LABELS)).backward()
    assert method.residual.grad.abs().max() > 0 and all(p.grad is None for p in backbone.parameters())


def test_names_keep_their_underscores_and_other_classes_are_refused(backbone):
    method = TaskRes(backbone, TaskRes.configure(backbone))
    method.prepare(task(["tabby_cat", "oak_tree"], ["{}"]))
    same(method.base, backbone.encode_text(["tabby_cat", "oak_tree"]))
    with pytest.raises(VlmlabError, match="belongs to its class"):
        method.set_classes(CLASSES, ["{}"])
