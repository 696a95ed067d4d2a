"""FreeSeg: the official numbers, what the task changes, what learns when."""

import pytest
import torch

from tests.golden.tiny_clip import CLASSES, golden, tiny_backbone
from tests.methods.parity import same, same_gradient
from vlmlab.datasets.truth import UNLABELLED, Truth
from vlmlab.errors import VlmlabError
from vlmlab.learning.evaluate import evaluate
from vlmlab.learning.fit import fit
from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.dense.mask_former import instance_segments, panoptic_segments
from vlmlab.methods.dense.mask_queries import segments_to_pixels
from vlmlab.methods.dense.naming import fused
from vlmlab.methods.segmentation.freeseg import (
    TASKS,
    FreeSeg,
    Interaction,
    class_prompts,
    panoptic_map,
    task_words,
    thing_masks,
)
from vlmlab.testing import toys

THINGS = torch.tensor([True, True, True, False, False])
OF_CLIP = torch.tensor([0.2, 0.8, 0.2, 0.2, 0.8])  # classes 0, 2, 3 were taught


@pytest.fixture(scope="module")
def numbers():
    return {name: torch.from_numpy(array) for name, array in golden("freeseg").items()}


def names_of(numbers):
    """P of the numbers: the segmenter's names and CLIP's, 1 where a mask is empty."""
    p, q = numbers["in/names"].softmax(-1)[:, :-1], numbers["in/clip"][:, :-1].softmax(-1)
    valid = (numbers["in/masks"] > 0).flatten(1).any(1)
    return fused(p, torch.where(valid[:, None], q, 1.0), OF_CLIP)


def test_prompts_with_a_task_are_the_release_s(numbers):
    text = tiny_backbone("vit").text
    context, task_context = (numbers[f"in/{name}"].clone().requires_grad_() for name in ("context", "task_context"))
    prompts, total = class_prompts(text, CLASSES, len(context)), 0.0
    for weight, (kind, told) in enumerate(TASKS.items(), 1):
        found = task_words(text, prompts, told, task_context, context)
        same(found, numbers[f"out/text/{kind}"].numpy())
        total = total + weight * (found * numbers["in/direction"]).sum()
    total.backward()
    same_gradient(context.grad, numbers["grad/context"].numpy())
    same_gradient(task_context.grad, numbers["grad/task_context"].numpy())


def test_maps_look_at_words_as_in_the_release(numbers):
    module = Interaction(16, 64, 32)
    theirs = {
        "norm": "layer_norm_q_1", "norm_words": "layer_norm_k_1", "gamma": "gamma",
        "query": "attn.q_proj", "key": "attn.k_proj", "value": "attn.v_proj", "out": "attn.out_proj",
    }  # fmt: skip
    with torch.no_grad():
        named = {name: ".".join([theirs[name.split(".")[0]], *name.split(".")[1:]]) for name in module.state_dict()}
        for name, parameter in module.named_parameters():
            parameter.copy_(numbers[f"in/interaction/{named[name]}"])
    words = numbers["in/words"].clone().requires_grad_()
    found = module([numbers[f"in/map{i}"] for i in range(4)], words)
    for i, own in enumerate(found):
        same(own, numbers[f"out/map{i}"].numpy())
    sum((own * own).sum() * (i + 1) for i, own in enumerate(found)).backward()
    same_gradient(words.grad, numbers["grad/words"].numpy())
    for name, parameter in module.named_parameters():
        if name != "key.bias":  # which no softmax feels: there both gradients are rounding
            same_gradient(parameter.grad, numbers[f"grad/interaction/{named[name]}"].numpy())


def test_the_three_answers_are_the_release_s(numbers):
    p, masks = names_of(numbers), numbers["in/masks"]
    same(segments_to_pixels(p[None], masks[None])[0, :, ::2, ::2], numbers["out/semantic"].numpy())

    found = panoptic_map(p[None], masks[None], THINGS, 0.5)[0]
    assert torch.equal(found[..., 0], numbers["out/category"].long())
    pairs = torch.stack([found[..., 1].flatten(), numbers["out/panoptic"].flatten().long()], 1).unique(dim=0)
    assert len(pairs) == len(pairs[:, 0].unique()) == len(pairs[:, 1].unique())  # the same parts, by whatever number
    assert {1, 3} <= set(found[..., 0].unique().tolist())  # things and grounds

    objects = thing_masks(p, masks, THINGS, 0.5)
    order = numbers["out/instance_scores"].argsort(descending=True)
    same(objects.scores, numbers["out/instance_scores"][order].numpy())
    assert torch.equal(objects.labels, numbers["out/instance_labels"][order])
    assert torch.equal(objects.masks, numbers["out/instance_masks"][order])


