"""What every registered system must do; a new one is tested here from the moment its file lies under vlmlab/methods.

Each is fitted once, with its own defaults for an embedded backbone but one pass over the images, to a toy task of the
kind that it solves. What makes it good at anything is for its own test to say.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from vlmlab.backbones.backbone import Backbone
from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.image_set import ArrayPictures, ImageSet
from vlmlab.datasets.multi_task import with_companions
from vlmlab.datasets.task import Task
from vlmlab.datasets.truth import Truth
from vlmlab.errors import VlmlabError
from vlmlab.features.bank import FeatureBank
from vlmlab.learning.evaluate import predict
from vlmlab.learning.fit import fit
from vlmlab.methods.method import Batch
from vlmlab.registry import load_system, registry

SIDE = 32
SCENES = ["beach", "bedroom", "city street", "desert", "farm", "forest path", "kitchen", "mountain", "night sky"]
SCENES += ["underwater"]  # all of the dataset, so that its descriptions and its class tree are there
THINGS = ["apple", "bird", "cup", "fish", "house", "tree"]
QUICK = {"epochs": 4, "ssl_epochs": 1, "companion_shots": 1, "captions": 60, "views": 4, "warmup_epochs": 0}
"""Settings of whichever system has them: contracts need no long training."""


@functools.cache
def backbone() -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(
            embed_dim=16,
            vision_cfg={"image_size": SIDE, "layers": 4, "width": 32, "head_width": 16, "patch_size": 8},
            text_cfg={"context_length": 48, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 4},
        )
    return Backbone("tiny", model, open_clip.SimpleTokenizer(context_length=48), embedded=True)


def pictures(name: str, labels: list, count: int) -> ImageSet:
    """Noise with a tint per label, and masks whose upper half is the first class and whose lower half the second."""
    pixels = np.random.default_rng(len(name)).integers(0, 160, (len(labels), SIDE, SIDE, 3), dtype=np.uint8)
    tint = torch.tensor(labels).reshape(len(labels), -1)[:, 0].numpy()
    pixels[..., 0] += (60 * tint / count).astype(np.uint8)[:, None, None]
    semantic = np.repeat(np.uint8([[0], [1]]), SIDE * SIDE // 2, 1).reshape(SIDE, SIDE)
    dense = Truth(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), None, semantic)
    ids = [f"{name}/{i}" for i in range(len(labels))]
    return ImageSet(ArrayPictures(lambda: pixels, name), labels, ids, lambda position: dense)


@functools.cache
def dataset(name: str, several: bool = False) -> Dataset:
    classes = {"scenes": SCENES, "tableau": THINGS}.get(name, ["this", "that", "one", "other"])
    sets = []
    for split, each in (("train", 4), ("val", 2), ("test", 2)):
        labels = [c for _ in range(each) for c in range(len(classes))]
        if several:
            labels = [[int(c in (own, (own + 1) % len(classes))) for c in range(len(classes))] for own in labels]
        sets.append(pictures(f"{name} {split}", labels, len(classes)))
    return Dataset(name, classes, ["a photo of a {}."], *sets)


def task_for(key: str, shots: int = 2, split: str = "base"):
    one_label = {"classification", "hierarchical classification"} & set(registry()[key].tasks)
    data = dataset("scenes") if one_label else dataset("tableau", several=True)
    return Task(backbone(), data, shots, seed=1, split=split)


@functools.cache
def bank() -> FeatureBank:
    return FeatureBank(backbone(), disk=False)


def fitted(key: str, shots: int = 2, checkpoint: Path | None = None, most: int = 1000):
    """(method, names of the parameters that a gradient has reached) after at most so many steps on the base classes."""
    system = load_system(key)
    fields = {field.name for field in dataclasses.fields(system.Config)}
    config = system.configure(backbone(), **{name: value for name, value in QUICK.items() if name in fields})
    task = with_companions(task_for(key, shots), config, dataset)
    method, reached, steps_done = system(backbone(), config), set(), []

    def look(done: int, steps: int, loss: float) -> None:
        steps_done.append(done)
        reached.update(n for n, p in method.named_parameters() if p.grad is not None and p.grad.abs().max() > 0)

    fit(method, task.seen_by(system.info.setup), look, lambda: len(steps_done) >= most, checkpoint, bank())
    return method, reached


once = functools.cache(fitted)


def batch_of(method, images: ImageSet, positions=slice(None)) -> Batch:
    """What the system eats, of these images."""
    raw = [images.images(i) for i in range(len(images))[positions]]
    if method.eats == "views":
        return Batch(images=method.views(raw, list(range(len(raw)))))
    if method.eats == "images":
        return Batch(images=method.preprocess(raw))
    return Batch(features=bank().features(images)[positions])


every = pytest.mark.parametrize("key", list(registry()))


@every
def test_gradients_reach_what_it_learns_and_nothing_else(key):
    before = {name: value.clone() for name, value in backbone().state_dict().items()}
    method, reached = once(key)
    assert reached == {name for name, _ in method.named_parameters()}
    assert all(p.grad is None and not p.requires_grad for p in backbone().parameters())
    assert all(torch.equal(value, before[name]) for name, value in backbone().state_dict().items())
    if registry()[key].setup != "test-time":  # whose parameters live as long as a prediction
        assert (method.trainable_parameters == 0) == registry()[key].learns.startswith("nothing")


@every
def test_one_finite_score_per_class(key):
    method, _ = once(key)
    images = task_for(key).test
    with torch.no_grad():
        scores = method.logits(batch_of(method, images))
    shape = (len(images), len(method.classes))
    assert scores.shape == (shape if registry()[key].tasks[0] != "segmentation" else (*shape, SIDE, SIDE))
    assert scores.isfinite().all() and scores.flatten(1).std(0).min() > 0, "all images look the same to it"


@every
def test_a_picture_s_score_does_not_depend_on_its_neighbours(key):
    method, _ = once(key)
    if registry()[key].setup == "transductive":
        pytest.skip("it predicts for all images together, as its setup says")
    images = task_for(key).test
    with torch.no_grad():
        together = method.logits(batch_of(method, images))[1:3]
        alone = method.logits(batch_of(method, images, slice(1, 3)))
    if method.eats != "views":  # views are drawn by an image's place in this test
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@every
def test_frozen_features_that_are_kept_are_those_that_it_would_compute(key):
    method, _ = once(key)
    images, raw = task_for(key).test, task_for(key).test.images()
    if method.eats == "features":
        with torch.no_grad():
            kept = method.logits(batch_of(method, images))
            torch.testing.assert_close(method.logits(Batch(images=method.preprocess(raw))), kept, rtol=1e-4, atol=1e-4)
    if getattr(method, "kept", None) is None or registry()[key].setup == "text-only":
        return
    support = method.learns_from(task_for(key))
    losses = []
    for index in (torch.arange(len(support)), None):  # by its place in the support set an image is looked up
        batch = batch_of(method, support)
        batch.labels, batch.index = support.labels, index
        torch.manual_seed(0)
        losses.append(method.loss(batch).detach())
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)


@every
def test_from_base_to_new_and_back(key):
    method, _ = once(key)
    base, new = task_for(key), task_for(key, split="new")
    batch = batch_of(method, base.test)
    with torch.no_grad():
        before = method.logits(batch)
        try:
            method.set_classes(new.classes, new.templates)
        except VlmlabError as error:
            assert "\n" not in str(error)  # what it learned belongs to its classes; it must have kept them
        else:
            there = method.logits(batch_of(method, new.test))
            assert there.shape[:2] == (len(new.test), len(new.classes)) and there.isfinite().all()
            method.set_classes(new.classes[::-1], new.templates)
            turned = method.logits(batch_of(method, new.test)).flip(1)
            torch.testing.assert_close(turned, there, rtol=1e-3, atol=1e-3)  # a score is of a name, not of a place
            method.set_classes(base.classes, base.templates)
        assert method.classes == base.classes
        assert torch.equal(method.logits(batch), before)


@every
def test_a_fit_that_is_stopped_and_resumed_ends_like_an_unbroken_one(key, tmp_path):
    method, _ = once(key)
    file, test = tmp_path / "checkpoint.pt", task_for(key).test
    again, _ = fitted(key, checkpoint=file, most=2)
    if list(method.parameters()):
        assert file.exists() and not torch.equal(predict(again, test, bank()), predict(method, test, bank()))
        again, _ = fitted(key, checkpoint=file)
    assert torch.equal(predict(again, test, bank()), predict(method, test, bank()))


@every
def test_the_shots_matter_where_the_taxonomy_says_so(key):
    one, other = (fitted(key, shots)[0] if shots != 2 else once(key)[0] for shots in (1, 2))
    test = task_for(key).test
    same = torch.equal(predict(one, test, bank()), predict(other, test, bank()))
    assert same != registry()[key].takes_shots
    try:
        without, _ = fitted(key, shots=0)
    except VlmlabError as error:
        assert registry()[key].takes_shots and "\n" not in str(error)
    else:
        assert not list(without.parameters()) or not registry()[key].takes_shots
        scores = predict(without, test, bank())
        assert scores.isfinite().all() and scores.flatten(1).std(0).min() > 0


@every
def test_names_that_cannot_be_prompts_are_refused_in_a_line(key):
    for name in ("", "supercalifragilistic " * 20):
        task = with_companions(task_for(key), once(key)[0].config, dataset)
        task.classes = [*task.classes[:-1], name]
        with pytest.raises(VlmlabError) as error:
            load_system(key)(backbone(), once(key)[0].config).prepare(task)
        assert "\n" not in str(error.value)


@every
def test_what_is_saved_is_all_that_predictions_need(key):
    """A method that is prepared again, with nothing to choose on, and takes the saved state predicts the same."""
    method, _ = once(key)
    system, task = load_system(key), task_for(key)
    blind = dataclasses.replace(task.dataset, val=task.dataset.val.subset([]))
    given = with_companions(Task(backbone(), blind, task.shots, seed=1, split="base"), method.config, dataset)
    again = system(backbone(), method.config)
    again.bank = bank()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        again.prepare(given.seen_by(system.info.setup))
    again.load_state_dict(method.state_dict())
    assert torch.equal(predict(again, task.test, bank()), predict(method, task.test, bank()))


@every
def test_a_method_can_learn_another_task_and_the_first_one_again(key):
    first = predict(once(key)[0], task_for(key).test, bank())
    method, _ = fitted(key, most=2)
    for split in ("new", "base"):
        task = task_for(key, split="base") if split == "base" else _only_new(key)
        given = with_companions(task, method.config, dataset)
        fit(method, given.seen_by(method.info.setup), bank=bank())
    assert torch.equal(predict(method, task_for(key).test, bank()), first)


def _only_new(key: str) -> Task:
    """The other half of the classes as a task of its own."""
    data = task_for(key).dataset
    half = dataclasses.replace(data, classes=[*data.classes[::-1]])
    return Task(backbone(), half, 2, seed=1, split="base")


@every
def test_refused_classes_leave_a_method_as_it_was(key):
    method, _ = once(key)
    task, long = task_for(key), [" ".join([name] + ["cat"] * 37) for name in ("red", "blue")]
    with torch.no_grad():
        before = predict(method, task.test, bank())
        try:
            method.set_classes(
                long, task.templates
            )  # there is room for them in the template, but not in longer prompts
        except VlmlabError:
            assert method.classes == task.classes
        else:
            assert method.classes == long
            method.set_classes(task.classes, task.templates)
        assert torch.equal(predict(method, task.test, bank()), before)


def test_the_most_steps_leave_few_shot_sets_of_twelve_classes_alone():
    limited = [key for key in registry() if load_system(key).embedded.get("most_steps")]
    assert limited
    for key in limited:
        own = load_system(key).embedded
        assert own["epochs"] * (12 * 16 // own["batch_size"]) <= own["most_steps"], key
