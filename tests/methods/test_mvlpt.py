"""MVLPT: two stages, on a tiny CLIP with two tasks."""

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import task as toy_task
from tests.methods.multi_task import FARM, TARGET, dataset, together
from tests.methods.parity import learned, of_variant, same, same_gradients
from vlmlab.datasets.multi_task import MultiTask
from vlmlab.datasets.task import Task
from vlmlab.errors import VlmlabError
from vlmlab.learning.fit import fit
from vlmlab.methods.method import Batch
from vlmlab.methods.text_prompt.cocoop import CoCoOp
from vlmlab.methods.text_prompt.coop import CoOp
from vlmlab.methods.text_visual_prompt.mvlpt import MVLPT
from vlmlab.methods.text_visual_prompt.upt import UPT

CARRIERS = ("text", "image", "both", "cocoop")
SHOP = ["cup", "hat"]


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("asym")


def prepared(backbone, task=None, **settings):
    method = MVLPT(backbone, MVLPT.configure(backbone, **({"n_ctx": 2} | settings)))
    method.prepare(task or three_tasks())
    return method


def three_tasks() -> MultiTask:
    target = Task(None, dataset("zoo-animals", TARGET), 2)
    return MultiTask(target, [dataset("farm", FARM), dataset("shop", SHOP)])


@pytest.fixture(scope="module")
def batch(backbone):
    images = noise_images(32)
    return Batch(images=images, features=backbone.encode_image(images), labels=torch.arange(8) % 5)


@pytest.fixture(scope="module")
def sources(batch):
    """The same images as images of the two source tasks."""
    tasks = torch.tensor([1, 2, 1, 2, 1, 2, 1, 1])
    return Batch(batch.images, batch.features, torch.tensor([2, 1, 0, 0, 1, 1, 2, 0]), tasks=tasks)


@pytest.mark.parametrize(
    ("variant", "settings"),
    [
        ("coop_vit_middle", {"carrier": "text"}),
        ("vpt_asym", {"carrier": "image", "n_ctx": 4}),
        ("upt_vit_middle", {}),
        ("upt_asym_middle", {}),
        ("upt_asym_end_shallow", {"n_ctx": 2, "hidden": 32, "position": "end", "depth": 1}),
        ("upt_vit_front_no_maps", {"n_ctx": 2, "hidden": 64, "position": "front"}),
        ("upt_asym_alone_unequal", {"visual_ctx": 3}),
        ("upt_asym_apart", {"mixing": "apart"}),
        ("upt_asym_apart_unequal_projected", {"mixing": "apart", "visual_ctx": 2, "project": 16, "position": "end"}),
        ("vpt_asym_projected", {"carrier": "image", "n_ctx": 4, "project": 16}),
        ("cocoop_asym", {"carrier": "cocoop"}),
    ],
)
def test_numbers_of_the_official_implementation(variant, settings):
    """Logits, loss and gradients of sIncerass/MVLPT (commit 6fa518b), whose UPT does not mix the prompts."""
    numbers, backbone = of_variant(golden("mvlpt"), variant), tiny_backbone(variant.split("_")[1])
    if variant.startswith("upt"):
        method = carrier = UPT(backbone, UPT.configure(backbone, **({"mixing": "alone"} | settings)))
    else:
        method = MVLPT(backbone, MVLPT.configure(backbone, **settings))
        carrier = method.carrier
    method.prepare(toy_task(CLASSES))
    values = {name.removeprefix("prompt_learner."): value for name, value in learned(numbers).items()}
    ours = {
        name.replace("text_in.", "mvlpt_proj_ctx_coop_pre.")
        .replace("text_out.", "mvlpt_proj_ctx_coop_post.")
        .replace("image_in.", "mvlpt_proj_ctx_vpt_pre.")
        .replace("image_out.", "mvlpt_proj_ctx_vpt_post.")
        .replace("mixer.", "mvlpt_proj.resblocks.0.")
        .replace("visual_proj.", "vpt_proj.")
        .replace("meta_net.0.", "meta_net.linear1.")
        .replace("meta_net.2.", "meta_net.linear2.")
        .replace("context", "cocoop_ctx" if settings.get("carrier") == "cocoop" else "ctx"): tensor
        for name, tensor in carrier.named_parameters()
    }
    visual = ours.pop("visual", None)
    for name, tensor in ours.items():
        tensor.data = values[name]
    if visual is not None:  # theirs is in two parts: the first block's, the others'
        visual.data = torch.cat([values[k] for k in ("vpt_embeddings", "vpt_embeddings_deep") if k in values])
    images = noise_images(32)
    batch = Batch(images=images, features=backbone.encode_image(images), labels=torch.arange(8) % 5)
    same(method.logits(batch), numbers["out/logits"])
    loss = method.loss(batch)
    same(loss, numbers["out/loss"])
    loss.backward()
    grads = {name: tensor.grad for name, tensor in ours.items()}
    if visual is not None:
        grads |= {"vpt_embeddings": visual.grad[:1]}
        grads |= {"vpt_embeddings_deep": visual.grad[1:]} if len(visual) > 1 else {}
    same_gradients({f"prompt_learner.{name}": grad for name, grad in grads.items()}, numbers)


def test_the_carrier_of_cocoop_is_cocoop_from_a_random_context(backbone, batch):
    method = prepared(backbone, carrier="cocoop")
    alone = CoCoOp(backbone, CoCoOp.Config(n_ctx=2, init=""))
    alone.prepare(method_task := three_tasks())
    assert method_task.classes == method.classes and method.eats == "features"
    alone.load_state_dict(method.carrier.state_dict())
    same(method.logits(batch), alone.logits(batch).detach())
    method.loss(batch).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())


