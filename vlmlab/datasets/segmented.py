"""PASCAL Context, COCO-Stuff, ADE20K and Cityscapes: real images with a class for every pixel, read from where they are.

| name | below the root | masks |
|---|---|---|
| pascal-context | VOCdevkit/VOC2010: JPEGImages, lists train and val of ImageSets/SegmentationContext | SegmentationClassContext, 0 ignored |
| coco-stuff | coco: train2017, val2017 | coco/stuffthingmaps (or annotations): train2017, val2017; 255 ignored |
| ade20k-150 | ADEChallengeData2016/images: training, validation | .../annotations, 0 ignored |
| ade20k-847 | ADE20K_2021_17_01/images_detectron2: training, validation | .../annotations_detectron2, .tif of 16 bits, 65535 ignored |
| cityscapes | leftImg8bit: train, val, a folder per city | gtFine: *_gtFine_labelIds.png; all but 19 of its ids ignored |

What each set calls val or validation is the test; a tenth of train, by a seeded order of the file names, is for validation. The
masks of pascal-context are those that MMSegmentation's conversion writes, those of ade20k-847 MaskFormer's.

Class names, their order and the new classes come from data/classes, where every file says whose list it is: COCO-Stuff 156/15,
PASCAL Context 49/10 and ADE20K 572/275. ade20k-150 and cityscapes have no such groups in the field; what `Task` calls new there
is the second half of the classes. PASCAL Context is without its background here (59 classes, not 60).

All masks are read once, to know which classes an image shows and to find a wrong one before anything is computed; what was
found is cached.

Letters: H x W an image, C classes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from tqdm import tqdm

from vlmlab.datasets.catalog import BY_NAME
from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.folder import Entry, readable
from vlmlab.datasets.image_set import BROKEN_PICTURE, FilePictures, ImageSet, reason_of
from vlmlab.datasets.listing import counted
from vlmlab.datasets.splits import held_out
from vlmlab.datasets.truth import NOTHING, Truth
from vlmlab.errors import VlmlabError
from vlmlab.files import cache_path, data_path, files_identity, write_atomically

VAL_SHARE = 0.1
READERS = 8  # threads: Pillow decodes outside Python's lock
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
OUTSIDE = -3  # in a table of values: no class, and nothing that may be ignored either

SEGMENTED = ("pascal-context", "coco-stuff", "ade20k-150", "ade20k-847", "cityscapes")
IGNORED: dict[str, tuple[int, ...]] = {
    "pascal-context": (0, 255),
    "coco-stuff": (255,),
    "ade20k-150": (0, 255),
    "ade20k-847": (65535,),
    "cityscapes": (*range(34), 255),  # where it is no class
}
"""Values of a mask that count for nothing."""


@dataclass(frozen=True)
class ClassList:
    """The classes of a set, as data/classes has them.

    Attributes:
        names: C names.
        values: what a mask holds for each.
        new: names of which no mask is granted.
        stuff: names that are no things.
    """

    names: tuple[str, ...]
    values: tuple[int, ...]
    new: tuple[str, ...]
    stuff: tuple[str, ...]


@cache
def class_list(name: str) -> ClassList:
    """The classes of one of the sets by its name."""
    rows = [
        line.split("\t")
        for line in data_path("classes", f"{name}.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    new, stuff = (tuple(row[1] for row in rows if mark in row[2:]) for mark in ("new", "stuff"))
    return ClassList(tuple(row[1] for row in rows), tuple(int(row[0]) for row in rows), new, stuff)


@dataclass(frozen=True)
class _Pair:
    """An image and its mask."""

    id: str
    split: str
    image: Path
    mask: Path


def load_segmented(name: str, root: Path, seed: int = 0, skip_broken: bool = False) -> Dataset:
    """One of the sets from below `root`; none is ever downloaded.

    With `skip_broken`, images that cannot be read are left out, counted and named.

    Raises:
        VlmlabError: it is not there; an image or a mask is missing, or a mask cannot be read, has another size than its
            image, holds colours, or a value that is no class of the set. The message names the file.
    """
    pairs = [pair for split in ("train", "test") for pair in _pairs(name, root, split)]
    skipped: list[str] = []
    if skip_broken:
        _, skipped = readable(name, [Entry(p.id, p.image, "") for p in pairs], skip_broken)
        pairs = [p for p in pairs if p.id not in set(skipped)]
    for what in ("image", "mask"):
        gone = [getattr(p, what) for p in pairs if not getattr(p, what).is_file()]
        if gone:
            raise VlmlabError(
                f"{counted(len(gone), what)} of {name} missing, the first is {gone[0]}; unpack its archives again"
            )
    kinds, table = class_list(name), _table(name)
    everything = ImageSet(
        FilePictures([p.image for p in pairs]),
        torch.from_numpy(_shown(name, pairs, table)),
        [p.id for p in pairs],
        lambda i: Truth(
            np.zeros((0, 4)), np.zeros(0, np.int64), semantic=table[_values(pairs[i].mask)].astype(np.int16)
        ),
    )
    train = [i for i, p in enumerate(pairs) if p.split == "train"]
    held = held_out([pairs[i].id for i in train], [0] * len(train), VAL_SHARE, seed)
    info = BY_NAME[name]
    return Dataset(
        name=name,
        classes=list(kinds.names),
        templates=["a photo of a {}."],
        train=everything.subset([i for k, i in enumerate(train) if k not in held]),
        val=everything.subset([train[k] for k in sorted(held)]),
        test=everything.subset([i for i, p in enumerate(pairs) if p.split == "test"]),
        tasks=info.tasks,
        mirrors=info.mirrors,
        novel=kinds.new,
        grounds=kinds.stuff,
        skipped=tuple(skipped),
    )


# ------------------------------------------------------------------------------------------------ where files lie


def _pairs(name: str, root: Path, split: str) -> Iterator[_Pair]:
    """The images of one split with their masks, in the order of their names."""
    if name == "pascal-context":
        folder = root / "VOCdevkit" / "VOC2010"
        listed = folder / "ImageSets/SegmentationContext" / f"{'train' if split == 'train' else 'val'}.txt"
        if not listed.is_file():
            raise _missing(name, root, listed)
        for line in listed.read_text(encoding="utf-8").split("\n"):
            if number := line.strip():
                image = folder / "JPEGImages" / f"{number}.jpg"
                yield _Pair(f"{split}/{number}.jpg", split, image, folder / f"SegmentationClassContext/{number}.png")
        return
    if name == "coco-stuff":
        base = next((b for b in (root / "coco", root / "coco_stuff164k", root) if _maps(b)), root / "coco")
        part = "train2017" if split == "train" else "val2017"
        images = next((f for f in (base / part, base / "images" / part) if f.is_dir()), base / part)
        masks, image_end, mask_end = (_maps(base) or base / "stuffthingmaps") / part, ".jpg", ".png"
    elif name == "cityscapes":
        part = split if split == "train" else "val"
        images, masks = root / "leftImg8bit" / part, root / "gtFine" / part
        image_end, mask_end = "_leftImg8bit.png", "_gtFine_labelIds.png"
    else:
        full = name == "ade20k-847"
        base, kind = root / ("ADE20K_2021_17_01" if full else "ADEChallengeData2016"), "_detectron2" if full else ""
        part = "training" if split == "train" else "validation"
        images, masks = base / f"images{kind}" / part, base / f"annotations{kind}" / part
        image_end, mask_end = ".jpg", ".tif" if full else ".png"
    for folder in (images, masks):
        if not folder.is_dir():
            raise _missing(name, root, folder)
    files = sorted(f.relative_to(images).as_posix() for f in images.rglob(f"*{image_end}"))
    if not files:
        raise VlmlabError(f"{images} holds no image *{image_end}; unpack the archive of {name} again")
    for file in files:
        yield _Pair(f"{split}/{file}", split, images / file, masks / f"{file.removesuffix(image_end)}{mask_end}")


def _maps(base: Path) -> Path | None:
    """The folder with COCO-Stuff's masks; `annotations` of COCO itself holds JSON files and no folders."""
    return next((base / f for f in ("stuffthingmaps", "annotations") if (base / f / "val2017").is_dir()), None)


