import numpy as np
import pytest

from vlmlab.datasets.digits import load_digits


@pytest.mark.parametrize("size", [64, 33])
def test_digits_come_at_the_size_of_the_backbone(size):
    pictures = load_digits(size).val.images()
    assert pictures.shape == (160, size, size, 3) and pictures.dtype == np.uint8


def test_ink_is_dark_and_the_margin_is_paper():
    pictures = load_digits(40).test.images(slice(0, 50)).astype(int)
    assert (pictures[:, [0, -1]] > 230).all()
    assert (pictures.min(axis=(1, 2, 3)) < 40).all()


def test_pictures_show_the_digit_that_the_label_says():
    # The mean of a hundred zeros has a hole in the middle, that of the ones has a stroke there.
    dataset = load_digits(40)
    pictures, labels = dataset.test.images().astype(float), dataset.test.labels.numpy()
    middle = pictures[:, 18:22, 18:22].mean(axis=(1, 2, 3))
    assert middle[labels == 0].mean() > 200
    assert middle[labels == 1].mean() < 80


def test_splits_are_balanced():
    dataset = load_digits(16)
    assert dataset.train.labels.bincount().tolist() == [48] * 10
    assert dataset.val.labels.bincount().tolist() == [16] * 10
    assert dataset.test.labels.bincount().min() >= 100
