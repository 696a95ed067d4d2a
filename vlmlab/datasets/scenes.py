"""Pascal VOC, COCO and LVIS: real images of several things at once, with boxes and masks, read from where they are.

| name | images | ground truth |
|---|---|---|
| voc2007 | the lists train, val and test of ImageSets/Main | labels, boxes |
| voc2012 | the lists train and val of ImageSets/Segmentation; val is the test | labels, boxes, masks, "background" |
| coco2014, coco2017 | instances_train*.json and instances_val*.json; val is the test | labels, boxes, masks |
| coco | those of coco2017, without the objects of 15 categories | labels, boxes, masks |
| lvis | lvis_v1_train.json and lvis_v1_val.json with COCO's images; val is the test | boxes, masks of objects |

What no official list calls validation is a tenth of train, by a seeded order of the file names. Papers on multi-label
recognition learn on VOC's train and val together. Objects that VOC marks as difficult, and crowds of COCO, count for
nothing: neither as label nor as box. Annotation files that contradict themselves or one another are refused; a box is cut
at the border of its image, and objects whose box has no area there (COCO has a few) are left out, counted and named.
Novel categories are the 17 of OVR-CNN (arXiv 2011.10678; its release's mscoco_seen_classes.json and
mscoco_unseen_classes.json) in COCO. The 15 that it sets aside are among the base ones of coco2014 and coco2017; in `coco`, the
benchmark of open-vocabulary detection, they are left out: 48 base and 17 novel names compete, and all images stay. In VOC novel
are the five of SPNet (CVPR 2019), in LVIS the 337 that its file calls rare (ViLD, arXiv 2104.13921), 866 others are base. Its
rare, common and frequent classes (in at most 10, at most 100, or more training images) are groups with metrics of their own: `ap_rare`, `ap_common`
and `ap_frequent` are what papers call AP_r, AP_c and AP_f, but for two things: 100 detections of an image count where LVIS takes 300, and LVIS
is annotated for some categories per image only; its own metric forgives unmatched boxes of the others, and ours, COCO's, does
not: compare within vlmlab.
"""

from __future__ import annotations

import json
import math
import os
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from vlmlab.datasets.catalog import BY_NAME
from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.folder import Entry, readable
from vlmlab.datasets.image_set import BROKEN_PICTURE, FilePictures, ImageSet
from vlmlab.datasets.listing import counted, path_named, some, spelled
from vlmlab.datasets.splits import held_out
from vlmlab.datasets.truth import NOTHING, Truth
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
COCO_BASE = (
    "person", "bicycle", "car", "motorcycle", "train", "truck", "boat", "bench", "bird", "horse", "sheep", "bear", "zebra",
    "giraffe", "backpack", "handbag", "suitcase", "frisbee", "skis", "kite", "surfboard", "bottle", "fork", "spoon", "bowl",
    "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "pizza", "donut", "chair", "bed", "toilet", "tv", "laptop",
    "mouse", "remote", "microwave", "oven", "toaster", "refrigerator", "book", "clock", "vase", "toothbrush",
)  # fmt: skip
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
"""How LVIS' files say it -> the group of classes."""
RARE, COMMON = 10, 100  # training images that show a class of LVIS, at most

SCENES = ("voc2007", "voc2012", "coco2014", "coco2017", "coco", "lvis")


@dataclass(frozen=True)
class _Picture:
    """One image: its file, split, which classes it shows, and how to read its boxes and masks."""

    id: str
    path: Path
    split: str
    shown: frozenset[int]
    annotate: Callable[[], Truth]


_Read = tuple[list[str], tuple[str, ...], Mapping[str, tuple[str, ...]], list[_Picture]]
"""Classes, those that are novel, further groups of them, images."""


def load_scenes(name: str, root: Path, download: bool = False, seed: int = 0, skip_broken: bool = False) -> Dataset:
    """VOC, COCO or LVIS from below `root`, in torchvision's and the original layout.

    With `skip_broken`, images that cannot be read are left out, counted and named. Raises `VlmlabError` if it is not there
    and cannot be downloaded (COCO and LVIS never are), if its files are incomplete, or if its annotations contradict each other.
    """
    try:
        classes, novel, groups, pictures = (_voc if name.startswith("voc") else _coco)(name, root, download)
    except (OSError, ElementTree.ParseError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise VlmlabError(f"{name} in {root} is incomplete ({reason}); unpack its archives again") from error
    if not classes:
        raise VlmlabError(
            f"the annotations of {name} in {root} list no category that it has; export them with categories"
        )
    _each_once(name, pictures)
    skipped: list[str] = []
    if skip_broken:
        _, skipped = readable(name, [Entry(p.id, p.path, "") for p in pictures], skip_broken)
        pictures = [p for p in pictures if p.id not in set(skipped)]
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
        novel=novel,
        groups=groups,
        stuff=("background",) if name == "voc2012" else (),
        skipped=tuple(skipped),
    )


