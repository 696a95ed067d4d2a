import types

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import task
from tests.methods.parity import of_variant, same, same_gradient
from vlmlab.methods.method import Batch
from vlmlab.methods.templates import FOR_ONE_DATASET, SETS
from vlmlab.methods.text_prompt.coop import CoOp
from vlmlab.methods.text_prompt.lasp import LASP

LABELS = torch.arange(8) % 5
PLAIN = {"tune_norms": False}
SETTINGS = {
    "base_correction": PLAIN,
    "base_correction_noise": PLAIN,
    "all_classes_correction": PLAIN,
    "no_correction": PLAIN | {"bias": False},
    "vit_layernorm_tuned": {},
}


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("vit")


def prepared(backbone, classes=CLASSES, every=None, **settings):
    method = LASP(backbone, LASP.configure(backbone, **settings))
    one = task(classes, golden("lasp")["templates"].tolist())
    if every:
        one.dataset = types.SimpleNamespace(classes=every)
    method.prepare(one)
    return method


@pytest.mark.parametrize("variant", SETTINGS)
def test_numbers_of_the_official_implementation(variant, backbone):
    numbers = of_variant(golden("lasp"), variant)
    names = numbers["all_class_names"].tolist()
    # In this variant the release gives the extra classes to the classifier of images as well.
    classes = names if variant == "all_classes_correction" else CLASSES
    method = prepared(backbone, classes, names, templates="dataset", **SETTINGS[variant])
    method.context.data = torch.from_numpy(numbers["param/prompt_learner.ctx"])
    if method.config.bias:
        method.b.data = torch.from_numpy(numbers["param/prompt_learner.w"])
    for i, norm in enumerate(getattr(method, "norms", [])):
        for kind in ("weight", "bias"):
            key = f"param/image_encoder.transformer.resblocks.{i // 2}.ln_{1 + i % 2}.{kind}"
            getattr(norm, kind).data = torch.from_numpy(numbers[key])
    images = noise_images(32)
    same(method.sentences, F.normalize(torch.from_numpy(numbers["mid/class_text_features"]), dim=-1))
    same(
        F.normalize(method.tower[0].forward(images), dim=-1),
        F.normalize(torch.from_numpy(numbers["mid/eval_image_encoder"]), dim=-1),
    )
    logits = method.logits(Batch(images=images))
    same(logits, numbers["out/eval_logits"])
    same(method.text_to_text(), numbers["out/text_to_text_loss_without_noise"])
    noise = torch.from_numpy(numbers["noise"]) if "noise" in numbers else 0.0
    scaled = 0.05 * noise if isinstance(noise, torch.Tensor) else 0.0
    loss = F.cross_entropy(logits, LABELS) + 5 * method.text_to_text(scaled)
    same(loss, numbers["out/loss"])
    loss.backward()
    same_gradient(method.context.grad, numbers["grad/prompt_learner.ctx"])
    if method.config.bias:
        same_gradient(method.b.grad, numbers["grad/prompt_learner.w"])
    for i, norm in enumerate(getattr(method, "norms", [])):
        for kind in ("weight", "bias"):
            key = f"grad/image_encoder.transformer.resblocks.{i // 2}.ln_{1 + i % 2}.{kind}"
            if abs(numbers[key]).max() > 1e-6:
                same_gradient(getattr(norm, kind).grad, numbers[key])


def test_norms_learn_on_a_copy_at_a_tenth_of_the_rate(backbone):
    method = prepared(backbone)
    names = {name.split(".")[0] for name, _ in method.named_parameters()}
    assert names == {"context", "b", "norms"}
    assert all(not p.requires_grad for p in backbone.parameters())
    optimizer, schedule = method.optimizer(1000)
    for _ in range(200):
        optimizer.step()
        schedule.step()
    one, ten = (group["lr"] for group in optimizer.param_groups)
    assert ten == pytest.approx(0.1 * one)


def test_noise_is_added_in_about_half_of_the_steps(backbone):
    method = prepared(backbone, tune_norms=False, noise=5.0)
    batch = Batch(images=noise_images(32), labels=LABELS)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        losses = [float(method.loss(batch)) for _ in range(40)]
    quiet = sum(abs(loss - min(losses, key=losses.count)) > 0 for loss in losses)
    repeated = max(losses.count(loss) for loss in set(losses))
    assert 10 <= repeated <= 30 and quiet


def test_virtual_classes_enter_the_text_loss_and_not_the_predictions(backbone):
    method = prepared(backbone, CLASSES[:3], CLASSES, tune_norms=False)
    assert method.sentences.shape[1] == 5 and method.logits(Batch(images=noise_images(32))).shape == (8, 3)
    alone = prepared(backbone, CLASSES[:3], CLASSES, tune_norms=False, virtual=False)
    assert alone.sentences.shape[1] == 3


def test_the_warm_up_rate_is_everybody_s(backbone):
    """A constant warm-up knows no groups (10 steps per epoch, three epochs of warm-up)."""
    optimizer, schedule = prepared(backbone).optimizer(250)
    rates = []
    for _ in range(40):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert rates[29] == [1e-5, 1e-5] and rates[30] == pytest.approx([0.032, 0.0032])


def test_a_step_s_gradient_has_at_most_norm_one(backbone):
    method = prepared(backbone)
    batch = Batch(images=noise_images(32), labels=LABELS)
    method.loss(batch).backward()
    before = [p.grad.clone() for p in method.parameters()]
    norm = torch.stack([g.norm() for g in before]).norm()
    assert norm > 1
    method.before_step()
    for parameter, gradient in zip(method.parameters(), before, strict=True):
        same(parameter.grad, gradient / norm)
    for parameter, gradient in zip(method.parameters(), before, strict=True):
        parameter.grad = gradient / norm / 2
    method.before_step()
    for parameter, gradient in zip(method.parameters(), before, strict=True):
        same(parameter.grad, gradient / norm / 2)


def test_official_sentences(backbone):
    method = LASP(backbone)
    assert method.config.templates == "lasp35"
    sentences = SETS["lasp35"]
    assert len(sentences) == 35 and len(set(sentences)) == 34 and sentences.count("a bad photo of the {}.") == 2
    assert set(SETS["imagenet7"]) < set(sentences) and set(sentences) - set(SETS["imagenet80"]) == set(FOR_ONE_DATASET)


def test_without_words_the_context_starts_at_random(backbone):
    method = prepared(backbone, tune_norms=False, init="", n_ctx=6)
    assert method.context.shape == (6, 64) and 0.01 < method.context.std() < 0.03
    coop = CoOp(backbone, CoOp.configure(backbone, n_ctx=6))
    coop.prepare(task(CLASSES))
    coop.context.data = method.context.data
    same(method.logits(Batch(images=noise_images(32))), coop.logits(Batch(images=noise_images(32))).detach())
