import os
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from tests.datasets.conftest import save_picture
from vlmlab.datasets.folder import assemble, fault, load_folder, read_class_folders
from vlmlab.datasets.hierarchy import hierarchy_of
from vlmlab.datasets.image_set import read_picture
from vlmlab.datasets.loading import load_dataset
from vlmlab.datasets.multi_task import companions_of
from vlmlab.errors import VlmlabError


def truncate(path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def test_class_sub_folders_are_classes_and_every_picture_has_its_own_label(picture_folder):
    dataset = load_folder(picture_folder({"dog": 10, "cat_fish": 10}))
    assert dataset.classes == ["cat fish", "dog"]
    assert [len(s) for s in (dataset.train, dataset.val, dataset.test)] == [10, 4, 6]
    for images in (dataset.train, dataset.val, dataset.test):
        assert all(
            name.startswith(("cat_fish", "dog")[label])
            for name, label in zip(images.ids, images.labels.tolist(), strict=True)
        )
    assert dataset.split_source == "seeded"
    assert dataset.name == "pets"


def test_the_seed_decides_the_split_and_the_order_of_files_does_not(picture_folder, monkeypatch):
    folder = picture_folder({"a": 12, "b": 12})
    first = load_folder(folder, seed=0)
    assert load_folder(folder, seed=1).test.ids != first.test.ids
    with monkeypatch.context() as patch:
        patch.setattr("vlmlab.datasets.listing.sorted", lambda items, **_: list(items)[::-1], raising=False)
        entries = read_class_folders(folder)
    assert [e.id for e in entries] != sorted(e.id for e in entries)
    assert assemble("pets", entries, seed=0).test.ids == first.test.ids


def test_given_splits_are_kept(picture_folder):
    folder = picture_folder({"train/a": 3, "train/b": 3, "val/a": 1, "val/b": 1, "test/a": 2, "test/b": 2})
    dataset = load_folder(folder)
    assert [len(s) for s in (dataset.train, dataset.val, dataset.test)] == [6, 2, 4]
    assert dataset.classes == ["a", "b"]
    assert all(name.startswith("test/") for name in dataset.test.ids)
    assert dataset.split_source == "official"


def test_without_test_pictures_validation_is_the_test_as_for_imagenet(picture_folder):
    dataset = load_folder(picture_folder({"train/a": 3, "train/b": 3, "val/a": 2, "val/b": 2}))
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (6, 0, 4)


def test_train_alone_is_split_by_seed(picture_folder):
    dataset = load_folder(picture_folder({"train/a": 5, "train/b": 5}))
    assert dataset.classes == ["a", "b"] and dataset.split_source == "seeded"


def test_class_names_may_be_given_in_the_field_s_file(picture_folder):
    folder = picture_folder({"n01440764": 2, "n01443537": 2})
    (folder / "classnames.txt").write_text("n01440764 tench\nn01443537 great white shark\n")
    assert load_folder(folder).classes == ["tench", "great white shark"]


def test_hidden_files_and_other_files_are_no_pictures(picture_folder):
    folder = picture_folder({"a": 3, "b": 3})
    (folder / "a" / "notes.txt").write_text("x")
    (folder / "a" / "._0.jpg").write_text("x")
    (folder / ".ipynb_checkpoints").mkdir()
    dataset = load_folder(folder)
    assert len(dataset.train) + len(dataset.val) + len(dataset.test) == 6


# -- tables


@pytest.mark.parametrize("left", [".ipynb_checkpoints", "__MACOSX", "@eaDir"])
def test_what_tools_leave_in_a_class_folder_is_no_picture(picture_folder, left):
    folder = picture_folder({"cat": 3, "dog": 3})
    (folder / "cat" / left).mkdir()
    save_picture(folder / "cat" / left / "0-checkpoint.jpg", 50)
    (folder / "dog" / "more").mkdir()
    save_picture(folder / "dog" / "more" / "9.jpg", 50)
    assert sorted(entry.label for entry in read_class_folders(folder)) == ["cat"] * 3 + ["dog"] * 4


@pytest.mark.parametrize(("train", "test"), [("training", "testing"), ("Train", "Val")])
def test_splits_go_by_several_names(picture_folder, train, test):
    dataset = load_folder(picture_folder({f"{train}/a": 3, f"{train}/b": 3, f"{test}/a": 1, f"{test}/b": 1}))
    assert dataset.classes == ["a", "b"] and [len(dataset.train), len(dataset.test)] == [6, 2]


def test_a_folder_that_is_called_like_a_dataset_is_another_one(picture_folder):
    dataset = load_folder(picture_folder({"a": 3, "b": 3}, name="vehicles"))
    assert dataset.name == "vehicles (folder)"
    with pytest.raises(VlmlabError, match="comes without a class hierarchy"):
        hierarchy_of(dataset)
    with pytest.raises(VlmlabError, match="no dataset is known to be related to"):
        companions_of(dataset.name, "related")


def table(tmp_path, text: str, files=("0.png", "1.png", "2.png", "3.png"), name="labels.csv"):
    for i, file in enumerate(files):
        save_picture(tmp_path / "flat" / file, 10 * i)
    (tmp_path / "flat" / name).write_text(text, encoding="utf-8-sig")
    return tmp_path / "flat"


ROWS = "0.png,cat\n1.png,cat\n2.png,dog\n3.png,dog\n"


@pytest.mark.parametrize(
    "text", ["file,label\n" + ROWS, "File;Label\n" + ROWS.replace(",", ";"), "file\tlabel\n" + ROWS.replace(",", "\t")]
)
def test_a_flat_folder_with_a_table(tmp_path, text):
    dataset = load_folder(table(tmp_path, text))
    assert dataset.classes == ["cat", "dog"]
    assert len(dataset.train) == 2 == len(dataset.test)


def test_a_table_may_give_the_split(tmp_path):
    text = "split,file,label\ntrain,0.png,cat\ntest,1.png,cat\ntrain,2.png,dog\nVALID,3.png,dog\n"
    dataset = load_folder(table(tmp_path, text))
    assert (dataset.train.ids, dataset.val.ids, dataset.test.ids) == (["0.png", "2.png"], ["3.png"], ["1.png"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label\n" + ROWS, r"labels\.csv has the columns image, label; it needs file,label"),
        ("", "has the columns none"),
        ("file,label\n", "names no images"),
        ("file,label\n0.png,\n", "line 2: label is empty"),
        ("file,label\n9.png,cat\n", r"line 2: there is no file .*9\.png"),
        ("file,label\n0.png,cat\n0.png,dog\n", r"line 3: 0\.png stood in line 2"),
        ("file,label\n0.png,cat\n./0.png,dog\n", r"line 3: \./0\.png stood in line 2"),
        ("file,label,split\n0.png,cat,train\n1.png,cat,later\n", "line 3: the split is 'later'"),
        ("file,label,split\n0.png,cat,train\n2.png,dog,\n", "line 3: the split is ''"),
        ("file,label,split\n0.png,cat,train\n2.png,dog,train\n", "no test images"),
        ("file,label,split\n0.png,cat,train\n2.png,dog,test\n", "tests the class 'dog', of which train has no image"),
        ("file,label\n0.png,cat\n1.png,cat\n2.png,dog\n", "class 'dog' of flat has one image"),
    ],
)
def test_a_wrong_table_is_explained(tmp_path, text, message):
    with pytest.raises(VlmlabError, match=message):
        load_folder(table(tmp_path, text))


def test_two_tables_are_one_too_many(tmp_path):
    folder = table(tmp_path, "file,label\n" + ROWS)
    (folder / "old.csv").write_text("file,label\n")
    with pytest.raises(VlmlabError, match="2 CSV files"):
        load_folder(folder)


# -- what is wrong with a folder


def test_a_missing_folder(tmp_path):
    with pytest.raises(VlmlabError, match=r"there is no folder .*nowhere"):
        load_dataset(tmp_path / "nowhere")


def test_an_empty_folder_says_what_it_should_hold(tmp_path):
    with pytest.raises(VlmlabError, match="no labelled images; it needs sub-folders named by their class"):
        load_folder(tmp_path)


def test_an_empty_class_is_named(picture_folder):
    with pytest.raises(VlmlabError, match=r"class folder .*dog holds no images"):
        load_folder(picture_folder({"cat": 2, "dog": 0}))


def test_a_single_class_is_named(picture_folder):
    with pytest.raises(VlmlabError, match="only the class 'cat'; classification needs at least two"):
        load_folder(picture_folder({"cat": 4}))


def test_classes_that_would_be_called_alike_are_refused(picture_folder):
    with pytest.raises(VlmlabError, match="both called 'sea horse'"):
        load_folder(picture_folder({"sea_horse": 2, "sea horse": 2}))


def test_a_class_that_cannot_be_said_is_refused(picture_folder):
    folder = picture_folder({"cat": 2, "_": 2})
    with pytest.raises(VlmlabError, match=r"class '_' of .* has no word in its name; rename it"):
        load_folder(folder)
    (folder / "classnames.txt").write_text("_ underscore\ncat cat\n")
    assert load_folder(folder).classes == ["underscore", "cat"]


def test_every_error_is_one_line(picture_folder, tmp_path):
    folder = picture_folder({"cat": 3, "dog": 3})
    (folder / "cat" / "0.jpg").write_bytes(b"no image\n")
    for wrong in (folder, tmp_path / "nowhere", tmp_path / "pets" / "cat"):
        with pytest.raises(VlmlabError) as caught:
            load_folder(wrong)
        assert "\n" not in str(caught.value)


def test_class_names_in_another_encoding_are_told(picture_folder):
    folder = picture_folder({"a": 2, "b": 2})
    (folder / "classnames.txt").write_bytes("a Pfütze\nb See\n".encode("latin-1"))
    with pytest.raises(VlmlabError, match=r"classnames\.txt is not UTF-8 text"):
        load_folder(folder)


@pytest.mark.parametrize("closed", ["", "dog", "dog/more"])
def test_a_folder_without_rights_is_named(picture_folder, monkeypatch, closed):
    folder = picture_folder({"cat": 3, "dog": 3})
    (folder / "dog" / "more").mkdir()
    scandir, listdir = os.scandir, os.listdir

    def guarded(real):
        def look(place="."):
            if Path(place) == folder / closed:
                raise PermissionError(13, "Permission denied", str(place))
            return real(place)

        return look

    monkeypatch.setattr(os, "scandir", guarded(scandir))
    monkeypatch.setattr(os, "listdir", guarded(listdir))
    with pytest.raises(VlmlabError, match=rf"cannot look into {folder / closed} \(Permission denied\)"):
        load_folder(folder)


# -- broken images


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0\x00\x10JFIF"])
def test_a_file_that_is_no_picture_is_named_before_anything_is_learned(picture_folder, content):
    folder = picture_folder({"cat": 4, "dog": 4})
    (folder / "dog" / "2.jpg").write_bytes(content)
    with pytest.raises(
        VlmlabError, match=r"1 of the 8 images of pets cannot be read: .*dog/2\.jpg \(.+\); .*skip_broken"
    ):
        load_folder(folder)


def test_truncated_pictures_are_found(tmp_path):
    for name in ("a.jpg", "b.png", "c.gif"):
        path = save_picture(tmp_path / name, size=(60, 60))
        assert fault(path) is None
        truncate(path)
        assert fault(path), name


def test_a_link_to_nothing_is_a_broken_picture(picture_folder):
    folder = picture_folder({"cat": 4, "dog": 4})
    (folder / "cat" / "9.jpg").symlink_to(folder / "gone.jpg")
    with pytest.raises(VlmlabError, match=r"cannot be read: .*cat/9\.jpg \(No such file or directory\)"):
        load_folder(folder)
    with pytest.warns(UserWarning, match="left out 1 image of"):
        assert load_folder(folder, skip_broken=True).skipped == ("cat/9.jpg",)


@pytest.mark.parametrize(("dtype", "suffix"), [(np.float32, "tif"), (np.int32, "tif")])
def test_grey_values_without_a_range_are_no_picture(picture_folder, dtype, suffix):
    folder = picture_folder({"cat": 4, "dog": 4})
    Image.fromarray(np.full((10, 12), 1, dtype)).save(folder / "cat" / f"9.{suffix}")
    with pytest.raises(VlmlabError, match=r"9\.tif \(its grey values have no known range: save it with 8 or 16 bits\)"):
        load_folder(folder)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_is_seen_by_its_upper_byte(tmp_path, suffix):
    file = tmp_path / f"grey.{suffix}"
    values = np.arange(12 * 10, dtype=np.uint16).reshape(10, 12) * 500
    if suffix == "pgm":
        file.write_bytes(b"P5 12 10 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(file)
    assert fault(file) is None
    assert np.array_equal(read_picture(file), np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8, 9])
def test_pictures_are_turned_as_pillow_does(tmp_path, orientation):
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    file = tmp_path / "a.png"
    Image.open(save_picture(tmp_path / "plain.png")).save(file, exif=tags)
    assert np.array_equal(read_picture(file), np.asarray(ImageOps.exif_transpose(Image.open(file))))


def test_a_tag_of_the_wrong_type_does_not_keep_a_picture_from_being_turned(tmp_path):
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation], tags[ExifTags.Base.XResolution] = 6, 72.0
    odd = bytearray(tags.tobytes())
    entry = odd.index(ExifTags.Base.XResolution.to_bytes(2, "big" if b"MM" in odd[:10] else "little"))
    odd[entry + 2 : entry + 4] = (2).to_bytes(2, "big" if b"MM" in odd[:10] else "little")  # text, it says
    file = tmp_path / "a.jpg"
    Image.open(save_picture(tmp_path / "plain.jpg")).save(file, exif=bytes(odd))
    assert fault(file) is None
    assert np.array_equal(read_picture(file), np.rot90(np.asarray(Image.open(file)), -1))


