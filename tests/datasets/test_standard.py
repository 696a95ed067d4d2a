"""Small trees laid out as the real datasets are, by torchvision's and by CoOp's instructions."""

import itertools
import json
import pickle

import numpy as np
import pytest
import scipy.io
import torchvision.datasets

from tests.datasets.conftest import save_picture
from vlmlab.datasets.catalog import BY_NAME, DATASETS
from vlmlab.datasets.loading import load_dataset
from vlmlab.datasets.scenes import SCENES
from vlmlab.datasets.segmented import SEGMENTED
from vlmlab.datasets.standard import STANDARD, inside_first, year_first
from vlmlab.errors import VlmlabError


def write(path, text: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def sizes(dataset) -> list[int]:
    return [len(dataset.train), len(dataset.val), len(dataset.test)]


def labels_fit(dataset, of_name) -> bool:
    """Whether every image's name says the class of its label."""
    return all(
        of_name(name) == dataset.classes[label]
        for images in (dataset.train, dataset.val, dataset.test)
        for name, label in zip(images.ids, images.labels.tolist(), strict=True)
    )


def test_every_standard_dataset_of_the_catalogue_has_a_reader():
    assert {info.name for info in DATASETS if not info.offline} == {*STANDARD, *SCENES, *SEGMENTED}
    assert all(hasattr(torchvision.datasets, how.reader) for how in STANDARD.values())


# -- torchvision's layouts


def test_caltech101_gets_the_field_s_names_and_leaves_two_classes_out(tmp_path):
    for folder in ("Faces", "Faces_easy", "BACKGROUND_Google", "airplanes", "yin_yang"):
        for i in range(1, 11):
            save_picture(tmp_path / "caltech101/101_ObjectCategories" / folder / f"image_{i:04d}.jpg", i)
    dataset = load_dataset("caltech101", tmp_path)
    assert dataset.classes == ["face", "airplane", "yin yang"]
    assert sizes(dataset) == [15, 6, 9]
    assert dataset.templates == ["a photo of a {}."]


def test_eurosat_gets_the_field_s_names(tmp_path):
    for folder in ("AnnualCrop", "River", "SeaLake"):
        for i in range(10):
            save_picture(tmp_path / "eurosat/2750" / folder / f"{folder}_{i}.jpg", i)
    dataset = load_dataset("eurosat", tmp_path)
    assert dataset.classes == ["Annual Crop Land", "River", "Sea or Lake"]
    assert dataset.templates == ["a centered satellite photo of {}."]


def test_oxford_pets(tmp_path):
    base = tmp_path / "oxford-iiit-pet"
    lines = {"trainval": [], "test": []}
    for k, breed in enumerate(("Abyssinian", "american_bulldog"), 1):
        for i in range(1, 13):
            save_picture(base / "images" / f"{breed}_{i}.jpg", i)
            lines["trainval" if i <= 10 else "test"].append(f"{breed}_{i} {k} {k} 1\n")
    for split, content in lines.items():
        write(base / "annotations" / f"{split}.txt", "".join(content))
    dataset = load_dataset("oxford-pets", tmp_path)
    assert dataset.classes == ["abyssinian", "american bulldog"]
    assert sizes(dataset) == [16, 4, 4]
    assert labels_fit(dataset, lambda name: name.rsplit("/", 1)[1].rsplit("_", 1)[0].replace("_", " ").lower())


def test_food101(tmp_path):
    meta = {"train": {}, "test": {}}
    for label in ("apple_pie", "sushi"):
        for i in range(14):
            save_picture(tmp_path / "food-101/images" / label / f"{i}.jpg", i)
            meta["train" if i < 10 else "test"].setdefault(label, []).append(f"{label}/{i}")
    for split, content in meta.items():
        write(tmp_path / "food-101/meta" / f"{split}.json", json.dumps(content))
    dataset = load_dataset("food101", tmp_path)
    assert dataset.classes == ["apple pie", "sushi"]
    assert sizes(dataset) == [16, 4, 8]
    assert labels_fit(dataset, lambda name: name.split("/")[-2].replace("_", " "))
    assert dataset.templates == ["a photo of {}, a type of food."]


def test_dtd(tmp_path):
    for split, first in (("train", 0), ("val", 4), ("test", 6)):
        names = [f"{label}/{label}_{i}.jpg" for label in ("banded", "dotted") for i in range(first, first + 2)]
        for name in names:
            save_picture(tmp_path / "dtd/dtd/images" / name)
        write(tmp_path / f"dtd/dtd/labels/{split}1.txt", "\n".join(names) + "\n")
    dataset = load_dataset("dtd", tmp_path)
    assert dataset.classes == ["banded", "dotted"] and sizes(dataset) == [4, 4, 4]
    assert labels_fit(dataset, lambda name: name.split("/")[-2])


def test_flowers102(tmp_path, monkeypatch):
    base = tmp_path / "flowers-102"
    for i in range(1, 7):
        save_picture(base / "jpg" / f"image_{i:05d}.jpg", i)
    scipy.io.savemat(base / "imagelabels.mat", {"labels": np.array([[1, 2, 1, 2, 1, 2]])})
    scipy.io.savemat(base / "setid.mat", {"trnid": [[1, 2]], "valid": [[3, 4]], "tstid": [[5, 6]]})
    # The real label files are pinned by checksum; these are not they.
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda path, md5: True)
    dataset = load_dataset("flowers102", tmp_path)
    assert dataset.classes[:2] == ["pink primrose", "hard-leaved pocket orchid"] and len(dataset.classes) == 102
    assert sizes(dataset) == [2, 2, 2] and dataset.test.labels.tolist() == [0, 1]


