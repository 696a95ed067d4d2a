import dataclasses

import pytest

from tests.datasets.test_task import dataset, images, shown
from vlmlab.datasets.catalog import DATASETS, shifted_versions
from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.multi_task import KINDS, MultiTask, companions_of, with_companions
from vlmlab.datasets.task import Task
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Recipe, option

LETTERS = ["a", "b", "c", "d"]


def farm(**facts) -> Dataset:
    return Dataset(
        "farm", LETTERS, ["{}"], images("f-train", 9, 4), images("f-val", 6, 4), images("f-test", 3, 4), **facts
    )


def test_everything_but_the_companions_is_the_target_s():
    alone, multi = Task(None, dataset(), 3, 1), MultiTask(Task(None, dataset(), 3, 1), [farm()])
    assert multi.classes == alone.classes
    assert multi.support.ids == alone.support.ids and multi.test.ids == alone.test.ids
    assert [t.dataset.name for t in multi.tasks] == ["zoo", "farm"] and multi.tasks[0] is multi
    assert not isinstance(multi.for_classes("new"), MultiTask)


def test_a_joint_set_keeps_label_spaces_apart_and_finds_its_pictures():
    multi = MultiTask(Task(None, dataset(), shots=2), [farm()], shots=3)
    joint = multi.together()
    assert joint.tasks.tolist() == [0] * 10 + [1] * 12
    assert joint.labels.tolist() == shown(joint)  # each image shows the class of its own task
    assert len(set(joint.ids)) == 22 and joint.labels.max() == 4 and joint.labels[joint.tasks == 1].max() == 3
    mixed = [21, 0, 10, 9]
    assert [int(p[0, 0, 0]) for p in joint.images(mixed)] == joint.labels[mixed].tolist()
    sources = multi.sources()
    assert sources.tasks.tolist() == [1] * 12 and sources.ids == joint.ids[10:]
    assert sources.fingerprint() != joint.fingerprint()


def test_the_target_s_split_is_the_companions_too():
    multi = MultiTask(Task(None, dataset(), shots=2, split="base"), [farm()])
    assert [t.classes for t in multi.tasks] == [["ant", "bee", "cow"], ["a", "b"]]


def test_what_a_system_may_see_holds_for_companions():
    seen = MultiTask(Task(None, dataset(), shots=2), [farm()]).seen_by("few-shot")
    assert len(seen.together()) == 18
    for task in seen.tasks:
        with pytest.raises(VlmlabError, match="may not look at the test images"):
            _ = task.test


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([dataset()], "zoo is there twice"),
        ([farm(), farm()], "farm is there twice"),
        ([farm(tasks=("segmentation",))], "farm cannot be learned together"),
        ([dataclasses.replace(farm(), train=images("none", 0, 4))], "farm cannot be learned together"),
    ],
)
def test_datasets_that_do_not_go_together(others, message):
    with pytest.raises(VlmlabError, match=message):
        MultiTask(Task(None, dataset(), shots=1), others)


def test_a_target_without_labels_of_one_class_is_refused():
    with pytest.raises(VlmlabError, match="zoo cannot be learned together"):
        MultiTask(Task(None, dataset(tasks=("detection",)), shots=1), [farm()])


def test_no_companion_no_source_stage():
    with pytest.raises(VlmlabError, match="at least one companion"):
        MultiTask(Task(None, dataset(), shots=1), []).sources()


# --- companions from a setting ---------------------------------------------------------------------------------------


def test_every_listed_dataset_with_single_labels_has_related_ones_that_exist():
    listed = {info.name for info in DATASETS}
    for info in DATASETS:
        if "classification" in info.tasks and info.splits["train"]:
            related = companions_of(info.name, "related")
            assert related and set(related) <= listed - {info.name}
            # An embedded target never asks for a download.
            assert {d.offline for d in DATASETS if d.name in related} == {info.offline}
            assert not set(related) & set(shifted_versions(info.name))  # nothing of what a shift is measured on
    assert sum(map(len, KINDS.values())) == len({name for group in KINDS.values() for name in group})


def test_names_alone_and_what_is_not_known():
    assert companions_of("zoo", "alone") == []
    assert companions_of("zoo", "farm, barn,") == ["farm", "barn"]
    with pytest.raises(VlmlabError, match="related to zoo; name some with --set companions"):
        companions_of("zoo", "related")


@dataclasses.dataclass
class Together(Recipe):
    companions: str = option("farm", "others")
    companion_shots: int | None = option(None, "their shots", 1, 100)


def test_a_config_names_companions():
    task = Task(None, dataset(), 2, 1)
    assert with_companions(task, Recipe(), None) is task
    assert with_companions(task, Together(companions="alone"), None) is task
    asked = []
    multi = with_companions(task, Together(companion_shots=4), lambda name: asked.append(name) or farm())
    assert asked == ["farm"] and len(multi.companions[0].support) == 16
    assert multi.support.ids == task.support.ids and multi.seed == 1
