"""Your own images: a folder becomes a dataset.

Three layouts are understood:

    pets/cat/*.jpg  pets/dog/*.jpg                      one sub-folder per class; split by seed
    pets/train/cat/*.jpg ... pets/test/cat/*.jpg        the same for each split; val/ is optional
    pets/*.jpg  pets/labels.csv                         a table with the columns file,label and perhaps split

Beside them a `classnames.txt` (lines of "<folder> <name>", as the field has it for ImageNet) may give classes the names
that prompts should say; otherwise a class is called as its folder is, with spaces for underscores.

Links are followed. Files that are no images, images that no class claims, and lines that fit no folder are counted and
named in a warning; what contradicts itself (an image in two classes or in two splits) is refused.
"""

from __future__ import annotations

import json
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from vlmlab.datasets.catalog import BY_NAME, canonical
from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.image_set import BROKEN_PICTURE, FilePictures, ImageSet, decoded, reason_of
from vlmlab.datasets.listing import (
    PLUGIN_SUFFIXES,
    SUFFIXES,
    counted,
    files_below,
    header_of,
    is_picture,
    listed,
    path_named,
    read_rows,
    some,
    spelled,
    tables_in,
    text_of,
)
from vlmlab.datasets.splits import SPLIT_SHARES, seeded_split
from vlmlab.errors import VlmlabError
from vlmlab.files import cache_path, expanded, files_identity, write_atomically

SPLIT_FOLDERS = {"train": "train", "training": "train"}
SPLIT_FOLDERS |= {"val": "val", "valid": "val", "validation": "val", "test": "test", "testing": "test"}
"""Folder or CSV value -> split."""
CLASS_NAMES = "classnames.txt"
TEMPLATES = ["a photo of a {}."]
AT_LEAST = "sub-folders named by their class, with images in them, or a CSV with the columns file,label"


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
    folder = expanded(folder)
    if not os.path.isdir(folder):
        raise VlmlabError(f"there is no folder {folder}; give the path of {AT_LEAST}")
    tables, others = tables_in(folder)
    if len(tables) > 1:
        names = some([t.name for t in tables])
        raise VlmlabError(f"{folder} holds {len(tables)} CSV files ({names}); leave only the one with the labels")
    if tables:
        entries = read_table(tables[0])
        _warn_of_unnamed(tables[0], entries)
    elif others and not any(os.path.isdir(f) for f in listed(folder)):
        found = ", ".join(filter(None, header_of(others[0]))) or "none"
        raise VlmlabError(f"{others[0]} has the columns {found}; it needs file,label and perhaps split")
    else:
        entries = read_class_folders(folder)
        if others:
            _warn(
                f"{some([t.name for t in others])} in {folder} names no files and labels; the folders say the classes"
            )
    name = spelled(folder.resolve().name)
    if canonical(name) in BY_NAME:
        # What vlmlab knows of its own dataset (relatives, class tree, descriptions) is not about these images.
        name = f"{name} (folder)"
    spoken = _class_names(folder, sorted({e.label for e in entries}))
    dataset = assemble(name, entries, seed, skip_broken, spoken)
    return replace(dataset, mirrors=f"the folder {spelled(str(folder))}")


def read_class_folders(folder: Path, ignore: Sequence[str] = ()) -> list[Entry]:
    """Entries of class sub-folders, or of train/, val/ and test/ with class sub-folders; `ignore` names classes.

    Warns of files that are no images and of images that lie in no class. Raises `VlmlabError` if there is no image, or
    a class sub-folder without any.
    """
    below = [f for f in listed(folder) if os.path.isdir(f)]
    splits = {f: SPLIT_FOLDERS[f.name.lower()] for f in below if f.name.lower() in SPLIT_FOLDERS}
    if "train" not in splits.values() or len(set(splits.values())) < 2:
        if len(splits) == 1 == len(below):
            # A lone train/ is a folder of classes like any other.
            return read_class_folders(below[0], ignore)
        return _classes_in(folder, {folder: None}, ignore)
    if len(set(splits.values())) < len(splits):
        raise VlmlabError(f"{folder} has two folders for one split ({some([f.name for f in splits])}); keep one")
    if "test" not in splits.values():
        # As the field does with ImageNet, whose test labels are not public.
        splits = {f: "test" if split == "val" else split for f, split in splits.items()}
    aside = [spelled(f.name) for f in below if f not in splits]
    if aside:
        kept = ", ".join(f.name for f in splits)
        _warn(f"left out {some(aside)} in {folder}: the images are those of {kept}")
    return _classes_in(folder, splits, ignore)


