"""The field's standard datasets, with the class names and the sentences that the field uses.

They are read where they are, in torchvision's layout or in CoOp's, and downloaded (by torchvision) only on request.
CoOp's split files (`split_zhou_*.json`) are honoured where they lie beside the images; otherwise the official split
holds, and where there is none, or none for validation, CoOp's shares by seeded order of the file names.

Template sentences and class names follow CoOp (arXiv 2109.01134, its released configuration), which most later systems
took over; its base-to-new halves depend on the order of the names too.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vlmlab.datasets.catalog import BY_NAME
from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.folder import Entry, assemble, read_class_folders
from vlmlab.datasets.image_set import ArrayPictures, ImageSet
from vlmlab.datasets.listing import path_named, spelled, text_of
from vlmlab.datasets.scenes import SCENES, load_scenes
from vlmlab.datasets.segmented import SEGMENTED, load_segmented
from vlmlab.datasets.splits import held_out
from vlmlab.errors import VlmlabError
from vlmlab.files import cache_path, expanded

if TYPE_CHECKING:
    from torchvision.datasets import VisionDataset

VAL_SHARE = 0.2
"""CoOp's share of the training images for validation, where a dataset has no validation set."""

CALTECH_NAMES = {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}
CALTECH_IGNORED = ("BACKGROUND_Google", "Faces_easy")
EUROSAT_NAMES = {
    "AnnualCrop": "Annual Crop Land",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "SeaLake": "Sea or Lake",
}


def year_first(name: str) -> str:
    """Stanford Cars as CoOp says them: "Acura RL Sedan 2012" -> "2012 Acura RL Sedan"."""
    words = name.split()
    return " ".join([words[-1], *words[:-1]])


def inside_first(name: str) -> str:
    """SUN397's paths as CoOp says them: "apse/indoor" -> "indoor apse"."""
    return " ".join(reversed(name.strip("/").split("/")))


@dataclass(frozen=True)
class Standard:
    """How one dataset is found.

    Attributes:
        reader: its class in torchvision.datasets.
        layout: what that class expects below the root.
        template: the sentence around a class name.
        official: split -> arguments of the reader that give it; empty if there is no official split.
        coop: folder, folder of images in it, and split file, as CoOp's instructions place them.
        spoken: label -> the name that prompts say.
        links: whether torchvision can still download it.
    """

    reader: str
    layout: str
    template: str
    official: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    coop: tuple[str, str, str] | None = None
    spoken: Mapping[str, str] | Callable[[str], str] = field(default_factory=dict)
    links: bool = True


def _splits(**official: str) -> dict[str, dict[str, str]]:
    return {ours: {"split": theirs} for ours, theirs in official.items()}


