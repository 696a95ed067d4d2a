"""Your own images: a folder becomes a dataset.

Three layouts are understood:

    pets/cat/*.jpg  pets/dog/*.jpg                      one sub-folder per class; split by seed
    pets/train/cat/*.jpg ... pets/test/cat/*.jpg        the same for each split; val/ is optional
    pets/*.jpg  pets/labels.csv                         a table with the columns file,label and perhaps split

Beside them a `classnames.txt` (lines of "<folder> <name>", as the field has it for ImageNet) may give classes the names
that prompts should say; otherwise a class is called as its folder is, with spaces for underscores.
"""

from __future__ import annotations

import csv
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from vlmlab.datasets.catalog import BY_NAME
from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.image_set import BROKEN_PICTURE, FilePictures, ImageSet, decoded, files_identity, reason_of
from vlmlab.datasets.splits import SPLIT_SHARES, seeded_split
from vlmlab.errors import VlmlabError
from vlmlab.files import cache_path, write_atomically

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
SPLIT_FOLDERS = {"train": "train", "training": "train"}
SPLIT_FOLDERS |= {"val": "val", "valid": "val", "validation": "val", "test": "test", "testing": "test"}
"""Folder or CSV value -> split."""
CLASS_NAMES = "classnames.txt"
TEMPLATES = ["a photo of a {}."]
AT_LEAST = "sub-folders named by their class, with images in them, or a CSV with the columns file,label"
SHOWN_IN_MESSAGES = 3


@dataclass(frozen=True)
class Entry:
    """One image file: `id` is its path inside the dataset, `split` None where a seed decides."""

    id: str
    path: Path
    label: str
    split: str | None = None


