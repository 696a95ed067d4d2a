"""Which files a dataset is made from, and whether they have changed: a result belongs to the images it was measured on.

Imports neither torch nor Pillow: the process that hands out a sweep asks here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
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
}
"""Standard dataset -> folders below the root that `vlmlab.datasets.standard` reads; one of its name, and train, val and
test in the root itself, come on top."""
ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z"})
LISTS = frozenset({".csv", ".tsv", ".txt"})
READERS = 8  # threads: hashing leaves Python's lock


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
    files = {}
    for place in filter(os.path.isdir, places):
        files |= {f.relative_to(root).as_posix(): f for f in files_below(place) if f.suffix.lower() not in ARCHIVES}
    if os.path.isdir(root):
        files |= {f.name: f for f in root.glob("split_*.json")}
    return files


def digest_of(files: Mapping[str, Path]) -> str:
    """Hash over the names and the bytes of files, 24 hexadecimal digits.

    It is kept in the user's cache under the files' sizes and times, so that the bytes are read once: copies have other times
    and the same hash.
    """
    names = sorted(files)
    identity = hashlib.sha256(
        "\n".join([files_identity(files[n] for n in names), *names]).encode(errors="surrogateescape")
    )
    known = cache_path("contents", f"{identity.hexdigest()[:32]}.txt")
    with contextlib.suppress(OSError, ValueError):
        digest = known.read_text(encoding="ascii")
        if len(digest) == 24:
            return digest
    with ThreadPoolExecutor(READERS) as pool:
        contents = list(pool.map(_content, (files[n] for n in names)))
    text = "\n".join(f"{name}\0{content}" for name, content in zip(names, contents, strict=True))
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:24]
    with contextlib.suppress(VlmlabError):  # only a cache
        write_atomically(known, digest)
    return digest


def _content(file: Path) -> str:
    try:
        return sha256(file)
    except (OSError, ValueError):  # a link to nothing, no right to read it, a name that cannot be
        return "unreadable"