def test_stanford_cars(tmp_path):
    base = tmp_path / "stanford_cars"
    kind = [("fname", object), ("class", np.int64)]

    def annotations(folder: str, count: int):
        rows = np.zeros(count, dtype=kind)
        for i in range(count):
            save_picture(base / folder / f"{i:05d}.jpg", i)
            rows[i] = (f"{i:05d}.jpg", 1 + i % 2)
        return {"annotations": rows}

    (base / "devkit").mkdir(parents=True)
    scipy.io.savemat(base / "devkit/cars_train_annos.mat", annotations("cars_train", 20))
    scipy.io.savemat(base / "cars_test_annos_withlabels.mat", annotations("cars_test", 4))
    names = np.array(["Acura RL Sedan 2012", "Audi TT RS Coupe 2012"], dtype=object)
    scipy.io.savemat(base / "devkit/cars_meta.mat", {"class_names": names})
    dataset = load_dataset("stanford-cars", tmp_path)
    assert dataset.classes == ["2012 Acura RL Sedan", "2012 Audi TT RS Coupe"]
    assert sizes(dataset) == [16, 4, 4] and dataset.test.labels.tolist() == [0, 1, 0, 1]


def test_sun397(tmp_path):
    for place in ("a/abbey", "a/apse/indoor"):
        for i in range(10):
            save_picture(tmp_path / "SUN397" / place / f"sun_{i}.jpg", i)
    write(tmp_path / "SUN397/ClassName.txt", "/a/abbey\n/a/apse/indoor\n")
    dataset = load_dataset("sun397", tmp_path)
    assert dataset.classes == ["abbey", "indoor apse"] and sizes(dataset) == [10, 4, 6]
    assert labels_fit(dataset, lambda name: "indoor apse" if "apse" in name else "abbey")


@pytest.mark.parametrize("place", ["fgvc-aircraft-2013b/data", "fgvc_aircraft"])
def test_fgvc_aircraft_in_both_layouts(tmp_path, place):
    base = tmp_path / place
    write(base / "variants.txt", "707-320\nDC-8\n")
    for k, split in enumerate(("train", "val", "test")):
        for c in range(2):
            save_picture(base / "images" / f"{k}{c}.jpg")
        write(base / f"images_variant_{split}.txt", f"{k}0 707-320\n{k}1 DC-8\n")
    dataset = load_dataset("fgvc-aircraft", tmp_path)
    assert dataset.classes == ["707-320", "DC-8"] and sizes(dataset) == [2, 2, 2]
    assert labels_fit(dataset, lambda name: ["707-320", "DC-8"][int(name[-5])])


