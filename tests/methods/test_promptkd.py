"""PromptKD: the official loss, projection and gradients; what learns in which stage; and what the student may see."""

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import Pictures, task
from tests.methods.parity import learned, of_variant, same, same_gradients
from vlmlab.backbones.backbone import Backbone
from vlmlab.datasets.task import Task
from vlmlab.errors import VlmlabError
from vlmlab.learning.evaluate import predict
from vlmlab.learning.fit import fit
from vlmlab.methods.method import Batch
from vlmlab.methods.text_visual_prompt import promptkd
from vlmlab.methods.text_visual_prompt.promptkd import PromptKD, distillation
from vlmlab.methods.text_visual_prompt.promptsrc import PromptSRC
from vlmlab.testing import toys


class Unlabelled(Pictures):
    """Eight images whose labels nobody may read."""

    def relabelled(self, labels):
        return self


def prepared(monkeypatch, student="asym", teacher="vit", **settings):
    """A PromptKD on tiny CLIPs of different widths, with eight noise images and five names."""
    monkeypatch.setattr(promptkd, "load_backbone", lambda name, device: tiny_backbone(teacher))
    monkeypatch.setattr(promptkd, "TEACHER", {"depth": 3, "templates": "photo"})
    backbone = tiny_backbone(student)
    method = PromptKD(backbone, PromptKD.configure(backbone, teacher=teacher, unlabelled="own", **settings))
    given = task(CLASSES, support=Pictures([0, 1, 2, 3, 4]))
    given.unlabelled = Unlabelled([0] * 8)
    method.prepare(given)
    return method


@pytest.mark.parametrize(("variant", "depth", "temperature", "weight"), [("t1", 3, 1.0, 1000.0), ("t2", 2, 2.0, 200.0)])
def test_the_numbers_and_gradients_are_those_of_the_official_implementation(
    monkeypatch, variant, depth, temperature, weight
):
    numbers = of_variant(golden("promptkd"), variant)
    method = prepared(monkeypatch, depth=depth, temperature=temperature, weight=weight)
    block = "{}transformer.resblocks.{}.VPT_shallow"
    teacher, values = method.teacher, learned(of_variant(numbers, "teacher"))
    for j in range(3):
        teacher.context.data[j] = values["prompt_learner.ctx" if not j else block.format("text_encoder.", j)]
        teacher.visual.data[j] = values["image_encoder.VPT" if not j else block.format("image_encoder.", j)]
    values = learned(of_variant(numbers, "student"))
    for j in range(depth):
        method.visual.data[j] = values["image_encoder.VPT" if not j else block.format("image_encoder.", j)]
    layers = {"conv1.0": method.inner, "conv1.1": method.norm, "conv1.3": method.outer}
    rows = {f"VPT_image_trans.{k}.{p}": getattr(layer, p) for k, layer in layers.items() for p in ("weight", "bias")}
    for name, parameter in rows.items():
        parameter.data = values[name].reshape(parameter.shape)
    method.finished.fill_(True)  # the teacher has learned
    method.stage = 1
    images = noise_images(32)
    same(method.words(), numbers["teacher_words"])
    same(method._predicted(images, method.words()), numbers["teacher_logits"])
    loss = method.loss(Batch(images=images))
    same(loss, numbers["loss"])
    loss.backward()
    found = {name: parameter.grad for name, parameter in rows.items()}
    found = {k: v[..., None, None] if v.dim() == 2 else v for k, v in found.items()}  # theirs are 1 x 1 convolutions
    found |= {
        "image_encoder.VPT" if not j else block.format("image_encoder.", j): method.visual.grad[j] for j in range(depth)
    }
    same_gradients(found, of_variant(numbers, "student"))
    with torch.no_grad():
        same(method.logits(Batch(images=images)), numbers["eval_logits"])  # by the running statistics after one step


