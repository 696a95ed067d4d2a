"""ViLD: the release's losses, gradients and fusion; what each head learns from."""

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import golden
from tests.methods.parity import same, same_gradient
from vlmlab.methods.dense.distillation import l1
from vlmlab.methods.dense.fusion import geometric
from vlmlab.methods.dense.region_learner import text_loss
from vlmlab.methods.detection.vild import ViLD
from vlmlab.methods.method import Batch
from vlmlab.randomness import LocalRandom
from vlmlab.testing import toys


@pytest.fixture
def numbers():
    return {name: torch.from_numpy(array) for name, array in golden("vild").items()}


def test_the_text_loss_and_its_gradient_are_the_release_s(numbers):
    """There background is the first column, and logits of new classes are multiplied by 0."""
    logits, base = numbers["in/logits"].flatten(0, 1).requires_grad_(), int(numbers["in/base"])
    ours = torch.cat([logits[:, 1 : base + 1], logits[:, :1]], 1)
    labels = (numbers["in/labels"].flatten().long() - 1) % (base + 1)
    loss = text_loss(ours, labels, logits.shape[1] - 1 - base)
    same(loss, numbers["out/text"])
    same_gradient(torch.autograd.grad(loss, logits)[0], numbers["grad/logits"].flatten(0, 1).numpy())


def test_the_distance_to_clip_and_its_gradient_are_the_release_s(numbers):
    students = numbers["in/students"].requires_grad_()
    loss = ViLD.Config().distill * l1(students, numbers["in/teachers"], numbers["in/there"])
    same(loss, numbers["out/distill"])
    same_gradient(torch.autograd.grad(loss, students)[0], numbers["grad/students"].numpy())


def test_scores_are_the_release_s(numbers):
    p = numbers["in/p"].softmax(-1)[..., 1:]
    same(p, numbers["out/vanilla"])
    is_new = torch.arange(p.shape[-1]) >= int(numbers["in/base"])
    same(geometric(p, numbers["in/q"].softmax(-1), is_new), numbers["out/scores"])


def test_without_a_region_the_text_loss_is_zero_and_has_a_gradient():
    logits = torch.zeros(0, 4, requires_grad=True)
    text_loss(logits, torch.zeros(0, dtype=torch.long), 2).backward()
    assert logits.grad.shape == (0, 4)


@pytest.mark.parametrize(
    ("head", "parts"),
    [
        ("text", {"text_head", "classifier"}),
        ("image", {"image_head"}),
        ("vild", {"text_head", "classifier"}),
        ("ensemble", {"text_head", "classifier", "image_head"}),
    ],
)
def test_heads_learn_from_what_they_should(head, parts):
    method = ViLD(toys.backbone(), ViLD.configure(toys.backbone(), head=head))
    task = toys.task_for("vild").seen_by("open-vocabulary")
    images = task.train
    with LocalRandom(0):
        method.prepare(task)
        method.loss(Batch(index=torch.arange(4), truths=[images.truth(i) for i in range(4)])).backward()
    reached = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == parts
    if head == "vild":  # without the words' share, the distance alone reaches the projection and not the background
        method.zero_grad(set_to_none=True)
        regions = method.regions.at(torch.arange(4))
        students = method.text_head(method.features(regions.maps, regions.boxes))
        l1(students, F.normalize(regions.embeddings, dim=-1), regions.there).backward()
        assert method.text_head.project.weight.grad.any() and method.classifier.background.grad is None
