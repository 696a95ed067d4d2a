"""CLIMS: the release's losses and maps, who learns when, and what is judged."""

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.parity import same, same_gradient
from vlmlab.errors import VlmlabError
from vlmlab.learning.fit import fit
from vlmlab.methods.dense.cam_student import cam_miou
from vlmlab.methods.method import Batch
from vlmlab.methods.segmentation.clims import CAM, CLIMS, JUDGED, TAUGHT, ground_loss, object_loss, rest_loss
from vlmlab.testing import toys


def judge(**settings) -> CLIMS:
    """The system on the tiny CLIP of the reference numbers, ready to judge maps."""
    numbers, backbone = golden("clims"), tiny_backbone("asym")
    words = ", ".join(numbers["in/grounds"].tolist())
    method = CLIMS(backbone, CLIMS.configure(backbone, ground_words=words, **settings))
    method.set_classes(CLASSES, ["a photo of {}."])
    method.grounds, method.things = [], list(range(5))
    method.words = backbone.class_embeddings(CLASSES, ["a photo of {}."])
    method.ground = backbone.class_embeddings(method.background_words(words), ["a photo of {}."])
    return method


WEIGHTS = ("object", "rest", "ground", "area")


@pytest.mark.parametrize("part", [*WEIGHTS, "loss"])
def test_what_the_judge_says_is_what_the_release_computes(part):
    numbers = golden("clims")
    settings = {"ground_threshold": float(numbers["in/threshold"])}
    if part != "loss":
        settings |= {f"{name}_weight": float(name == part) for name in WEIGHTS}
    maps = torch.from_numpy(numbers["in/maps"]).requires_grad_()
    loss = judge(**settings).judged(noise_images(32, 3), maps.sigmoid(), torch.from_numpy(numbers["in/shown"]) > 0)
    same(loss, numbers["out/loss"] if part == "loss" else numbers["out/parts"][WEIGHTS.index(part)])
    (gradient,) = torch.autograd.grad(loss, maps)
    same_gradient(gradient, numbers[f"grad/{part}"])


def test_losses_of_cosines_are_those_of_the_release():
    numbers = golden("clims")
    for name, loss in (("object", object_loss), ("rest", rest_loss)):
        cosines = torch.from_numpy(numbers["in/cosines"]).requires_grad_()
        found = loss(cosines)
        same(found, numbers[f"out/{name}"])
        found.backward()
        same_gradient(cosines.grad, numbers[f"grad/{name}_cosines"])
    low = torch.tensor([[0.1, 0.25], [0.3, 0.5]])
    torch.testing.assert_close(ground_loss(low, 0.26), -(torch.tensor([0.7, 0.5]).log()).sum())


class Given(torch.nn.Module):
    """A CAM network that answers with these maps."""

    def __init__(self, maps: torch.Tensor) -> None:
        super().__init__()
        self.maps = torch.nn.Parameter(maps)

    def forward(self, images, places):
        return self.maps


def test_maps_and_the_first_loss_are_those_of_the_release():
    numbers = golden("clims")
    method = judge()
    method.prepare_student()
    method.net = Given(torch.from_numpy(numbers["in/maps"]))
    shown = torch.from_numpy(numbers["in/shown"])
    pairs, maps = method.label_maps(noise_images(32, 3), shown > 0)
    assert pairs.tolist() == shown.nonzero().tolist()
    same(maps, numbers["out/maps"])
    method.tokens = torch.zeros(3, 1)
    batch = Batch(images=noise_images(32, 3), labels=shown, index=torch.arange(3))
    loss = method.loss(batch)
    same(loss, numbers["out/cam_loss"])
    loss.backward()
    same_gradient(method.net.maps.grad, numbers["grad/cam_loss"])