def _classes_in(root: Path, folders: Mapping[Path, str | None], ignore: Sequence[str]) -> list[Entry]:
    """Entries of the class sub-folders of `folders` (-> their split), named relative to `root`; images may lie deeper."""
    entries: list[Entry] = []
    no_class, no_pictures = [], []
    for folder, split in folders.items():
        first = len(entries)
        for place in listed(folder):
            if not os.path.isdir(place):
                if is_picture(place) or os.path.islink(place):
                    no_class.append(spelled(place.relative_to(root).as_posix()))
                continue
            if place.name in ignore:
                continue
            files = files_below(place)
            pictures = [f for f in files if _opens(f)]
            if not pictures:
                kinds = ", ".join(sorted(SUFFIXES))
                raise VlmlabError(
                    f"the class folder {spelled(str(place))} holds no images; add some ({kinds}) or remove it"
                )
            no_pictures += [spelled(f.relative_to(root).as_posix()) for f in files if not _opens(f)]
            label = _label(place.name, place)
            entries += [Entry(spelled(f.relative_to(root).as_posix()), f, label, split) for f in pictures]
        if len(entries) == first:
            raise VlmlabError(f"{folder} holds no labelled images; it needs {AT_LEAST}")
    if no_class:
        _warn(f"left out of {root} what lies in no class folder ({counted(len(no_class), 'file')}): {some(no_class)}")
    if no_pictures:
        suffixes = Counter(os.path.splitext(name)[1].lower() or "no suffix" for name in no_pictures)
        counts = ", ".join(f"{suffix}: {count}" for suffix, count in suffixes.most_common())
        _warn(
            f"left out {counted(len(no_pictures), 'file')} of {root} that Pillow does not open as images ({counts}): {some(no_pictures)}"
        )
    return entries


def _opens(file: Path) -> bool:
    """Whether a file's name says that it is an image that Pillow opens here, plug-ins included."""
    suffix = file.suffix.lower()
    return is_picture(file) or (suffix in PLUGIN_SUFFIXES and suffix in Image.registered_extensions())


def _label(name: str, place: Path) -> str:
    """The name of a class folder as text; `VlmlabError` if it is in another encoding than UTF-8."""
    try:
        return os.fsencode(name).decode("utf-8")
    except UnicodeDecodeError as error:
        raise VlmlabError(
            f"the name of the class folder {spelled(str(place))} is not UTF-8; rename it, because prompts say it"
        ) from error


def read_table(path: Path) -> list[Entry]:
    """Entries of a CSV file with the columns file, label and perhaps split; files are relative to its folder.

    Commas, semicolons, tabs and bars are understood, and backslashes in paths. Raises `VlmlabError` that names the line
    which is wrong.
    """
    table = read_rows(path)
    entries: list[Entry] = []
    lines: dict[str, int] = {}
    for line, cells in table.rows:
        file, where = table.value(cells, "file"), f"{path}, line {line}"
        label = " ".join(table.value(cells, "label").split())
        if not file and not label:
            continue
        if not file or not label:
            raise VlmlabError(f"{where}: {'file' if not file else 'label'} is empty; fill it in or remove the line")
        split = None
        if "split" in table.columns:
            said = table.value(cells, "split")
            split = SPLIT_FOLDERS.get(said.lower())
            if split is None:
                raise VlmlabError(f"{where}: the split is '{said}'; it must be train, val or test in every line")
        picture = table.file(cells)
        if not os.path.isfile(picture):
            raise VlmlabError(f"{where}: there is no file {picture}; paths are relative to the CSV's folder")
        real = os.path.realpath(picture)
        if real in lines:  # perhaps spelt in another way
            raise VlmlabError(f"{where}: {file} stood in line {lines[real]} already; keep one of the two")
        lines[real] = line
        entries.append(Entry(spelled(Path(path_named(file)).as_posix()), picture, label, split))
    if not entries:
        raise VlmlabError(f"{path} names no images; add lines of file,label")
    return entries


