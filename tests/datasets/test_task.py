import numpy as np
import pytest

from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.image_set import ArrayPictures, ImageSet
from vlmlab.datasets.task import DENSE, SEES, Task
from vlmlab.errors import VlmlabError
from vlmlab.registry import SETUPS

NAMES = ["ant", "bee", "cow", "dog", "emu"]


def images(split: str, per_class: int, classes: int = 5) -> ImageSet:
    labels = [c for c in range(classes) for _ in range(per_class)]
    pixels = np.zeros((len(labels), 2, 2, 3), np.uint8) + np.array(labels, np.uint8)[:, None, None, None]
    ids = [f"{split}/{label}/{i}" for i, label in enumerate(labels)]
    return ImageSet(ArrayPictures(lambda: pixels, split), labels, ids)


def dataset(train: int = 8, val: int = 6, test: int = 3, **facts) -> Dataset:
    return Dataset(
        "zoo", NAMES, ["a photo of a {}."], images("train", train), images("val", val), images("test", test), **facts
    )


def shown(pictures: ImageSet) -> list[int]:
    """The class that each image really shows."""
    return [int(p[0, 0, 0]) for p in pictures.images()] if len(pictures) else []


def test_support_and_validation_are_drawn_from_their_own_splits():
    task = Task(None, dataset(), shots=4, seed=0)
    assert task.support.labels.bincount().tolist() == [4] * 5
    assert task.val.labels.bincount().tolist() == [4] * 5
    assert all(name.startswith("train/") for name in task.support.ids)
    assert all(name.startswith("val/") for name in task.val.ids)
    assert len(task.test) == 15


@pytest.mark.parametrize(("shots", "val"), [(0, 0), (1, 1), (2, 2), (8, 4)])
def test_validation_is_never_larger_than_the_support_nor_than_four(shots, val):
    assert len(Task(None, dataset(), shots).val) == 5 * val


@pytest.mark.parametrize(("split", "names"), [("all", NAMES), ("base", NAMES[:3]), ("new", NAMES[3:])])
def test_labels_of_a_half_count_its_own_classes(split, names):
    task = Task(None, dataset(), shots=2, seed=1, split=split)
    assert task.classes == names
    first = NAMES.index(names[0])
    for pictures in (task.support, task.val, task.test):
        assert [first + label for label in pictures.labels.tolist()] == shown(pictures)
        assert pictures.labels.unique().tolist() == list(range(len(names)))


def test_base_and_new_supports_are_those_of_all_classes():
    whole, base, new = (Task(None, dataset(), 3, 5, split) for split in ("all", "base", "new"))
    assert sorted(base.support.ids + new.support.ids) == sorted(whole.support.ids)


def test_the_dataset_s_own_novel_categories_are_the_new_ones():
    odd = dataset(novel=("bee", "dog"))
    assert Task(None, odd, 1, split="new").classes == ["bee", "dog"]
    assert Task(None, odd, 1, split="base").classes == ["ant", "cow", "emu"]


def test_without_validation_pictures_the_rest_of_train_serves():
    task = Task(None, dataset(train=6, val=0), shots=4)
    assert task.val.labels.bincount().tolist() == [2] * 5
    assert not set(task.val.ids) & set(task.support.ids)
    assert len(Task(None, dataset(train=4, val=0), shots=4).val) == 0


def test_seeds_change_the_support_and_not_the_test():
    a, b = Task(None, dataset(), 2, 0), Task(None, dataset(), 2, 1)
    assert a.support.ids != b.support.ids
    assert a.test.ids == b.test.ids


def test_for_classes_keeps_dataset_and_seed():
    base = Task(None, dataset(), 2, 7, "base")
    new = base.for_classes("new")
    assert (new.split, new.shots, new.seed) == ("new", 2, 7)
    assert not set(new.classes) & set(base.classes)
    assert len(base.for_classes("new", shots=0).support) == 0


def test_too_many_shots_name_the_class():
    with pytest.raises(VlmlabError, match="'ant' has only 8"):
        Task(None, dataset(), 9)


def test_an_unknown_split():
    with pytest.raises(VlmlabError, match="unknown split 'bases'; did you mean base"):
        Task(None, dataset(), 1, split="bases")


def test_three_classes_cannot_be_halved():
    small = Dataset("small", NAMES[:3], ["{}"], *(images(s, 4, 3) for s in ("train", "val", "test")))
    with pytest.raises(VlmlabError, match="small has 3 classes; base and new together need at least four"):
        Task(None, small, 1, split="new")


# -- what a system may see


def test_every_setup_of_the_survey_is_covered():
    assert set(SEES) == set(SETUPS)


@pytest.mark.parametrize("setup", SETUPS)
def test_no_system_may_look_at_test_pictures(setup):
    with pytest.raises(VlmlabError, match=f"a {setup} system may not look at the test images"):
        _ = Task(None, dataset(), 1).seen_by(setup).test


@pytest.mark.parametrize("setup", SETUPS)
def test_a_setup_sees_what_it_should_and_nothing_else(setup):
    task = Task(None, dataset(), 2)
    seen = task.seen_by(setup)
    assert seen.classes == task.classes
    for what in ("support", "val", "unlabelled"):
        if what == "val" and setup in DENSE:
            assert seen.val.ids == task.dataset.val.ids, "it has no shots by which to choose a few"
        elif what in SEES[setup]:
            assert getattr(seen, what).ids == getattr(task, what).ids
        else:
            with pytest.raises(VlmlabError):
                getattr(seen, what)
    assert len(task.test) == 15, "the task itself stays open"


def test_unlabelled_pictures_are_all_of_train_without_labels():
    pictures = Task(None, dataset(), 1, split="base").unlabelled
    assert len(pictures) == 24
    with pytest.raises(VlmlabError, match="hidden"):
        _ = pictures.labels