def test_each_stage_learns_its_own_and_the_other_stays(monkeypatch):
    method = prepared(monkeypatch, depth=2)
    teacher = {f"teacher.{name}" for name, _ in method.teacher.named_parameters()}
    batch = Batch(images=noise_images(32)[:5], labels=torch.arange(5))
    method.loss(batch).backward()
    assert {name for name, p in method.named_parameters() if p.grad is not None} == teacher
    method.zero_grad()
    method.stage = 1
    assert not method.finished
    method.loss(batch).backward()
    assert method.finished
    learned_by = {name for name, p in method.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert learned_by == {name for name, _ in method.named_parameters()} - teacher
    (group,) = method.optimizer(10)[0].param_groups
    assert {id(p) for p in group["params"]} == {id(p) for name, p in method.named_parameters() if name not in teacher}


def test_the_first_stage_is_promptsrc():
    """On the same backbone, support and seed, the teacher ends where PromptSRC ends."""
    settings = {"epochs": 2, "batch_size": 4}
    backbone, data = toys.backbone(), toys.dataset("scenes")
    own = PromptSRC(backbone, PromptSRC.configure(backbone))
    fit(own, Task(backbone, data, 2, 1, "base").seen_by("few-shot"), bank=toys.bank())
    method = PromptKD(backbone, PromptKD.configure(backbone, **settings))
    record = fit(method, Task(backbone, data, 2, 1, "base").seen_by("semi-supervised"), bank=toys.bank())
    torch.testing.assert_close(method.teacher.context, own.context)
    torch.testing.assert_close(method.teacher.visual, own.visual)
    steps = 2 * (len(method.pictures) // 4)
    assert len(record.losses) == own.epochs * own.batches + steps
    assert len(method.pictures) == len(data.train) and method.names == data.classes  # new classes among them


def test_another_teacher_reads_images_of_its_own_size_and_none_that_are_cropped(monkeypatch):
    large = tiny_backbone("vit")
    small = Backbone("small", large.model, large.text.tokenizer)
    small.image_size = 24
    method = prepared(monkeypatch, "vit", "own", depth=2)
    method.teacher.backbone = small
    support = method.support = Pictures([0, 1, 2, 3])
    whole = Batch(images=torch.zeros(2, 3, 32, 32), labels=torch.tensor([0, 1]), index=torch.tensor([3, 1]))
    shown = method._for_teacher(whole, support)
    torch.testing.assert_close(shown.images, small.preprocess(support.images([3, 1])))
    with pytest.raises(VlmlabError, match="views=0"):
        method._for_teacher(Batch(images=whole.images, index=whole.index, cropped=True), support)


def test_the_teacher_s_predictions_that_are_kept_are_those_that_it_would_compute(monkeypatch):
    method = prepared(monkeypatch, "vit", "own", depth=2, temperature=2.0)
    method.stage = 1
    images = method.preprocess(method.pictures.images(range(8)))
    losses = [method.loss(Batch(images=images[3:6], index=index)) for index in (torch.arange(3, 6), None)]
    torch.testing.assert_close(*losses)
    with pytest.raises(VlmlabError, match="at least two"):
        method.loss(Batch(images=images[:1]))


def test_distillation_is_a_divergence():
    noise = torch.Generator().manual_seed(0)
    logits, taught = (torch.randn(4, 6, generator=noise) for _ in range(2))
    assert distillation(taught, taught, 3.0).abs() < 1e-6 < distillation(logits, taught, 3.0)
    q, p = (taught / 3).softmax(-1), (logits / 3).softmax(-1)
    torch.testing.assert_close(distillation(logits, taught, 3.0), 9 * (q * (q / p).log()).sum() / 24)


def test_new_names_are_read_by_the_teacher():
    backbone, data = toys.backbone(), toys.dataset("scenes")
    method = PromptKD(backbone, PromptKD.configure(backbone, epochs=1))
    task = Task(backbone, data, 2, 1, "base")
    fit(method, task.seen_by("semi-supervised"), bank=toys.bank())
    new = task.for_classes("new")
    method.set_classes(new.classes, new.templates)
    assert method.teacher.classes == new.classes
    images = method.preprocess(new.test.images())
    expected = backbone.logit_scale * method.features(images) @ F.normalize(method.words(), dim=-1).T
    torch.testing.assert_close(predict(method, new.test, toys.bank()), expected.detach())