@pytest.mark.parametrize("carrier", ["image", "both"])
def test_visual_prompts_may_be_learned_at_another_width(backbone, batch, carrier):
    method = prepared(backbone, carrier=carrier, project=16, mixing="apart")
    plain = prepared(backbone, carrier=carrier, mixing="apart")
    assert method.carrier.visual.shape[-1] == 16 and plain.carrier.visual.shape[-1] == 128
    with torch.no_grad():
        plain.carrier.visual.copy_(method.carrier.visual_proj(method.carrier.visual))
        if carrier == "both":
            plain.carrier.context.copy_(method.carrier.context)
    same(method.logits(batch), plain.logits(batch).detach())
    method.loss(batch).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())


@pytest.mark.parametrize("carrier", CARRIERS)
def test_source_pictures_are_classified_among_all_source_classes(backbone, sources, carrier):
    """(1): the union of hen, pig, goat, cup, hat; a label is counted from where its task's classes begin."""
    method = prepared(backbone, carrier=carrier)
    alike = prepared(backbone, carrier=carrier)
    alike.set_classes([*FARM, *SHOP], ["a photo of a {}."])
    expected = F.cross_entropy(alike.logits(sources), torch.tensor([2, 4, 0, 3, 1, 4, 2, 0]))
    same(method.loss(sources), expected.detach())
    assert method.logits(sources).shape == (8, 5) and method.classes == TARGET  # the target's are not disturbed


@pytest.mark.parametrize("carrier", CARRIERS)
def test_per_task_leaves_other_tasks_out(backbone, sources, carrier):
    method = prepared(backbone, carrier=carrier, per_task=True)
    logits, total = method.among_sources.logits(sources).detach(), 0.0
    for b, (task, label) in enumerate(zip(sources.tasks.tolist(), sources.labels.tolist(), strict=True)):
        own = logits[b, :3] if task == 1 else logits[b, 3:]
        total -= own.log_softmax(-1)[label].item()
    same(method.loss(sources), torch.tensor(total / 8))


@pytest.mark.parametrize("carrier", CARRIERS)
def test_both_stages_move_the_same_prompts_and_nothing_else(backbone, batch, sources, carrier):
    method = prepared(backbone, carrier=carrier)
    for what in (sources, batch):
        method.zero_grad()
        method.loss(what).backward()
        grads = {name: p.grad for name, p in method.named_parameters()}
        assert all(g is not None for g in grads.values()) and max(g.abs().max() for g in grads.values()) > 0
    assert all(name.startswith("carrier.") for name in grads)
    assert all(p.grad is None for p in backbone.parameters())


def test_the_carriers_are_what_they_say(backbone, batch):
    task = three_tasks()
    text = prepared(backbone, carrier="text", position="end")
    coop = CoOp(backbone, CoOp.configure(backbone, n_ctx=2))
    coop.prepare(task)
    same(text.logits(batch), coop.logits(batch).detach())
    both = prepared(backbone, carrier="both")
    upt = UPT(backbone, UPT.configure(backbone, n_ctx=2))
    upt.prepare(task)
    same(both.logits(batch), upt.logits(batch).detach())
    image = prepared(backbone, carrier="image")
    assert image.trainable_parameters == backbone.image.depth * 2 * backbone.image.width
    with torch.no_grad():
        image.carrier.visual[1:] *= 3.0  # deep prompts are seen
    assert (image.logits(batch) - prepared(backbone, carrier="image").logits(batch)).abs().max() > 1e-4


def test_the_mixing_is_that_of_upt(backbone, batch):
    upt = UPT(backbone, UPT.configure(backbone, n_ctx=2, mixing="alone"))
    upt.prepare(three_tasks())
    same(prepared(backbone, carrier="both", mixing="alone").logits(batch), upt.logits(batch).detach())
    assert (prepared(backbone, carrier="both").logits(batch) - upt.logits(batch)).abs().max() > 1e-3


def test_default_sizes_follow_the_carrier(backbone):
    sizes = {c: prepared(backbone, carrier=c, n_ctx=None).carrier.config.n_ctx for c in CARRIERS}
    assert sizes == {"text": 16, "image": 16, "both": 4, "cocoop": 4}


def test_the_target_stage_starts_where_the_source_stage_ended(backbone):
    task = together()
    method = MVLPT(backbone, MVLPT.configure(backbone, carrier="text", epochs=3, n_ctx=2, lr=0.01, batch_size=4))
    seen = []
    record = fit(method, task, on_step=lambda *_: seen.append(method.carrier.context.detach().clone()))
    assert record.steps == 3 * (6 // 4) + 3 * (10 // 4)
    one = MVLPT(backbone, method.config)
    one.prepare(task)
    assert not torch.equal(one.carrier.context, seen[2])  # the source stage moved the prompts,
    jump, usual = (seen[3] - seen[2]).norm(), (seen[2] - seen[1]).norm()
    assert jump < 3 * usual  # and the first step of the target stage is a step from there
    alone = MVLPT(backbone, method.config)
    assert fit(alone, task.for_classes("all")).steps == 3 * (10 // 4)


def test_new_classes_keep_what_was_learned(backbone, batch):
    method = prepared(backbone, carrier="both")
    kept = {name: value.clone() for name, value in method.state_dict().items()}
    method.set_classes(SHOP, ["{}"])
    assert method.logits(batch).shape == (8, 2)
    assert all(torch.equal(value, kept[name]) for name, value in method.state_dict().items())


@pytest.mark.parametrize("carrier", ["image", "both"])
def test_a_tower_without_tokens_is_refused(carrier):
    with pytest.raises(VlmlabError, match=r"need a ViT: .* carrier=text"):
        MVLPT(tiny_backbone("rn"), MVLPT.Config(carrier=carrier))
    MVLPT(tiny_backbone("rn"), MVLPT.Config(carrier="text"))