STANDARD: dict[str, Standard] = {
    "caltech101": Standard(
        "Caltech101", "caltech101/101_ObjectCategories", "a photo of a {}.",
        coop=("caltech-101", "101_ObjectCategories", "split_zhou_Caltech101.json"), spoken=CALTECH_NAMES,
    ),
    "oxford-pets": Standard(
        "OxfordIIITPet", "oxford-iiit-pet/images", "a photo of a {}, a type of pet.",
        _splits(train="trainval", test="test"), ("oxford_pets", "images", "split_zhou_OxfordPets.json"), str.lower,
    ),
    "flowers102": Standard(
        "Flowers102", "flowers-102/jpg", "a photo of a {}, a type of flower.",
        _splits(train="train", val="val", test="test"), ("oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json"),
    ),
    "food101": Standard(
        "Food101", "food-101/images", "a photo of {}, a type of food.",
        _splits(train="train", test="test"), ("food-101", "images", "split_zhou_Food101.json"),
    ),
    "dtd": Standard(
        "DTD", "dtd/dtd/images", "{} texture.",
        _splits(train="train", val="val", test="test"), ("dtd", "images", "split_zhou_DescribableTextures.json"),
    ),
    "eurosat": Standard(
        "EuroSAT", "eurosat/2750", "a centered satellite photo of {}.",
        coop=("eurosat", "2750", "split_zhou_EuroSAT.json"), spoken=EUROSAT_NAMES,
    ),
    "fgvc-aircraft": Standard(
        "FGVCAircraft", "fgvc-aircraft-2013b/data", "a photo of a {}, a type of aircraft.",
        _splits(train="train", val="val", test="test"),
    ),
    "stanford-cars": Standard(
        "StanfordCars", "stanford_cars/devkit", "a photo of a {}.",
        _splits(train="train", test="test"), ("stanford_cars", ".", "split_zhou_StanfordCars.json"), year_first, False,
    ),
    "sun397": Standard(
        "SUN397", "SUN397", "a photo of a {}.",
        coop=("sun397", "SUN397", "split_zhou_SUN397.json"), spoken=inside_first,
    ),
    "cifar10": Standard(
        "CIFAR10", "cifar-10-batches-py", "a photo of a {}.", {"train": {"train": True}, "test": {"train": False}},
    ),
    "cifar100": Standard(
        "CIFAR100", "cifar-100-python", "a photo of a {}.", {"train": {"train": True}, "test": {"train": False}},
    ),
}  # fmt: skip

AIRCRAFT_OF_COOP = "fgvc_aircraft"
"""CoOp keeps the aircraft under another name, with the official lists and no split file of its own."""


def load_standard(
    name: str, root: Path | None = None, download: bool = False, seed: int = 0, skip_broken: bool = False
) -> Dataset:
    """A standard dataset from below `root` (by default a folder in vlmlab's cache).

    It is looked for with CoOp's split file; then as train/ and test/ with class sub-folders, in `root` itself or in a
    folder of the dataset's name; then in torchvision's layout.

    Raises:
        VlmlabError: it is not there and `download` is not set (the message says what was expected where), or it cannot
            be downloaded, or its files are incomplete.
    """
    root = expanded(root or cache_path("standard"))
    if name in SCENES:
        return load_scenes(name, root, download, seed, skip_broken)
    if name in SEGMENTED:
        return load_segmented(name, root, seed, skip_broken)
    how = STANDARD[name]
    # These sets are large and were checked by their makers: every image is decoded beforehand only to leave broken ones out.
    check = skip_broken
    if how.coop and (found := _coop_files(root, how)):
        entries, classes = read_coop_split(*found, skip_broken)
        dataset = assemble(name, entries, seed, skip_broken, spoken=str, order=classes, check=check)
        dataset = replace(dataset, split_source="CoOp")
    elif entries := _class_folders(root, name):
        dataset = assemble(name, entries, seed, skip_broken, how.spoken)
    elif name.startswith("cifar"):
        dataset = _cifar(name, root, download, seed)
    else:
        entries, classes = _torchvision(name, root, download)
        if not skip_broken:
            entries = _complete(entries, name)
        if how.official and "val" not in how.official:
            train = [e for e in entries if e.split == "train"]
            held = held_out([e.id for e in train], [e.label for e in train], VAL_SHARE, seed)
            val = [replace(train[i], split="val") for i in held]
            entries = [e for e in entries if e.split != "train"] + val
            entries += [e for i, e in enumerate(train) if i not in held]
        dataset = assemble(name, entries, seed, skip_broken, spoken=how.spoken, order=classes, check=check)
    return replace(dataset, templates=[how.template], mirrors=BY_NAME[name].mirrors)


# ------------------------------------------------------------------------------------------------ CoOp's split files


def _coop_files(root: Path, how: Standard) -> tuple[Path, Path] | None:
    """(split file, folder of the images) if both are below the root, in CoOp's layout or beside torchvision's."""
    folder, pictures, split = how.coop
    files = [base / split for base in (root / folder, root, (root / how.layout).parent)]
    places = [root / folder / pictures, root / how.layout, root / pictures]
    if how.reader == "StanfordCars":
        places = [root / folder, root]
    file = next((f for f in files if f.is_file()), None)
    place = next((p for p in places if p.is_dir()), None)
    return (file, place) if file and place else None