def _warn_of_unnamed(table: Path, entries: Sequence[Entry]) -> None:
    """Warn of the images below a table's folder that it does not name."""
    named = {os.path.realpath(e.path) for e in entries}
    unnamed = [f for f in files_below(table.parent) if is_picture(f) and os.path.realpath(f) not in named]
    if unnamed:
        names = [spelled(f.relative_to(table.parent).as_posix()) for f in unnamed]
        _warn(
            f"left out {counted(len(unnamed), 'image')} of {table.parent} that {table.name} does not name: {some(names)}"
        )


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)


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
        VlmlabError: unreadable images, an image in two classes or two splits, fewer than two classes, a class with a
            single image, or a class that is tested but not in train.
    """
    entries = _consistent(name, entries)
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

    The verdicts are cached on the user's disk under the files' sizes and times, so that a folder is decoded once; only
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
        named = some([f"{first.path} ({faults[first.id]})", *broken[1:]])
        raise VlmlabError(
            f"{len(broken)} of the {len(entries)} images of {name} cannot be read: {named}; "
            "replace or remove them, or leave them out with skip_broken (--skip-broken)"
        )
    warnings.warn(
        f"left out {counted(len(broken), 'image')} of {name} that cannot be read: {some(broken)}", stacklevel=2
    )
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


def _consistent(name: str, entries: Sequence[Entry]) -> list[Entry]:
    """The entries without second names (links) of one file; `VlmlabError` if those disagree about its class or split."""
    first: dict[tuple[int, int], Entry] = {}
    kept, doubled = [], []
    for entry in sorted(entries, key=lambda e: e.id):
        try:
            stat = os.stat(entry.path)
        except (OSError, ValueError):  # found broken when it is read
            kept.append(entry)
            continue
        # Where a file system numbers no files, the path is all there is.
        other = first.setdefault((stat.st_dev, stat.st_ino) if stat.st_ino else (0, hash(str(entry.path))), entry)
        if other is entry:
            kept.append(entry)
        elif other.label != entry.label:
            raise VlmlabError(
                f"{name} has one image in two classes: {other.id} is '{other.label}', and {entry.id} is '{entry.label}'; "
                "remove one of the two"
            )
        elif other.split != entry.split:
            raise VlmlabError(
                f"{name} has one image in two splits: {other.id} is in {other.split}, and {entry.id} in {entry.split}; "
                "remove one of the two"
            )
        else:
            doubled.append(entry.id)
    if doubled:
        _warn(f"left out {counted(len(doubled), 'second name')} (links) of images of {name}: {some(doubled)}")
    return kept


def _class_names(folder: Path, labels: Sequence[str]) -> dict[str, str]:
    """What classnames.txt says of these labels: label -> name; empty if there is no such file.

    A label may hold spaces, and accents composed in another way than in the file. Lines that fit no label are counted
    and named in a warning. Raises `VlmlabError` for a line without a name and for two names of one label.
    """
    file = folder / CLASS_NAMES
    if not os.path.isfile(file):
        return {}
    known = {_composed(label): label for label in labels}
    names: dict[str, str] = {}
    strangers = []
    for line in text_of(file).splitlines():
        words = _composed(line).split()
        if not words:
            continue
        # The longest beginning that is a label: "polar bear white bear" is about the folder "polar bear".
        ends = [n for n in range(len(words), 0, -1) if " ".join(words[:n]) in known]
        if not ends:
            strangers.append(words[0])
            if len(words) == 1:
                raise VlmlabError(f"{file} gives '{words[0]}' no name; every line is a folder, a space, and its name")
            continue
        end = next((n for n in ends if n < len(words)), None)
        if end is None:
            raise VlmlabError(
                f"{file} gives '{' '.join(words)}' no name; every line is a folder, a space, and its name"
            )
        label, said = known[" ".join(words[:end])], " ".join(words[end:])
        if names.setdefault(label, said) != said:
            raise VlmlabError(f"{file} gives '{label}' two names, '{names[label]}' and '{said}'; keep one")
    if strangers:
        _warn(
            f"passed over {counted(len(strangers), 'line')} of {file} that fit no class of {folder.name}: {some(strangers)}"
        )
    return names


def _composed(text: str) -> str:
    """Text with accents in one form, and single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())


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