def test_cifar10(tmp_path, monkeypatch):
    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()
    files = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for k, name in enumerate(files):
        data = np.full((20, 3072), 10 * k, np.uint8)
        (base / name).write_bytes(pickle.dumps({"data": data, "labels": [i % 10 for i in range(20)]}))
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    dataset = load_dataset("cifar10", tmp_path)
    assert dataset.classes == names and sizes(dataset) == [80, 20, 20]
    assert dataset.test.images(0).shape == (32, 32, 3) and int(dataset.test.images(0)[0, 0, 0]) == 50
    assert not set(dataset.train.ids) & set(dataset.val.ids)


# -- CoOp's split files


def coop(tmp_path, rows: dict, folder="oxford_pets", pictures="images", file="split_zhou_OxfordPets.json", there=True):
    for path, *_ in itertools.chain(*rows.values()):
        if there:
            save_picture(tmp_path / folder / pictures / path)
    (tmp_path / folder / pictures).mkdir(parents=True, exist_ok=True)
    write(tmp_path / folder / file, json.dumps(rows))


ROWS = {
    "train": [["b_1.jpg", 0, "basset_hound"], ["a_1.jpg", 1, "abyssinian"]],
    "val": [["a_2.jpg", 1, "abyssinian"]],
    "test": [["b_2.jpg", 0, "basset_hound"], ["a_3.jpg", 1, "abyssinian"]],
}


def test_coop_s_split_and_label_order_are_honoured(tmp_path):
    coop(tmp_path, ROWS)
    dataset = load_dataset("oxford-pets", tmp_path)
    assert dataset.classes == ["basset hound", "abyssinian"]
    assert dataset.split_source == "CoOp"
    assert dataset.templates == ["a photo of a {}, a type of pet."]
    for split, rows in ROWS.items():
        images = getattr(dataset, split)
        assert dict(zip(images.ids, images.labels.tolist(), strict=True)) == {path: label for path, label, _ in rows}


def test_coop_s_split_holds_for_torchvision_s_pictures_too(tmp_path):
    for path, *_ in itertools.chain(*ROWS.values()):
        save_picture(tmp_path / "oxford-iiit-pet/images" / path)
    write(tmp_path / "oxford-iiit-pet/split_zhou_OxfordPets.json", json.dumps(ROWS))
    assert load_dataset("oxford-pets", tmp_path).split_source == "CoOp"


def test_coop_s_cars_lie_beside_their_split(tmp_path):
    rows = {split: [[f"cars_{split}/{c}.jpg", c, f"2012 car {c}"] for c in range(2)] for split in ROWS}
    coop(tmp_path, rows, "stanford_cars", ".", "split_zhou_StanfordCars.json")
    assert sizes(load_dataset("stanford-cars", tmp_path)) == [2, 2, 2]


def test_pictures_that_a_split_lists_in_vain_are_counted_and_named(tmp_path):
    coop(tmp_path, ROWS)
    (tmp_path / "oxford_pets/images/a_2.jpg").unlink()
    with pytest.raises(VlmlabError, match=r"1 of the 5 images that split_zhou_OxfordPets\.json lists.*a_2\.jpg"):
        load_dataset("oxford-pets", tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"train": []}', '{"train": [["a"]], "val": [], "test": []}'])
def test_a_file_that_is_no_split_is_named(tmp_path, content):
    coop(tmp_path, ROWS)
    write(tmp_path / "oxford_pets/split_zhou_OxfordPets.json", content)
    with pytest.raises(VlmlabError, match=r"split_zhou_OxfordPets\.json is no split file of CoOp"):
        load_dataset("oxford-pets", tmp_path)


# -- class folders, and what is missing


def test_a_sample_in_class_folders_gets_the_field_s_names(tmp_path):
    folders = ["Faces", *(f"thing_{k:02d}" for k in range(BY_NAME["caltech101"].classes - 1))]
    for split, count in (("train", 2), ("test", 1)):
        for folder in folders:
            for i in range(count):
                save_picture(tmp_path / split / folder / f"{i}.png")
    dataset = load_dataset("caltech101", tmp_path)
    assert dataset.classes[:2] == ["face", "thing 00"] and sizes(dataset) == [200, 0, 100]


def test_another_dataset_s_folders_are_not_taken_for_this_one(tmp_path):
    for split in ("train", "test"):
        for folder in ("a", "b"):
            save_picture(tmp_path / split / folder / "0.png")
    with pytest.raises(VlmlabError, match="caltech101 is not in"):
        load_dataset("caltech101", tmp_path)