def _each_once(name: str, pictures: Sequence[_Picture]) -> None:
    """Raise `VlmlabError` if one image file stands in the lists twice, whichever they are."""
    folders: dict[Path, str] = {}
    seen: dict[str, str] = {}
    for p in pictures:
        if p.path.parent not in folders:  # one folder may be a link to another
            folders[p.path.parent] = os.path.realpath(p.path.parent)
        place = os.path.join(folders[p.path.parent], p.path.name)
        if place in seen:
            where = f"twice in {p.split}" if seen[place] == p.split else f"in {seen[place]} and in {p.split}"
            raise VlmlabError(f"{name} lists the image {p.path} {where}; unpack its archives again")
        seen[place] = p.split


def _in_image(boxes: Sequence[Sequence[float]], width: float, height: float) -> tuple[np.ndarray, list[int]]:
    """(boxes [n, 4] cut at the border of the image, places of those that have an area there)."""
    cut = np.array(boxes, np.float64).reshape(-1, 4)
    cut[:, 0::2], cut[:, 1::2] = cut[:, 0::2].clip(0, width), cut[:, 1::2].clip(0, height)
    # Written so that a coordinate that is no number counts as no area.
    sound = (cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])
    return cut.astype(np.float32), np.flatnonzero(sound).tolist()


# ------------------------------------------------------------------------------------------------ Pascal VOC


def _voc(name: str, root: Path, download: bool) -> _Read:
    year = name[-4:]
    folder = root / "VOCdevkit" / f"VOC{year}"
    masks = year == "2012"
    lists = {"train": "train", "val": "test"} if masks else {"train": "train", "val": "val", "test": "test"}
    if not folder.is_dir():
        if not download:
            raise VlmlabError(f"{name} is not in {root}; expected {folder}; add --download to fetch it")
        _download_voc(year, root, list(lists))
    pictures: list[_Picture] = []
    without_area: list[str] = []
    for theirs, ours in lists.items():
        listed = folder / "ImageSets" / ("Segmentation" if masks else "Main") / f"{theirs}.txt"
        for line in listed.read_text(encoding="utf-8").split("\n"):
            number = line.strip()
            if number:
                own = _voc_masks(folder, number, ours) if masks else _voc_boxes(folder, number, ours, without_area)
                pictures.append(own)
    if without_area:
        _warn(
            f"left out {counted(len(without_area), 'object')} of {folder} whose box has no area in the image: "
            f"{some(without_area)}"
        )
    return list(VOC_NAMES.values()), VOC_NOVEL, {}, pictures


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


