import subprocess
import sys

import pytest

from vlmlab.datasets.catalog import DATASETS
from vlmlab.datasets.loading import load_dataset

OFFLINE = [info for info in DATASETS if info.offline]


def test_the_catalogue_loads_nothing_heavy():
    code = "import sys, vlmlab.datasets.catalog; print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_names_are_unique():
    assert len({info.name for info in DATASETS}) == len(DATASETS)


@pytest.mark.parametrize("info", OFFLINE, ids=[info.name for info in OFFLINE])
def test_the_catalogue_tells_the_truth(info):
    dataset = load_dataset(info.name)
    assert dataset.name == info.name
    assert len(dataset.classes) == len(set(dataset.classes)) == info.classes
    assert {split: len(getattr(dataset, split)) for split in ("train", "val", "test")} == info.splits
    assert dataset.tasks == info.tasks
    assert dataset.gap == info.gap
    assert all("{}" in template for template in dataset.templates)


@pytest.mark.parametrize("info", OFFLINE, ids=[info.name for info in OFFLINE])
def test_splits_share_no_picture(info):
    dataset = load_dataset(info.name)
    names = dataset.train.ids + dataset.val.ids + dataset.test.ids
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("info", [i for i in OFFLINE if i.name != "photographs"], ids=lambda i: i.name)
def test_there_is_enough_for_sixteen_shots_and_to_tell_an_effect_from_noise(info):
    dataset = load_dataset(info.name)
    labels = dataset.train.labels
    per_class = labels.sum(0) if labels.ndim == 2 else labels.bincount()
    assert int(per_class.min()) >= 16
    assert len(dataset.test) >= 800