def read_coop_split(file: Path, pictures: Path, skip_missing: bool = False) -> tuple[list[Entry], list[str]]:
    """(entries, classes in label order) of a CoOp split file: per split, lists of [path, label, class name].

    Raises `VlmlabError` if the file is not of that form, contradicts itself (an image twice, a label with two names, a
    name with two labels), or names images that are not there, unless `skip_missing`.
    """
    try:
        content = json.loads(text_of(file))
        rows = [(s, str(path), label, str(name)) for s in ("train", "val", "test") for path, label, name in content[s]]
        if not all(type(label) is int for _, _, label, _ in rows):
            raise TypeError("labels are whole numbers")
    except (ValueError, KeyError, TypeError) as error:
        raise VlmlabError(
            f"{file} is no split file of CoOp (per split a list of path, label, class name); download it again"
        ) from error
    names: dict[int, str] = {}
    labels: dict[str, int] = {}
    splits: dict[str, str] = {}
    entries = []
    for split, path, label, name in rows:
        if names.setdefault(label, name) != name:
            raise VlmlabError(f"{file} calls label {label} both '{names[label]}' and '{name}'; download it again")
        if labels.setdefault(name, label) != label:
            raise VlmlabError(f"{file} gives '{name}' both the label {labels[name]} and {label}; download it again")
        place = os.path.normpath(path_named(path))
        if place in splits:
            where = f"twice in {split}" if splits[place] == split else f"in {splits[place]} and in {split}"
            raise VlmlabError(f"{file} names the image {path} {where}; download it again")
        splits[place] = split
        entries.append(Entry(spelled(path_named(path)), pictures / place, name, split))
    ordered = [names[label] for label in sorted(names)]
    return (entries if skip_missing else _complete(entries, file.name)), ordered


# ------------------------------------------------------------------------------------------------ other layouts


def _class_folders(root: Path, name: str) -> list[Entry]:
    """Entries of train/ and test/ with sub-folders for all of the classes; empty if there is no such place."""
    for base in (root, root / name):
        if (base / "train").is_dir() and (base / "test").is_dir():
            below = [f for f in (base / "train").iterdir() if f.is_dir() and not f.name.startswith(".")]
            if len(below) == BY_NAME[name].classes:
                return read_class_folders(base)
    return []


def _torchvision(name: str, root: Path, download: bool) -> tuple[list[Entry], list[str]]:
    """(entries, labels in class order) in torchvision's layout."""
    how = STANDARD[name]
    if name == "fgvc-aircraft" and (root / AIRCRAFT_OF_COOP / "images").is_dir():
        return _aircraft(root / AIRCRAFT_OF_COOP)
    if not (root / how.layout).exists():
        if not download or not how.links:
            raise _missing(name, root)
        for arguments in list(how.official.values()) or [{}]:
            _opened(name, root, arguments, download=True)
    if name == "fgvc-aircraft":
        return _aircraft(root / how.layout)
    if not how.official and name != "sun397":
        found = read_class_folders(root / how.layout, CALTECH_IGNORED)
        return found, sorted({entry.label for entry in found})
    entries: list[Entry] = []
    classes: list[str] = []
    for split, arguments in how.official.items() or [(None, {})]:
        opened = _opened(name, root, arguments)
        classes = list(opened.classes)
        for path, label in _files(opened):
            entries.append(Entry(path.relative_to(root).as_posix(), path, classes[label], split))
    return entries, classes