def _missing(name: str, root: Path, wanted: Path) -> VlmlabError:
    return VlmlabError(
        f"{name} is not in {root}; expected {wanted}; vlmlab downloads no set of this kind, get it by hand"
    )


# ------------------------------------------------------------------------------------------------ masks


@cache
def _table(name: str) -> NDArray[np.int32]:
    """Value of a mask -> class, NOTHING, or OUTSIDE: [65536]."""
    table = np.full(1 << 16, OUTSIDE, np.int32)
    table[list(IGNORED[name])] = NOTHING
    table[list(class_list(name).values)] = np.arange(len(class_list(name).values))
    return table


def _values(file: Path) -> NDArray:
    """The numbers [H, W] that a mask holds: of 8 or 16 bits, or the indices of a palette."""
    try:
        with Image.open(file) as mask:
            if mask.mode not in ("P", "L", "I;16", "I;16B", "I"):
                raise VlmlabError(
                    f"{file} holds colours and no class numbers (mode {mask.mode}); unpack its archive again, or convert it"
                )
            return np.asarray(mask)
    except BROKEN_PICTURE as error:
        raise VlmlabError(f"cannot read the mask {file} ({reason_of(error)}); unpack its archive again") from error


def _shown(name: str, pairs: Sequence[_Pair], table: NDArray[np.int32]) -> NDArray[np.int64]:
    """Which classes each image shows, [N, C] of zeros and ones; every mask is checked, unless it was before."""
    files = [f for p in pairs for f in (p.image, p.mask)]
    lists = data_path("classes", f"{name}.txt").read_bytes()
    key = hashlib.sha256(files_identity(files).encode() + lists + repr(IGNORED[name]).encode()).hexdigest()[:24]
    place = cache_path("masks", f"{name}-{key}.npz")
    count = len(class_list(name).names)
    try:
        with np.load(place) as stored:
            return np.unpackbits(stored["shown"], axis=1, count=count).astype(np.int64)
    except (OSError, ValueError, KeyError):
        pass
    shown = np.zeros((len(pairs), count), np.uint8)
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda pair: _classes_in(name, pair, table), pairs)
        # tqdm's None: no bar unless standard error is a terminal.
        for i, classes in enumerate(tqdm(found, f"{name}: reading masks", len(pairs), leave=False, disable=None)):
            shown[i, classes] = 1
    buffer = io.BytesIO()
    np.savez(buffer, shown=np.packbits(shown, axis=1))
    with contextlib.suppress(VlmlabError):  # only a cache: without it the next call reads the masks again
        write_atomically(place, buffer.getvalue())
    return shown.astype(np.int64)


def _classes_in(name: str, pair: _Pair, table: NDArray[np.int32]) -> list[int]:
    """The classes that a mask shows, after it was checked."""
    values = _values(pair.mask)
    try:
        with Image.open(pair.image) as image:
            width, height = image.size
            if image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS:
                width, height = height, width
    except BROKEN_PICTURE as error:
        raise VlmlabError(f"cannot read the image {pair.image} ({reason_of(error)}); skip broken images") from error
    if values.shape != (height, width):
        raise VlmlabError(
            f"the mask {pair.mask} is of {values.shape[1]} x {values.shape[0]} pixels, and its image of {width} x {height}; "
            "unpack both archives again"
        )
    there = np.unique(values)
    outside = there[(there < 0) | (there >= len(table))]
    inside = table[there[(there >= 0) & (there < len(table))]]
    if len(outside) or (inside == OUTSIDE).any():
        wrong = outside[0] if len(outside) else there[(there >= 0) & (there < len(table))][inside == OUTSIDE][0]
        raise VlmlabError(
            f"the mask {pair.mask} holds {wrong}, which is none of the {len(class_list(name).names)} classes of {name}; "
            "unpack its archive again"
        )
    return inside[inside >= 0].tolist()