def _voc_boxes(folder: Path, number: str, split: str, without_area: list[str]) -> _Picture:
    """One image with its boxes; those without an area in it are left out and named in `without_area`."""
    boxes, labels = [], []
    file = folder / "Annotations" / f"{number}.xml"
    page = ElementTree.parse(file)
    width, height = (float(page.findtext(f"size/{side}") or "inf") for side in ("width", "height"))
    for entry in page.iter("object"):
        if entry.findtext("difficult") == "1":
            continue
        kind = (entry.findtext("name") or "").strip()
        if kind not in VOC_NAMES:
            raise VlmlabError(
                f"{file} shows '{kind}', which is none of VOC's twenty categories; unpack its archive again"
            )
        x0, y0, x1, y1 = (float(entry.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
        cut, sound = _in_image(
            [(x0 - 1, y0 - 1, x1, y1)], width, height
        )  # VOC counts pixels from 1 and includes the last
        if not sound:
            without_area.append(f"{number}.xml {kind} {x0:g} {y0:g} {x1:g} {y1:g}")
            continue
        boxes.append(cut[0])
        labels.append(list(VOC_NAMES).index(kind))
    annotation = Truth(np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64))
    path = folder / "JPEGImages" / f"{number}.jpg"
    return _Picture(f"{split}/{number}.jpg", path, split, frozenset(labels), lambda: annotation)


def _voc_masks(folder: Path, number: str, split: str) -> _Picture:
    """The palettes of the two mask files are indices: 0 background, 255 not annotated, else class or object from 1."""
    files = [folder / f"Segmentation{kind}" / f"{number}.png" for kind in ("Class", "Object")]
    path = folder / "JPEGImages" / f"{number}.jpg"
    _same_size([*files, path])
    with Image.open(files[0]) as mask:
        if mask.mode not in ("P", "L"):
            raise VlmlabError(
                f"{files[0]} holds colours and not class numbers (mode {mask.mode}); unpack its archive again"
            )
        shown = {value - 1 for _, value in mask.getcolors(256) if value not in (0, 255)}
    if shown and max(shown) >= len(VOC_NAMES):
        raise VlmlabError(f"{files[0]} shows class {max(shown) + 1} of {len(VOC_NAMES)}; unpack its archive again")

    def annotate() -> Truth:
        kinds, objects = (np.asarray(Image.open(file)) for file in files)
        numbers = [n for n in np.unique(objects).tolist() if n not in (0, 255)]
        instances = np.stack([objects == n for n in numbers]) if numbers else np.zeros((0, *objects.shape), bool)
        labels = [int(np.bincount(kinds[m]).argmax()) - 1 for m in instances]
        semantic = np.where(
            kinds == 0, len(VOC_NAMES), np.where(kinds == 255, NOTHING, kinds.astype(np.int16) - 1)
        ).astype(np.int16)
        return Truth(_extents(instances), np.array(labels, np.int64), instances, semantic)

    return _Picture(f"{split}/{number}.jpg", path, split, frozenset(shown), annotate)


def _same_size(files: Sequence[Path]) -> None:
    """Raise `VlmlabError` if two masks and their image are not of one size; a missing or broken image is told later."""
    sizes = {}
    for file in files:
        try:
            with Image.open(file) as picture:
                sizes[file] = picture.size
        except BROKEN_PICTURE:
            if file.suffix == ".png":
                raise
    (first, size), *others = sizes.items()
    for file, other in others:
        if other != size:
            raise VlmlabError(
                f"the mask {first} is of {size[0]} x {size[1]} pixels, and {file} of {other[0]} x {other[1]}; unpack the archives again"
            )


def _extents(instances: np.ndarray) -> np.ndarray:
    """Boxes [n, 4] around masks [n, H, W], the lower right corner excluded."""
    boxes = []
    for mask in instances:
        ys, xs = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        boxes.append((xs[0], ys[0], xs[-1] + 1, ys[-1] + 1))
    return np.array(boxes, np.float32).reshape(-1, 4)


# ------------------------------------------------------------------------------------------------ COCO


def _coco(name: str, root: Path, download: bool) -> _Read:
    lvis = name == "lvis"
    year = "2017" if name in ("coco", "lvis") else name[-4:]
    files = {part: f"lvis_v1_{part}.json" if lvis else f"instances_{part}{year}.json" for part in ("train", "val")}
    folder = _folder_of(name, root, files["val"])
    if folder is None:
        wanted = root / ("lvis" if lvis else "coco") / "annotations" / files["val"]
        raise VlmlabError(
            f"{name} is not in {root}; expected {wanted} and the folders train{year} and val{year} beside it; "
            f"get them from {'lvisdataset.org and ' if lvis else ''}cocodataset.org"
        )
    contents = {part: _instances(folder / "annotations" / file) for part, file in files.items()}
    classes = _categories(contents["train"], contents["val"])
    novel: tuple[str, ...] = COCO_NOVEL
    if name == "coco":
        classes = [c for c in classes if c in {*COCO_BASE, *COCO_NOVEL}]
    groups: Mapping[str, tuple[str, ...]] = {}
    if lvis:
        often = contents["train"].frequency
        groups = {group: tuple(_spoken(c) for c in classes if often.get(c) == group) for group in FREQUENCIES.values()}
        novel = groups["rare"]
    # Images of LVIS are COCO's, in whichever of its folders they lie.
    places = [folder, *(root / part for part in ("coco", "lvis")), root]
    pictures: list[_Picture] = []
    for part, ours in (("train", "train"), ("val", "test")):
        content = contents[part]
        number = {id: classes.index(kind) for id, kind in content.categories.items() if kind in classes}
        for image in sorted(content.images.values(), key=_file_of):
            own = [entry for entry in content.objects.get(image["id"], []) if entry["category_id"] in number]
            file = path_named(_file_of(image))
            inside = f"{_part_of(image)}/{file}" if lvis else f"{part}{year}/{file}"
            path = (
                next((p / inside for p in places if (p / inside).is_file()), folder / inside)
                if lvis
                else folder / inside
            )
            pictures.append(
                _Picture(
                    f"{ours}/{spelled(file)}",
                    path,
                    ours,
                    frozenset(number[entry["category_id"]] for entry in own),
                    lambda own=own, image=image, number=number: _coco_annotation(
                        own, image, number, exhaustive=not lvis
                    ),
                )
            )
    return [_spoken(c) for c in classes] if lvis else classes, novel, groups, pictures


def _folder_of(name: str, root: Path, file: str) -> Path | None:
    """The folder whose annotations/ holds the file."""
    places = (root / "lvis", root / "coco", root) if name == "lvis" else (root / "coco", root / name, root)
    return next((p for p in places if (p / "annotations" / file).is_file()), None)


def _file_of(image: dict) -> str:
    """The file name of an image: LVIS says it in the address of COCO's copy, .../val2017/000000397133.jpg."""
    return image["file_name"] if "file_name" in image else image["coco_url"].rsplit("/", 1)[-1]


def _part_of(image: dict) -> str:
    """The folder of COCO, train2017 or val2017, that an image of LVIS lies in."""
    return image["coco_url"].rsplit("/", 2)[-2]


def _spoken(name: str) -> str:
    """A category of LVIS as prompts say it: "aerosol_can" -> "aerosol can"."""
    return name.replace("_", " ")


@dataclass(frozen=True)
class _Instances:
    """An annotation file of COCO or LVIS: category id -> name, image id -> its entry, image id -> its objects without crowds;
    category name -> how often LVIS shows it, one of `FREQUENCIES`."""

    file: Path
    categories: dict[int, str]
    images: dict[int, dict]
    objects: dict[int, list[dict]]
    frequency: Mapping[str, str]


def _instances(file: Path) -> _Instances:
    """Read an annotation file of COCO, and raise `VlmlabError` in one line if it contradicts itself."""
    content = json.loads(file.read_text(encoding="utf-8"))
    categories: dict[int, str] = {}
    for kind in sorted(content["categories"], key=lambda kind: kind["id"]):
        if (
            categories.setdefault(kind["id"], kind["name"]) != kind["name"]
            or list(categories.values()).count(kind["name"]) > 1
        ):
            raise VlmlabError(
                f"{file} has two categories with the id {kind['id']} or the name '{kind['name']}'; correct it"
            )
    images: dict[int, dict] = {}
    for image in content["images"]:
        if image["id"] in images:
            raise VlmlabError(f"{file} has two images with the id {image['id']}; correct it")
        if not (image["width"] > 0 and image["height"] > 0):
            raise VlmlabError(f"{file}: the image {_file_of(image)} has no size; correct it")
        images[image["id"]] = image
    objects: dict[int, list[dict]] = {}
    seen, without_area, cut = set(), [], []
    for entry in content["annotations"]:
        name = f"{file}: the object {entry.get('id', '')}"
        if entry.get("id") in seen:
            raise VlmlabError(f"{name} stands there twice; correct it")
        seen |= {entry["id"]} if "id" in entry else set()
        image = images.get(entry["image_id"])
        if image is None:
            raise VlmlabError(f"{name} belongs to the image {entry['image_id']}, which is not listed; correct it")
        if entry["category_id"] not in categories:
            raise VlmlabError(f"{name} is of the category {entry['category_id']}, which is not listed; correct it")
        if entry.get("iscrowd"):
            continue
        x, y, w, h = entry["bbox"]
        width, height = image["width"], image["height"]
        if not (w > 0 and h > 0 and x < width and y < height and x + w > 0 and y + h > 0):
            without_area.append(str(entry.get("id", "")))
            continue
        if x < -1 or y < -1 or x + w > width + 1 or y + h > height + 1:  # COCO's own are up to a pixel out
            cut.append(str(entry.get("id", "")))
        _check_segmentation(entry.get("segmentation"), image, name)
        objects.setdefault(entry["image_id"], []).append(entry)
    if without_area:
        _warn(
            f"left out {counted(len(without_area), 'object')} of {file} whose box has no area in the image: {some(without_area)}"
        )
    if cut:
        _warn(f"cut {counted(len(cut), 'box')} of {file} at the border of their image, which they leave: {some(cut)}")
    often = {kind["name"]: _how_often(kind) for kind in content["categories"]}
    return _Instances(file, categories, images, objects, {name: own for name, own in often.items() if own})


def _how_often(kind: dict) -> str:
    """ "rare", "common" or "frequent", as LVIS' file says it of a category; where it says none, by its count of training images, and
    nothing for a category of COCO, which has neither."""
    if "frequency" in kind:
        return FREQUENCIES[kind["frequency"]]
    if "image_count" not in kind:
        return ""
    return "rare" if kind["image_count"] <= RARE else "common" if kind["image_count"] <= COMMON else "frequent"


def _categories(train: _Instances, val: _Instances) -> list[str]:
    """The classes, in the order of the ids of train; val may show some of them only, by the same ids."""
    for id, name in val.categories.items():
        if name not in train.categories.values():
            raise VlmlabError(
                f"{val.file} has the category '{name}', which {train.file.name} has not; export both with the same categories"
            )
        if train.categories.get(id) != name:
            raise VlmlabError(
                f"{val.file} calls the category {id} '{name}', and {train.file.name} calls it "
                f"'{train.categories.get(id, 'nothing')}'; export both with the same categories"
            )
    return list(train.categories.values())


def _check_segmentation(segmentation: Any, image: dict, name: str) -> None:
    """Raise `VlmlabError` if a mask is neither polygons nor run lengths of this image."""
    if isinstance(segmentation, dict):
        if list(segmentation["size"]) != [image["height"], image["width"]]:
            raise VlmlabError(f"{name} has a mask of another size than its image; correct it")
        runs = _runs(segmentation["counts"])
        if sum(runs) != image["height"] * image["width"] or min(runs) < 0:
            raise VlmlabError(f"{name} has a run-length mask that does not fill its image; correct it")
        return
    for polygon in segmentation or ():
        if len(polygon) % 2 or not all(math.isfinite(value) for value in polygon):
            raise VlmlabError(
                f"{name} has a polygon of {len(polygon)} numbers, which are no pairs of x and y; correct it"
            )


def _runs(counts: Sequence[int] | str | bytes) -> list[int]:
    """Lengths of the runs of a mask, zeros first: a list as it is, or COCO's compressed text.

    The text writes every length in groups of five bits from the lowest, a sixth bit says that more follow, and from the
    third length on it is the difference to the one two before (the format of the COCO API).
    """
    if not isinstance(counts, (str, bytes)):
        return list(counts)
    runs: list[int] = []
    value = shift = 0
    for byte in counts.encode() if isinstance(counts, str) else counts:
        group = byte - 48
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            if group & 16:  # negative
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def _mask(segmentation: Any, width: int, height: int) -> np.ndarray:
    """Mask [H, W] of one object, from run lengths down the columns or from polygons."""
    if isinstance(segmentation, dict):
        runs = _runs(segmentation["counts"])
        return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
    drawn = Image.new("1", (width, height))
    for polygon in segmentation:
        if len(polygon) > 2:
            ImageDraw.Draw(drawn).polygon(polygon, fill=1, outline=1)
        elif polygon:
            ImageDraw.Draw(drawn).point(polygon, fill=1)
    return np.asarray(drawn)


def _coco_annotation(own: Sequence[dict], image: dict, number: dict[int, int], exhaustive: bool) -> Truth:
    """Boxes and masks of one image; where objects overlap, the smaller one is in front.

    There are no masks where one of the objects has none: what it covers would count as nothing. Where the annotation is not
    `exhaustive`, there is no semantic mask: a pixel outside all objects may well belong to one.
    """
    height, width = image["height"], image["width"]
    labels = np.array([number[entry["category_id"]] for entry in own], np.int64)
    boxes, _ = _in_image([(x, y, x + w, y + h) for x, y, w, h in (entry["bbox"] for entry in own)], width, height)
    if not all(entry.get("segmentation") for entry in own):
        return Truth(boxes, labels)
    instances = np.zeros((len(own), height, width), bool)
    for mask, entry in zip(instances, own, strict=True):
        mask[:] = _mask(entry["segmentation"], width, height)
    if not exhaustive:
        return Truth(boxes, labels, instances)
    semantic = np.full((height, width), NOTHING, np.int16)
    for k in np.argsort(-instances.sum((1, 2)), kind="stable"):
        semantic[instances[k]] = labels[k]
    return Truth(boxes, labels, instances, semantic)


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)
