"""Which files a dataset is made from, and whether they have changed: a result belongs to the images it was measured on.

Imports neither torch nor Pillow: the process that hands out a sweep asks here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vlmlab.datasets.listing import files_below, is_picture, read_rows, tables_in
from vlmlab.errors import VlmlabError
from vlmlab.files import cache_path, files_identity, sha256, write_atomically

PLACES: dict[str, tuple[str, ...]] = {
    "caltech101": ("caltech101", "caltech-101"),
    "oxford-pets": ("oxford-iiit-pet", "oxford_pets"),
    "flowers102": ("flowers-102", "oxford_flowers"),
    "food101": ("food-101",),
    "dtd": ("dtd",),
    "eurosat": ("eurosat",),
    "fgvc-aircraft": ("fgvc-aircraft-2013b", "fgvc_aircraft"),
    "stanford-cars": ("stanford_cars",),
    "sun397": ("SUN397", "sun397"),
    "cifar10": ("cifar-10-batches-py",),
    "cifar100": ("cifar-100-python",),
    "voc2007": ("VOCdevkit/VOC2007",),
    "voc2012": ("VOCdevkit/VOC2012",),
    "coco2014": ("coco", "annotations", "train2014", "val2014"),
    "coco2017": ("coco", "annotations", "train2017", "val2017"),
    "coco": ("coco", "annotations", "train2017", "val2017"),
    "lvis": ("lvis", "coco", "annotations", "train2017", "val2017"),
    "pascal-context": ("VOCdevkit/VOC2010",),
    "coco-stuff": ("coco", "coco_stuff164k", "train2017", "val2017", "stuffthingmaps"),
    "ade20k-150": ("ADEChallengeData2016",),
    "ade20k-847": ("ADE20K_2021_17_01/images_detectron2", "ADE20K_2021_17_01/annotations_detectron2"),
    "cityscapes": ("leftImg8bit", "gtFine"),
}
"""Standard dataset -> folders below the root that `vlmlab.datasets.standard` reads; one of its name, and train, val and
test in the root itself, come on top."""
ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z"})
LISTS = frozenset({".csv", ".tsv", ".txt"})
READERS = 8  # threads: hashing leaves Python's lock
LISTS_BY_NAME = 8  # lists of a dataset that are told one by one
COUNTED = ("class folders", "images", "lists")


def files_of_folder(folder: Path) -> dict[str, Path]:
    """Name -> file of the images and lists in a folder, links followed, and of the images that its table names elsewhere."""
    files = {
        f.relative_to(folder).as_posix(): f for f in files_below(folder) if is_picture(f) or f.suffix.lower() in LISTS
    }
    with contextlib.suppress(VlmlabError):  # a table that is wrong is told when the images are loaded
        for path in tables_in(folder)[0]:
            table = read_rows(path)
            for _, cells in table.rows:
                file = table.file(cells)
                if folder not in file.parents or ".." in file.parts:
                    files[f"{path.name}: {table.value(cells, 'file')}"] = file
    return files


def files_of_standard(name: str, root: Path) -> dict[str, Path]:
    """Name -> file of everything that decides a standard dataset below `root`: images, lists, annotations."""
    places = [root / place for place in (*PLACES.get(name, ()), name, "train", "val", "test")]
    files: dict[str, Path] = {}
    for place in filter(os.path.isdir, places):
        files |= {f.relative_to(root).as_posix(): f for f in files_below(place) if f.suffix.lower() not in ARCHIVES}
    if os.path.isdir(root):
        files |= {f.name: f for f in root.glob("split_*.json")}
    return files


WHOLE = "whole"
"""The part of `contents_of` that stands for all files together."""


def contents_of(files: Mapping[str, Path]) -> dict[str, str]:
    """What the names and the bytes of files are: part -> hash, 24 hexadecimal digits.

    `WHOLE` covers everything. The others tell where a change lies, with a number before the hash where they are many:
    "class folders" (those that hold images), "images", "lists", and up to `LISTS_BY_NAME` lists by their names. The answer
    is cached on the user's disk under the files' sizes and times, so that the bytes are read once: copies have other times
    and the same hashes.
    """
    names = sorted(files)
    identity = hashlib.sha256(
        "\n".join([files_identity(files[n] for n in names), *names]).encode(errors="surrogateescape")
    )
    known = cache_path("contents", f"{identity.hexdigest()[:32]}.json")
    with contextlib.suppress(OSError, ValueError, AttributeError):
        parts = json.loads(known.read_text(encoding="utf-8"))
        if len(parts.get(WHOLE, "")) == 24:
            return parts
    with ThreadPoolExecutor(READERS) as pool:
        contents = dict(zip(names, pool.map(_content, (files[n] for n in names)), strict=True))
    images = [name for name in names if is_picture(files[name])]
    others = [name for name in names if not is_picture(files[name])]
    folders = sorted({os.path.dirname(name) for name in images})
    lines = {name: f"{name}\0{contents[name]}" for name in names}
    parts = {WHOLE: _hash(lines.values())}
    if images:
        parts["class folders"] = f"{len(folders)} {_hash(folders)}"
        parts["images"] = f"{len(images)} {_hash(lines[name] for name in images)}"
    if others:
        parts["lists"] = f"{len(others)} {_hash(lines[name] for name in others)}"
    if len(others) <= LISTS_BY_NAME:
        parts |= {name: _hash([contents[name]]) for name in others}
    with contextlib.suppress(VlmlabError):  # only a cache
        write_atomically(known, json.dumps(parts))
    return parts


def difference(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs between two answers of `contents_of`, as the end of a sentence: "images 10 -> 12, split.csv changed".

    Class folders and images are given by their numbers, or as "changed" if these are equal. Answers that an older vlmlab
    kept have no parts; then "files changed".
    """
    by_name = all(int(parts.get("lists", "0").split()[0]) <= LISTS_BY_NAME for parts in (then, now))
    found = []
    for part in dict.fromkeys([*then, *now]) if len(then) > 1 else ():
        before, after = then.get(part), now.get(part)
        listed = part not in ("class folders", "images")
        if part == WHOLE or before == after or (listed and by_name == (part == "lists")):
            continue
        counts = [(value or "0").split()[0] if part in COUNTED else "" for value in (before, after)]
        if counts[0] != counts[1]:
            found.append(f"{part} {counts[0]} -> {counts[1]}")
        else:
            found.append(f"{part} {'added' if before is None else 'removed' if after is None else 'changed'}")
    return ", ".join(found) or "files changed"


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()[:24]


def _content(file: Path) -> str:
    try:
        return sha256(file)
    except (OSError, ValueError):  # a link to nothing, no right to read it, a name that cannot be
        return "unreadable"