def test_two_objects_of_a_class_are_two_and_two_parts_of_a_ground_are_one():
    masks = torch.full((1, 4, 4, 8), -9.0)
    for n in range(4):
        masks[0, n, :, 2 * n : 2 * n + 2] = 9.0
    p = torch.zeros(1, 4, 2)
    p[0, :2, 0], p[0, 2:, 1] = 1.0, 1.0
    found = panoptic_map(p, masks, torch.tensor([True, False]), 0.5)[0]
    assert found[0, ::2].tolist() == [[0, 0], [0, 1], [1, 2], [1, 2]]
    assert len(thing_masks(p[0], masks[0], torch.tensor([True, False]), 0.5)) == 2
    nothing = thing_masks(p[0], masks[0], torch.tensor([False, False]), 0.5)
    assert len(nothing) == 0 and nothing.masks.shape == (0, 4, 8)


def test_a_task_says_what_a_segment_is():
    instances = torch.zeros(2, 4, 4, dtype=torch.bool)
    instances[0, :2, :2] = instances[1, 2:, :2] = True
    semantic = torch.tensor([[0, 0, 3, UNLABELLED]] * 4)
    truth = Truth(torch.zeros(2, 4), torch.tensor([0, 0]), instances, semantic)
    labels, masks, counted = panoptic_segments(truth, [3])
    assert labels.tolist() == [0, 0, 3] and masks.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 1]]
    assert counted.all()
    labels, masks, counted = instance_segments(truth, lambda masks: masks)
    assert labels.tolist() == [0, 0] and masks.sum(1).tolist() == [4, 4] and counted.sum() == 12
    with pytest.raises(VlmlabError, match="single objects"):
        instance_segments(Truth(torch.zeros(0, 4), torch.zeros(0), None, semantic))


def run(**settings):
    config = FreeSeg.configure(toys.backbone(), **({"epochs": 2, "warmup_epochs": 0, "batch_size": 4} | settings))
    method, task = FreeSeg(toys.backbone(), config), toys.task_for("freeseg")
    fit(method, task.seen_by("open-vocabulary"))
    return method


def test_the_prompts_learn_first_and_only_they():
    before, after = run(prompt_steps=0, epochs=1), run(prompt_steps=20, prompt_lr=0.002, epochs=1)
    for name in ("context", "task_context"):
        assert not torch.equal(getattr(before, name), getattr(after, name))
        assert name in after.state_dict() and name not in dict(after.named_parameters())
    words = after.words_of
    assert not torch.allclose(words["semantic"], words["instance"], atol=1e-4)


def test_the_answer_depends_on_the_task():
    method = run(prompt_steps=0)
    images = method.framed([toys.dense_dataset().test.images(0)])[0]
    with torch.no_grad():
        masks = [method.propose(images, kind)[0] for kind in TASKS]
    assert not torch.equal(masks[0], masks[1]) and not torch.equal(masks[1], masks[2])
    assert run(prompt_steps=0, tasks="semantic").kinds == ["semantic"]


def test_it_is_measured_on_segments_and_objects():
    method, task = run(prompt_steps=0), toys.task_for("freeseg")
    found = evaluate(method, task.test, groups={"base": task.base, "new": task.new})
    assert {"miou", "pq", "pq_base", "pq_new", "mask_ap50", "mask_ap50_new", "mask_ap"} <= set(found)
    assert all(0 <= found[name] <= 100 for name in ("pq", "mask_ap50", "mask_ap"))

    def truths(batch):
        return [task.test.truth(int(i)) for i in batch.index]

    def panoptic(batch):  # the ground truth itself
        found = torch.full((len(batch.index), toys.SIDE, toys.SIDE, 2), -1)
        for own, truth in zip(found, truths(batch), strict=True):
            own[..., 0] = truth.semantic
            for n, mask in enumerate(truth.instances):
                own[mask] = torch.tensor([int(truth.labels[n]), n])
        return found

    def instances(batch):
        return [Detections(t.boxes, torch.ones(len(t)), t.labels, t.instances) for t in truths(batch)]

    method.panoptic, method.instances = panoptic, instances
    found = evaluate(method, task.test)
    assert found["pq"] == pytest.approx(100) and found["mask_ap"] == pytest.approx(100)
    method.panoptic = lambda batch: torch.cat(
        [panoptic(batch)[..., :1], torch.zeros_like(panoptic(batch)[..., :1])], -1
    )
    method.instances = lambda batch: [one[:1] for one in instances(batch)]  # half of the objects
    found = evaluate(method, task.test)
    assert found["mask_ap"] == pytest.approx(50, abs=20) and found["pq"] <= 100


def test_a_width_that_does_not_split_into_heads_is_refused():
    with pytest.raises(VlmlabError, match="multiple of 8"):
        run(inner=36)