def _aircraft(folder: Path) -> tuple[list[Entry], list[str]]:
    """FGVC-Aircraft's own lists: a line is the image's number, a space, and the variant."""
    entries = []
    try:
        classes = (folder / "variants.txt").read_text(encoding="utf-8").split("\n")
        for split in ("train", "val", "test"):
            for line in (folder / f"images_variant_{split}.txt").read_text(encoding="utf-8").splitlines():
                number, variant = line.split(" ", 1)
                file = f"images/{number}.jpg"
                entries.append(Entry(file, folder / file, variant.strip(), split))
    except (OSError, ValueError) as error:
        raise VlmlabError(f"fgvc-aircraft in {folder} is incomplete ({error}); unpack its archive again") from error
    return entries, [c.strip() for c in classes if c.strip()]


def _cifar(name: str, root: Path, download: bool, seed: int) -> Dataset:
    """CIFAR: arrays of 32 x 32 pixels instead of files."""
    how = STANDARD[name]
    if not (root / how.layout).is_dir() and not download:
        raise _missing(name, root)
    opened = {split: _opened(name, root, arguments, download) for split, arguments in how.official.items()}
    sets = {}
    for split, inner in opened.items():
        ids = [f"{split}/{i:05d}" for i in range(len(inner.targets))]
        pictures = ArrayPictures(lambda inner=inner: inner.data, f"{name} {split}")
        sets[split] = ImageSet(pictures, inner.targets, ids)
    train = sets["train"]
    held = held_out(train.ids, train.labels.tolist(), VAL_SHARE, seed)
    return Dataset(
        name=name,
        classes=[c.replace("_", " ") for c in opened["train"].classes],
        templates=[how.template],
        train=train.subset([i for i in range(len(train)) if i not in held]),
        val=train.subset(sorted(held)),
        test=sets["test"],
    )


def _opened(name: str, root: Path, arguments: Mapping[str, object], download: bool = False) -> VisionDataset:
    """torchvision's dataset; whatever it cannot read or fetch becomes one line."""
    import torchvision.datasets

    reader = getattr(torchvision.datasets, STANDARD[name].reader)
    try:
        # torchvision reports downloads on standard output, which belongs to --json.
        with contextlib.redirect_stdout(sys.stderr):
            return reader(root, download=download, **arguments) if download else reader(root, **arguments)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if download:
            raise VlmlabError(f"cannot download {name} into {root} ({reason}); {_expected(name, root)}") from error
        raise VlmlabError(f"{name} in {root} is incomplete ({reason}); {_expected(name, root)}") from error


def _files(opened: VisionDataset) -> list[tuple[Path, int]]:
    """(file, label) of a torchvision dataset, under the names that its classes happen to use for them."""
    if hasattr(opened, "_samples"):
        return [(Path(path), int(label)) for path, label in opened._samples]
    paths = opened._image_files if hasattr(opened, "_image_files") else opened._images
    return [(Path(path), int(label)) for path, label in zip(paths, opened._labels, strict=True)]


def _complete(entries: Sequence[Entry], source: str) -> list[Entry]:
    """The entries, after all their files were found to exist."""
    gone = [e for e in entries if not e.path.is_file()]
    if gone:
        raise VlmlabError(
            f"{len(gone)} of the {len(entries)} images that {source} lists are missing, the first is {gone[0].path}; "
            "unpack the archive again"
        )
    return list(entries)


def _missing(name: str, root: Path) -> VlmlabError:
    remedy = "add --download to fetch it" if STANDARD[name].links else "its download links are dead"
    return VlmlabError(f"{name} is not in {root}; {_expected(name, root)}; {remedy}")


def _expected(name: str, root: Path) -> str:
    """Where the files would be found, in words."""
    how = STANDARD[name]
    places = [f"{root / how.layout} (torchvision)"]
    if how.coop:
        folder, pictures, split = how.coop
        places.append(f"{root / folder / pictures} with {split} (CoOp)")
    if name == "fgvc-aircraft":
        places.append(f"{root / AIRCRAFT_OF_COOP / 'images'} (CoOp)")
    return "expected " + " or ".join(places)
