import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmlab.datasets.image_set import ArrayPictures, ImageSet
from vlmlab.datasets.splits import at_most, base_new, few_shot, held_out, mislabelled, seeded_split
from vlmlab.errors import VlmlabError


def image_set(ids, labels) -> ImageSet:
    return ImageSet(ArrayPictures(lambda: np.zeros((len(ids), 2, 2, 3), np.uint8), "blank"), labels, ids)


def named(counts) -> ImageSet:
    ids = [f"{c}/{i}.png" for c, n in enumerate(counts) for i in range(n)]
    return image_set(ids, [c for c, n in enumerate(counts) for _ in range(n)])


counts = st.lists(st.integers(4, 9), min_size=1, max_size=6)


@given(counts, st.integers(0, 4), st.integers(-3, 3))
def test_support_has_equally_many_of_every_class(counts, shots, seed):
    images = named(counts)
    support = few_shot(images, shots, seed)
    assert torch.bincount(images.labels[support], minlength=len(counts)).tolist() == [shots] * len(counts)
    assert len(set(support.tolist())) == len(support)


@given(counts, st.integers(1, 4), st.integers(0, 3), st.randoms(use_true_random=False))
def test_support_does_not_depend_on_the_order_of_files(counts, shots, seed, shuffler: random.Random):
    images = named(counts)
    order = list(range(len(images)))
    shuffler.shuffle(order)
    shuffled = images.subset(order)
    chosen = [images.ids[i] for i in few_shot(images, shots, seed)]
    assert [shuffled.ids[i] for i in few_shot(shuffled, shots, seed)] == chosen


@given(st.integers(0, 5))
def test_support_of_fewer_shots_is_part_of_that_of_more(seed):
    images = named([8, 9, 7])
    small, large = set(few_shot(images, 2, seed).tolist()), set(few_shot(images, 6, seed).tolist())
    assert small < large


def test_every_seed_draws_another_support_and_zero_is_a_seed_like_any_other():
    images = named([40, 40])
    drawn = {tuple(few_shot(images, 4, seed).tolist()) for seed in (0, 1, 2, -1)}
    assert len(drawn) == 4
    assert few_shot(images, 4, 0).tolist() == few_shot(images, 4, 0).tolist()


def test_support_is_the_same_on_every_machine():
    # A frozen draw: if this changes, so does every number that was ever published with a seed.
    images = named([6, 6])
    assert [images.ids[i] for i in few_shot(images, 2, 0)] == ["0/3.png", "0/0.png", "1/0.png", "1/2.png"]


def test_too_many_shots_names_the_smallest_class_and_its_count():
    with pytest.raises(VlmlabError, match=r"16 shots.*'dog' has only 3.*at most 3 shots"):
        few_shot(named([20, 3, 5]), 16, 0, ["cat", "dog", "emu"])


def test_one_is_not_counted_as_many():
    with pytest.raises(
        VlmlabError, match=r"2 shots asked for, but class 'dog' has only 1 training image; use at most 1 shot$"
    ):
        few_shot(named([2, 1]), 2, 0, ["cat", "dog"])


def test_a_class_without_any_picture_is_named():
    with pytest.raises(VlmlabError, match="1 shot asked for, but class 'emu' has no training image"):
        few_shot(named([2, 2]), 1, 0, ["cat", "dog", "emu"])


def test_negative_shots_are_refused():
    with pytest.raises(VlmlabError, match="0 or more"):
        few_shot(named([2, 2]), -1, 0)


def test_multi_label_support_shows_every_class_often_enough():
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 5)) < 0.4).astype(int)
    images = image_set([str(i) for i in range(60)], labels)
    support = few_shot(images, 4, 0)
    assert (images.labels[support].sum(0) >= 4).all()
    assert len(set(support.tolist())) == len(support) <= 20


def test_at_most_takes_what_there_is():
    images = named([1, 5])
    assert torch.bincount(images.labels[at_most(images, 3, 0)]).tolist() == [1, 3]


def test_at_most_of_nothing_is_nothing():
    assert len(at_most(named([3]).subset([]), 4, 0)) == 0


@pytest.mark.parametrize(("count", "base"), [(4, 2), (5, 3), (10, 5), (37, 19), (101, 51)])
def test_base_is_the_first_half_rounded_up(count, base):
    first, second = base_new([str(i) for i in range(count)])
    assert first == list(range(base))
    assert first + second == list(range(count))


@given(st.lists(st.integers(2, 30), min_size=1, max_size=5), st.integers(0, 3))
def test_a_seeded_split_is_a_partition_in_coops_shares(counts, seed):
    images = named(counts)
    labels = images.labels.tolist()
    split = seeded_split(images.ids, labels, seed)
    assert sorted(i for members in split.values() for i in members) == list(range(len(images)))
    for label, count in enumerate(counts):
        of_class = {name: sum(labels[i] == label for i in members) for name, members in split.items()}
        assert of_class["train"] >= 1 and of_class["test"] >= 1
        assert abs(of_class["test"] - 0.3 * count) <= 0.5 or count == 2
        assert of_class["val"] >= 1 or count < 4


@given(st.randoms(use_true_random=False))
def test_a_seeded_split_does_not_depend_on_the_order_of_files(shuffler: random.Random):
    images = named([7, 11])
    order = list(range(len(images)))
    shuffler.shuffle(order)
    shuffled = images.subset(order)
    split = seeded_split(images.ids, images.labels.tolist(), 0)
    again = seeded_split(shuffled.ids, shuffled.labels.tolist(), 0)
    assert {k: [images.ids[i] for i in m] for k, m in split.items()} == {
        k: [shuffled.ids[i] for i in m] for k, m in again.items()
    }


def test_held_out_takes_its_share_of_every_class():
    images = named([10, 20])
    held = held_out(images.ids, images.labels.tolist(), 0.2, 0)
    assert torch.bincount(images.labels[sorted(held)]).tolist() == [2, 4]


def test_wrong_labels_are_a_share_of_every_class_and_grow_with_it():
    labels = torch.arange(4).repeat_interleave(16)
    half, quarter = mislabelled(labels, 4, 0.5, 3), mislabelled(labels, 4, 0.25, 3)
    assert [int((half[labels == c] != c).sum()) for c in range(4)] == [8] * 4
    assert [int((quarter[labels == c] != c).sum()) for c in range(4)] == [4] * 4
    assert (half[quarter != labels] == quarter[quarter != labels]).all() and int(half.max()) < 4
    assert torch.equal(half, mislabelled(labels, 4, 0.5, 3)) and not torch.equal(half, mislabelled(labels, 4, 0.5, 4))
    assert torch.equal(mislabelled(labels, 4, 0.0, 3), labels)
    with pytest.raises(VlmlabError, match="one label each"):
        mislabelled(torch.zeros(3, 2, dtype=torch.long), 2, 0.5, 0)