def test_some_pairs_are_judged_and_none_where_nothing_is_shown():
    settings = {"area_weight": 0.0, "ground_threshold": -1.0}  # every word of a ground counts
    method, images = judge(pairs=2, **settings), noise_images(32, 3)
    maps = torch.rand(3, 5, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    shown = torch.ones(3, 5, dtype=torch.bool)
    (gradient,) = torch.autograd.grad(method.judged(images, maps, shown), maps)
    assert gradient.flatten(2).any(2).sum() == 2
    method.config.area_weight = 1.0
    torch.testing.assert_close(method.judged(images, maps, torch.zeros_like(shown)), maps.mean())


@pytest.fixture(scope="module")
def fitted():
    """(method, task, names of the parameters that moved in each stage)."""
    task = toys.task_for("clims").seen_by("weakly supervised")
    settings = {"cam_epochs": 2, "epochs": 2, "student_epochs": 2, "batch_size": 6}
    method = CLIMS(toys.backbone(), CLIMS.configure(toys.backbone(), **settings))
    moved, before = {}, {}

    def look(done: int, steps: int, loss: float) -> None:
        now = {name: p.detach().clone() for name, p in method.named_parameters()}
        if before:
            own = {name.split(".")[0] for name, p in now.items() if not torch.equal(p, before[name])}
            moved.setdefault(method.stage, set()).update(own)
        before.update(now)
        if method.stage == CAM:
            method.seen_first = torch.nn.utils.parameters_to_vector(method.net.parameters()).detach().clone()

    fit(method, task, look)
    return method, task, moved


def test_the_network_learns_first_and_then_the_student(fitted):
    method, _, moved = fitted
    assert moved == {CAM: {"net"}, JUDGED: {"net"}, TAUGHT: {"student"}}
    assert all(p.grad is None for p in method.backbone.parameters())


def test_the_maps_before_are_those_of_the_network_before_it_was_judged(fitted):
    method, task, _ = fitted
    assert torch.equal(method.first, method.seen_first)
    images = method.framed([task.train.images(i) for i in range(3)])[0]
    shown = task.train.labels[:3] > 0
    _, after = method.label_maps(images, shown)
    pairs, before = method.label_maps(images, shown, refined=False)
    assert not torch.equal(before, after) and pairs.tolist() == shown.nonzero().tolist()
    own = torch.nn.utils.parameters_to_vector(method.net.parameters()).detach().clone()
    torch.nn.utils.vector_to_parameters(method.first, method.net.parameters())
    torch.testing.assert_close(method.label_maps(images, shown)[1], before)
    torch.nn.utils.vector_to_parameters(own, method.net.parameters())


def test_pseudo_labels_name_what_the_image_shows(fitted):
    method, task, _ = fitted
    for own, labels in zip(method.pseudo, task.train.labels > 0, strict=True):
        assert set(own.unique().tolist()) <= {-1, *labels.nonzero().flatten().tolist()}
    found = cam_miou(method, task.val, task.val)
    assert found["oracle"] == found["validation"] >= found["fixed"]


def test_classifiers_learn_faster():
    task = toys.task_for("clims").seen_by("weakly supervised")
    method = CLIMS(toys.backbone(), CLIMS.configure(toys.backbone(), head=10.0, lr=0.2))
    method.prepare(task)
    method.stage = JUDGED
    optimizer, schedule = method.optimizer(10)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert set(rates) == {id(p) for p in method.net.parameters()}
    assert rates[id(method.net.classifier.weight)] == pytest.approx(2.0)
    assert rates[id(next(method.net.net.parameters()))] == pytest.approx(0.2)
    for _ in range(5):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2 * 0.5**0.9)


def test_grounds_are_no_things_and_need_words():
    method = judge()
    assert method.background_words("sky, oak tree, snow, sky") == ["sky", "snow"]
    method.grounds = [3]
    assert method.background_words("sky, oak tree") == ["sky", "oak tree"]
    task = toys.task_for("clims").seen_by("weakly supervised")
    named = ", ".join(task.classes)
    with pytest.raises(VlmlabError, match="no word of a ground"):
        CLIMS(toys.backbone(), CLIMS.configure(toys.backbone(), ground_words=named)).prepare(task)
    CLIMS(toys.backbone(), CLIMS.configure(toys.backbone(), ground_words=named, ground_weight=0.0)).prepare(task)


def test_the_mean_colour_is_what_is_left_where_something_is_cut_out():
    method = judge(rest_weight=0.0, ground_weight=0.0, area_weight=0.0, object_weight=1.0)
    images, shown = noise_images(32, 1), torch.tensor([[True, False, False, False, False]])
    nothing = method.judged(images, torch.zeros(1, 5, 8, 8), shown)
    grey = F.normalize(method.backbone.encode_image(torch.zeros_like(images)), dim=-1)
    torch.testing.assert_close(nothing, object_loss((grey * method.words[:1]).sum(1)))
