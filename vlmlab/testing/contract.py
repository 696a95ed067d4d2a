"""What every system must do, whoever wrote it: call `cases()` in a test, or `vlmlab check KEY`.

    @pytest.mark.parametrize(("check", "system"), cases("coop"), ids=str)     # or cases(MySystem)
    def test_contract(check, system):
        check(system)

Each system is fitted once, with its own defaults for an embedded backbone but one epoch, to a toy task of the kind that it
solves (`toys`). A check raises AssertionError. What makes a system good at anything is for its own test to say.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vlmlab.datasets.multi_task import with_companions
from vlmlab.datasets.task import DENSE, Task
from vlmlab.errors import VlmlabError
from vlmlab.learning.evaluate import predict
from vlmlab.learning.fit import fit
from vlmlab.methods.dense.detector import Detector
from vlmlab.methods.dense.segmenter import Segmenter
from vlmlab.methods.method import Batch
from vlmlab.randomness import LocalRandom
from vlmlab.testing.toys import SIDE, Named, backbone, bank, batch_of, dataset, fitted, once, system_of, task_for


def check_gradients_reach_what_it_learns_and_nothing_else(key: Named) -> None:
    before = {name: value.clone() for name, value in backbone().state_dict().items()}
    method, reached = once(key)
    assert reached == {name for name, _ in method.named_parameters()}
    assert all(p.grad is None and not p.requires_grad for p in backbone().parameters())
    assert all(torch.equal(value, before[name]) for name, value in backbone().state_dict().items())
    if system_of(key).info.setup != "test-time":  # whose parameters live as long as a prediction
        assert (method.trainable_parameters == 0) == system_of(key).info.learns.startswith("nothing")


def check_one_finite_score_per_class(key: Named) -> None:
    method, _ = once(key)
    images = task_for(key).test
    with torch.no_grad():
        scores = method.logits(batch_of(method, images))
    shape = (len(images), len(method.classes))
    assert scores.shape == (shape if system_of(key).info.tasks[0] != "segmentation" else (*shape, SIDE, SIDE))
    assert scores.isfinite().all(), "a score is not a number"
    if not isinstance(method, Detector):  # which may have found nothing of a class
        assert scores.flatten(1).std(0).min() > 0, "all images look the same to it"


def check_a_picture_s_score_does_not_depend_on_its_neighbours(key: Named) -> None:
    method, _ = once(key)
    if system_of(key).info.setup == "transductive":
        return  # it predicts for all images together, as its setup says
    images = task_for(key).test
    with torch.no_grad():
        together = method.logits(batch_of(method, images))[1:3]
        alone = method.logits(batch_of(method, images, slice(1, 3)))
    if method.eats != "views":  # views are drawn by an image's place in this test
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def check_frozen_features_that_are_kept_are_those_that_it_would_compute(key: Named) -> None:
    method, _ = once(key)
    images, raw = task_for(key).test, task_for(key).test.images()
    if method.eats == "features":
        with torch.no_grad():
            kept = method.logits(batch_of(method, images))
            torch.testing.assert_close(method.logits(Batch(images=method.preprocess(raw))), kept, rtol=1e-4, atol=1e-4)
    if getattr(method, "kept", None) is None or system_of(key).info.setup == "text-only":
        return
    support = method.learns_from(task_for(key))
    losses = []
    for index in (torch.arange(len(support)), None):  # by its place in the support set an image is looked up
        batch = batch_of(method, support)
        batch.labels, batch.index = support.labels, index
        with LocalRandom(0):
            losses.append(method.loss(batch).detach())
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)


def check_from_base_to_new_and_back(key: Named) -> None:
    method, _ = once(key)
    base, new = task_for(key), task_for(key, split="new")
    if system_of(key).info.setup in DENSE:
        new = copy.copy(new)
        new.classes = new.classes[::-1][:4]
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


def check_a_fit_that_is_stopped_and_resumed_ends_like_an_unbroken_one(key: Named) -> None:
    method, _ = once(key)
    test = task_for(key).test
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint.pt"
        again, _ = fitted(key, checkpoint=file, most=2)
        if list(method.parameters()):
            assert file.exists() and not torch.equal(predict(again, test, bank()), predict(method, test, bank()))
            again, _ = fitted(key, checkpoint=file)
    assert torch.equal(predict(again, test, bank()), predict(method, test, bank()))


def check_the_shots_matter_where_the_taxonomy_says_so(key: Named) -> None:
    if system_of(key).info.setup in DENSE:
        return  # it learns from all training images
    one, other = (fitted(key, shots)[0] if shots != 2 else once(key)[0] for shots in (1, 2))
    test = task_for(key).test
    same = torch.equal(predict(one, test, bank()), predict(other, test, bank()))
    assert same != system_of(key).info.takes_shots
    try:
        without, _ = fitted(key, shots=0)
    except VlmlabError as error:
        assert system_of(key).info.takes_shots and "\n" not in str(error)
    else:
        assert not list(without.parameters()) or not system_of(key).info.takes_shots
        scores = predict(without, test, bank())
        assert scores.isfinite().all() and scores.flatten(1).std(0).min() > 0


def check_names_that_cannot_be_prompts_are_refused_in_a_line(key: Named) -> None:
    for name in ("", "supercalifragilistic " * 20):
        task = with_companions(task_for(key), once(key)[0].config, dataset)
        task.classes = [*task.classes[:-1], name]
        try:
            system_of(key)(backbone(), once(key)[0].config).prepare(task)
        except VlmlabError as error:
            assert "\n" not in str(error)
        else:
            raise AssertionError(f"the class name {name[:20]!r} was taken")


def check_what_is_saved_is_all_that_predictions_need(key: Named) -> None:
    """A method that is prepared again, with nothing to choose on, and takes the saved state predicts the same."""
    method, _ = once(key)
    system, task = system_of(key), task_for(key)
    blind = dataclasses.replace(task.dataset, val=task.dataset.val.subset([]))
    given = with_companions(Task(backbone(), blind, task.shots, seed=1, split=task.split), method.config, dataset)
    again = system(backbone(), method.config)
    again.bank = bank()
    with LocalRandom(1):
        again.prepare(given.seen_by(system.info.setup))
    again.load_state_dict(method.state_dict())
    assert torch.equal(predict(again, task.test, bank()), predict(method, task.test, bank()))


def check_a_method_can_learn_another_task_and_the_first_one_again(key: Named) -> None:
    first = predict(once(key)[0], task_for(key).test, bank())
    method, _ = fitted(key, most=2)
    for split in ("new", "base"):
        task = task_for(key, split="base") if split == "base" else _only_new(key)
        given = with_companions(task, method.config, dataset)
        fit(method, given.seen_by(method.info.setup), bank=bank())
    assert torch.equal(predict(method, task_for(key).test, bank()), first)


def _only_new(key: Named) -> Task:
    """The other half of the classes as a task of its own."""
    data = task_for(key).dataset
    half = dataclasses.replace(data, classes=[*data.classes[::-1]])
    return Task(backbone(), half, task_for(key).shots, seed=1, split=task_for(key).split)


def check_refused_classes_leave_a_method_as_it_was(key: Named) -> None:
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


def check_detections_lie_in_their_image_and_are_named_and_ordered(key: Named) -> None:
    method, _ = once(key)
    before = method.classes, method.templates
    wide = np.random.default_rng(0).integers(0, 255, (SIDE, 2 * SIDE, 3), dtype=np.uint8)
    (found,) = method.predict([wide], ["apple", "tree"])
    method.set_classes(*before)
    assert found.boxes.shape == (len(found.scores), 4) and found.boxes.isfinite().all()
    assert (found.boxes >= 0).all() and (found.boxes <= torch.tensor([2 * SIDE, SIDE] * 2)).all(), (
        "a box leaves the image"
    )
    assert (found.boxes[:, 2:] >= found.boxes[:, :2]).all(), "a box ends before it begins"
    assert (found.scores >= 0).all() and (found.scores <= 1).all() and (found.scores.diff() <= 0).all()
    assert found.labels.shape == found.scores.shape and ((found.labels >= 0) & (found.labels < 2)).all()


def check_every_pixel_of_any_image_gets_a_word(key: Named) -> None:
    method, _ = once(key)
    before = method.classes, method.templates
    wide = np.random.default_rng(0).integers(0, 255, (SIDE, 2 * SIDE, 3), dtype=np.uint8)
    try:
        (found,) = method.predict([wide], ["apple", "tree"])
    except VlmlabError as error:
        assert "\n" not in str(error) and method.classes == before[0]  # what it learned belongs to its classes
        return
    method.set_classes(*before)
    assert found.shape == (SIDE, 2 * SIDE) and found.dtype == torch.int64 and set(found.unique().tolist()) <= {0, 1}


EVERY: tuple[Callable[[Named], None], ...] = (
    check_gradients_reach_what_it_learns_and_nothing_else,
    check_one_finite_score_per_class,
    check_a_picture_s_score_does_not_depend_on_its_neighbours,
    check_frozen_features_that_are_kept_are_those_that_it_would_compute,
    check_from_base_to_new_and_back,
    check_a_fit_that_is_stopped_and_resumed_ends_like_an_unbroken_one,
    check_the_shots_matter_where_the_taxonomy_says_so,
    check_names_that_cannot_be_prompts_are_refused_in_a_line,
    check_what_is_saved_is_all_that_predictions_need,
    check_a_method_can_learn_another_task_and_the_first_one_again,
    check_refused_classes_leave_a_method_as_it_was,
)
"""Checks of every system."""
OF_A_KIND = {
    Detector: (check_detections_lie_in_their_image_and_are_named_and_ordered,),
    Segmenter: (check_every_pixel_of_any_image_gets_a_word,),
}
"""Checks of the systems of one kind."""


class Check:
    """A check with a readable name, as the id of a test."""

    def __init__(self, function: Callable[[Named], None]) -> None:
        self.function = function

    def __call__(self, system: Named) -> None:
        """Raises AssertionError if the system does not do what it must."""
        self.function(system)

    def __str__(self) -> str:
        return self.function.__name__.removeprefix("check_").replace("_", " ")


def checks(system: Named) -> list[Check]:
    """The checks of the kind of task that a system solves."""
    kind = system_of(system)
    own = [check for base, some in OF_A_KIND.items() if issubclass(kind, base) for check in some]
    return [Check(function) for function in (*EVERY, *own)]


def cases(*systems: Named) -> list[tuple[Check, Named]]:
    """Every system with each of its checks, for `pytest.mark.parametrize`."""
    return [(check, system) for system in systems for check in checks(system)]
