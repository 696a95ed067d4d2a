"""Sets with a class per pixel, from small trees laid out as the real ones are."""

import numpy as np
import pytest
from PIL import Image

from tests.datasets.conftest import save_picture
from vlmlab.datasets import Task, load_dataset, segmented
from vlmlab.datasets.catalog import BY_NAME
from vlmlab.datasets.segmented import IGNORED, SEGMENTED, class_list
from vlmlab.datasets.truth import NOTHING, UNLABELLED
from vlmlab.errors import VlmlabError

SIZES = ((12, 10), (1, 1), (7, 13))
"""Width and height of the images of a tree: one of them is a single pixel."""
COUNT = 10


def places(root, name: str, split: str, i: int):
    """(image, mask) of the i-th image of a split, as the real set has them."""
    if name == "pascal-context":
        base, number = root / "VOCdevkit/VOC2010", f"2008_{split}{i:03d}"
        return base / f"JPEGImages/{number}.jpg", base / f"SegmentationClassContext/{number}.png"
    part = "train" if split == "train" else "val"
    if name == "coco-stuff":
        return (root / f"coco/{part}2017/{i:012d}.jpg", root / f"coco/stuffthingmaps/{part}2017/{i:012d}.png")
    if name == "cityscapes":
        city = ("ulm", "bonn")[i >= 5]
        one = f"{part}/{city}/{city}_{i:06d}_000019"
        return root / f"leftImg8bit/{one}_leftImg8bit.png", root / f"gtFine/{one}_gtFine_labelIds.png"
    part = "training" if split == "train" else "validation"
    base, kind, end = (
        (root / "ADE20K_2021_17_01", "_detectron2", "tif")
        if name == "ade20k-847"
        else (root / "ADEChallengeData2016", "", "png")
    )
    return base / f"images{kind}/{part}/ADE_{i:08d}.jpg", base / f"annotations{kind}/{part}/ADE_{i:08d}.{end}"


