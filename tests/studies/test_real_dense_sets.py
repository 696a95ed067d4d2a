"""Real dense sets end to end: drawn scenes in COCO's and VOC's files, learned and measured by the command."""

import json

import numpy as np
import pytest
from PIL import Image

from vlmlab.cli import main
from vlmlab.datasets.microworld import generator
from vlmlab.world.painter import render
from vlmlab.world.scene import sample_scene

COCO_IDS = {"bird": 16, "car": 3, "apple": 53, "boat": 9, "clock": 85, "cat": 17, "cup": 47, "bus": 6, "umbrella": 28}
"""Categories that MicroWorld draws under COCO's names and ids; the last four are novel in OVR-CNN's split."""
VOC_IDS = {"bird": 3, "boat": 4, "bottle": 5, "bus": 6, "car": 7, "cat": 8}
SIDE = 64


def scene(names, key: str):
    """A drawn scene of two of these things, a third narrower than high."""
    rng = generator(f"real dense sets/{key}", 0)
    cast = [list(names)[k] for k in rng.permutation(len(names))[:2]]
    return render(sample_scene(rng, categories=cast, style="photo"), SIDE), cast


@pytest.fixture
def coco(tmp_path):
    """Twelve training and five test images; among them a crowd, a box of no area, an empty image and one of one pixel."""
    number = 0
    (tmp_path / "coco/annotations").mkdir(parents=True)
    for split, count in (("train", 12), ("val", 5)):
        images, objects = [], []
        for i in range(count):
            number += 1
            picture, cast = scene(COCO_IDS, f"coco/{split}/{i}")
            pixels = picture.pixels if i else picture.pixels[:1, :1]
            pixels = np.pad(pixels, ((0, 0), (0, 13), (0, 0))) if i == 2 else pixels
            file = tmp_path / f"coco/{split}2017/{number:012d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
            height, width = pixels.shape[:2]
            images.append({"id": number, "file_name": file.name, "height": height, "width": width})
            if i == 1 or not i:
                continue  # nothing is annotated
            for (x0, y0, x1, y1), name in zip(picture.boxes.tolist(), cast, strict=True):
                box = [x0, y0, x1 - x0, y1 - y0]
                objects.append({"id": len(objects), "image_id": number, "category_id": COCO_IDS[name], "bbox": box})
        crowd = {"image_id": number, "category_id": 3, "bbox": [0, 0, 60, 60], "iscrowd": 1}
        objects += [{"id": 900, **crowd}, {"id": 901, "image_id": number, "category_id": 3, "bbox": [9, 9, 0, 4]}]
        kinds = [{"id": id, "name": name} for name, id in COCO_IDS.items()]
        content = {"images": images, "annotations": objects, "categories": kinds}
        (tmp_path / f"coco/annotations/instances_{split}2017.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def lvis(tmp_path):
    """Eight training and six test images in LVIS' files: birds and cars are frequent, apples and boats common, clocks and cats rare."""
    often = dict(zip(("bird", "car", "apple", "boat", "clock", "cat"), "ffccrr", strict=True))
    ids = {name: 100 * n for n, name in enumerate(often, 1)}
    (tmp_path / "lvis/annotations").mkdir(parents=True)
    number = 0
    for split, count in (("train", 8), ("val", 6)):
        images, objects = [], []
        for i in range(count):
            number += 1
            picture, cast = scene(often, f"lvis/{split}/{i}")
            file = tmp_path / f"coco/{split}2017/{number:012d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.pixels).save(file)
            height, width = picture.pixels.shape[:2]
            url = f"http://images.cocodataset.org/{split}2017/{file.name}"
            images.append({"id": number, "coco_url": url, "height": height, "width": width})
            for (x0, y0, x1, y1), name in zip(picture.boxes.tolist(), cast, strict=True):
                outline = [[x0, y0, x1, y0, x1, y1, x0, y1]]
                box = [x0, y0, x1 - x0, y1 - y0]
                entry = {"image_id": number, "category_id": ids[name], "bbox": box, "segmentation": outline}
                objects.append({"id": len(objects) + 1, **entry})
        kinds = [{"id": ids[name], "name": name, "frequency": letter} for name, letter in often.items()]
        content = {"images": images, "annotations": objects, "categories": kinds}
        (tmp_path / f"lvis/annotations/lvis_v1_{split}.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def voc(tmp_path):
    base = tmp_path / "VOCdevkit/VOC2012"
    for folder in ("ImageSets/Segmentation", "SegmentationClass", "SegmentationObject", "JPEGImages"):
        (base / folder).mkdir(parents=True)
    for split, count in (("train", 12), ("val", 4)):
        numbers = [f"2012_{split}{i}" for i in range(count)]
        (base / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(numbers))
        for number in numbers:
            picture, cast = scene(VOC_IDS, f"voc/{number}")
            kinds = np.array([0, *(VOC_IDS[name] for name in cast)], np.uint8)[picture.instances]
            kinds[0] = 255
            odd = slice(None, 51) if number.endswith("1") else slice(None)
            Image.fromarray(picture.pixels[odd]).save(base / f"JPEGImages/{number}.jpg")
            for folder, values in (("SegmentationClass", kinds), ("SegmentationObject", picture.instances)):
                mask = Image.fromarray(values[odd], "P")
                mask.putpalette([(11 * k) % 256 for k in range(768)])
                mask.save(base / folder / f"{number}.png")
    return tmp_path


def result_of(capsys, *arguments: str) -> tuple[dict, str]:
    """(what the command prints on standard output, what on standard error)."""
    assert main(["run", *arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


def test_vild_learns_and_is_measured_on_coco(coco, capsys):
    settings = ("--set", "epochs=2", "--set", "hidden=32")
    result, err = result_of(capsys, "vild", "--root", str(coco), "--dataset", "coco", *settings)
    assert err.count("whose box has no area in the image: 901") == 2
    metrics = result["metrics"]
    assert {"ap50", "ap50_base", "ap50_new", "ap", "recall_new", "teacher_new"} <= set(metrics)
    assert metrics["recall_base"] > 50 and metrics["teacher_base"] > 50  # drawn things are what the proposer knows
    assert {"ap50", "ap50_new", "recall_new"} <= set(result["zero_shot"])
    assert result["zero_shot"]["recall_new"] == metrics["recall_new"]  # the same proposals


def test_a_segmenter_learns_and_is_measured_on_voc(voc, capsys):
    settings = ("--set", "epochs=1", "--set", "prompt_steps=2", "--set", "batch_size=4")
    result, _ = result_of(capsys, "zsseg", "--root", str(voc), "--dataset", "voc2012", *settings)
    metrics, maskclip = result["metrics"], result["zero_shot"]
    # Three steps teach nothing. None of VOC's novel categories is drawn, so there is nothing to measure of them.
    assert set(metrics) == {"miou", "miou_base", "pixel_accuracy"} == set(maskclip)
    assert all(0 <= value <= 100 for value in metrics.values()) and maskclip["pixel_accuracy"] > 0


def test_rare_common_and_frequent_classes_of_lvis_have_metrics_of_their_own(lvis, capsys):
    result, _ = result_of(capsys, "region_clip", "--dataset", "lvis", "--root", str(lvis))
    metrics = result["metrics"]
    assert metrics["ap_rare"] == metrics["ap_new"] and metrics["ap50_rare"] == metrics["ap50_new"]
    assert {"ap_common", "ap_frequent", "ap50_common", "recall_frequent", "teacher_common"} <= set(metrics)
    low, high = sorted((metrics["ap_common"], metrics["ap_frequent"]))
    assert low <= metrics["ap_base"] <= high
    assert metrics["ap_rare"] > 20  # it names drawn things as well where a file in LVIS' form lists them
