"""Pascal VOC and COCO: real images of several things at once, with boxes and masks, read from where they are.

| name | images | ground truth |
|---|---|---|
| voc2007 | the lists train, val and test of ImageSets/Main | labels, boxes |
| voc2012 | the lists train and val of ImageSets/Segmentation; val is the test | labels, boxes, masks, "background" |
| coco2014, coco2017 | instances_train*.json and instances_val*.json; val is the test | labels, boxes, masks |

What no official list calls validation is a tenth of train, by a seeded order of the file names. Papers on multi-label
recognition learn on VOC's train and val together. Objects that VOC marks as difficult, and crowds of COCO, count for
nothing: neither as label nor as box. Novel categories are the 17 of OVR-CNN (arXiv 2011.10678) in COCO; the 15 that it
sets aside are among the base ones here. In VOC they are the five of SPNet (CVPR 2019).
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from vlmlab.datasets.catalog import BY_NAME
from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.image_set import NOTHING, Annotation, FilePictures, ImageSet
from vlmlab.datasets.splits import held_out
from vlmlab.errors import VlmlabError

VAL_SHARE = 0.1

VOC_NAMES = {
    "aeroplane": "aeroplane", "bicycle": "bicycle", "bird": "bird", "boat": "boat", "bottle": "bottle", "bus": "bus",
    "car": "car", "cat": "cat", "chair": "chair", "cow": "cow", "diningtable": "dining table", "dog": "dog",
    "horse": "horse", "motorbike": "motorbike", "person": "person", "pottedplant": "potted plant", "sheep": "sheep",
    "sofa": "sofa", "train": "train", "tvmonitor": "tv monitor",
}  # fmt: skip
"""VOC's twenty categories in its order, and the names that prompts say."""
VOC_NOVEL = ("potted plant", "sheep", "sofa", "train", "tv monitor")
COCO_NOVEL = (
    "airplane", "bus", "cat", "dog", "cow", "elephant", "umbrella", "tie", "snowboard", "skateboard", "cup", "knife",
    "cake", "couch", "keyboard", "sink", "scissors",
)  # fmt: skip
SCENES = ("voc2007", "voc2012", "coco2014", "coco2017")


@dataclass(frozen=True)
class _Picture:
    """One image: its file, split, which classes it shows, and how to read its boxes and masks."""

    id: str
    path: Path
    split: str
    shown: frozenset[int]
    annotate: Callable[[], Annotation]


