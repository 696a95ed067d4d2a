"""SoftCPT: its equations on a tiny CLIP, with two tasks."""

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.multi_task import FARM, TARGET, dataset, together
from tests.methods.parity import learned, of_variant, same, same_gradients
from vlmlab.datasets.multi_task import MultiTask
from vlmlab.datasets.task import Task
from vlmlab.methods.method import Batch
from vlmlab.methods.text_prompt.coop import CoOp
from vlmlab.methods.text_prompt.softcpt import SoftCPT

TASKS = torch.tensor([0, 1, 0, 1, 1, 0, 0, 1])
LABELS = torch.tensor([4, 2, 0, 0, 1, 3, 4, 2])


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("asym")


@pytest.fixture(scope="module")
def batch(backbone):
    return Batch(features=backbone.encode_image(noise_images(32)), labels=LABELS, tasks=TASKS)


def prepared(backbone, task=None, **settings):
    method = SoftCPT(backbone, SoftCPT.configure(backbone, **({"n_ctx": 3} | settings)))
    method.prepare(task or together())
    return method


def test_the_name_of_a_task_becomes_its_context(backbone):
    """(1) and (2): the unnormalised feature of [tokens, name, full stop], times P."""
    method = prepared(backbone)
    contexts = method.contexts()
    assert contexts.shape == (2, 3, backbone.text.width)
    namer = CoOp(backbone, CoOp.configure(backbone, n_ctx=4))
    namer.set_classes(["zoo animals", "farm"], ["{}"])
    namer.context = method.task_context
    u = namer.class_features()
    same(contexts[1].flatten(), (u[1] @ method.projection).detach())


def test_every_task_is_a_coop_with_its_own_context_and_classes(backbone, batch):
    method, total = prepared(backbone), 0.0
    for number, classes in enumerate((TARGET, FARM)):
        coop = CoOp(backbone, CoOp.configure(backbone, n_ctx=3))
        coop.set_classes(classes, ["{}"])
        coop.context = torch.nn.Parameter(method.contexts()[number].detach())
        own = TASKS == number
        logits = coop.logits(Batch(features=batch.features[own]))
        assert logits.shape[1] == len(classes)
        total += F.cross_entropy(logits, LABELS[own], reduction="sum").item()
        if number == 0:
            same(method.logits(batch)[own], logits.detach())
    same(method.loss(batch), torch.tensor(total / 8))


def test_a_task_that_is_absent_from_a_batch_is_skipped(backbone, batch):
    method, own = prepared(backbone), TASKS == 1
    some = Batch(features=batch.features[own], labels=LABELS[own], tasks=TASKS[own])
    assert torch.isfinite(method.loss(some))


def test_gradients_reach_the_map_and_the_tokens_alone(backbone, batch):
    method = prepared(backbone)
    method.loss(batch).backward()
    assert {name for name, _ in method.named_parameters()} == {"task_context", "projection"}
    assert all(p.grad.abs().max() > 0 for p in method.parameters())
    assert all(p.grad is None for p in backbone.parameters())
    e, d = backbone.embed_dim, backbone.text.width
    assert method.trainable_parameters == 4 * d + e * 3 * d


def test_it_learns_from_all_tasks_and_alone_from_its_own(backbone, batch):
    multi = together()
    method = prepared(backbone, multi)
    assert method.learns_from(multi).tasks.unique().tolist() == [0, 1]
    alone = prepared(backbone, multi.tasks[0].for_classes("all"))
    assert alone.contexts().shape[0] == 1
    own = TASKS == 0
    plain = Batch(features=batch.features[own], labels=LABELS[own])
    same(alone.loss(plain), F.cross_entropy(alone.logits(plain), plain.labels).detach())


def test_new_classes_of_the_target_keep_its_context(backbone, batch):
    method = prepared(backbone)
    kept, others = method.contexts(), method.others
    method.set_classes(CLASSES[:3], ["{}"])
    assert method.logits(batch).shape == (8, 3) and method.others is others
    same(method.contexts(), kept.detach())


@pytest.mark.parametrize(
    ("variant", "settings"),
    [("asym_16", {"n_ctx": 16, "task_n_ctx": 4}), ("vit_3", {"n_ctx": 3, "task_n_ctx": 2})],
)
def test_numbers_of_the_official_implementation(variant, settings):
    """Three tasks of five, three classes and one; the release scores all nine classes and slices."""
    whole, numbers = golden("softcpt"), of_variant(golden("softcpt"), variant)
    own = tiny_backbone(variant.split("_")[0])
    sets = [dataset(str(name), whole[f"class_names/{t}"].tolist()) for t, name in enumerate(whole["task_names"])]
    method = SoftCPT(own, SoftCPT.configure(own, **settings))
    method.prepare(MultiTask(Task(None, sets[0], 2, 0), sets[1:]))
    values = learned(numbers)
    names = {"task_prompt_learner.ctx": method.task_context, "prompt_gen.proj": method.projection}
    for name, parameter in names.items():
        assert parameter.shape == values[name].shape
        parameter.data = values[name]
    given = Batch(
        features=own.encode_image(noise_images(32)),
        labels=torch.from_numpy(whole["in/labels"]),
        tasks=torch.from_numpy(whole["in/tasks"]),
    )
    same(method.logits(given), numbers["out/logits"][:, :5])
    loss = method.loss(given)
    same(loss, numbers["out/loss"])
    loss.backward()
    same_gradients({name: parameter.grad for name, parameter in names.items()}, numbers)