def load_folder(folder: Path, seed: int = 0, skip_broken: bool = False) -> Dataset:
    """The dataset that a folder holds; every image is checked before anything is learned.

    Args:
        folder: in one of the layouts above.
        seed: of the split, where the folder gives none.
        skip_broken: leave unreadable images out, with a warning, instead of raising.

    Raises:
        VlmlabError: the folder is missing, empty or shows fewer than two classes; an image cannot be read; a CSV lacks
            its columns; a class has too few images.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise VlmlabError(f"there is no folder {folder}; give the path of {AT_LEAST}")
    tables = [f for f in _listed(folder) if os.path.isfile(f) and f.suffix.lower() == ".csv"]
    if len(tables) > 1:
        names = _some([t.name for t in tables])
        raise VlmlabError(f"{folder} holds {len(tables)} CSV files ({names}); leave only the one with the labels")
    entries = read_table(tables[0]) if tables else read_class_folders(folder)
    name = folder.resolve().name
    if name.lower().replace("_", "-") in BY_NAME:
        # What vlmlab knows of its own dataset (relatives, class tree, descriptions) is not about these images.
        name = f"{name} (folder)"
    dataset = assemble(name, entries, seed, skip_broken, _class_names(folder))
    return replace(dataset, mirrors=f"the folder {folder}")


def read_class_folders(folder: Path, ignore: Sequence[str] = ()) -> list[Entry]:
    """Entries of class sub-folders, or of train/, val/ and test/ with class sub-folders; `ignore` names classes.

    Raises `VlmlabError` if there is no image, or a class sub-folder without any.
    """
    below = [f for f in _listed(folder) if os.path.isdir(f)]
    splits = {f: SPLIT_FOLDERS[f.name.lower()] for f in below if f.name.lower() in SPLIT_FOLDERS}
    if "train" not in splits.values() or len(set(splits.values())) < 2:
        if len(splits) == 1 == len(below):
            # A lone train/ is a folder of classes like any other.
            return read_class_folders(below[0], ignore)
        return _classes_in(folder, folder, None, ignore)
    if len(set(splits.values())) < len(splits):
        raise VlmlabError(f"{folder} has two folders for one split ({_some([f.name for f in splits])}); keep one")
    if "test" not in splits.values():
        # As the field does with ImageNet, whose test labels are not public.
        splits = {f: "test" if split == "val" else split for f, split in splits.items()}
    return [e for f, split in splits.items() for e in _classes_in(folder, f, split, ignore)]


def _classes_in(root: Path, folder: Path, split: str | None, ignore: Sequence[str]) -> list[Entry]:
    """Entries of the class sub-folders of `folder`, named relative to `root`; images may lie deeper."""
    entries = []
    for place in _listed(folder):
        if not os.path.isdir(place) or place.name in ignore:
            continue
        files = _pictures_below(place)
        if not files:
            kinds = ", ".join(sorted(SUFFIXES))
            raise VlmlabError(f"the class folder {place} holds no images; add some ({kinds}) or remove it")
        entries += [Entry(f.relative_to(root).as_posix(), f, place.name, split) for f in files]
    if not entries:
        raise VlmlabError(f"{folder} holds no labelled images; it needs {AT_LEAST}")
    return entries


def read_table(table: Path) -> list[Entry]:
    """Entries of a CSV file with the columns file, label and perhaps split; files are relative to its folder.

    Commas, semicolons and tabs are understood. Raises `VlmlabError` that names the line which is wrong.
    """
    text = _text(table)
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter)
    columns = {(name or "").strip().lower(): name for name in reader.fieldnames or []}
    if not {"file", "label"} <= set(columns):
        found = ", ".join(columns) or "none"
        raise VlmlabError(f"{table} has the columns {found}; it needs file,label and perhaps split")
    entries, lines = [], {}
    for row in reader:
        values = {column: (row[name] or "").strip() for column, name in columns.items()}
        file, label, where = values["file"], values["label"], f"{table}, line {reader.line_num}"
        if not file and not label:
            continue
        if not file or not label:
            raise VlmlabError(f"{where}: {'file' if not file else 'label'} is empty; fill it in or remove the line")
        split = values.get("split", "").lower() or None
        if "split" in columns and split not in SPLIT_FOLDERS:
            raise VlmlabError(f"{where}: the split is '{split or ''}'; it must be train, val or test in every line")
        path = table.parent / file
        if not path.is_file():
            raise VlmlabError(f"{where}: there is no file {path}; paths are relative to the CSV's folder")
        if path.resolve() in lines:  # perhaps spelt in another way
            raise VlmlabError(f"{where}: {file} stood in line {lines[path.resolve()]} already; keep one of the two")
        lines[path.resolve()] = reader.line_num
        entries.append(Entry(Path(file).as_posix(), path, label, split and SPLIT_FOLDERS[split]))
    if not entries:
        raise VlmlabError(f"{table} names no images; add lines of file,label")
    return entries


def assemble(
    name: str,
    entries: Sequence[Entry],
    seed: int,
    skip_broken: bool = False,
    spoken: Mapping[str, str] | Callable[[str], str] | None = None,
    order: Sequence[str] | None = None,
    check: bool = True,
) -> Dataset:
    """A dataset from image files.

    Args:
        name: of the dataset.
        entries: all of its images, in any order.
        seed: of the split of those that have none.
        skip_broken: leave unreadable images out instead of raising.
        spoken: label -> the name that prompts say.
        order: labels in class order; alphabetical by default.
        check: decode every image once.

    Raises:
        VlmlabError: unreadable images, fewer than two classes, a class with a single image, or a class that is
            tested but not in train.
    """
    skipped: list[str] = []
    if check:
        entries, skipped = readable(name, entries, skip_broken)
    labels = list(order) if order is not None else sorted({e.label for e in entries})
    if len(labels) < 2:
        only = f"only the class '{labels[0]}'" if labels else "no class"
        raise VlmlabError(f"{name} shows {only}; classification needs at least two")
    number = {label: k for k, label in enumerate(labels)}
    entries = sorted(entries, key=lambda e: e.id)
    ids = [e.id for e in entries]
    numbers = [number[e.label] for e in entries]
    if all(e.split is None for e in entries):
        for label, count in Counter(e.label for e in entries).items():
            if count < 2:
                raise VlmlabError(
                    f"class '{label}' of {name} has one image; it needs one to learn from and one to test"
                )
        members, source = seeded_split(ids, numbers, seed), "seeded"
    else:
        members = {split: [i for i, e in enumerate(entries) if e.split == split] for split in SPLIT_SHARES}
        source = "official"
        if not members["test"]:
            raise VlmlabError(f"{name} has no test images; mark some as test, or give no split at all")
        untaught = {entries[i].label for i in members["test"]} - {entries[i].label for i in members["train"]}
        if untaught:
            raise VlmlabError(f"{name} tests the class '{min(untaught)}', of which train has no image; add some there")
    everything = ImageSet(FilePictures([e.path for e in entries]), numbers, ids)
    return Dataset(
        name=name,
        classes=_spoken(name, labels, spoken),
        templates=list(TEMPLATES),
        train=everything.subset(members["train"]),
        val=everything.subset(members["val"]),
        test=everything.subset(members["test"]),
        split_source=source,
        skipped=tuple(skipped),
    )


def readable(name: str, entries: Sequence[Entry], skip_broken: bool) -> tuple[list[Entry], list[str]]:
    """(entries whose image decodes, ids of the others).

    The verdicts are kept in the user's cache under the files' sizes and times, so that a folder is decoded once; only
    what could not be read is tried again, since a right to read can be given later.
    Raises `VlmlabError` that names broken images, unless `skip_broken`; then a warning does.
    """
    entries = sorted(entries, key=lambda e: e.id)
    known = cache_path("checked", f"{files_identity(e.path for e in entries)}.json")
    try:
        doubted = set(json.loads(known.read_text()))
    except (OSError, ValueError):
        doubted = {e.id for e in entries}
    tried = [e for e in entries if e.id in doubted]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        faults = dict(zip([e.id for e in tried], pool.map(fault, [e.path for e in tried]), strict=True))
    broken = [id for id, reason in faults.items() if reason]
    if set(broken) != doubted:
        try:
            write_atomically(known, json.dumps(broken))
        except VlmlabError:  # only a cache: without it the next call decodes again
            pass
    if not broken:
        return entries, []
    if not skip_broken:
        first = next(e for e in entries if e.id == broken[0])
        named = _some([f"{first.path} ({faults[first.id]})", *broken[1:]])
        raise VlmlabError(
            f"{len(broken)} of the {len(entries)} images of {name} cannot be read: {named}; "
            "replace or remove them, or leave them out with skip_broken (--skip-broken)"
        )
    warnings.warn(f"left out {len(broken)} images of {name} that cannot be read: {_some(broken)}", stacklevel=2)
    gone = set(broken)
    return [e for e in entries if e.id not in gone], broken


def fault(path: Path) -> str | None:
    """Why an image file cannot be read, None if it can; JPEG at an eighth of its size, which still reads every byte."""
    try:
        with Image.open(path) as picture:
            picture.draft("RGB", (1, 1))
            decoded(picture)
    except BROKEN_PICTURE as error:
        return reason_of(error)
    return None


def is_picture(path: Path) -> bool:
    """Whether a file's name says that it is an image, and not a hidden one."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _pictures_below(place: Path) -> list[Path]:
    """Every image in a folder and the folders in it, but for what tools leave behind (.ipynb_checkpoints, @eaDir)."""
    found = []
    for folder, below, files in os.walk(place, onerror=_cannot_look_into):
        below[:] = [name for name in below if not name.startswith((".", "__", "@"))]
        found += [path for name in files if is_picture(path := Path(folder, name))]
    return sorted(found)


