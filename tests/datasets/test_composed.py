import numpy as np
import pytest
import torch

from vlmlab.backbones import load_backbone
from vlmlab.datasets.catalog import BY_NAME, DATASETS, shifted_versions, versions
from vlmlab.datasets.composed import COMPOSED, corrupted, load_composed, source
from vlmlab.datasets.descriptions import KINDS, load_descriptions, of_classes
from vlmlab.datasets.hierarchy import hierarchy_of
from vlmlab.datasets.loading import load_dataset
from vlmlab.datasets.microworld import generator
from vlmlab.errors import VlmlabError
from vlmlab.studies.splits import has_tree

NAMES = list(COMPOSED)
SIZE = 16
everyone = pytest.mark.parametrize("name", NAMES)


def drawn(name: str, label: str, number: int = 0, size: int = SIZE) -> np.ndarray:
    own = COMPOSED[name]
    key = f"{own.scenes or name}/test/{label}/{number:03d}"
    return own.draw(own.classes[label], generator(key, 0), size)


@everyone
def test_many_classes_with_enough_images_of_each(name):
    dataset = load_dataset(name)
    assert 20 <= len(dataset.classes) <= 60
    for split, fewest in (("train", 16), ("val", 4), ("test", 30)):
        counts = getattr(dataset, split).labels.bincount(minlength=len(dataset.classes))
        assert int(counts.min()) == int(counts.max()) >= fewest
    assert dataset.gap == BY_NAME[name].gap and len(dataset.templates) >= 3


@everyone
def test_names_stay_apart_for_the_tokenizer(name):
    tokenize = load_backbone("micro-vit").text.tokenize
    rows = {tuple(tokenize([label])[0].tolist()) for label in COMPOSED[name].classes}
    assert len(rows) == len(COMPOSED[name].classes)


@everyone
def test_an_image_is_the_same_alone_and_in_its_set(name, tmp_path, monkeypatch):
    monkeypatch.setattr("vlmlab.datasets.composed.BY_NAME", {name: small(name)})
    monkeypatch.setenv("VLMLAB_CACHE", str(tmp_path))
    dataset = load_composed(name, SIZE)
    labels = list(COMPOSED[name].classes)
    for i in (0, len(labels) - 1):
        assert (dataset.test.images(i) == drawn(name, labels[i])).all()
    assert len({image.tobytes() for image in dataset.test.images()}) == len(labels)


def small(name: str):
    """The catalogue's line with one image per class and split."""
    info = BY_NAME[name]
    return type(info)(**vars(info) | {"splits": {split: info.classes for split in info.splits}})


@everyone
def test_one_scene_is_the_same_image_at_any_size(name):
    label = next(iter(COMPOSED[name].classes))
    small, large = (drawn(name, label, 3, size).astype(float) for size in (32, 64))
    halved = large.reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.corrcoef(small.mean(2).ravel(), halved.mean(2).ravel())[0, 1] > 0.6


@everyone
def test_every_class_has_descriptions(name):
    classes = list(COMPOSED[name].classes)
    for kind in KINDS:
        texts = of_classes(load_descriptions(name, kind, classes), classes)
        assert len({tuple(t) for t in texts}) == len(classes)


@everyone
def test_the_class_tree_covers_the_classes(name):
    assert has_tree(name)
    assert hierarchy_of(load_dataset(name)).classes == list(COMPOSED[name].classes)


def test_base_and_new_classes_differ_in_what_comes_first():
    for name in ("media", "weather", "land", "lit", "neon", "renditions", "deeds"):
        classes = list(COMPOSED[name].classes.values())
        half = -(-len(classes) // 2)
        first, second = ({attributes[0] for attributes in part} for part in (classes[:half], classes[half:]))
        assert len(first & second) <= 1
        rest = [{attributes[1:] for attributes in part} for part in (classes[:half], classes[half:])]
        assert rest[0] == rest[1]


def test_a_module_belongs_to_the_fingerprints_of_its_own_sets():
    assert source("scattered") == source("media") != source("weather")
    assert load_dataset("weather").test.fingerprint() != load_dataset("land").test.fingerprint()


def test_corrupted_shows_the_scenes_of_objects_and_tells_what_was_done_to_them():
    dataset, objects = load_dataset("objects-corrupted"), load_dataset("objects")
    assert dataset.classes == objects.classes and set(objects.test.ids) < set(dataset.test.ids)
    done = [corrupted.corruption_of(key) for key in dataset.test.ids]
    counts = {name: sum(name == one for one, _ in done) for name in corrupted.CORRUPTIONS}
    assert min(counts.values()) > 0.7 * len(done) / len(counts)
    assert {severity for _, severity in done} == set(corrupted.SEVERITIES)


@pytest.mark.parametrize("name", list(corrupted.CORRUPTIONS))
def test_a_higher_severity_leaves_less_of_the_image(name):
    pixels = np.stack(
        [drawn("scattered", label, k, 64) for k, label in enumerate(list(COMPOSED["scattered"].classes)[::4])]
    )

    def lost(severity: int) -> float:
        rng = np.random.default_rng(0)
        changed = np.stack([corrupted.corrupt(image, name, severity, rng) for image in pixels])
        return float(np.abs(changed.astype(float) - pixels).mean())

    amounts = [lost(severity) for severity in corrupted.SEVERITIES]
    assert amounts == sorted(amounts) and amounts[0] > 0


def test_split_shift_measures_what_it_measured_before():
    assert shifted_versions("objects") == ("objects-v2", "objects-sketch", "objects-silhouette", "objects-mosaic")
    assert "objects-corrupted" in versions("objects")


def test_too_small_a_size_is_refused():
    with pytest.raises(VlmlabError, match="at least 16"):
        load_composed("media", 8)


def test_the_catalogue_lists_all_of_them():
    assert set(NAMES) <= {info.name for info in DATASETS if info.offline}
    assert torch.equal(load_dataset("lit").test.labels.bincount(), torch.full((40,), 30))
