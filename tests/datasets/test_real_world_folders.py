"""Folders and tables as people and tools really leave them: used rightly, refused in one line, or named as left out."""

import os
import warnings

import pytest
from PIL import Image

from tests.datasets.conftest import save_picture
from vlmlab.datasets.folder import load_folder
from vlmlab.datasets.listing import files_below, read_rows, spelled
from vlmlab.errors import VlmlabError


def size_of(dataset) -> int:
    return sum(len(getattr(dataset, split)) for split in ("train", "val", "test"))


@pytest.fixture
def silent():
    """Nothing may be said."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# -- files


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".bmp", ".TIF", ".webp", ".gif", ".avif", ".JPG", ".pbm", ".jp2"])
def test_every_common_format_is_an_image(picture_folder, silent, suffix):
    folder = picture_folder({"cat": 3, "dog": 3})
    with Image.open(folder / "cat" / "0.jpg") as picture:
        kind = Image.registered_extensions()[suffix.lower()]
        picture.convert("1" if suffix == ".pbm" else "RGB").save(folder / "cat" / f"9{suffix}", kind)
    dataset = load_folder(folder)
    assert f"cat/9{suffix}" in {*dataset.train.ids, *dataset.val.ids, *dataset.test.ids}


@pytest.mark.parametrize("name", ["a.heic", "b.CR2", "notes.txt", "film.mp4", "no_suffix"])
def test_files_that_are_no_images_are_counted_and_named(picture_folder, name):
    folder = picture_folder({"cat": 3, "dog": 3})
    (folder / "cat" / name).write_bytes(b"?")
    with pytest.warns(UserWarning, match=rf"left out 1 file of .* that Pillow does not open .*: cat/{name}"):
        assert size_of(load_folder(folder)) == 6


@pytest.mark.parametrize(
    "name", [".DS_Store", "._0.jpg", "Thumbs.db", "desktop.ini", "__MACOSX/._0.jpg", "@eaDir/0.jpg"]
)
def test_what_tools_leave_behind_is_not_worth_a_word(picture_folder, silent, name):
    folder = picture_folder({"cat": 3, "dog": 3})
    (folder / "cat" / name).parent.mkdir(exist_ok=True)
    (folder / "cat" / name).write_bytes(b"?")
    assert size_of(load_folder(folder)) == 6


def test_folders_with_two_underscores_are_classes_as_any_other(picture_folder, silent):
    assert load_folder(picture_folder({"__init": 3, "@home": 3})).classes == ["@home", "init"]


def test_images_beside_the_class_folders_and_beside_the_splits_are_named(picture_folder):
    folder = picture_folder({"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1, "extra/a": 3})
    save_picture(folder / "train" / "stray.png")
    with pytest.warns(UserWarning) as said:
        assert size_of(load_folder(folder)) == 6
    assert [str(w.message) for w in said] == [
        f"left out extra in {folder}: the images are those of test, train",
        f"left out of {folder} what lies in no class folder (1 file): train/stray.png",
    ]


# -- links


def test_links_to_folders_are_followed_and_a_circle_ends(picture_folder, silent):
    folder = picture_folder({"cat": 3, "dog": 3})
    more = folder.parent / "more"
    save_picture(more / "deep" / "9.png")
    (folder / "cat" / "more").symlink_to(more)
    (more / "deep" / "round").symlink_to(more)
    (folder / "bird").symlink_to(picture_folder({"sparrow": 2}, "elsewhere") / "sparrow")
    dataset = load_folder(folder)
    assert size_of(dataset) == 9 and dataset.classes == ["bird", "cat", "dog"]


def test_a_link_to_nothing_in_the_place_of_a_class_is_named(picture_folder):
    folder = picture_folder({"cat": 3, "dog": 3})
    (folder / "bird").symlink_to(folder.parent / "nowhere")
    with pytest.warns(UserWarning, match="no class folder .*bird"):
        assert load_folder(folder).classes == ["cat", "dog"]


def test_one_image_in_two_classes_or_two_splits_is_refused(picture_folder):
    folder = picture_folder({"train/cat": 3, "train/dog": 3, "test/cat": 1, "test/dog": 1})
    link = folder / "test" / "cat" / "9.jpg"
    link.symlink_to(folder / "train" / "cat" / "0.jpg")
    with pytest.raises(
        VlmlabError, match=r"one image in two splits: test/cat/9\.jpg is in test, and train/cat/0\.jpg in train"
    ):
        load_folder(folder)
    link.unlink()
    os.link(folder / "test" / "dog" / "0.jpg", link)
    with pytest.raises(VlmlabError, match=r"one image in two classes: .* is 'cat', and .* is 'dog'"):
        load_folder(folder)
    link.unlink()
    (folder / "train" / "cat" / "all").symlink_to(folder / "train")  # shows every class below cat
    with pytest.raises(VlmlabError, match="one image in two classes"):
        load_folder(folder)


def test_a_second_name_of_an_image_is_left_out_with_a_word(picture_folder):
    folder = picture_folder({"cat": 3, "dog": 3})
    (folder / "cat" / "z.jpg").symlink_to("0.jpg")
    with pytest.warns(UserWarning, match=r"left out 1 second name \(links\) of images of pets: cat/z\.jpg"):
        assert size_of(load_folder(folder)) == 6


# -- names


def test_file_names_in_another_encoding_are_spelled_out_and_class_names_refused(picture_folder):
    folder = picture_folder({"cat": 3, "dog": 3})
    os.rename(folder / "cat" / "0.jpg", os.fsencode(folder / "cat") + b"/\xe9t\xe9.jpg")
    dataset = load_folder(folder)
    names = dataset.train.ids + dataset.val.ids + dataset.test.ids
    assert "cat/\\xe9t\\xe9.jpg" in names
    assert dataset.train.fingerprint() and len(dataset.train.images()) == len(dataset.train)
    os.rename(folder / "dog", os.fsencode(folder) + b"/\xe9t\xe9")
    with pytest.raises(VlmlabError, match=r"class folder .*\\xe9t\\xe9 is not UTF-8") as caught:
        load_folder(folder)
    assert str(caught.value).encode()


def test_a_name_is_spelled_alike_under_every_locale():
    assert spelled("café") == "café" and spelled("caf\udcc3\udca9") == "café"  # as LC_ALL=C hands UTF-8 on


CLASS_NAMES = [
    ("polar bear", "polar bear white bear", "white bear"),
    ("cafe\u0301", "caf\u00e9 coffee house", "coffee house"),
    ("caf\u00e9", "cafe\u0301 coffee house", "coffee house"),
    ("n02", "n02\tgold fish", "gold fish"),
    ("polar", "polar bear", "bear"),
]


@pytest.mark.parametrize(("label", "line", "name"), CLASS_NAMES)
def test_a_line_of_classnames_finds_its_folder(picture_folder, silent, label, line, name):
    folder = picture_folder({label: 2, "tea": 2})
    (folder / "classnames.txt").write_text(f"{line}\ntea tea house\n", encoding="utf-8")
    assert sorted(load_folder(folder).classes) == sorted([name, "tea house"])


def test_lines_of_classnames_that_fit_no_folder_are_named_and_two_names_refused(picture_folder):
    folder = picture_folder({"n02": 2, "tea": 2})
    (folder / "classnames.txt").write_text("n2 gold fish\ntea tea house\n")
    with pytest.warns(UserWarning, match="passed over 1 line of .*classnames.txt that fit no class of pets: n2"):
        assert load_folder(folder).classes == ["n02", "tea house"]
    (folder / "classnames.txt").write_text("tea tea house\ntea green tea\n")
    with pytest.raises(VlmlabError, match="gives 'tea' two names, 'tea house' and 'green tea'"):
        load_folder(folder)


# -- tables


@pytest.fixture
def flat(tmp_path):
    """flat(text): a folder img/ of eight images with a table."""

    def make(text: str | bytes, name: str = "labels.csv"):
        for i in range(8):
            save_picture(tmp_path / "d" / "img" / f"{i}.png", 10 * i)
        raw = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "d" / name).write_bytes(raw)
        return tmp_path / "d"

    return make


def rows(line: str, count: int = 8) -> str:
    """One line per image, of two classes in turn; {i} and {label} are filled in."""
    return "".join(line.format(i=i, label=("cat", "big dog")[i % 2]) for i in range(count))


@pytest.mark.parametrize(
    "text",
    [
        "file,label\n" + rows('img/{i}.png,"{label}"\n'),
        "file,label\r\n" + rows("img/{i}.png,{label}\r\n"),
        "file,label\r" + rows("img/{i}.png,{label}\r"),
        "\ufefffile;label\n" + rows("img/{i}.png;{label}\n"),
        "sep=;\nfile;label\n" + rows("img/{i}.png;{label}\n"),
        "file\tlabel\n" + rows("img/{i}.png\t{label}\n"),
        "file|label\n" + rows("img/{i}.png|{label}\n"),
        "file,label\n\n" + rows("img\\{i}.png,{label}\n ,\n"),
        "label,file\n" + rows('"{label}",.\\img\\{i}.png\n').replace("big dog", "big\ndog"),
        "label,file,\n" + rows("{label}, img/{i}.png ,,\n"),
        ("file\tlabel\n" + rows("img/{i}.png\t{label}\n")).encode("utf-16"),
    ],
)
def test_tables_as_spreadsheets_write_them(flat, silent, text):
    dataset = load_folder(flat(text))
    assert dataset.classes == ["big dog", "cat"] and size_of(dataset) == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\nimg/0.png,cat, big\n", "line 2 has more cells than the header"),
        ("file,label\nimg/0.png,cat\nimg/1.png,\"dog\nimg/2.png,cat\n", "close every quote"),
        ("file,label,label\nimg/0.png,cat,dog\n", "has 2 columns called label"),
        ("file,label\nimg/0.png,cat\nimg/1.png,\"big\ndog\"\nimg/9.png,cat\n", r"line 5: there is no file .*9\.png"),
        ("file,label\nimg/0.png,cat\nimg\\0.png,cat\n", r"line 3: img\\0\.png stood in line 2"),
        ("file,label\n" + "x" * 300 + ".png,cat\n", "line 2: there is no file"),
        ("file,label\nimg/0\0.png,cat\n", "line 2: there is no file"),
        ("file,label\n" + rows("img/{i}.png,{label}\n") + "Fl\xfcgel.png,cat\n", "there is no file"),
        (("file,label\n" + "Fl\xfcgel.png,cat\n").encode("latin-1"), "labels.csv is not UTF-8 text"),
    ],
)  # fmt: skip
def test_a_table_with_a_mistake_names_the_line(flat, text, message):
    with pytest.raises(VlmlabError, match=message):
        load_folder(flat(text))


def test_a_table_names_files_outside_and_those_it_leaves_out_are_said(flat, tmp_path):
    save_picture(tmp_path / "other" / "9.png")
    folder = flat("file,label\n../other/9.png,cat\n" + rows("img/{i}.png,{label}\n", 6))
    with pytest.warns(
        UserWarning, match=r"left out 2 images of .* that labels\.csv does not name: img/6\.png, img/7\.png"
    ):
        assert size_of(load_folder(folder)) == 7


@pytest.mark.parametrize("text", ["class id,filepaths,labels\n0,train/a/0.jpg,a\n", "", b"\xff\xfe\x00", 'a,"b\n'])
def test_a_table_of_something_else_beside_class_folders_is_left_aside_with_a_word(picture_folder, text):
    folder = picture_folder({"train/a": 3, "train/b": 3, "test/a": 2, "test/b": 2})
    (folder / "pets.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.warns(UserWarning, match="pets.csv in .* names no files and labels; the folders say the classes"):
        dataset = load_folder(folder)
    assert dataset.split_source == "official" and size_of(dataset) == 10


def test_the_labels_are_found_among_other_tables(flat, silent):
    folder = flat("file,label\n" + rows("img/{i}.png,{label}\n"))
    (folder / "colours.tsv").write_text("red\tgreen\n")
    assert load_folder(folder).classes == ["big dog", "cat"]


def test_line_numbers_count_the_lines_of_the_file(tmp_path):
    (tmp_path / "t.csv").write_text('sep=,\nfile,label\na,"x\ny"\n\nb,z\n')
    assert [line for line, _ in read_rows(tmp_path / "t.csv").rows] == [4, 6]


def test_a_folder_is_looked_into_once(tmp_path):
    save_picture(tmp_path / "a" / "0.png")
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert len(files_below(tmp_path)) == 1
