"""What detectors and segmenters say of input that cannot be: one clear line, and exit code 2 on the command line."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from vlmlab.cli import main
from vlmlab.datasets.image_set import ArrayPictures, ImageSet
from vlmlab.datasets.truth import Truth
from vlmlab.errors import VlmlabError
from vlmlab.learning.dense import detection
from vlmlab.methods.dense.regions import RegionBank
from vlmlab.methods.method import Batch
from vlmlab.testing import toys


def refused(capsys, *arguments: str) -> str:
    """What the command says as it refuses, after it was found to be one line."""
    assert main([*arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("vlmlab: ") and err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vild", "--dataset", "digits"), "vild does detection; digits has ground truth for classification"),
        (("zsseg", "--dataset", "digits"), "zsseg does segmentation; digits has ground truth for classification"),
        (
            ("baron", "--dataset", "tableau", "--backbone", "micro-rn"),
            "the visual prompts of BARON need a ViT: use micro-vit",
        ),
        (("vild", "--dataset", "tableau", "--set", "test_proposals=0"), "must lie between 1 and 1000, not 0"),
    ],
)
def test_what_cannot_be_run_is_told_in_one_line(capsys, arguments, message):
    assert message in refused(capsys, "run", *arguments)


def written(root, kinds: list[str], boxes: bool):
    """COCO's files with two images a split, and a box of the first category in each."""
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / f"{split}2017").mkdir()
        images = [{"id": i, "file_name": f"{split}{i}.png", "height": 40, "width": 40} for i in range(2)]
        for image in images:
            Image.new("RGB", (40, 40), (90, 120, 40)).save(root / f"{split}2017" / image["file_name"])
        objects = [{"id": i, "image_id": i, "category_id": 1, "bbox": [3, 3, 20, 20]} for i in range(2)]
        content = {
            "images": images,
            "categories": [{"id": k + 1, "name": name} for k, name in enumerate(kinds)],
            "annotations": objects if boxes else [],
        }
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))
    return str(root)


@pytest.mark.parametrize(
    ("kinds", "boxes", "message"),
    [
        ([], False, "list no category that it has"),
        (["wine glass", "tent"], True, "list no category that it has"),  # neither is among the 65
        (["car", "cat", "car", "dog"], True, "two categories with the id 3 or the name 'car'"),
        (["car", "cat"], True, "base and new together need at least four"),
        (
            ["car", "cat", "bird", "dog"],
            False,
            "vild learns from boxes of base classes, and these training images have none",
        ),
        (
            ["cat", "car", "bird", "dog"],
            True,
            "vild learns from boxes of base classes, and these training images have none",
        ),
    ],
)
def test_annotations_from_which_nothing_can_be_learned(capsys, tmp_path, kinds, boxes, message):
    root = written(tmp_path / "coco", kinds, boxes)
    assert message in refused(capsys, "run", "vild", "--dataset", "coco", "--root", root)


def test_a_missing_image_is_named(capsys, tmp_path):
    root = written(tmp_path / "coco", ["car", "cat", "bird", "dog"], True)
    (tmp_path / "coco/val2017/val1.png").unlink()
    said = refused(capsys, "run", "vild", "--dataset", "coco", "--root", root)
    assert "1 images of coco are missing, the first is" in said and "val1.png" in said


@pytest.mark.parametrize("system", ["region_clip", "vild"])
def test_where_nothing_is_proposed_nothing_is_found(monkeypatch, system):
    method, _ = toys.fitted(system)
    found = RegionBank.find

    def none(self, images, **how):
        regions = found(self, images, **how)
        regions.there = torch.zeros_like(regions.there)
        return regions

    monkeypatch.setattr(RegionBank, "find", none)
    images = torch.rand(2, 3, method.backbone.image_size, method.backbone.image_size)
    detections = method.detect(Batch(images=images))
    assert [len(one) for one in detections] == [0, 0] and detections[0].boxes.shape == (0, 4)
    assert method.logits(Batch(images=images)).tolist() == [[0.0] * len(method.classes)] * 2
    assert [len(p) for p in method.proposals(Batch(images=images))] == [0, 0]

    pixels = np.zeros((2, 20, 30, 3), np.uint8)
    truth = Truth(torch.tensor([[2.0, 2, 12, 12]]), torch.tensor([0]))
    pictures = ImageSet(
        ArrayPictures(lambda: pixels, "two"), torch.eye(len(method.classes)).long()[:2], ["a", "b"], lambda i: truth
    )
    metrics = detection(method, pictures, {"base": [0]})
    assert metrics["ap50"] == metrics["ap50_base"] == metrics["recall_base"] == 0


@pytest.mark.parametrize("system", ["region_clip", "maskclip"])
def test_words_and_images_that_cannot_be(system):
    method, _ = toys.fitted(system)
    image = np.zeros((1, 1, 3), np.uint8)
    assert len(method.predict([image], ["apple", "tree"])) == 1  # an image of one pixel is an image
    for words, message in (([], "there is no word"), ([" "], "there is no word"), (["apple", "apple"], "comes twice")):
        with pytest.raises(VlmlabError, match=message):
            method.predict([image], words)
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(VlmlabError, match="an image must be uint8"):
            method.predict([wrong], ["apple"])
