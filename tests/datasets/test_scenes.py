"""VOC and COCO from small trees laid out as the real ones are."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.datasets.conftest import save_picture
from vlmlab.datasets import Task, load_dataset
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
    assert set(np.unique(semantic)) == {cat, 20, 255} and (semantic[7] == 255).all()
    boxes, labels = dataset.test.boxes(0)
    assert boxes.tolist() == [[1, 2, 4, 5], [6, 2, 9, 5]] and labels.tolist() == [cat, cat]
    assert dataset.with_stuff().classes[20] == "background"
    assert dataset.with_stuff().test.labels[0].nonzero().flatten().tolist() == [cat, 20]


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
    assert semantic[3, 3] == 1 and semantic[6, 6] == 0 and semantic[9, 11] == 255
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
