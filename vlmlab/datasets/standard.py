"""The field's standard datasets, through torchvision: read where they are, downloaded only on request.

CoOp's split files (`split_zhou_*.json`) are honoured where they lie beside the pictures; otherwise the official split of the
dataset is used, or, where it has none, one that is made from the file names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlmlab.datasets.catalog import DatasetInfo
from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.image_set import FilePictures, ImageSet
from vlmlab.datasets.splits import seeded_split
from vlmlab.errors import VlmlabError


@dataclass(frozen=True)
class Standard:
    """How one dataset is reached: its torchvision class, the argument that names a split, and the field's template."""

    reader: str
    train: dict
    test: dict | None
    template: str
    coop_split: str = ""


STANDARD: dict[str, Standard] = {
    "caltech101": Standard("Caltech101", {}, None, "a photo of a {}.", "caltech-101/split_zhou_Caltech101.json"),
    "oxford-pets": Standard(
        "OxfordIIITPet", {"split": "trainval"}, {"split": "test"}, "a photo of a {}, a type of pet.",
        "oxford_pets/split_zhou_OxfordPets.json",
    ),
    "flowers102": Standard(
        "Flowers102", {"split": "train"}, {"split": "test"}, "a photo of a {}, a type of flower.",
        "oxford_flowers/split_zhou_OxfordFlowers.json",
    ),
    "food101": Standard(
        "Food101", {"split": "train"}, {"split": "test"}, "a photo of {}, a type of food.",
        "food-101/split_zhou_Food101.json",
    ),
    "dtd": Standard(
        "DTD", {"split": "train"}, {"split": "test"}, "{} texture.", "dtd/split_zhou_DescribableTextures.json"
    ),
    "eurosat": Standard("EuroSAT", {}, None, "a centered satellite photo of {}.", "eurosat/split_zhou_EuroSAT.json"),
    "fgvc-aircraft": Standard(
        "FGVCAircraft", {"split": "trainval"}, {"split": "test"}, "a photo of a {}, a type of aircraft."
    ),
    "stanford-cars": Standard(
        "StanfordCars", {"split": "train"}, {"split": "test"}, "a photo of a {}.",
        "stanford_cars/split_zhou_StanfordCars.json",
    ),
    "sun397": Standard("SUN397", {}, None, "a photo of a {}.", "sun397/split_zhou_SUN397.json"),
    "cifar10": Standard("CIFAR10", {"train": True}, {"train": False}, "a photo of a {}."),
    "cifar100": Standard("CIFAR100", {"train": True}, {"train": False}, "a photo of a {}."),
}  # fmt: skip


class TorchvisionPictures:
    """Pictures of a torchvision dataset, decoded when asked for."""

    def __init__(self, inner, identity: str) -> None:
        self._inner, self._identity = inner, identity

    def identity(self) -> str:
        return self._identity

    def read(self, positions) -> list[np.ndarray]:
        return [np.asarray(self._inner[p][0].convert("RGB")) for p in positions]


def load(info: DatasetInfo, root: Path | str | None, download: bool, seed: int) -> Dataset:
    """A standard dataset from the folder `root`.

    Raises `VlmlabError` if there is no root, or the dataset is not in it and was not to be downloaded, or cannot be.
    """
    how = STANDARD[info.name]
    if root is None:
        raise VlmlabError(
            f"{info.name} is not part of vlmlab; name the folder of your datasets with --root, or take objects"
        )
    root = Path(root).expanduser()
    split_file = root / how.coop_split if how.coop_split else None
    if split_file and split_file.is_file():
        return _from_coop(info, how, split_file)
    train, test = (_open(info, how, root, download, which) for which in (how.train, how.test))
    classes = tuple(_clean(name) for name in _names(train))
    labels = _labels(train)
    ids = [f"{info.name}/train/{i:06d}" for i in range(len(labels))]
    every = ImageSet(TorchvisionPictures(train, f"{info.name} {root} train"), labels, ids)
    parts = seeded_split(ids, labels, seed)
    if test is None:
        sets = {name: every.subset(members) for name, members in parts.items()}
    else:
        names = [f"{info.name}/test/{i:06d}" for i in range(len(_labels(test)))]
        held = ImageSet(TorchvisionPictures(test, f"{info.name} {root} test"), _labels(test), names)
        sets = {"train": every.subset(parts["train"] + parts["test"]), "val": every.subset(parts["val"]), "test": held}
    return Dataset(info.name, classes, (how.template,), **sets)


def _open(info: DatasetInfo, how: Standard, root: Path, download: bool, split: dict | None):
    import torchvision.datasets

    if split is None:
        return None
    reader = getattr(torchvision.datasets, how.reader)
    if download:
        print(f"downloading {info.name} into {root}")
    try:
        if how.reader == "StanfordCars":
            return reader(root, **split)  # its download links are dead; torchvision only reads it
        return reader(root, **split, download=download)
    except (RuntimeError, FileNotFoundError) as error:
        if download:
            raise VlmlabError(
                f"{info.name} could not be downloaded into {root}: {' '.join(str(error).split())}"
            ) from error
        raise VlmlabError(
            f"{info.name} is not in {root} (torchvision's {how.reader} layout, or CoOp's); "
            "put it there, or add --download"
        ) from error
    except OSError as error:
        raise VlmlabError(f"{info.name} could not be read or fetched ({error}); is there a network?") from error


def _from_coop(info: DatasetInfo, how: Standard, path: Path) -> Dataset:
    """CoOp's lists [path, label, class name] per split; paths are relative to the picture folder beside the file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    names = {label: _clean(name) for part in content.values() for _, label, name in part}
    classes = tuple(names[k] for k in sorted(names))
    first = content["train"][0][0]
    folders = [path.parent, *sorted(p for p in path.parent.iterdir() if p.is_dir())]
    base = next((f for f in folders if (f / first).is_file()), None)
    if base is None:
        raise VlmlabError(f"{path} lists {first}, which is not beside it; put the pictures of {info.name} there")
    sets = {
        split: ImageSet(
            FilePictures([base / p for p, *_ in part]), [label for _, label, _ in part], [p for p, *_ in part]
        )
        for split, part in content.items()
    }
    return Dataset(info.name, classes, (how.template,), sets["train"], sets["val"], sets["test"])


def _names(inner) -> list[str]:
    return list(inner.classes if hasattr(inner, "classes") else inner.categories)


def _labels(inner) -> list[int]:
    for name in ("targets", "_labels", "y"):
        if hasattr(inner, name):
            return [int(label) for label in getattr(inner, name)]
    return [int(inner[i][1]) for i in range(len(inner))]


def _clean(name: str) -> str:
    return name.replace("_", " ").replace("/", " ").strip()
