import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from vlmlab.datasets import load_dataset
from vlmlab.datasets.captions import said
from vlmlab.datasets.catalog import BY_NAME, DATASETS, relative, shifted_versions
from vlmlab.datasets.microworld import deal as dealt_by_microworld
from vlmlab.datasets.microworld import generator
from vlmlab.datasets.tableaux import COMPANIONS, GROUNDS, KINDS, deal
from vlmlab.datasets.task import Task
from vlmlab.datasets.truth import NOTHING, UNLABELLED
from vlmlab.errors import VlmlabError
from vlmlab.world.objects import KNOWN, NOVEL
from vlmlab.world.palette import STUFF

NAMES = [info.name for info in DATASETS if relative(info.name)]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """name -> that dataset at 32 pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLMLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield {name: load_dataset(name, size=32) for name in ("tableau", *NAMES)}


@pytest.mark.parametrize("name", NAMES)
def test_words_and_groups_are_tableaus(small, name):
    own, like = small[name], small["tableau"]
    assert (own.classes, own.templates, own.novel, own.stuff) == (like.classes, like.templates, like.novel, like.stuff)
    assert own.gap != like.gap


def test_single_cards_are_dealt_as_tableau_deals_them():
    classes = tuple(sorted(KNOWN))
    assert deal(KINDS["tableau-many"], 90, generator("x", 0)) == dealt_by_microworld(classes, 90, generator("x", 0))


@pytest.mark.parametrize("name", ["tableau-paired", "tableau-cluttered"])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_all_categories_appear_about_equally_often_and_none_twice_in_a_scene(small, name, split):
    per_class = getattr(small[name], split).labels.sum(0)
    assert int(per_class.max() - per_class.min()) <= 3
    casts = deal(KINDS[name], 200, generator(name, 3))
    assert all(len(set(cast)) == len(cast) for cast in casts)
    assert {len(cast) for cast in casts} == set(KINDS[name].counts)


# -- paired


def test_companions_never_come_alone(small):
    paired, tableau = small["tableau-paired"], small["tableau"]
    column = {label: k for k, label in enumerate(paired.classes)}
    for one, other in COMPANIONS.items():
        for images in (paired.train, paired.test):
            assert images.labels[:, column[one]].equal(images.labels[:, column[other]])
        assert not tableau.train.labels[:, column[one]].equal(tableau.train.labels[:, column[other]])
    mixed = [len({one, other} & set(NOVEL)) for one, other in COMPANIONS.items()]
    assert sorted(set(mixed)) == [0, 1] and mixed.count(1) >= 5


def test_companions_are_neighbours(small):
    images, column = small["tableau-paired"].val, {label: k for k, label in enumerate(small["tableau"].classes)}
    gaps, others = [], []
    for i in range(len(images)):
        boxes, labels = images.boxes(i)
        centre = {int(k): (b[:2] + b[2:]) / 2 for b, k in zip(boxes, labels, strict=True)}
        pairs = {(column[a], column[b]) for a, b in COMPANIONS.items()}
        for a in centre:
            for b in centre:
                if (a, b) in pairs:
                    gaps.append(float(np.linalg.norm(centre[a] - centre[b])))
                elif a < b and (b, a) not in pairs:
                    others.append(float(np.linalg.norm(centre[a] - centre[b])))
    assert len(gaps) > 50 and np.median(gaps) < 0.8 * np.median(others)


def test_what_has_a_ground_stands_on_it_and_the_ground_comes_without_it_too(small):
    images = small["tableau-paired"].val
    first, column = len(images.labels[0]), {label: k for k, label in enumerate(small["tableau"].classes)}
    free = set()
    for i in range(len(images)):
        _, semantic = images.masks(i)
        masks, _ = images.masks(i)
        behind = {int(v) for v in np.unique(semantic[~masks.any(0)])}
        grounds = {GROUNDS[label] for label in GROUNDS if images.labels[i, column[label]]}
        assert len(grounds) < 2
        if grounds:
            assert behind == {first + STUFF.index(grounds.pop())}
        else:
            free |= behind
    assert free >= {first + STUFF.index(g) for g in set(GROUNDS.values())} | {NOTHING}


def test_neither_a_companion_nor_a_ground_is_named_twice():
    cast = [*COMPANIONS, *COMPANIONS.values(), *GROUNDS]
    assert len(set(cast)) == len(cast) and set(cast) < set(KNOWN) and set(GROUNDS.values()) <= set(STUFF)
    assert set(NOVEL) & set(GROUNDS) and set(NOVEL) - set(cast)


# -- the others


def test_clutter_is_smaller_more_and_overlaps(small):
    def measured(images):
        found = [images.truth(i) for i in range(60)]
        sides = torch.cat([t.boxes[:, 2:] - t.boxes[:, :2] for t in found])
        meeting = [int((box_iou(a.boxes, a.boxes) > 0).sum()) > len(a) for a in found]
        ratio = sides.max(1).values / sides.min(1).values
        return len(sides) / 60, float(sides.max(1).values.median()), float((ratio > 1.5).float().mean()), sum(meeting)

    count, side, long, meeting = measured(small["tableau-cluttered"].val)
    count_0, side_0, long_0, meeting_0 = measured(small["tableau"].val)
    assert count > 2 * count_0 and side < side_0 and long > 1.3 * long_0 and meeting > meeting_0


def test_boxes_fit_what_is_visible(small):
    for name in ("tableau-paired", "tableau-cluttered", "tableau-silhouette"):
        images = small[name].val
        for i in range(20):
            truth = images.truth(i)
            assert len(truth) > 0
            for (x0, y0, x1, y1), mask, label in zip(truth.boxes, truth.instances, truth.labels, strict=True):
                rows, columns = np.nonzero(mask.numpy())
                assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                assert (truth.semantic[mask] == label).all()


def test_silhouettes_show_tableaus_scenes(small):
    shape, tableau = small["tableau-silhouette"].val, small["tableau"].val
    assert shape.ids == tableau.ids and shape.labels.equal(tableau.labels)
    assert shape.fingerprint() != tableau.fingerprint()
    near = [torch.equal(shape.truth(i).labels, tableau.truth(i).labels) for i in range(30)]
    assert sum(near) >= 28
    apart = [float((shape.truth(i).boxes - tableau.truth(i).boxes).abs().max()) for i in range(30) if near[i]]
    assert max(apart) < 3
    assert (shape.images([0, 1]) != tableau.images([0, 1])).any()


def test_many_begins_with_tableau_and_shares_its_test_images(small, monkeypatch):
    many, tableau = small["tableau-many"], small["tableau"]
    assert len(many.train) == 2400 and many.train.ids[:600] == tableau.train.ids
    assert many.train.labels[:600].equal(tableau.train.labels)
    assert many.train.caption(7) == tableau.train.caption(7)
    assert many.test.fingerprint() == tableau.test.fingerprint()
    for one in ("tableau", "tableau-many"):  # the later scenes change none of the earlier ones
        monkeypatch.setitem(BY_NAME[one].splits, "train", 40)
    few = [load_dataset(one, seed=5, size=16).train for one in ("tableau", "tableau-many")]
    assert (few[0].images() == few[1].images()).all() and few[0].fingerprint() != few[1].fingerprint()


def test_the_large_one_has_its_size_whatever_is_asked_for(small):
    large, tableau = small["tableau-128"], small["tableau"]
    assert large.val.ids == tableau.val.ids and large.train.labels.equal(tableau.train.labels)
    large = large.val.subset([0, 1])
    assert large.images().shape == (2, 128, 128, 3)
    assert large.truth(0).semantic.shape == (128, 128)
    assert (large.truth(0).boxes / 4 - tableau.val.truth(0).boxes).abs().max() < 1.5


@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_a_novel_category_is_withheld_from_captions_but_its_boxes_are(small, name):
    dataset = small[name]
    task = Task(None, dataset, 0).seen_by("open-vocabulary")
    assert len(task.train) == len(dataset.train)
    new = [dataset.classes[c] for c in task.new]
    words = said([dataset.train.caption(i) for i in range(200)], new)
    assert int(words.sum()) > 20
    if name in ("tableau-128", "tableau-many"):
        return  # their truth is tableau's
    shown = hidden = 0
    for i in range(30):
        truth, whole = task.val.truth(i), dataset.val.truth(i)
        assert not set(truth.labels.tolist()) & set(task.new)
        shown += len(set(whole.labels.tolist()) & set(task.new))
        hidden += bool((truth.semantic == UNLABELLED).any())
    assert shown > 5 and hidden > 5


def test_another_seed_is_another_set_and_the_same_seed_the_same():
    one, again, other = (load_dataset("tableau-paired", seed=s) for s in (1, 1, 2))
    assert one.test.fingerprint() == again.test.fingerprint() != other.test.fingerprint()
    assert one.test.labels.equal(again.test.labels) and not one.test.labels.equal(other.test.labels)


def test_too_small_a_size_is_refused():
    with pytest.raises(VlmlabError, match="at least"):
        load_dataset("tableau-paired", size=4)


def test_neither_shifts_nor_sweeps_take_them_unasked():
    from vlmlab.studies.sweep import suited

    assert shifted_versions("tableau") == () and "objects-sketch" in shifted_versions("objects")
    assert {e.dataset for e in suited(["maskclip", "vild"])} == {"tableau"}
    assert {e.dataset for e in suited(["vild"], ["tableau_paired"])} == {"tableau-paired"}
