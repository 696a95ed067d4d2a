import os

import numpy as np
import pytest
import torch
from PIL import Image

from tests.datasets.conftest import save_picture
from vlmlab.datasets.image_set import ArrayPictures, FilePictures, ImageSet, read_picture
from vlmlab.datasets.truth import NOTHING, UNLABELLED, Truth
from vlmlab.errors import VlmlabError


def numbered(n: int = 6, labels=None, annotate=None) -> ImageSet:
    """Image i is filled with the value i."""
    pixels = np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    labels = [i % 3 for i in range(n)] if labels is None else labels
    return ImageSet(ArrayPictures(lambda: pixels, "numbered"), labels, [f"p{i}" for i in range(n)], annotate)


def values(images: ImageSet) -> list[int]:
    return [int(p[0, 0, 0]) for p in images.images()]


@pytest.mark.parametrize("indices", [[4, 1], range(4, 0, -3), torch.tensor([4, 1]), np.array([4, 1]), slice(4, 0, -3)])
def test_images_come_in_the_order_that_was_asked_for(indices):
    found = numbered().images(indices)
    assert found.shape == (2, 4, 4, 3) and found.dtype == np.uint8
    assert found[:, 0, 0, 0].tolist() == [4, 1]


def test_one_index_gives_one_picture():
    assert numbered().images(3).shape == (4, 4, 3)


def test_a_mask_is_a_mask_and_no_indices():
    images = numbered()
    assert values(images.subset(images.labels == 2)) == [2, 5]


def test_subsets_of_subsets_keep_pictures_labels_and_names_together():
    inner = numbered().subset([5, 3, 1]).subset([2, 0])
    assert values(inner) == [1, 5]
    assert inner.labels.tolist() == [1, 2]
    assert inner.ids == ["p1", "p5"]


def test_drawing_waits_for_the_first_look_and_happens_once():
    drawn = []

    def draw():
        drawn.append(1)
        return np.zeros((2, 4, 4, 3), np.uint8)

    images = ImageSet(ArrayPictures(draw, "late"), [0, 1], ["a", "b"])
    part = images.subset([1])
    assert not drawn
    part.images(), images.images()
    assert len(drawn) == 1


def test_of_classes_renumbers_labels_in_the_given_order():
    kept = numbered().of_classes([2, 0])
    assert values(kept) == [0, 2, 3, 5]
    assert kept.labels.tolist() == [1, 0, 1, 0]


def test_of_classes_of_several_labels_keeps_all_pictures_and_chooses_columns():
    images = numbered(2, labels=[[1, 0, 1], [0, 1, 0]])
    kept = images.of_classes([2, 1])
    assert kept.labels.tolist() == [[1, 0], [0, 1]]


def test_of_classes_renumbers_boxes_and_masks_too():
    semantic = np.array([[0, 1], [2, NOTHING]], np.int16)
    instances = np.stack([semantic == k for k in range(3)])
    truth = Truth(np.arange(12, dtype=np.float32).reshape(3, 4), np.array([0, 1, 2]), instances, semantic)
    kept = numbered(1, [[1, 1, 1]], lambda i: truth).of_classes([2, 0])
    boxes, labels = kept.boxes(0)
    masks, pixels = kept.masks(0)
    assert labels.tolist() == [1, 0]
    assert boxes[:, 0].tolist() == [0, 8]
    assert (masks[1] == instances[2]).all()
    assert pixels.tolist() == [[1, UNLABELLED], [0, NOTHING]]  # class 1 is there, and not granted


def test_annotations_follow_subsets():
    def annotate(i):
        return Truth(np.full((1, 4), i, np.float32), np.array([0]))

    assert numbered(4, annotate=annotate).subset([3, 2]).boxes(1)[0][0, 0] == 2


def test_pictures_without_annotations_say_where_there_are_some():
    with pytest.raises(VlmlabError, match="no boxes or masks; choose tableau"):
        numbered().boxes(0)


def test_hidden_labels_stay_hidden_in_subsets_but_pixels_are_shown():
    hidden = numbered().unlabelled().subset([1, 2])
    assert values(hidden) == [1, 2]
    with pytest.raises(VlmlabError, match="hidden"):
        _ = hidden.labels


def test_fingerprint_tells_sets_apart_by_content_and_order():
    images = numbered()
    prints = {images.fingerprint(), images.subset([0, 1]).fingerprint(), images.subset([1, 0]).fingerprint()}
    assert len(prints) == 3
    assert images.subset(range(6)).fingerprint() == images.fingerprint()


def test_fingerprint_notices_a_file_that_changed(tmp_path):
    path = save_picture(tmp_path / "a.png")
    before = ImageSet(FilePictures([path]), [0], ["a"]).fingerprint()
    save_picture(path, 150, (8, 8))
    os.utime(path, (1, 1))
    assert ImageSet(FilePictures([path]), [0], ["a"]).fingerprint() != before


def test_pictures_of_different_sizes_come_as_a_list(tmp_path):
    paths = [save_picture(tmp_path / "a.png", size=(8, 6)), save_picture(tmp_path / "b.png", size=(5, 7))]
    found = ImageSet(FilePictures(paths), [0, 1], ["a", "b"]).images()
    assert [p.shape for p in found] == [(6, 8, 3), (7, 5, 3)]


def test_a_truncated_file_is_named(tmp_path):
    path = save_picture(tmp_path / "half.jpg", size=(64, 64))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(VlmlabError, match=r"half\.jpg.*replace or remove"):
        read_picture(path)


def test_a_phone_s_picture_is_turned_upright(tmp_path):
    lying = Image.new("RGB", (8, 4))
    exif = lying.getexif()
    exif[0x0112] = 6  # orientation: turn a quarter clockwise
    lying.save(tmp_path / "phone.jpg", exif=exif)
    assert read_picture(tmp_path / "phone.jpg").shape == (8, 4, 3)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    suffix = "tif" if mode == "CMYK" else "png"
    Image.new("RGB", (5, 4), (200, 200, 200)).convert(mode).save(tmp_path / f"p.{suffix}")
    assert read_picture(tmp_path / f"p.{suffix}").shape == (4, 5, 3)


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert read_picture(tmp_path / "deep.png")[0, :, 0].tolist() == [0, 128, 255]


def test_labels_names_and_pictures_must_be_equally_many():
    with pytest.raises(ValueError, match="as many labels"):
        ImageSet(ArrayPictures(lambda: np.zeros((2, 4, 4, 3), np.uint8), "x"), [0], ["a", "b"])
