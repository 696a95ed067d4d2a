"""VOC and COCO from small trees laid out as the real ones are."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.datasets.conftest import save_picture
from vlmlab.datasets import Task, load_dataset
from vlmlab.datasets.scenes import COCO_BASE, COCO_NOVEL
from vlmlab.errors import VlmlabError

WIDTH, HEIGHT = 12, 10


def voc_object(kind: str, box: tuple[int, ...], difficult: int = 0) -> str:
    sides = "".join(f"<{side}>{v}</{side}>" for side, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{kind}</name><difficult>{difficult}</difficult><bndbox>{sides}</bndbox></object>"


@pytest.fixture
def voc2007(tmp_path):
    base = tmp_path / "VOCdevkit/VOC2007"
    (base / "Annotations").mkdir(parents=True)
    (base / "ImageSets/Main").mkdir(parents=True)
    content = {
        "000001": voc_object("dog", (1, 2, 4, 6)) + voc_object("person", (5, 5, 12, 10)),
        "000002": voc_object("tvmonitor", (1, 1, 3, 3)),
        "000003": voc_object("cat", (2, 2, 5, 5)) + voc_object("sofa", (1, 1, 12, 10), difficult=1),
    }
    for number, objects in content.items():
        (base / "Annotations" / f"{number}.xml").write_text(f"<annotation>{objects}</annotation>")
        save_picture(base / "JPEGImages" / f"{number}.jpg", size=(WIDTH, HEIGHT))
    for split, number in zip(("train", "val", "test"), content, strict=True):
        (base / f"ImageSets/Main/{split}.txt").write_text(f"{number}\n")
    return tmp_path


def test_voc2007_has_several_labels_and_boxes_in_pixels(voc2007):
    dataset = load_dataset("voc2007", voc2007)
    assert len(dataset.classes) == 20 and "dining table" in dataset.classes and dataset.test.multi_label
    shown = [[dataset.classes[c] for c in row.nonzero().flatten()] for row in dataset.train.labels]
    assert shown == [["dog", "person"]]
    boxes, labels = dataset.train.boxes(0)
    assert boxes.tolist() == [[0, 1, 4, 6], [4, 4, 12, 10]] and [dataset.classes[c] for c in labels] == [
        "dog",
        "person",
    ]
    assert dataset.val.labels[0, dataset.classes.index("tv monitor")] == 1


def test_what_voc_marks_as_difficult_counts_for_nothing(voc2007):
    dataset = load_dataset("voc2007", voc2007)
    assert dataset.test.labels[0].nonzero().flatten().tolist() == [dataset.classes.index("cat")]
    assert len(dataset.test.boxes(0)[0]) == 1


def test_boxes_of_voc_without_an_area_are_named_and_left_out(voc2007):
    file = voc2007 / "VOCdevkit/VOC2007/Annotations/000001.xml"
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    objects = voc_object("dog", (1, 2, 40, 6)) + voc_object("cat", (30, 2, 40, 6)) + voc_object("sofa", (4, 4, 3, 6))
    file.write_text(f"<annotation>{size}{objects}</annotation>")
    with pytest.warns(
        UserWarning, match=r"left out 2 objects .*no area in the image: 000001.xml cat 30 2 40 6"
    ) as warned:
        dataset = load_dataset("voc2007", voc2007)
    assert len(warned) == 1 and dataset.train.boxes(0)[0].tolist() == [[0, 1, WIDTH, 6]]
    assert dataset.train.labels[0].nonzero().flatten().tolist() == [dataset.classes.index("dog")]


def test_voc2007_by_base_and_new_classes(voc2007):
    task = Task(None, load_dataset("voc2007", voc2007), 0, split="new")
    assert task.classes == ["potted plant", "sheep", "sofa", "train", "tv monitor"]


@pytest.fixture
def voc2012(tmp_path):
    base = tmp_path / "VOCdevkit/VOC2012"
    for folder in ("ImageSets/Segmentation", "SegmentationClass", "SegmentationObject"):
        (base / folder).mkdir(parents=True)
    kinds, objects = np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8)
    kinds[2:5, 1:4] = 8  # cat
    objects[2:5, 1:4] = 1
    kinds[2:5, 6:9] = 8
    objects[2:5, 6:9] = 2
    kinds[7, :] = objects[7, :] = 255
    numbers = [f"2012_{i:06d}" for i in range(12)]
    for number in numbers:
        for folder, values in (("SegmentationClass", kinds), ("SegmentationObject", objects)):
            picture = Image.fromarray(values, "P")
            picture.putpalette(list(range(256)) * 3)
            picture.save(base / folder / f"{number}.png")
        save_picture(base / "JPEGImages" / f"{number}.jpg", size=(WIDTH, HEIGHT))
    (base / "ImageSets/Segmentation/train.txt").write_text("\n".join(numbers[:10]))
    (base / "ImageSets/Segmentation/val.txt").write_text("\n".join(numbers[10:]))
    return tmp_path


def test_voc2012_has_masks_of_objects_and_background_as_stuff(voc2012):
    dataset = load_dataset("voc2012", voc2012)
    assert [len(dataset.train), len(dataset.val), len(dataset.test)] == [9, 1, 2]
    instances, semantic = dataset.test.masks(0)
    cat = dataset.classes.index("cat")
    assert instances.shape == (2, HEIGHT, WIDTH) and instances.sum() == 18
    assert set(np.unique(semantic)) == {cat, 20, -1} and (semantic[7] == -1).all()
    boxes, labels = dataset.test.boxes(0)
    assert boxes.tolist() == [[1, 2, 4, 5], [6, 2, 9, 5]] and labels.tolist() == [cat, cat]
    assert dataset.with_stuff().classes[20] == "background"
    assert dataset.with_stuff().test.labels[0].nonzero().flatten().tolist() == [cat, 20]


def test_masks_of_voc_that_do_not_fit_are_refused(voc2012):
    base = voc2012 / "VOCdevkit/VOC2012"
    image = base / "JPEGImages/2012_000003.jpg"
    save_picture(image, size=(WIDTH, HEIGHT + 1))
    with pytest.raises(VlmlabError, match=r"2012_000003.png is of 12 x 10 pixels, and .*2012_000003.jpg of 12 x 11"):
        load_dataset("voc2012", voc2012)
    save_picture(image, size=(WIDTH, HEIGHT))
    mask = base / "SegmentationClass/2012_000003.png"
    whole = mask.read_bytes()
    Image.fromarray(np.full((HEIGHT, WIDTH), 21, np.uint8)).save(mask)
    with pytest.raises(VlmlabError, match=r"2012_000003.png shows class 21 of 20"):
        load_dataset("voc2012", voc2012)
    mask.write_bytes(whole)
    (base / "SegmentationObject/2012_000003.png").unlink()
    with pytest.raises(VlmlabError, match=r"voc2012 in .* is incomplete .*No such file"):
        load_dataset("voc2012", voc2012)


@pytest.fixture
def coco(tmp_path):
    """Two categories whose ids have gaps; a large person with a small dog in front; a crowd."""
    (tmp_path / "coco/annotations").mkdir(parents=True)
    kinds = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}]
    for split, count in (("train", 10), ("val", 2)):
        images, objects = [], []
        for i in range(count):
            name = f"{split}_{i}.jpg"
            save_picture(tmp_path / f"coco/{split}2017" / name, size=(WIDTH, HEIGHT))
            images.append({"id": i, "file_name": name, "height": HEIGHT, "width": WIDTH})
            objects += [
                {"image_id": i, "category_id": 1, "bbox": [0, 0, 11, 9], "segmentation": [[0, 0, 10, 0, 10, 8, 0, 8]]},
                {"image_id": i, "category_id": 18, "bbox": [2, 2, 3, 3], "segmentation": [[2, 2, 4, 2, 4, 4, 2, 4]]},
                {"image_id": i, "category_id": 18, "bbox": [0, 0, 9, 9], "iscrowd": 1, "segmentation": {"counts": [1]}},
            ]
        content = {"categories": kinds, "images": images, "annotations": objects}
        (tmp_path / f"coco/annotations/instances_{split}2017.json").write_text(json.dumps(content))
    return tmp_path


def test_coco_has_masks_with_the_smaller_object_in_front(coco):
    dataset = load_dataset("coco2017", coco)
    assert dataset.classes == ["person", "dog"] and [len(dataset.train), len(dataset.val)] == [9, 1]
    boxes, labels = dataset.test.boxes(1)
    assert boxes.tolist() == [[0, 0, 11, 9], [2, 2, 5, 5]] and labels.tolist() == [0, 1]
    instances, semantic = dataset.test.masks(1)
    assert instances.shape == (2, HEIGHT, WIDTH)
    assert semantic[3, 3] == 1 and semantic[6, 6] == 0 and semantic[9, 11] == -1
    assert dataset.test.labels.tolist() == [[1, 1]] * 2


def test_what_is_missing_is_told_in_one_line(coco, voc2007):
    with pytest.raises(VlmlabError, match=r"expected .*instances_val2014.json.*cocodataset.org"):
        load_dataset("coco2014", coco)
    with pytest.raises(VlmlabError, match="add --download"):
        load_dataset("voc2012", voc2007)
    (voc2007 / "VOCdevkit/VOC2007/JPEGImages/000002.jpg").unlink()
    with pytest.raises(VlmlabError, match=r"1 images of voc2007 are missing, the first is .*000002.jpg"):
        load_dataset("voc2007", voc2007)
    (voc2007 / "VOCdevkit/VOC2007/Annotations/000003.xml").write_text("<annotation><object>")
    with pytest.raises(VlmlabError, match=r"voc2007 in .* is incomplete"):
        load_dataset("voc2007", voc2007)
    (coco / "coco/annotations/instances_train2017.json").write_text("{}")
    with pytest.raises(VlmlabError, match=r"coco2017 in .* is incomplete"):
        load_dataset("coco2017", coco)


# -- annotation files that contradict themselves, or hold what tools export


def changed(coco, change, split="val"):
    """Apply `change` to the content of an annotation file."""
    file = coco / f"coco/annotations/instances_{split}2017.json"
    content = json.loads(file.read_text())
    for i, entry in enumerate(content["annotations"]):
        entry.setdefault("id", i)
    change(content)
    file.write_text(json.dumps(content))


def set_to(part, place, **fields):
    return lambda content: content[part][place].update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: (c["categories"][0].update(id=19), c["annotations"].clear()),
            "val2017.json calls the category 19 'dog', and .*train2017.json calls it 'nothing'",
        ),
        (lambda c: c.update(categories=[{"id": 1, "name": "dog"}, {"id": 18, "name": "person"}]), "calls the category 1 'dog'"),
        (lambda c: c["categories"].append({"id": 5, "name": "fish"}), "has the category 'fish', which"),
        (lambda c: c["categories"].append({"id": 5, "name": "dog"}), "two categories with the id .* or the name 'dog'"),
        (lambda c: c["categories"].append({"id": 1, "name": "dogs"}), "two categories with the id 1"),
        (lambda c: c["images"].append(c["images"][0]), "two images with the id 0"),
        (lambda c: c["images"].append(c["images"][0] | {"id": 9}), "lists the image .*val_0.jpg twice in test"),
        (set_to("images", 0, width=0), "has no size"),
        (set_to("annotations", 1, image_id=77), "the object 1 belongs to the image 77, which is not listed"),
        (set_to("annotations", 1, category_id=7), "the object 1 is of the category 7, which is not listed"),
        (set_to("annotations", 1, id=0), "the object 0 stands there twice"),
        (set_to("annotations", 1, segmentation=[[2, 2, 4, 2, 4]]), "polygon of 5 numbers"),
        (set_to("annotations", 1, segmentation=[[2, 2, 4, 2, 4, float("nan")]]), "polygon of 6 numbers"),
        (set_to("annotations", 1, segmentation={"size": [3, 3], "counts": [9]}), "of another size than its image"),
        (set_to("annotations", 1, segmentation={"size": [HEIGHT, WIDTH], "counts": [9]}), "does not fill its image"),
        (lambda c: c["annotations"][1].pop("bbox"), r"incomplete \('bbox'\)"),
    ],
)  # fmt: skip
def test_annotations_that_contradict_each_other_are_refused(coco, change, message):
    changed(coco, change)
    with pytest.raises(VlmlabError, match=message):
        load_dataset("coco2017", coco)


def test_val_may_show_some_of_the_categories(coco):
    def without_dogs(content):
        content["categories"] = [{"id": 1, "name": "person"}]
        content["annotations"] = [entry for entry in content["annotations"] if entry["category_id"] == 1]

    changed(coco, without_dogs)
    dataset = load_dataset("coco2017", coco)
    assert dataset.classes == ["person", "dog"] and dataset.test.labels.tolist() == [[1, 0]] * 2


def test_one_folder_of_images_for_two_splits_is_refused(coco):
    for path in (coco / "coco/val2017").iterdir():
        path.rename(coco / "coco/train2017" / path.name)
    (coco / "coco/val2017").rmdir()
    (coco / "coco/val2017").symlink_to("train2017")
    changed(coco, set_to("images", 1, file_name="train_1.jpg"))
    with pytest.raises(VlmlabError, match=r"lists the image .*train_1\.jpg in train and in test"):
        load_dataset("coco2017", coco)


def test_boxes_are_cut_at_the_border_and_those_outside_are_named(coco):
    changed(coco, set_to("annotations", 0, bbox=[-3, 0, 100, 9]))
    changed(coco, set_to("annotations", 1, bbox=[2, 2, 0, 3]))
    changed(coco, set_to("annotations", 4, bbox=[WIDTH + 1, 2, 3, 3]))
    with pytest.warns(UserWarning) as said:
        dataset = load_dataset("coco2017", coco)
    assert ["left out 2 objects" in str(w.message) for w in said] == [True, False]
    assert "cut 1 box of" in str(said[1].message)
    assert dataset.test.boxes(0)[0].tolist() == [[0, 0, WIDTH, 9]]
    assert dataset.test.labels.tolist() == [[1, 0]] * 2


def run_lengths(mask: np.ndarray) -> list[int]:
    """Zeros first, down the columns."""
    flat = np.concatenate([[False], mask.T.ravel()])
    starts = np.flatnonzero(np.diff(np.concatenate([flat, [not flat[-1]]]).astype(int)))
    return np.diff(np.concatenate([[0], starts])).tolist()


def test_run_lengths_are_masks_compressed_or_not(coco):
    masks = pytest.importorskip("pycocotools.mask")
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    drawn[1:3, 2:7], drawn[5, 5] = 1, 1
    packed = masks.encode(np.asfortranarray(drawn))["counts"].decode()
    for counts in (packed, run_lengths(drawn)):
        changed(coco, set_to("annotations", 0, segmentation={"size": [HEIGHT, WIDTH], "counts": counts}))
        instances, _ = load_dataset("coco2017", coco).test.masks(0)
        assert np.array_equal(instances[0], drawn.astype(bool))
    noise = (np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.5).astype(np.uint8)
    counts = masks.encode(np.asfortranarray(noise))["counts"].decode()
    changed(coco, set_to("annotations", 0, segmentation={"size": [HEIGHT, WIDTH], "counts": counts}))
    assert np.array_equal(load_dataset("coco2017", coco).test.masks(0)[0][0], noise.astype(bool))


@pytest.mark.parametrize("segmentation", [[[2, 2]], [[2, 2, 4, 4]], [[]]])
def test_thin_polygons_are_drawn_as_far_as_they_go(coco, segmentation):
    changed(coco, set_to("annotations", 0, segmentation=segmentation))
    instances, _ = load_dataset("coco2017", coco).test.masks(0)
    assert instances[0].sum() == {0: 0, 2: 1, 4: 3}[len(segmentation[0])]


@pytest.mark.parametrize("segmentation", [None, []])
def test_an_object_without_a_mask_leaves_its_image_with_boxes(coco, segmentation):
    changed(coco, set_to("annotations", 0, segmentation=segmentation))
    dataset = load_dataset("coco2017", coco)
    assert dataset.test.masks(0) == (None, None) and len(dataset.test.boxes(0)[0]) == 2
    assert dataset.test.masks(1)[0].shape[0] == 2


def test_broken_pictures_of_scenes_are_left_out_on_request(coco):
    (coco / "coco/val2017/val_0.jpg").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"left out 1 image of coco2017 that cannot be read: test/val_0\.jpg"):
        dataset = load_dataset("coco2017", coco, skip_broken=True)
    assert dataset.test.ids == ["test/val_1.jpg"] and dataset.test.boxes(0)[0].shape == (2, 4)
    assert dataset.skipped == ("test/val_0.jpg",)


# -- the benchmarks of open-vocabulary detection


def test_coco_of_ovr_cnn_has_48_base_and_17_novel_names():
    assert len(set(COCO_BASE)) == 48 and len(set(COCO_NOVEL)) == 17 and not set(COCO_BASE) & set(COCO_NOVEL)


def test_coco_leaves_out_what_ovr_cnn_sets_aside(coco):
    for split in ("train", "val"):
        file = coco / f"coco/annotations/instances_{split}2017.json"
        content = json.loads(file.read_text())
        others = ((3, "car"), (17, "cat"), (46, "wine glass"))
        content["categories"] += [{"id": id, "name": name} for id, name in others]
        whole = [[6, 6, 8, 6, 8, 8, 6, 8]]
        content["annotations"] += [{"image_id": 0, "category_id": 46, "bbox": [6, 6, 3, 3], "segmentation": whole}]
        content["images"].append({"id": 77, "file_name": f"empty_{split}.jpg", "height": HEIGHT, "width": WIDTH})
        save_picture(coco / f"coco/{split}2017/empty_{split}.jpg", size=(WIDTH, HEIGHT))
        file.write_text(json.dumps(content))
    every, benchmark = load_dataset("coco2017", coco), load_dataset("coco", coco)
    assert benchmark.classes == ["person", "car", "cat", "dog"]
    assert every.classes == [*benchmark.classes, "wine glass"]
    assert every.train.ids == benchmark.train.ids and every.test.ids == benchmark.test.ids
    at = benchmark.test.ids.index("test/val_0.jpg")
    assert len(every.test.truth(at)) == 3 and len(benchmark.test.truth(at)) == 2
    empty = benchmark.test.truth(benchmark.test.ids.index("test/empty_val.jpg"))
    assert len(empty) == 0 and (empty.semantic == -1).all()
    task = Task(None, benchmark, 0).seen_by("open-vocabulary")
    assert [task.classes[c] for c in task.base] == ["person", "car"] and task.new == [2, 3]
    assert {label for i in range(len(task.train)) for label in task.train.truth(i).labels.tolist()} == {0}


@pytest.fixture
def lvis(tmp_path):
    """Three categories of which one is rare; images are named by COCO's addresses, and val has one of COCO's train folder."""
    (tmp_path / "lvis/annotations").mkdir(parents=True)
    kinds = [(3, "aerosol_can", "c"), (7, "person", "f"), (1203, "zucchini_(food)", "r")]
    number = 0
    for split, count in (("train", 10), ("val", 3)):
        images, objects = [], []
        for _ in range(count):
            number += 1
            part = "train2017" if split == "train" or number % 2 else "val2017"
            save_picture(tmp_path / f"coco/{part}/{number:012d}.jpg", size=(WIDTH, HEIGHT))
            url = f"http://images.cocodataset.org/{part}/{number:012d}.jpg"
            images.append(
                {"id": number, "coco_url": url, "height": HEIGHT, "width": WIDTH, "neg_category_ids": [3],
                 "not_exhaustive_category_ids": []}
            )  # fmt: skip
            for k, (kind, x) in enumerate(((7, 0), (1203, 6))):
                outline = [[x, 1, x + 3, 1, x + 3, 5, x, 5]]
                objects.append(
                    {"id": 10 * number + k, "image_id": number, "category_id": kind, "bbox": [x, 1, 4, 5],
                     "segmentation": outline, "area": 20}
                )  # fmt: skip
        content = {
            "categories": [{"id": i, "name": n, "frequency": f, "synonyms": [n]} for i, n, f in kinds],
            "images": images,
            "annotations": objects,
        }
        (tmp_path / f"lvis/annotations/lvis_v1_{split}.json").write_text(json.dumps(content))
    return tmp_path


def test_lvis_has_its_rare_names_for_novel_and_images_from_both_folders(lvis):
    dataset = load_dataset("lvis", lvis)
    assert dataset.classes == ["aerosol can", "person", "zucchini (food)"] and dataset.novel == ("zucchini (food)",)
    assert [len(dataset.train), len(dataset.val), len(dataset.test)] == [9, 1, 3]
    assert {path.parent.name for path in dataset.test.files()} == {"train2017", "val2017"}
    truth = dataset.test.truth(0)
    assert truth.boxes.tolist() == [[0, 1, 4, 6], [6, 1, 10, 6]] and truth.labels.tolist() == [1, 2]
    assert truth.instances.shape == (2, HEIGHT, WIDTH) and truth.semantic is None and dataset.tasks == ("detection",)
    assert dataset.test.images(0).shape == (HEIGHT, WIDTH, 3)


def test_rare_common_and_frequent_classes_of_lvis_are_groups(lvis):
    dataset = load_dataset("lvis", lvis)
    assert dataset.groups == {"rare": ("zucchini (food)",), "common": ("aerosol can",), "frequent": ("person",)}
    file = lvis / "lvis/annotations/lvis_v1_train.json"
    content = json.loads(file.read_text())
    for kind, count in zip(content["categories"], (100, 101, 10), strict=True):
        del kind["frequency"]
        kind["image_count"] = count
    file.write_text(json.dumps(content))
    assert load_dataset("lvis", lvis).groups == dataset.groups
    content["categories"][0]["frequency"] = "x"
    file.write_text(json.dumps(content))
    with pytest.raises(VlmlabError, match="incomplete"):
        load_dataset("lvis", lvis)


def test_missing_files_of_lvis_are_told_in_one_line(lvis, tmp_path):
    dataset = load_dataset("lvis", lvis)
    gone = dataset.test.files()[1]
    gone.unlink()
    with pytest.raises(VlmlabError, match=rf"1 images of lvis are missing, the first is .*{gone.name}"):
        load_dataset("lvis", lvis)
    with pytest.raises(VlmlabError, match=r"lvis is not in .*expected .*lvis_v1_val.json .*lvisdataset.org"):
        load_dataset("lvis", tmp_path / "empty", download=True)
    for split, message in (("train", "two categories"), ("val", "has the category 'lamp', which lvis_v1_train.json")):
        file = lvis / f"lvis/annotations/lvis_v1_{split}.json"
        content = json.loads(file.read_text())
        content["categories"][0]["name"] = "person" if split == "train" else "lamp"
        changed = json.dumps(content)
        whole, _ = file.read_text(), file.write_text(changed)
        with pytest.raises(VlmlabError, match=message):
            load_dataset("lvis", lvis)
        file.write_text(whole)
