import dataclasses

import numpy as np
import pytest
import torch

import vlmlab.datasets.microworld as microworld
from vlmlab.datasets.loading import load_dataset
from vlmlab.datasets.microworld import deal, generator, kept
from vlmlab.datasets.truth import NOTHING

SIZE = 16  # as small as MicroWorld draws


@pytest.fixture
def drawings(monkeypatch) -> list[int]:
    """Counts the images that are drawn."""
    drawn = []

    def counted(*arguments):
        drawn.append(1)
        return render(*arguments)

    render = microworld.render
    monkeypatch.setattr(microworld, "render", counted)
    return drawn


def few(images, n: int = 12):
    """`n` images of a set, all classes mixed."""
    return images.images(torch.linspace(0, len(images) - 1, n).long())


def test_pictures_are_the_same_wherever_they_are_drawn(tmp_path, monkeypatch):
    first = load_dataset("creatures", size=SIZE).val.images()
    monkeypatch.setenv("VLMLAB_CACHE", str(tmp_path / "another"))
    assert (load_dataset("creatures", size=SIZE).val.images() == first).all()


def test_a_split_is_drawn_once_and_then_found_in_the_cache(drawings, own_cache):
    first = load_dataset("objects-silhouette", size=SIZE).val.images()
    count = len(drawings)
    assert count == 432
    assert (load_dataset("objects-silhouette", size=SIZE).val.images() == first).all()
    assert len(drawings) == count


def test_nothing_is_drawn_before_the_first_look(drawings):
    dataset = load_dataset("objects", size=SIZE)
    assert dataset.train.subset(range(9)).labels.tolist() == [0] * 9 and dataset.train.fingerprint()
    assert not drawings


def test_another_seed_draws_another_world():
    a, b = (few(load_dataset("actions", size=SIZE, seed=seed).val) for seed in (0, 1))
    assert (a != b).any(axis=(1, 2, 3)).all()


def test_size_is_the_side_in_pixels():
    assert few(load_dataset("food", size=48).val).shape == (12, 48, 48, 3)


def test_no_two_pictures_of_a_dataset_are_alike():
    dataset = load_dataset("scenes", size=SIZE)
    pictures = np.concatenate([dataset.train.images(), dataset.val.images()])
    assert len({p.tobytes() for p in pictures}) == len(pictures)


def test_styles_show_the_very_scenes_of_objects():
    plain, *others = (load_dataset(f"objects{style}", size=SIZE) for style in ("", "-sketch", "-silhouette", "-mosaic"))
    for other in others:
        assert other.classes == plain.classes
        assert other.val.ids == plain.val.ids
        assert other.val.fingerprint() != plain.val.fingerprint()


def test_v2_asks_the_same_of_other_pictures():
    plain, again = load_dataset("objects", size=SIZE), load_dataset("objects-v2", size=SIZE)
    assert again.classes == plain.classes
    assert not set(again.test.ids) & set(plain.test.ids)


def test_names_that_pretraining_never_says_are_kept_apart():
    assert not set(load_dataset("objects-unnamed").classes) & set(load_dataset("objects").classes)


def test_hierarchy_covers_the_classes():
    dataset = load_dataset("objects")
    leaves = [name for groups in dataset.hierarchy.values() for names in groups.values() for name in names]
    assert sorted(leaves) == sorted(dataset.classes)


# -- the cache


def make_one(value: int = 1, log: list | None = None):
    def make():
        if log is not None:
            log.append(value)
        return {"pixels": np.full((1, 2, 2, 3), value, np.uint8)}

    return make


def test_a_damaged_cache_file_is_drawn_anew(own_cache):
    kept("x", make_one())
    (file,) = own_cache.rglob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    assert kept("x", make_one(7))["pixels"][0, 0, 0, 0] == 7
    assert kept("x", make_one(9))["pixels"][0, 0, 0, 0] == 7


def test_another_program_draws_anew_and_removes_what_the_old_one_drew(own_cache, monkeypatch):
    kept("x", make_one(1))
    monkeypatch.setattr(microworld, "program", lambda: "0123456789abcdef")
    assert kept("x", make_one(2))["pixels"][0, 0, 0, 0] == 2
    assert [f.name for f in own_cache.rglob("*.npz")] == ["x-0123456789abcdef.npz"]


def test_a_cache_that_cannot_be_written_costs_a_warning_only(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VLMLAB_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="not kept"):
        assert kept("x", make_one(3))["pixels"][0, 0, 0, 0] == 3


def test_every_picture_has_a_source_of_randomness_of_its_own():
    first = {float(generator(key, seed).random()) for key in ("a", "b") for seed in (0, 1)}
    assert len(first) == 4


# -- tableau


@pytest.fixture(scope="module")
def tableau(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLMLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        dataset = load_dataset("tableau", size=32)
        dataset.val.images()
        yield dataset


def test_boxes_fit_the_masks_tightly(tableau):
    for i in range(30):
        boxes, labels = tableau.val.boxes(i)
        masks, _ = tableau.val.masks(i)
        assert len(boxes) == len(labels) == len(masks) > 0
        for (x0, y0, x1, y1), mask in zip(boxes, masks, strict=True):
            rows, columns = np.nonzero(mask)
            assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_semantic_masks_agree_with_instances_and_labels(tableau):
    classes = len(tableau.classes)
    for i in range(30):
        _, labels = tableau.val.boxes(i)
        masks, semantic = tableau.val.masks(i)
        for label, mask in zip(labels, masks, strict=True):
            assert (semantic[mask] == label).all()
        behind = semantic[~masks.any(0)]
        assert len(set(behind.tolist())) == 1
        assert behind[0] == NOTHING or classes <= behind[0] < classes + len(tableau.stuff)


def test_labels_say_what_is_in_the_scene(tableau):
    for i in range(30):
        shown = set(tableau.val.boxes(i)[1].tolist())
        assert shown <= set(tableau.val.labels[i].nonzero().flatten().tolist())
    counts = tableau.val.labels.sum(1)
    assert set(counts.tolist()) == {2, 3, 4}


def test_categories_appear_about_equally_often(tableau):
    for images in (tableau.train, tableau.test):
        per_class = images.labels.sum(0)
        assert int(per_class.max() - per_class.min()) <= 2


def test_dealing_gives_every_scene_different_categories():
    casts = deal(("a", "b", "c", "d", "e"), 50, generator("deal", 0))
    assert all(len(set(cast)) == len(cast) for cast in casts)


def test_stuff_joins_the_classes_for_segmentation(tableau):
    whole = dataclasses.replace(tableau, train=tableau.train.subset([]), test=tableau.val.subset([])).with_stuff()
    first = len(tableau.classes)
    assert whole.classes == [*tableau.classes, *tableau.stuff]
    assert (whole.val.labels[:, :first] == tableau.val.labels).all()
    for i in range(30):
        _, semantic = whole.val.masks(i)
        stuff = {int(v) for v in np.unique(semantic) if v >= first}
        assert {first + int(k) for k in whole.val.labels[i, first:].nonzero().flatten()} == stuff