def test_a_right_to_read_that_is_given_later_counts(picture_folder, monkeypatch):
    folder = picture_folder({"cat": 3, "dog": 3})
    with monkeypatch.context() as patch:
        patch.setattr("vlmlab.datasets.folder.fault", lambda path: "Permission denied" if path.stem == "1" else None)
        with pytest.raises(VlmlabError, match=r"2 of the 6 .*1\.jpg \(Permission denied\)"):
            load_folder(folder)
    for _ in range(2):
        dataset = load_folder(folder)
        assert len(dataset.train) + len(dataset.val) + len(dataset.test) == 6


def test_broken_pictures_are_skipped_only_on_request_and_then_reported(picture_folder):
    folder = picture_folder({"cat": 5, "dog": 5})
    truncate(folder / "cat" / "1.jpg")
    truncate(folder / "dog" / "3.jpg")
    with pytest.warns(UserWarning, match="left out 2 images"):
        dataset = load_folder(folder, skip_broken=True)
    assert dataset.skipped == ("cat/1.jpg", "dog/3.jpg")
    names = dataset.train.ids + dataset.val.ids + dataset.test.ids
    assert len(names) == 8 and not set(dataset.skipped) & set(names)


def test_a_class_that_is_broken_altogether_is_missed(picture_folder):
    folder = picture_folder({"cat": 2, "dog": 1})
    (folder / "dog" / "0.jpg").write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(VlmlabError, match="only the class 'cat'"):
        load_folder(folder, skip_broken=True)


def test_pictures_are_checked_once_and_again_when_one_changed(picture_folder, monkeypatch):
    folder = picture_folder({"cat": 3, "dog": 3})
    load_folder(folder)
    seen = []
    monkeypatch.setattr("vlmlab.datasets.folder.fault", lambda path: seen.append(path))
    load_folder(folder)
    assert not seen
    truncate(folder / "cat" / "0.jpg")
    load_folder(folder)
    assert len(seen) == 6


def test_a_cache_that_cannot_be_written_is_done_without(picture_folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VLMLAB_CACHE", str(tmp_path / "file"))
    assert len(load_folder(picture_folder({"cat": 3, "dog": 3})).classes) == 2


def test_pictures_are_the_files_own(picture_folder):
    folder = picture_folder({"cat": 2, "dog": 2})
    dataset = load_folder(folder)
    shown = {name: dataset.train.images(i) for i, name in enumerate(dataset.train.ids)}
    assert shown["cat/" + next(n for n in shown if n.startswith("cat"))[4:]].shape == (10, 12, 3)
    means = [float(np.mean(shown[name])) for name in sorted(shown)]
    assert means[0] < means[1]  # the fixture makes later classes brighter