def save_mask(path, values: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(values)
    if palette:
        mask = Image.fromarray(values, "P")
        mask.putpalette([(7 * k) % 256 for k in range(768)])
    mask.save(path)


def mask_of(name: str, i: int) -> np.ndarray:
    """[H, W]: class i in the upper rows, the last class in the last column, what is ignored in the first pixel."""
    width, height = SIZES[i % 3]
    values = class_list(name).values
    mask = np.full((height, width), values[i], np.uint16 if name == "ade20k-847" else np.uint8)
    if width > 1:
        mask[:, -1] = values[-1]
        mask[0, 0] = IGNORED[name][0]
    return mask


def tree(root, name: str):
    for split, count in (("train", COUNT), ("test", 3)):
        for i in range(count):
            image, mask = places(root, name, split, i)
            save_picture(image, size=SIZES[i % 3])
            save_mask(mask, mask_of(name, i), palette=name == "pascal-context")
    if name == "pascal-context":
        lists = root / "VOCdevkit/VOC2010/ImageSets/SegmentationContext"
        lists.mkdir(parents=True)
        for split, part in (("train", "train"), ("test", "val")):
            numbers = [places(root, name, split, i)[0].stem for i in range(COUNT if split == "train" else 3)]
            (lists / f"{part}.txt").write_text("\n".join(numbers) + "\n")
    return root


@pytest.fixture(params=SEGMENTED)
def planted(request, tmp_path, monkeypatch):
    monkeypatch.setenv("VLMLAB_CACHE", str(tmp_path / "cache"))
    return request.param, tree(tmp_path / "root", request.param)


def test_lists_are_those_of_the_field():
    counts = {name: (len(class_list(name).names), len(class_list(name).new)) for name in SEGMENTED}
    assert counts == {
        "pascal-context": (59, 10), "coco-stuff": (171, 15), "ade20k-150": (150, 0), "ade20k-847": (847, 275),
        "cityscapes": (19, 0),
    }  # fmt: skip
    for name in SEGMENTED:
        own = class_list(name)
        assert len(set(own.names)) == len(own.names) == len(set(own.values)) == BY_NAME[name].classes
        assert all(n == n.strip() and "," not in n for n in own.names)
    stuff = class_list("coco-stuff")
    assert stuff.names[79] == "toothbrush" and len(stuff.stuff) == 91 and stuff.values[-1] == 181
    assert {"cow", "giraffe", "wall-concrete"} < set(stuff.new) and stuff.names[stuff.values.index(15)] == "bird"
    assert class_list("ade20k-150").names[:3] == ("wall", "building", "sky")
    assert dict(zip(class_list("cityscapes").names, class_list("cityscapes").values, strict=True))["train"] == 31
    context = class_list("pascal-context")
    assert context.names[0] == "aeroplane" and context.names[-1] == "wood" and "keyboard" in context.new


def test_pixels_have_their_classes_and_what_is_ignored_has_none(planted):
    name, root = planted
    dataset = load_dataset(name, root)
    assert [len(s) for s in (dataset.train, dataset.val, dataset.test)] == [9, 1, 3]
    assert dataset.tasks == ("segmentation",) and len(dataset.classes) == BY_NAME[name].classes
    last = len(dataset.classes) - 1
    for i in range(3):
        width, height = SIZES[i]
        pixels, semantic = dataset.test.images(i), dataset.test.truth(i).semantic
        assert pixels.shape == (height, width, 3) and semantic.shape == (height, width)
        if width > 1:
            assert semantic[0, 0] == NOTHING and (semantic[1:, -1] == last).all()
            semantic = semantic[1:, :-1]
            assert dataset.test.labels[i].nonzero().flatten().tolist() == [i, last]
        assert (semantic == i).all()
    assert len(dataset.test.truth(0)) == 0 and dataset.test.truth(0).instances is None


def test_masks_of_new_classes_are_not_granted(planted):
    name, root = planted
    dataset = load_dataset(name, root)
    task = Task(None, dataset, 0).seen_by("open-vocabulary")
    if class_list(name).new:
        assert [task.classes[c] for c in task.new] == list(class_list(name).new)
    seen = [task.train.truth(i).semantic for i in range(len(task.train))]
    new = set(task.new)
    assert any((s == UNLABELLED).any() for s in seen) == any(
        new & set(dataset.train.labels[i].nonzero().flatten().tolist()) for i in range(len(dataset.train))
    )
    assert not any(set(s.unique().tolist()) & new for s in seen)


def test_masks_are_read_once(planted, monkeypatch):
    name, root = planted
    labels = load_dataset(name, root).train.labels
    monkeypatch.setattr(segmented, "_classes_in", None)
    assert load_dataset(name, root).train.labels.equal(labels)
    _, mask = places(root, name, "train", 3)
    save_mask(mask, mask_of(name, 3)[:, ::-1].copy())
    with pytest.raises(TypeError):  # a mask has changed: they are read again
        load_dataset(name, root)


def test_what_is_missing_is_told_in_one_line(planted, tmp_path):
    name, root = planted
    with pytest.raises(VlmlabError, match=rf"{name} is not in .*empty; expected .*; vlmlab downloads no set"):
        load_dataset(name, tmp_path / "empty", download=True)
    image, mask = places(root, name, "test", 1)
    mask.unlink()
    with pytest.raises(VlmlabError, match=rf"1 mask of {name} missing, the first is .*{mask.name}"):
        load_dataset(name, root)
    if name == "pascal-context":  # elsewhere the images are the list
        image.unlink()
        with pytest.raises(VlmlabError, match=rf"1 image of {name} missing, the first is .*{image.name}"):
            load_dataset(name, root)


def test_a_mask_of_another_size_is_refused(planted):
    name, root = planted
    _, mask = places(root, name, "test", 0)
    save_mask(mask, mask_of(name, 0)[:-1])
    with pytest.raises(VlmlabError, match=rf"{mask.name} is of 12 x 9 pixels, and its image of 12 x 10"):
        load_dataset(name, root)


def test_a_number_that_is_no_class_is_refused(planted):
    name, root = planted
    wrong = {"ade20k-847": 847, "cityscapes": 40, "pascal-context": 60, "ade20k-150": 151, "coco-stuff": 11}[name]
    _, mask = places(root, name, "train", 0)
    values = mask_of(name, 0)
    values[3, 3] = wrong
    save_mask(mask, values)
    with pytest.raises(VlmlabError, match=rf"{mask.name} holds {wrong}, which is none of the \d+ classes of {name}"):
        load_dataset(name, root)


def test_masks_that_are_colours_or_broken_are_refused(planted):
    name, root = planted
    _, mask = places(root, name, "train", 0)
    Image.new("RGB", SIZES[0]).save(mask)
    with pytest.raises(VlmlabError, match=r"holds colours and no class numbers \(mode RGB\)"):
        load_dataset(name, root)
    mask.write_bytes(b"no image")
    with pytest.raises(VlmlabError, match=rf"cannot read the mask .*{mask.name}"):
        load_dataset(name, root)


def test_broken_images_are_left_out_on_request(planted):
    name, root = planted
    image, _ = places(root, name, "test", 0)
    image.write_bytes(b"no image")
    with pytest.raises(VlmlabError, match=rf"cannot read the image .*{image.name}.*skip broken images"):
        load_dataset(name, root)
    with pytest.warns(UserWarning, match="1"):
        dataset = load_dataset(name, root, skip_broken=True)
    assert len(dataset.test) == 2 and dataset.skipped