@pytest.mark.parametrize("name", sorted(STANDARD))
def test_a_missing_dataset_says_what_was_expected_where_and_leaves_nothing_behind(name, tmp_path):
    with pytest.raises(VlmlabError) as caught:
        load_dataset(name, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{name} is not in {tmp_path}; expected {tmp_path}")
    assert message.endswith("its download links are dead" if name == "stanford-cars" else "add --download to fetch it")
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_without_a_root_the_cache_is_searched(own_cache):
    with pytest.raises(VlmlabError, match=f"dtd is not in {own_cache}"):
        load_dataset("dtd")


def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch, capsys):
    def dead(*_, **__):
        print("Downloading")
        raise OSError("no route\nto host")

    monkeypatch.setattr("torchvision.datasets.dtd.download_and_extract_archive", dead)
    with pytest.raises(VlmlabError, match=r"cannot download dtd into .* \(no route to host\); expected"):
        load_dataset("dtd", tmp_path, download=True)
    assert capsys.readouterr().out == ""


def test_words_that_move():
    assert year_first("Acura RL Sedan 2012") == "2012 Acura RL Sedan"
    assert inside_first("apse/indoor") == "indoor apse"


@pytest.mark.parametrize(
    ("split", "row", "message"),
    [
        ("test", ["b_1.jpg", 0, "basset_hound"], r"names the image b_1\.jpg in train and in test"),
        ("train", ["./b_1.jpg", 0, "basset_hound"], r"names the image \./b_1\.jpg twice in train"),
        ("test", ["b_9.jpg", 0, "beagle"], "calls label 0 both 'basset_hound' and 'beagle'"),
        ("test", ["b_9.jpg", 2, "basset_hound"], "gives 'basset_hound' both the label 0 and 2"),
        ("test", ["b_9.jpg", 0.0, "basset_hound"], "is no split file of CoOp"),
        ("test", ["b_9.jpg", True, "basset_hound"], "is no split file of CoOp"),
    ],
)
def test_a_split_file_that_contradicts_itself_is_refused(tmp_path, split, row, message):
    coop(tmp_path, ROWS)
    rows = ROWS | {split: [*ROWS[split], row]}
    write(tmp_path / "oxford_pets/split_zhou_OxfordPets.json", json.dumps(rows))
    save_picture(tmp_path / "oxford_pets/images/b_9.jpg")
    with pytest.raises(VlmlabError, match=message):
        load_dataset("oxford-pets", tmp_path)


def test_a_split_file_made_on_windows(tmp_path):
    rows = {split: [[f"sub/{path}", label, name] for path, label, name in ROWS[split]] for split in ROWS}
    coop(tmp_path, rows)
    written = json.dumps(rows).replace("sub/", "sub\\\\")
    write(tmp_path / "oxford_pets/split_zhou_OxfordPets.json", "\ufeff" + written)
    assert load_dataset("oxford-pets", tmp_path).test.ids == ["sub/a_3.jpg", "sub/b_2.jpg"]


@pytest.mark.parametrize("layout", ["CoOp", "torchvision"])
def test_broken_and_missing_pictures_are_left_out_on_request(tmp_path, layout):
    place = tmp_path / "eurosat/2750"
    for name in ("Forest", "River"):
        for i in range(8):
            save_picture(place / name / f"{i}.png", 10 * i)
    if layout == "CoOp":
        names = ["Forest", "River"]
        rows = {
            s: [[f"{n}/{i}.png", k, n] for k, n in enumerate(names) for i in places]
            for s, places in (("train", (0, 1, 2)), ("val", (3,)), ("test", (4, 5, 6, 7)))
        }
        rows["train"].append(["Forest/9.png", 0, "Forest"])
        write(tmp_path / "eurosat/split_zhou_EuroSAT.json", json.dumps(rows))
    (place / "Forest" / "4.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"left out . images? of eurosat that cannot be read: .*Forest/4\.png"):
        dataset = load_dataset("eurosat", tmp_path, skip_broken=True)
    assert sum(sizes(dataset)) == 15 and len(dataset.skipped) == (2 if layout == "CoOp" else 1)