def _cannot_look_into(error: OSError) -> None:
    folder, reason = error.filename, error.strerror
    raise VlmlabError(f"cannot look into {folder} ({reason}); choose a folder that you may read") from error


def _listed(folder: Path) -> list[Path]:
    """What lies in a folder by name, without hidden entries and the droppings of archivers."""
    try:
        return sorted(f for f in folder.iterdir() if not f.name.startswith((".", "__")))
    except OSError as error:
        _cannot_look_into(error)


def _text(file: Path) -> str:
    """What a table or list says, with or without a byte order mark."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise VlmlabError(f"{file} is not UTF-8 text; save it again in UTF-8") from error
    except OSError as error:
        raise VlmlabError(f"cannot read {file} ({error.strerror}); choose a file that you may read") from error


def _class_names(folder: Path) -> dict[str, str]:
    """What classnames.txt says: folder -> name; empty if there is none."""
    file = folder / CLASS_NAMES
    if not file.is_file():
        return {}
    pairs = [line.split(maxsplit=1) for line in _text(file).splitlines() if line.strip()]
    wrong = [pair for pair in pairs if len(pair) != 2]
    if wrong:
        raise VlmlabError(f"{file} gives '{wrong[0][0]}' no name; every line is a folder, a space, and its name")
    return {label: name.strip() for label, name in pairs}


def _spoken(name: str, labels: Sequence[str], spoken: Mapping[str, str] | Callable[[str], str] | None) -> list[str]:
    say = spoken if callable(spoken) else lambda label: (spoken or {}).get(label, label)
    classes = [" ".join(say(label).replace("_", " ").split()) for label in labels]
    if "" in classes:
        label = labels[classes.index("")]
        raise VlmlabError(
            f"the class '{label}' of {name} has no word in its name; rename it, or give it a name in {CLASS_NAMES}"
        )
    twice = [c for c, count in Counter(classes).items() if count > 1]
    if twice:
        raise VlmlabError(f"two classes of {name} are both called '{twice[0]}'; give them different names")
    return classes


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN_IN_MESSAGES])
    return shown + (f" and {len(names) - SHOWN_IN_MESSAGES} more" if len(names) > SHOWN_IN_MESSAGES else "")