def load_scenes(name: str, root: Path, download: bool = False, seed: int = 0) -> Dataset:
    """VOC or COCO from below `root`, in torchvision's and the original layout.

    Raises `VlmlabError` if it is not there and cannot be downloaded (COCO never is), or if its files are incomplete.
    """
    year = name[-4:]
    try:
        classes, pictures = (_voc if name.startswith("voc") else _coco)(name, year, root, download)
    except (OSError, ElementTree.ParseError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise VlmlabError(f"{name} in {root} is incomplete ({reason}); unpack its archives again") from error
    gone = [p.path for p in pictures if not p.path.is_file()]
    if gone:
        raise VlmlabError(
            f"{len(gone)} images of {name} are missing, the first is {gone[0]}; unpack its archives again"
        )
    members = {split: [i for i, p in enumerate(pictures) if p.split == split] for split in ("train", "val", "test")}
    if not members["val"]:
        train = members["train"]
        held = held_out([pictures[i].id for i in train], [0] * len(train), VAL_SHARE, seed)
        members["train"] = [i for k, i in enumerate(train) if k not in held]
        members["val"] = [train[k] for k in sorted(held)]
    labels = torch.zeros(len(pictures), len(classes), dtype=torch.long)
    for i, p in enumerate(pictures):
        labels[i, sorted(p.shown)] = 1
    everything = ImageSet(
        FilePictures([p.path for p in pictures]), labels, [p.id for p in pictures], lambda i: pictures[i].annotate()
    )
    info = BY_NAME[name]
    return Dataset(
        name=name,
        classes=classes,
        templates=["a photo of a {}."],
        **{split: everything.subset(indices) for split, indices in members.items()},
        tasks=info.tasks,
        mirrors=info.mirrors,
        novel=VOC_NOVEL if name.startswith("voc") else COCO_NOVEL,
        stuff=("background",) if name == "voc2012" else (),
    )


# ------------------------------------------------------------------------------------------------ Pascal VOC


def _voc(name: str, year: str, root: Path, download: bool) -> tuple[list[str], list[_Picture]]:
    folder = root / "VOCdevkit" / f"VOC{year}"
    masks = year == "2012"
    lists = {"train": "train", "val": "test"} if masks else {"train": "train", "val": "val", "test": "test"}
    if not folder.is_dir():
        if not download:
            raise VlmlabError(f"{name} is not in {root}; expected {folder}; add --download to fetch it")
        _download_voc(year, root, list(lists))
    pictures = []
    for theirs, ours in lists.items():
        listed = folder / "ImageSets" / ("Segmentation" if masks else "Main") / f"{theirs}.txt"
        for line in listed.read_text(encoding="utf-8").split("\n"):
            number = line.strip()
            if number:
                pictures.append(_voc_masks(folder, number, ours) if masks else _voc_boxes(folder, number, ours))
    return list(VOC_NAMES.values()), pictures


def _download_voc(year: str, root: Path, lists: Sequence[str]) -> None:
    import contextlib
    import sys

    from torchvision.datasets import VOCDetection

    try:
        with contextlib.redirect_stdout(sys.stderr):
            for one in {"trainval", *lists} - {"train", "val"}:
                VOCDetection(root, year, one, download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise VlmlabError(f"cannot download VOC {year} into {root} ({reason}); get it by hand") from error


def _voc_boxes(folder: Path, number: str, split: str) -> _Picture:
    boxes, labels = [], []
    for entry in ElementTree.parse(folder / "Annotations" / f"{number}.xml").iter("object"):
        if entry.findtext("difficult") == "1":
            continue
        x0, y0, x1, y1 = (float(entry.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
        boxes.append((x0 - 1, y0 - 1, x1, y1))  # VOC counts pixels from 1 and includes the last
        labels.append(list(VOC_NAMES).index(entry.findtext("name")))
    annotation = Annotation(np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64))
    path = folder / "JPEGImages" / f"{number}.jpg"
    return _Picture(f"{split}/{number}.jpg", path, split, frozenset(labels), lambda: annotation)


def _voc_masks(folder: Path, number: str, split: str) -> _Picture:
    """The palettes of the two mask files are indices: 0 background, 255 not annotated, else class or object from 1."""
    files = [folder / f"Segmentation{kind}" / f"{number}.png" for kind in ("Class", "Object")]
    with Image.open(files[0]) as mask:
        shown = {value - 1 for _, value in mask.getcolors(256) if value not in (0, 255)}

    def annotate() -> Annotation:
        kinds, objects = (np.asarray(Image.open(file)) for file in files)
        numbers = [n for n in np.unique(objects).tolist() if n not in (0, 255)]
        instances = np.stack([objects == n for n in numbers]) if numbers else np.zeros((0, *objects.shape), bool)
        labels = [int(np.bincount(kinds[m]).argmax()) - 1 for m in instances]
        semantic = np.where(kinds == 0, len(VOC_NAMES), np.where(kinds == 255, NOTHING, kinds - 1)).astype(np.uint8)
        return Annotation(_extents(instances), np.array(labels, np.int64), instances, semantic)

    path = folder / "JPEGImages" / f"{number}.jpg"
    return _Picture(f"{split}/{number}.jpg", path, split, frozenset(shown), annotate)


def _extents(instances: np.ndarray) -> np.ndarray:
    """Boxes [n, 4] around masks [n, H, W], the lower right corner excluded."""
    boxes = []
    for mask in instances:
        ys, xs = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        boxes.append((xs[0], ys[0], xs[-1] + 1, ys[-1] + 1))
    return np.array(boxes, np.float32).reshape(-1, 4)


# ------------------------------------------------------------------------------------------------ COCO


def _coco(name: str, year: str, root: Path, download: bool) -> tuple[list[str], list[_Picture]]:
    places = (root / "coco", root / name, root)
    folder = next((p for p in places if (p / "annotations" / f"instances_val{year}.json").is_file()), None)
    if folder is None:
        wanted = places[0] / "annotations" / f"instances_val{year}.json"
        raise VlmlabError(
            f"{name} is not in {root}; expected {wanted} and the folders train{year} and val{year} beside it; "
            "get them from cocodataset.org"
        )
    classes: list[str] = []
    pictures: list[_Picture] = []
    for theirs, ours in (("train", "train"), ("val", "test")):
        file = folder / "annotations" / f"instances_{theirs}{year}.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        kinds = sorted(content["categories"], key=lambda kind: kind["id"])
        classes = [kind["name"] for kind in kinds]
        number = {kind["id"]: k for k, kind in enumerate(kinds)}
        objects: dict[int, list[dict]] = {}
        for entry in content["annotations"]:
            if not entry.get("iscrowd"):
                objects.setdefault(entry["image_id"], []).append(entry)
        for image in sorted(content["images"], key=lambda image: image["file_name"]):
            own = objects.get(image["id"], [])
            pictures.append(
                _Picture(
                    f"{ours}/{image['file_name']}",
                    folder / f"{theirs}{year}" / image["file_name"],
                    ours,
                    frozenset(number[entry["category_id"]] for entry in own),
                    lambda own=own, image=image, number=number: _coco_annotation(own, image, number),
                )
            )
    return classes, pictures


def _coco_annotation(own: Sequence[dict], image: dict, number: dict[int, int]) -> Annotation:
    """Boxes and polygons of one image; where objects overlap, the smaller one is in front."""
    height, width = image["height"], image["width"]
    labels = np.array([number[entry["category_id"]] for entry in own], np.int64)
    boxes = [(x, y, x + w, y + h) for x, y, w, h in (entry["bbox"] for entry in own)]
    instances = np.zeros((len(own), height, width), bool)
    for mask, entry in zip(instances, own, strict=True):
        drawn = Image.new("1", (width, height))
        for polygon in entry["segmentation"]:
            ImageDraw.Draw(drawn).polygon(polygon, fill=1, outline=1)
        mask[:] = np.asarray(drawn)
    semantic = np.full((height, width), NOTHING, np.uint8)
    for k in np.argsort(-instances.sum((1, 2)), kind="stable"):
        semantic[instances[k]] = labels[k]
    return Annotation(np.array(boxes, np.float32).reshape(-1, 4), labels, instances, semantic)
